"""The sums over rows by cell, compiled: the same operations in the same order as in `sum_arrays`, which says more.

Loops over many rows are kept so simple that the compiler makes vector instructions of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from whydrift.monitors.compiled import THREADS, kernel
from whydrift.monitors.sum_arrays import Attributed, ByRow, FloatArray, IntArray, Places
from whydrift.monitors.summary_terms import BITS, LIMIT, Weight

__all__ = ["ELEMENTS", "THREADS", "add_attributions", "add_missing", "add_rows", "find_places"]

ELEMENTS = 2**22  # rows x features of a part: for a whole part the interpreter is asked only a few times a feature

_BLOCK = 512  # rows whose attributions stay in the cache while they are looked at from all sides
_PAD = 8  # else columns lie a power of two apart, and the cache has room for few lines that do
_ONE = 2.0**BITS
_MASK = (1 << BITS) - 1
_SMALL = 2**46  # the low limb holds the sum of a part's terms below it: 2**46 * CHUNK < 2**63


@kernel
def find_places(
    numbers: npt.NDArray[Any], thresholds: npt.NDArray[Any], start: int, missing: int, places: Places
) -> None:
    """See `sum_arrays.Kernels`; eight thresholds at a time."""
    for begin in range(0, numbers.size, _BLOCK):
        _count_reached(numbers[begin : begin + _BLOCK], thresholds, start, missing, places[begin : begin + _BLOCK])


@kernel
def _count_reached(
    x: npt.NDArray[Any], thresholds: npt.NDArray[Any], start: int, missing: int, reached: Places
) -> None:
    for i in range(x.size):
        reached[i] = missing if x[i] != x[i] else start
    for k in range(0, thresholds.size, 8):
        a, b, c, d = thresholds[k], thresholds[k + 1], thresholds[k + 2], thresholds[k + 3]
        e, f, g, h = thresholds[k + 4], thresholds[k + 5], thresholds[k + 6], thresholds[k + 7]
        for i in range(x.size):
            v = x[i]
            reached[i] += np.uint32(
                np.uint32(v >= a)
                + np.uint32(v >= b)
                + np.uint32(v >= c)
                + np.uint32(v >= d)
                + np.uint32(v >= e)
                + np.uint32(v >= f)
                + np.uint32(v >= g)
                + np.uint32(v >= h)
            )


@kernel
def add_rows(places: Places, weight: Weight, sums: IntArray) -> None:
    """See `sum_arrays.Kernels`."""
    features, rows = places.shape
    before = sums[:, 0].copy()
    for j in range(features):
        at = places[j]
        if weight.ones:
            for i in range(rows):
                sums[at[i], 0] += 1
        else:
            for i in range(rows):
                sums[at[i], 0] += 1
                sums[at[i], 1] += weight.high[i]
                sums[at[i], 2] += weight.low[i]
    if weight.ones:
        sums[:, 1] += sums[:, 0] - before


@kernel
def add_missing(
    places: Places, weight: Weight, lacking: IntArray, slices: IntArray, starts: IntArray, sums: IntArray
) -> None:
    """See `sum_arrays.Kernels`."""
    rows = places.shape[1]
    at = np.empty(rows, np.int64)
    for j in lacking:
        missing, found = starts[j + 1] - 1, 0
        for i in range(rows):
            at[found] = i
            found += places[j, i] == missing  # no branch, which would be guessed wrong
        first = 0
        for column in slices:
            for k in range(found):
                i = at[k]
                cell = first + places[column, i] - starts[column]
                sums[cell, j, 0] += 1
                sums[cell, j, 1] += weight.high[i]
                sums[cell, j, 2] += weight.low[i]
            first += starts[column + 1] - starts[column]


@kernel
def add_attributions(
    values: npt.NDArray[Any], unit: float, weight: Weight, places: Places, to: Attributed, rows: ByRow
) -> None:
    """See `sum_arrays.Kernels`."""
    z = np.empty((values.shape[1], _BLOCK + _PAD))
    own = np.empty(_BLOCK, np.uint32)
    fixed = np.empty((4, _BLOCK + _PAD), np.int64)
    for begin in range(0, values.shape[0], _BLOCK):
        end = min(begin + _BLOCK, values.shape[0])
        _hold(values[begin:end], unit, z)
        total = rows.total[begin:end]
        _add_up(z, total, rows.explained[begin:end], to.members, to.bounds, rows.grouped[:, begin:end])
        w, high, low = weight.held[begin:end], weight.high[begin:end], weight.low[begin:end]
        for j in range(values.shape[1]):
            phi = z[j, : end - begin]
            if _fix_terms(w, phi, total, fixed) < _SMALL:
                _add_small(fixed, places[j, begin:end], to.low)
            else:
                _add_limbs(fixed, places[j, begin:end], to.high, to.low)
            mine = own[: end - begin]
            _count_reached(phi, to.thresholds[j], to.starts[j], to.starts[j + 1] - 1, mine)
            if weight.ones:
                for i in range(mine.size):
                    to.own[mine[i], 0] += 1
            else:
                for i in range(mine.size):
                    to.own[mine[i], 0] += high[i]
                    to.own[mine[i], 1] += low[i]
    for at in range(to.low.shape[0]):
        for k in range(4):
            to.high[at, k] += to.low[at, k] >> BITS
            to.low[at, k] &= _MASK


@kernel
def _hold(values: npt.NDArray[Any], unit: float, z: FloatArray) -> None:
    """As `summary_terms.held`, by column."""
    rows, features = values.shape
    for i in range(rows):
        for j in range(features):
            z[j, i] = values[i, j]
    limit = LIMIT * unit
    for j in range(features):
        column = z[j, :rows]
        for i in range(rows):
            column[i] = max(min(column[i], limit), -limit) / unit


@kernel
def _add_up(
    z: FloatArray, total: FloatArray, explained: FloatArray, members: IntArray, bounds: IntArray, grouped: FloatArray
) -> None:
    rows = total.size
    total[:] = 0.0
    for j in range(z.shape[0]):
        phi = z[j, :rows]
        for i in range(rows):
            total[i] += abs(phi[i])
            explained[i] += phi[i]
    for group in range(grouped.shape[0]):
        together = grouped[group]
        together[:] = 0.0
        for at in range(bounds[group], bounds[group + 1]):
            phi = z[members[at], :rows]
            for i in range(rows):
                together[i] += phi[i]


@kernel
def _fix_terms(w: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray) -> int:
    """`sum_arrays.attribution_terms` as integers, (4, n); returns a bound of their sizes, up to twice the largest."""
    for i in range(phi.size):
        size = abs(phi[i])
        fixed[0, i] = _fix(w[i] * phi[i])
        fixed[1, i] = _fix(w[i] * phi[i] * phi[i])
        fixed[2, i] = _fix(w[i] * size)
        fixed[3, i] = _fix(w[i] * size * total[i])
    bits = 0
    for k in range(4):
        integers = fixed[k]
        for i in range(phi.size):
            bits |= integers[i] ^ (integers[i] >> 63)
    return bits


@kernel
def _fix(term: float) -> np.int64:
    return np.int64(np.rint(max(min(term, LIMIT), -LIMIT) * _ONE))


@kernel
def _add_small(fixed: IntArray, places: Places, low: IntArray) -> None:
    for i in range(places.size):
        at = places[i]
        for k in range(4):
            low[at, k] += fixed[k, i]


@kernel
def _add_limbs(fixed: IntArray, places: Places, high: IntArray, low: IntArray) -> None:
    for i in range(places.size):
        at = places[i]
        for k in range(4):
            high[at, k] += fixed[k, i] >> BITS
            low[at, k] += fixed[k, i] & _MASK
