"""The sums over rows by cell, compiled: the same operations in the same order as in `sum_arrays`, which says more.

Loops over many rows are kept so simple that the compiler makes vector instructions of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from whydrift.monitors.cell_index import frozen
from whydrift.monitors.compiled import THREADS, kernel
from whydrift.monitors.sum_arrays import Attributed, ByRow, FloatArray, IntArray, Places
from whydrift.monitors.summary_terms import BITS, LIMIT, NO_CELL, Weight

__all__ = ["ELEMENTS", "THREADS", "add_attributions", "add_missing", "add_rows", "add_terms", "find_places"]

ELEMENTS = 2**22  # rows x features of a part: for a whole part the interpreter is asked only a few times a feature

_BLOCK = 512  # rows whose attributions stay in the cache while they are looked at from all sides
_PAD = 8  # else columns lie a power of two apart, and the cache has room for few lines that do
_ONE = 2.0**BITS
_SHIFT = 1.5 * 2.0**52
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))
_MASK = (1 << BITS) - 1
_SMALL = 2**46  # the sum of a part's terms below it fits: 2**46 * CHUNK < 2**63
_LIGHT = 2.0**14  # _SMALL in units


def add_terms(terms: FloatArray | IntArray, cells: IntArray | None) -> tuple[IntArray, IntArray]:
    """See `sum_arrays.Kernels`."""
    exact = frozen(np.ascontiguousarray(terms, dtype=np.float64))
    if cells is None:
        return _add_all(exact)
    return _add_by_cell(exact, frozen(np.ascontiguousarray(cells, dtype=np.int64)))


@kernel
def _add_all(terms: FloatArray) -> tuple[IntArray, IntArray]:
    high, low = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for begin in range(0, terms.size, _BLOCK):
        x = terms[begin : begin + _BLOCK]
        whole, bits = np.int64(0), np.int64(0)
        for i in range(x.size):
            fixed = _shift(x[i] * _ONE)
            whole += fixed
            bits |= abs(fixed)
        if 0 <= bits < _SMALL:
            high[0] += whole >> BITS
            low[0] += whole & _MASK
        else:
            for i in range(x.size):
                fixed = _fix(x[i])
                high[0] += fixed >> BITS
                low[0] += fixed & _MASK
    return high, low


@kernel
def _add_by_cell(terms: FloatArray, cells: IntArray) -> tuple[IntArray, IntArray]:
    last = np.int64(NO_CELL)
    for cell in cells:
        last = max(last, cell)
    high, low = np.zeros(last + 1 - NO_CELL, np.int64), np.zeros(last + 1 - NO_CELL, np.int64)
    for i in range(terms.size):
        fixed, at = _fix(terms[i]), cells[i] - NO_CELL
        high[at] += fixed >> BITS
        low[at] += fixed & _MASK
    return high, low


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
    features = values.shape[1]
    raw, z = np.empty((features, _BLOCK + _PAD), values.dtype), np.empty((features, _BLOCK + _PAD))
    scaled, own = np.empty(_BLOCK), np.empty(_BLOCK, np.uint32)
    fixed = np.empty((4, _BLOCK + _PAD), np.int64)
    reached = np.zeros(to.raw.shape, np.int64)  # by threshold, the rows that are not below it
    for begin in range(0, values.shape[0], _BLOCK):
        end = min(begin + _BLOCK, values.shape[0])
        total, mine, w = rows.total[begin:end], own[: end - begin], weight.held[begin:end]
        _hold(values[begin:end], unit, raw, z, total, rows.explained[begin:end])
        _add_groups(z, to.members, to.bounds, rows.grouped[:, begin:end])
        light = _scale(w, scaled)
        for j in range(features):
            phi, at = z[j, : end - begin], places[j, begin:end]
            if light and 0 <= _fix_small(scaled, phi, total, fixed) < _SMALL:
                _add_small(fixed, at, to.low)
            else:
                _add_terms(w, phi, total, at, to.high, to.low)
            number = raw[j, : end - begin]
            if weight.ones:
                _count_rows(number, to.raw[j], reached[j])
            else:
                _count_reached(number, to.raw[j], to.starts[j], to.starts[j + 1] - 1, mine)
                _add_weights(mine, weight.high[begin:end], weight.low[begin:end], to.own)
    if weight.ones:
        _count_cells(reached, values.shape[0], to.starts, to.own)
    _carry(to.high, to.low)


@kernel
def _hold(
    values: npt.NDArray[Any],
    unit: float,
    raw: npt.NDArray[Any],
    z: FloatArray,
    total: FloatArray,
    explained: FloatArray,
) -> None:
    """By column, as they are and as `summary_terms.held`, and what a row's add up to."""
    rows, features = values.shape
    for i in range(rows):
        for j in range(features):
            raw[j, i] = values[i, j]
    limit = LIMIT * unit
    total[:] = 0.0
    for j in range(features):
        number, column = raw[j, :rows], z[j, :rows]
        for i in range(rows):
            phi = max(min(np.float64(number[i]), limit), -limit) / unit
            column[i] = phi
            total[i] += abs(phi)
            explained[i] += phi


