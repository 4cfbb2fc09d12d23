"""Compiling of kernels by numba, which is optional. Import this only where a kernel is going to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

THREADS: int = numba.config.NUMBA_NUM_THREADS  # the cores that the process may use, unless it is told otherwise


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, without the interpreter's lock; kept on disk for the next process where that works.

    No fast-math: numbers are made by the operations that are written, in their order, on every machine.
    """
    try:
        compiled: Callable[P, R] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled
