"""Compiling of the kernels, by numba. Import this only where a kernel is going to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, without the interpreter's lock; kept on disk for the next process where that works.

    No fast-math: sums are made in the order in which they are written, on every machine.
    """
    try:
        compiled: Callable[P, R] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        compiled = numba.njit(nogil=True)(function)
    return compiled