@kernel
def _scale(w: FloatArray, scaled: FloatArray) -> bool:
    """The weights times 2**32; returns whether they are such that `_fix_small` is right."""
    light = np.uint64(1)
    for i in range(w.size):
        scaled[i] = w[i] * _ONE
        light &= np.uint64(w[i] >= 0.0) & np.uint64(w[i] <= _LIGHT)
    return bool(light)


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
        if count == 0:
            break  # nor do they reach a larger one
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
def _fix_small(scaled: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray) -> np.int64:
    """`sum_arrays.attribution_terms` as integers, (4, n).

    Right if what is returned is neither below 0 nor `_SMALL`, and no weight below 0 or above `_LIGHT`: a cross is no
    smaller than the square, and a value larger than both only where it is smaller than the weight.
    """
    bits = np.int64(0)
    for i in range(phi.size):
        term = scaled[i] * phi[i]
        value, cross = _shift(term), _shift(abs(term) * total[i])
        fixed[0, i], fixed[1, i], fixed[2, i], fixed[3, i] = value, _shift(term * phi[i]), abs(value), cross
        bits |= cross
    return bits


@kernel
def _shift(term: float) -> np.int64:
    """The nearest integer, of terms between -2**51 and 2**51; of others, and of what is no number, one beyond `_SMALL`.

    A double between 2**52 and 2**53 has no fraction, so adding `_SHIFT` rounds to an integer, half to even as rint
    does, and leaves it in the low bits: instructions that every processor has for many numbers at a time, which of
    conversions to integers few have.
    """
    return np.float64(term + _SHIFT).view(np.int64) - _SHIFT_BITS


@kernel
def _add_small(fixed: IntArray, places: Places, low: IntArray) -> None:
    for i in range(places.size):
        at = places[i]
        for k in range(4):
            low[at, k] += fixed[k, i]


@kernel
def _add_terms(
    w: FloatArray, phi: FloatArray, total: FloatArray, places: Places, high: IntArray, low: IntArray
) -> None:
    """Add `sum_arrays.attribution_terms`, however large they are."""
    for i in range(places.size):
        at, size = places[i], abs(phi[i])
        terms = w[i] * phi[i], w[i] * phi[i] * phi[i], w[i] * size, w[i] * size * total[i]
        for k in range(4):
            fixed = _fix(terms[k])
            high[at, k] += fixed >> BITS
            low[at, k] += fixed & _MASK


@kernel
def _fix(term: float) -> np.int64:
    return np.int64(np.rint(max(min(term, LIMIT), -LIMIT) * _ONE))


@kernel
def _carry(high: IntArray, low: IntArray) -> None:
    for at in range(low.shape[0]):
        for k in range(4):
            high[at, k] += low[at, k] >> BITS
            low[at, k] &= _MASK
