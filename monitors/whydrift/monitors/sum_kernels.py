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
_TILE = 16
_ONE = 2.0**BITS
_MASK = (1 << BITS) - 1


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
        reached[i] = missing if x[i] != x[i] else start  # noqa: PLR0124: NaN, which reaches no threshold
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
    for j in range(features):
        at = places[j]
        if weight.ones:
            for i in range(rows):
                sums[at[i], 0] += 1
                sums[at[i], 1] += 1
        else:
            for i in range(rows):
                sums[at[i], 0] += 1
                sums[at[i], 1] += weight.high[i]
                sums[at[i], 2] += weight.low[i]


@kernel
def add_missing(
    places: Places, weight: Weight, missing: IntArray, slices: IntArray, starts: IntArray, sums: IntArray
) -> None:
    """See `sum_arrays.Kernels`."""
    features, rows = places.shape
    for j in range(features):
        at = places[j]
        for i in range(rows):
            if at[i] == missing[j]:
                first = 0
                for column in slices:
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
    z = np.empty((values.shape[1], _BLOCK))
    own = np.empty(_BLOCK, np.uint32)
    fixed = np.empty((_BLOCK, 4), np.int64)
    for begin in range(0, values.shape[0], _BLOCK):
        end = min(begin + _BLOCK, values.shape[0])
        _hold(values[begin:end], unit, z)
        total = rows.total[begin:end]
        _add_up(z, total, rows.explained[begin:end], to.members, to.bounds, rows.grouped[:, begin:end])
        w, high, low = weight.held[begin:end], weight.high[begin:end], weight.low[begin:end]
        for j in range(values.shape[1]):
            phi = z[j, : end - begin]
            _fix_terms(w, phi, total, fixed)
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


@kernel
def _hold(values: npt.NDArray[Any], unit: float, z: FloatArray) -> None:
    """As `summary_terms.held`, by column; in tiles, so that no line of the memory is fetched twice."""
    rows, features = values.shape
    for first in range(0, features, _TILE):
        last = min(first + _TILE, features)
        for i in range(rows):
            for j in range(first, last):
                z[j, i] = values[i, j]
    limit = LIMIT * unit
    for j in range(features):
        column = z[j, :rows]
        for i in range(rows):
            v = column[i]
            v = limit if v > limit else v
            v = -limit if v < -limit else v
            column[i] = v / unit


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
def _fix_terms(w: FloatArray, phi: FloatArray, total: FloatArray, fixed: IntArray) -> None:
    """`sum_arrays.attribution_terms` as integers, (n, 4)."""
    for i in range(phi.size):
        size = abs(phi[i])
        fixed[i, 0] = _fix(w[i] * phi[i])
        fixed[i, 1] = _fix(w[i] * phi[i] * phi[i])
        fixed[i, 2] = _fix(w[i] * size)
        fixed[i, 3] = _fix(w[i] * size * total[i])


@kernel
def _fix(term: float) -> int:
    bounded = LIMIT if term > LIMIT else term
    bounded = -LIMIT if bounded < -LIMIT else bounded
    return np.int64(np.rint(bounded * _ONE))


@kernel
def _add_limbs(fixed: IntArray, places: Places, high: IntArray, low: IntArray) -> None:
    for i in range(places.size):
        at = places[i]
        for k in range(4):
            high[at, k] += fixed[i, k] >> BITS
            low[at, k] += fixed[i, k] & _MASK
