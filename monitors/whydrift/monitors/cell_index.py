"""All cells of all features in one long order, so that sums by cell are one array.

A feature's cells stand together, in the order of its values where it is numeric: far, below, the cells, above, far,
missing; or the categories, unseen, missing. A value's place is `starts[feature]` plus the number of thresholds that
it has reached, of which there is one between any two neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nextafter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from whydrift.monitors.binning import (
    ABOVE,
    BELOW,
    FAR,
    FAR_WIDTHS,
    MISSING,
    UNSEEN,
    FeatureBins,
    assign,
    assign_texts,
    texts,
)
from whydrift.monitors.sum_arrays import Kernels, Places
from whydrift.monitors.summary_terms import LIMIT, held

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Column: TypeAlias = pd.Series | npt.NDArray[Any] | pa.Array | pa.ChunkedArray

UNROLLED = 8  # thresholds that a kernel compares at a time


@dataclass(frozen=True, slots=True)
class CellIndex:
    """The order of all cells, K of them, of p features.

    `starts` (p + 1,) are the features' first places, `codes` (K,) the cells as `binning.assign` names them.
    `thresholds` (p, t) ascend and end with NaN, which no value reaches; `thresholds32` do the same for float32.
    """

    bins: tuple[FeatureBins, ...]
    starts: IntArray
    codes: IntArray
    thresholds: FloatArray
    thresholds32: npt.NDArray[np.float32]

    @property
    def missing(self) -> IntArray:
        """The place of each feature's missing values, (p,): its last."""
        return self.starts[1:] - 1

    @property
    def owners(self) -> IntArray:
        """The feature of each cell, (K,)."""
        return np.repeat(np.arange(len(self.bins)), np.diff(self.starts))


def index_cells(bins: tuple[FeatureBins, ...]) -> CellIndex:
    """The order of the features' cells.

    >>> index = index_cells((FeatureBins("x", edges=(0.0, 1.0, 2.0)), FeatureBins("c", categories=("a",))))
    >>> index.codes
    array([-5, -2,  0,  1, -3, -5, -1,  0, -4, -1])
    >>> index.starts
    array([ 0,  7, 10])
    """
    places = [_ordered(one) for one in bins]
    wide = max((len(thresholds) for _, thresholds in places), default=0)
    table = np.full((len(bins), -(-max(wide, 1) // UNROLLED) * UNROLLED), np.nan)
    for row, (_, thresholds) in zip(table, places, strict=True):
        row[: len(thresholds)] = thresholds
    starts = np.concatenate([[0], np.cumsum([len(codes) for codes, _ in places])]).astype(np.int64)
    codes = np.array([code for codes, _ in places for code in codes], dtype=np.int64)
    return CellIndex(bins, starts, codes, table, _single(table))


def _ordered(bins: FeatureBins) -> tuple[list[int], list[float]]:
    """The feature's cells in order, and the thresholds between them."""
    if not bins.numeric:
        return [*range(len(bins.categories)), UNSEEN, MISSING], []
    first, *inner, last = bins.edges if len(bins.edges) > 1 else bins.edges * 2
    codes, thresholds = [BELOW, *range(len(inner) + 1), ABOVE], [first, *inner, nextafter(last, inf)]
    reach = FAR_WIDTHS * (last - first)
    if reach > 0:
        codes, thresholds = [FAR, *codes], [first - reach, *thresholds]
        if last + reach < inf:
            codes, thresholds = [*codes, FAR], [*thresholds, nextafter(last + reach, inf)]
    return [*codes, MISSING], thresholds


def _single(thresholds: FloatArray) -> npt.NDArray[np.float32]:
    """The smallest numbers of single precision that are not below the thresholds."""
    with np.errstate(over="ignore"):
        single = thresholds.astype(np.float32)
    return np.where(single < thresholds, np.nextafter(single, np.float32(inf)), single)


def raw_thresholds(thresholds: FloatArray, unit: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The smallest numbers of a type that reach the thresholds once they are held in units; NaN where none does.

    The quotient is rounded, so that a number below may well give the threshold itself. Numbers are searched by their
    rank, from near where they should be.
    """
    attained = thresholds <= LIMIT  # others are NaN, or more than anything is held at
    wanted = thresholds[attained]
    with np.errstate(over="ignore"):
        low = high = _rank((wanted * unit).astype(dtype))
    last = _rank(np.array([inf], dtype))[0]

    def reached(rank: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return held(_of_rank(rank, dtype), unit) >= wanted

    step = 1
    while (below := reached(low) & (low > -last)).any():
        low = np.where(below, np.maximum(low, step - last) - step, low)
        step *= 2
    step = 1
    while (above := ~reached(high)).any():
        high = np.where(above, np.minimum(high, last - step) + step, high)
        step *= 2
    while (low < high - 1).any():
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        low, high = np.where(reached(middle), low, middle), np.where(reached(middle), middle, high)
    found = np.full(thresholds.shape, np.nan, dtype)
    found[attained] = _of_rank(np.where(reached(low), low, high), dtype)
    return found


def _rank(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers in the numbers' order, one for each number of the type: 0 for zero, negative below it."""
    bits: npt.NDArray[Any] = np.abs(numbers).view(f"i{numbers.itemsize}")
    return np.where(numbers < 0, -bits, bits)


def _of_rank(rank: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = np.abs(rank).view(dtype)
    return np.where(rank < 0, -numbers, numbers)


def columns(features: pd.DataFrame, index: CellIndex) -> list[Column]:
    """The features' columns, to be placed part by part; numbers as arrays, without a copy."""
    return [_column(features[bins.name], bins) for bins in index.bins]


def _column(values: pd.Series[Any], bins: FeatureBins) -> Column:
    if not bins.numeric:  # categories stay as they are: only what is distinct among them is read as text
        return values if isinstance(values.dtype, pd.CategoricalDtype) else texts(values)
    plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "fiub"
    return values.to_numpy() if plain else values


def place(index: CellIndex, values: list[Column], part: slice, kernels: Kernels) -> Places:
    """The places of the cells that the rows' values lie in, (p, n)."""
    rows = len(range(*part.indices(len(values[0])))) if values else 0
    places, missing = np.empty((len(index.bins), rows), dtype=np.uint32), index.missing
    for j, (bins, column) in enumerate(zip(index.bins, values, strict=True)):
        start = int(index.starts[j])
        if bins.numeric:
            numbers = frozen(_numbers(column, part))
            thresholds = index.thresholds32 if numbers.dtype == np.float32 else index.thresholds
            kernels.find_places(numbers, thresholds[j], start, int(missing[j]), places[j])
        else:
            cells = (
                assign(bins, column.iloc[part]) if isinstance(column, pd.Series) else assign_texts(bins, column[part])
            )
            np.add(cells, start, out=places[j], casting="unsafe")
            if cells.min(initial=0) < 0:
                places[j][cells == UNSEEN], places[j][cells == MISSING] = missing[j] - 1, missing[j]
    return places


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written to: kernels are compiled for such arrays, and would be again for others."""
    view = array.view()
    view.setflags(write=False)
    return view


def _numbers(column: Column, part: slice) -> npt.NDArray[Any]:
    """Contiguous numbers of single or double precision, missing ones as NaN."""
    if isinstance(column, np.ndarray):
        exact = column.dtype in (np.float32, np.float64)
        return np.ascontiguousarray(column[part], dtype=column.dtype if exact else np.float64)
    return column.iloc[part].to_numpy(dtype=np.float64, na_value=np.nan)
