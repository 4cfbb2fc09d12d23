"""Sums that are exact: a term is rounded once, to an integer, and integers add in any order to the same sum.

A sum is held in two limbs, value = hi + lo / 2**32, each small enough for a float64 to add 2**20 rows of them
without rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from whydrift.monitors.calibration import split

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NO_CELL = -100
BITS = 32
LIMIT = 2.0**30
_LOW = (1 << BITS) - 1
_EXACT = 2.0 ** (52 - BITS)  # terms whose sizes add up to less are added as doubles, in one limb
SIGNED = frozenset({"value", "value2", "output", "base", "rest", "rest2", "p", "y"})  # stats that may be below zero
CHUNK = 2**16  # rows reduced at a time: their arrays stay in the cache, and 2**16 * 2**32 < 2**53


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a summary's table, k of one block and stat: cells and sums (k,).

    Row i is of `slices[slice_at[i]]` and `names[name_at[i]]`; without indices, of the first.
    """

    block: str
    stat: str
    cells: IntArray
    high: IntArray
    low: IntArray
    slices: Sequence[str] = ("",)
    slice_at: IntArray | None = None
    names: Sequence[str] = ("",)
    name_at: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """Rows of one block and stat that are not summed yet: terms (n,), by cell, small integers from NO_CELL up."""

    block: str
    stat: str
    terms: FloatArray | IntArray
    slice_: str = ""
    name: str = ""
    cells: IntArray | None = None

    def summed(self, add: Adding | None = None) -> Rows:
        """The exact sums, added up by numpy if not otherwise."""
        high, low = (add or add_terms)(self.terms, self.cells)
        found = np.array([0]) if self.cells is None else np.flatnonzero((high != 0) | (low != 0))
        at = np.array([NO_CELL]) if self.cells is None else found + NO_CELL
        return Rows(self.block, self.stat, at, high[found], low[found], slices=(self.slice_,), names=(self.name,))


Summand: TypeAlias = Rows | Terms
Adding: TypeAlias = Callable[[FloatArray | IntArray, IntArray | None], tuple[IntArray, IntArray]]


class Weight(NamedTuple):
    """The rows' weights (n,), held within the bound, with their limbs; `ones` says that all of them are 1."""

    held: FloatArray
    high: IntArray
    low: IntArray
    ones: bool


def weigh(weights: npt.NDArray[Any]) -> Weight:
    """Raises ValueError for a weight that is not a number."""
    if np.isnan(weights).any():
        raise ValueError("a weight is not a number; rows with such weights are to be set aside and counted")
    if (weights == 1).all():
        whole = np.ones(weights.size, dtype=np.int64)
        return Weight(np.ones(weights.size), whole, np.zeros_like(whole), ones=True)
    w = held(weights, 1.0)
    return Weight(w, *limbs(w), ones=False)


def held(values: npt.NDArray[Any], unit: float) -> FloatArray:
    """In units, within the bound: a product of two infinities' neighbours would not be a number."""
    exact = np.asarray(values, dtype=np.float64)
    return np.asarray(np.clip(exact, -LIMIT * unit, LIMIT * unit) / unit)


def ones_where(flags: npt.NDArray[np.bool_]) -> FloatArray:
    return flags.astype(np.float64)


def mesh_terms(block: str, stat: str, p: FloatArray, amount: FloatArray) -> Iterator[Terms]:
    low, upper = split(p)
    yield Terms(block, stat, amount * (1 - upper), cells=low)
    yield Terms(block, stat, amount * upper, cells=low + 1)


def limbs(terms: FloatArray | IntArray) -> tuple[IntArray, IntArray]:
    """The terms as integers, high and low limb."""
    scaled = np.clip(np.asarray(terms, dtype=np.float64), -LIMIT, LIMIT)
    scaled *= 2.0**BITS  # in place: what is asked of the system for a temporary array costs more than its numbers
    fixed = np.rint(scaled, out=scaled).astype(np.int64)
    return fixed >> BITS, fixed & _LOW


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
    return Terms(block, stat, terms, slice_, name, cells).summed()


def add_terms(terms: FloatArray | IntArray, cells: IntArray | None) -> tuple[IntArray, IntArray]:
    """High and low limb of their sums by cell, from NO_CELL up, or of all."""
    if max(terms.max(initial=0), -terms.min(initial=0)) * terms.size < _EXACT:
        fixed = terms * 2.0**BITS
        whole = _add(np.rint(fixed, out=fixed), cells)
        return whole >> BITS, whole & _LOW
    high, low = (_add(limb, cells) for limb in limbs(terms))
    return high, low


def _add(integers: FloatArray | IntArray, cells: IntArray | None) -> IntArray:
    """Their sums, which a double has to hold exactly."""
    if cells is None:
        return np.asarray(integers.sum(keepdims=True), dtype=np.int64)
    return np.asarray(np.bincount(cells - NO_CELL, weights=integers, minlength=1), dtype=np.int64)


def count(block: str, stat: str, rows: int) -> Rows:
    """So many ones."""
    return Rows(block, stat, np.array([NO_CELL]), np.array([rows]), np.array([0]))


def by_slice(rows: Rows, names: Sequence[str]) -> Rows:
    """The same sums under the names of the slices instead of their cells."""
    return replace(rows, slices=names, slice_at=rows.cells, cells=np.full_like(rows.cells, NO_CELL))


def repeated(lengths: Sequence[int]) -> pa.Array:
    """Indices 0, 1, .. each as often as its length says."""
    return pa.array(np.repeat(np.arange(len(lengths)), lengths))


def joined(arrays: Sequence[IntArray]) -> IntArray:
    """One after the other; there may be none."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])


def labelled(parts: Sequence[tuple[Sequence[str], IntArray | None]], lengths: Sequence[int]) -> pa.Array:
    """Each part's labels by its indices; of the first one where it has none."""
    known: dict[str, int] = {}
    codes = []
    for (labels, at), length in zip(parts, lengths, strict=True):
        number = np.array([known.setdefault(label, len(known)) for label in labels])
        codes.append(np.repeat(number[:1], length) if at is None else number[at])
    return pa.array(list(known), pa.string()).take(pa.array(joined(codes)))
