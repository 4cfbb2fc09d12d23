"""Coarse cells of columns, and the slices that one or two of them span.

Each searched column has at most ten cells of its own, joined from the baseline's, and two beside them: rows
without a value, and rows elsewhere, which are those out of the range or the categories. So every row lies in one
cell of every column, and in one cell of every pair of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import MISSING, FeatureBins, assign

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COARSE = 10  # cells a column
_BESIDE = 2  # missing, elsewhere


@dataclass(frozen=True, slots=True)
class SliceCell:
    """The rows in the given coarse cells of one or two columns, under the name that people read."""

    name: str
    columns: tuple[str, ...]
    cells: tuple[int, ...]


def coarsen(bins: FeatureBins, weight: FloatArray, *, most: int = COARSE) -> FeatureBins:
    """At most `most` cells: of numbers, neighbours joined to about equal weight; of categories, the heaviest ones.

    `weight`, shape (cells,), is that of the baseline's rows in the cells of `bins`.

    >>> coarsen(FeatureBins("x", edges=(0.0, 1.0, 2.0, 3.0, 4.0)), np.array([5.0, 5.0, 5.0, 5.0]), most=2).edges
    (0.0, 2.0, 4.0)
    >>> coarsen(FeatureBins("c", categories=("a", "b", "c")), np.array([5.0, 1.0, 7.0]), most=2).categories
    ('a', 'c')
    """
    if size(bins) - _BESIDE <= most:
        return bins
    if not bins.numeric:
        heaviest = np.sort(np.argsort(-weight, kind="stable")[:most])
        return replace(bins, categories=tuple(bins.categories[i] for i in heaviest))
    below = np.cumsum(weight)[:-1] / max(weight.sum(), 1.0)  # at each inner edge
    aims = np.arange(1, most) / most
    kept = np.unique(np.abs(below[:, None] - aims).argmin(axis=0)) + 1
    return replace(bins, edges=(bins.edges[0], *(bins.edges[i] for i in kept), bins.edges[-1]))


def size(bins: FeatureBins) -> int:
    """How many codes a column has."""
    return max(len(bins.edges) - 1, len(bins.categories)) + _BESIDE


def cell_codes(bins: FeatureBins, values: pd.Series[Any]) -> IntArray:
    """Each row's coarse cell, (n,): from 0, the last two are missing and elsewhere.

    >>> cell_codes(FeatureBins("c", categories=("a", "b")), pd.Series(["b", "z", None]))
    array([1, 3, 2])
    """
    cells = assign(bins, values)
    missing = size(bins) - _BESIDE
    return np.asarray(np.where(cells >= 0, cells, np.where(cells == MISSING, missing, missing + 1)))


def rows_of(
    slices: Sequence[SliceCell], columns: Sequence[FeatureBins], features: pd.DataFrame
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The slices' names, and which rows lie in each, (n,); `columns` are those that they speak of, and others."""
    used = {column for cell in slices for column in cell.columns}
    codes = {bins.name: cell_codes(bins, features[bins.name]) for bins in columns if bins.name in used}
    for one in slices:
        inside = [codes[column] == cell for column, cell in zip(one.columns, one.cells, strict=True)]
        yield one.name, np.logical_and.reduce(inside)
