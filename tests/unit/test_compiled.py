"""What numba keeps on disk is not taken for a kernel that takes something else from other files."""

from types import FunctionType

import numpy as np

from whydrift.monitors.compiled import fingerprint, kernel

SOURCE = "def scaled(x):\n    return inner(x) * FACTOR\n"


def scaled(**taken):
    names = dict(taken)
    exec(SOURCE, names)  # a function of a file that stays the same
    return names["scaled"]


def doubled(x):
    return x + x


def squared(x):
    return x * x


def test_constants_and_kernels_of_other_files_are_part_of_a_kernels_name():
    ours = kernel(doubled)
    same = [fingerprint(scaled(FACTOR=3.0, inner=ours)) for _ in range(2)]
    assert same[0] == same[1]
    others = [scaled(FACTOR=4.0, inner=ours), scaled(FACTOR=3.0, inner=kernel(squared))]
    assert len({same[0], *map(fingerprint, others)}) == 3


def test_a_kernel_is_kept_under_that_name():
    def tripled(x):
        return x * 3

    before = fingerprint(tripled)
    compiled = kernel(tripled)
    assert isinstance(compiled.py_func, FunctionType)
    assert compiled.py_func.__qualname__.endswith(f"tripled-{before:08x}")
    assert compiled(np.float64(2)) == 6
