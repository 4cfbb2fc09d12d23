"""Sums that are exact: a term is rounded once, to an integer, and integers add in any order to the same sum.

A sum is held in two limbs, value = hi + lo / 2**32, each small enough for a float64 to add `CHUNK` rows of them
without rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from whydrift.monitors.calibration import MESH, split

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rows = list[tuple[str, str, str, int, str, int, int]]  # of a summary's table

NO_CELL = -100
BITS = 32
LIMIT = 2.0**30
SIGNED = frozenset({"value", "value2", "output", "base", "rest", "rest2", "p", "y"})  # stats that may be below zero
CHUNK = 2**20  # rows whose limbs a float64 adds without rounding: 2**20 * 2**32 < 2**53


def held(values: FloatArray, unit: float) -> FloatArray:
    """In units, within the bound: a product of two infinities' neighbours would not be a number."""
    return np.asarray(np.clip(values, -LIMIT * unit, LIMIT * unit) / unit)


def ones_where(flags: npt.NDArray[np.bool_]) -> FloatArray:
    return flags.astype(np.float64)


def mesh_terms(block: str, stat: str, p: FloatArray, amount: FloatArray) -> Iterator[Rows]:
    low, upper = split(p)
    yield term(block, stat, amount * (1 - upper), cells=low)
    yield term(block, stat, amount * upper, cells=low + 1)


def limbs(terms: FloatArray | IntArray) -> tuple[IntArray, IntArray]:
    """The terms as integers, high and low limb."""
    fixed = np.rint(np.clip(terms, -LIMIT, LIMIT) * 2.0**BITS).astype(np.int64)
    return fixed >> BITS, fixed & ((1 << BITS) - 1)


def term(
    block: str,
    stat: str,
    terms: FloatArray | IntArray,
    *,
    slice_: str = "",
    name: str = "",
    cells: IntArray | None = None,
) -> Rows:
    """Exact sums of `terms` by cell."""
    high, low = limbs(terms)
    keys, index = (np.array([NO_CELL]), np.zeros(high.size, np.int64)) if cells is None else _codes(cells)
    hi = np.bincount(index, weights=high, minlength=keys.size)
    lo = np.bincount(index, weights=low, minlength=keys.size)
    return [(block, slice_, name, int(k), stat, int(h), int(v)) for k, h, v in zip(keys, hi, lo, strict=True)]


def _codes(cells: IntArray) -> tuple[IntArray, IntArray]:
    """Cells are small integers from NO_CELL up: shift instead of sorting."""
    shifted = cells - NO_CELL
    present = np.flatnonzero(np.bincount(shifted, minlength=MESH - NO_CELL))
    lookup = np.zeros(present[-1] + 1 if present.size else 1, dtype=np.int64)
    lookup[present] = np.arange(present.size)
    return present + NO_CELL, lookup[shifted]


def by_slice(rows: Rows, names: list[str]) -> Rows:
    """The same sums under the names of the slices instead of their cells."""
    return [(block, names[cell], name, NO_CELL, stat, hi, lo) for block, _, name, cell, stat, hi, lo in rows]
