"""Compiling of kernels by numba, which is optional. Import this only where a kernel is going to run."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast
from zlib import crc32

import numba

P = ParamSpec("P")
R = TypeVar("R")

THREADS: int = numba.config.NUMBA_NUM_THREADS  # the cores that the process may use, unless it is told otherwise


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, without the interpreter's lock; kept on disk for the next process where that works.

    No fast-math: numbers are made by the operations that are written, in their order, on every machine. numba takes
    what it kept as long as the function's own file is the same; what the function takes from other files, constants
    and kernels, becomes part of the name that it is kept under.
    """
    function.__qualname__ = f"{function.__qualname__}-{fingerprint(cast(FunctionType, function)):08x}"
    try:
        compiled: Callable[P, R] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


def fingerprint(function: FunctionType) -> int:
    """A checksum of a function's code, and of the numbers and kernels that it takes from its module."""
    code, parts = function.__code__, list[Any]()
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, bool | int | float):
            parts.append((name, value))
        elif isinstance(kept := getattr(value, "py_func", None), FunctionType):
            parts.append((name, fingerprint(kept)))
    return crc32(code.co_code + repr(parts).encode())
