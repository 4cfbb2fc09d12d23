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
_SHIFT = 1.5 * 2.0**52
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))
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
    few, own = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint32)
    fixed = np.empty((4, _BLOCK + _PAD), np.int64)
    reached = np.zeros(to.thresholds.shape, np.int64)  # by threshold, the rows that are not below it
    for begin in range(0, values.shape[0], _BLOCK):
        end = min(begin + _BLOCK, values.shape[0])
        total, single, mine = rows.total[begin:end], few[: end - begin], own[: end - begin]
        _hold(values[begin:end], unit, z, total, rows.explained[begin:end])
        _add_groups(z, to.members, to.bounds, rows.grouped[:, begin:end])
        w = weight.held[begin:end]
        for j in range(values.shape[1]):
            phi = z[j, : end - begin]
            _add_terms(w, phi, total, fixed, places[j, begin:end], to)
            exact = _cast(phi, single)  # then comparing is twice as fast
            if weight.ones and exact:
                _count_rows(single, to.thresholds32[j], reached[j])
            elif weight.ones:
                _count_rows(phi, to.thresholds[j], reached[j])
            elif exact:
                _count_reached(single, to.thresholds32[j], to.starts[j], to.starts[j + 1] - 1, mine)
            else:
                _count_reached(phi, to.thresholds[j], to.starts[j], to.starts[j + 1] - 1, mine)
            if not weight.ones:
                _add_weights(mine, weight.high[begin:end], weight.low[begin:end], to.own)
    if weight.ones:
        _count_cells(reached, values.shape[0], to.starts, to.own)
    _carry(to.high, to.low)


@kernel
def _hold(values: npt.NDArray[Any], unit: float, z: FloatArray, total: FloatArray, explained: FloatArray) -> None:
    """As `summary_terms.held`, by column, and what a row's add up to."""
    rows, features = values.shape
    for i in range(rows):
        for j in range(features):
            z[j, i] = values[i, j]
    limit = LIMIT * unit
    total[:] = 0.0
    for j in range(features):
        column = z[j, :rows]
        for i in range(rows):
            phi = max(min(column[i], limit), -limit) / unit
            column[i] = phi
            total[i] += abs(phi)
            explained[i] += phi


@kernel
def _cast(phi: FloatArray, single: npt.NDArray[np.float32]) -> bool:
    """In single precision; returns whether that loses nothing."""
    lost = np.uint32(0)
    for i in range(phi.size):
        few = np.float32(phi[i])
        single[i] = few
        lost = np.uint32(lost + np.uint32(np.float64(few) != phi[i]))  # as narrow as the numbers, else not in vectors
    return bool(lost == 0)


@kernel
def _add_weights(mine: Places, high: IntArray, low: IntArray, own: IntArray) -> None:
    for i in range(mine.size):
        own[mine[i], 0] += high[i]
        own[mine[i], 1] += low[i]


@kernel
def _count_rows(x: npt.NDArray[Any], thresholds: npt.NDArray[Any], reached: IntArray) -> None:
    """Rows by threshold that they have reached: all that a histogram of rows of weight 1 needs, without their cells."""
    for k in range(thresholds.size):
        threshold, count = thresholds[k], np.uint32(0)
        for i in range(x.size):
            count = np.uint32(count + np.uint32(x[i] >= threshold))
        reached[k] += count


@kernel
def _count_cells(reached: IntArray, rows: int, starts: IntArray, own: IntArray) -> None:
    for j in range(reached.shape[0]):
        before = rows
        for k in range(starts[j + 1] - starts[j] - 2):  # the last cell is that of missing values
            own[starts[j] + k, 0] += before - reached[j, k]
            before = reached[j, k]
        own[starts[j + 1] - 2, 0] += before


@kernel
def _add_groups(z: FloatArray, members: IntArray, bounds: IntArray, grouped: FloatArray) -> None:
    rows = grouped.shape[1]
    for group in range(grouped.shape[0]):
        together = grouped[group]
        together[:] = 0.0
        for at in range(bounds[group], bounds[group + 1]):
            phi = z[members[at], :rows]
            for i in range(rows):
                together[i] += phi[i]


@kernel
def _add_terms(w: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray, at: Places, to: Attributed) -> None:
    if 0 <= _fix_small(w, phi, total, fixed) < _SMALL:
        _add_small(fixed, at, to.low)
    else:
        _fix_terms(w, phi, total, fixed)
        _add_limbs(fixed, at, to.high, to.low)


@kernel
def _fix_small(w: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray) -> np.int64:
    """`sum_arrays.attribution_terms` as integers, (4, n); right if what is returned is neither below 0 nor `_SMALL`.

    A double between 2**52 and 2**53 has no fraction, so adding `_SHIFT` rounds to an integer, half to even as rint
    does, and leaves it in the low bits: instructions that every processor has for many numbers at a time, which of
    conversions to integers few have. Terms of more than 2**51, and what is no number, give bits beyond `_SMALL`.
    """
    bits = np.int64(0)
    for i in range(phi.size):
        size = abs(phi[i])
        value, square = _shift(w[i] * phi[i]), _shift(w[i] * phi[i] * phi[i])
        absolute, cross = _shift(w[i] * size), _shift(w[i] * size * total[i])
        fixed[0, i], fixed[1, i], fixed[2, i], fixed[3, i] = value, square, absolute, cross
        bits |= square | absolute | cross  # the value is as large as its size
    return bits


@kernel
def _shift(term: float) -> np.int64:
    return np.float64(term * _ONE + _SHIFT).view(np.int64) - _SHIFT_BITS


@kernel
def _fix_terms(w: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray) -> None:
    """The same of any terms."""
    for i in range(phi.size):
        size = abs(phi[i])
        fixed[0, i] = _fix(w[i] * phi[i])
        fixed[1, i] = _fix(w[i] * phi[i] * phi[i])
        fixed[2, i] = _fix(w[i] * size)
        fixed[3, i] = _fix(w[i] * size * total[i])


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


@kernel
def _carry(high: IntArray, low: IntArray) -> None:
    for at in range(low.shape[0]):
        for k in range(4):
            high[at, k] += low[at, k] >> BITS
            low[at, k] &= _MASK
