"""The cells that a baseline fixes for each feature.

Every later window is counted over the same cells, so that windows can be added and compared. Beside the
cells that the baseline saw there are five for what it did not: missing, below, above, unseen, and far: a number
that lies further from the baseline's range than three times its width, as a wrong unit makes it and no season does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MISSING = -1
BELOW = -2
ABOVE = -3
UNSEEN = -4
FAR = -5
FAR_WIDTHS = 3.0
OUTSIDE = (MISSING, BELOW, ABOVE, UNSEEN, FAR)

CELLS = 20
GRAIN = 2.0**-20  # attributions that differ by less, in units of the output's scale, are one value


@dataclass(frozen=True, slots=True)
class FeatureBins:
    """A feature's cells: `edges` if it is numeric (ascending, first and last are the range that the
    baseline saw), `categories` if it is not. Cell `i` is `[edges[i], edges[i + 1])`, the last one closed.
    """

    name: str
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        return not self.categories


def fit_bins(name: str, values: pd.Series[Any], *, cells: int = CELLS) -> FeatureBins:
    """Equal-mass cells of a numeric column, or its categories in sorted order.

    >>> fit_bins("x", pd.Series([1.0, 2.0, 3.0, 4.0]), cells=2).edges
    (1.0, 2.5, 4.0)
    >>> fit_bins("c", pd.Series(["b", "a", "b", None])).categories
    ('a', 'b')
    """
    present = values.dropna()
    if not pd.api.types.is_numeric_dtype(values):
        return FeatureBins(name, categories=tuple(sorted(present.astype(str).unique())) or ("",))
    if present.empty:
        return FeatureBins(name, edges=(0.0, 0.0))
    numbers = present.to_numpy(dtype=np.float64)
    distinct = np.unique(numbers)
    if distinct.size <= cells:
        inner = (distinct[1:] + distinct[:-1]) / 2
    else:
        inner = np.unique(np.quantile(numbers, np.linspace(0, 1, cells + 1)[1:-1]))
        inner = inner[(inner > distinct[0]) & (inner < distinct[-1])]
    return FeatureBins(name, edges=(float(distinct[0]), *map(float, inner), float(distinct[-1])))


def fit_attribution_bins(name: str, values: npt.NDArray[np.float64], *, cells: int = CELLS) -> FeatureBins:
    """Equal-mass cells of a feature's attributions, (n,), in units of the output's scale.

    Edges lie between multiples of `GRAIN`, and half of one beyond the outermost values: rounding, which may be
    another one on another machine, carries no value over an edge.

    >>> fit_attribution_bins("dead", np.zeros(3)).edges == (-GRAIN / 2, GRAIN / 2)
    True
    """
    bins = fit_bins(name, pd.Series(np.rint(values / GRAIN) * GRAIN), cells=cells)
    first, *inner, last = bins.edges
    between = (np.floor(np.array(inner) / GRAIN) + 0.5) * GRAIN
    return FeatureBins(name, edges=(first - GRAIN / 2, *map(float, np.unique(between)), last + GRAIN / 2))


def assign(bins: FeatureBins, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Each value's cell, shape (n,): an index into the cells, or one of the five negative codes.

    >>> assign(FeatureBins("x", edges=(0.0, 1.0, 2.0)), pd.Series([0.0, 1.0, 2.0, 2.1, -1.0, None]))
    array([ 0,  1,  1, -3, -2, -1])
    >>> assign(FeatureBins("c", categories=("a", "b")), pd.Series(["b", "z", None]))
    array([ 1, -4, -1])
    """
    if not bins.numeric:
        if isinstance(values.dtype, pd.CategoricalDtype):  # by distinct value; a missing one's code is -1, the last
            distinct = assign(bins, values.cat.categories.to_series())
            return np.append(distinct, MISSING)[values.cat.codes.to_numpy()]
        return assign_texts(bins, texts(values))
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    edges = np.asarray(bins.edges)
    cell = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(edges.size - 2, 0)).astype(np.int64)
    cell = np.where(numbers < edges[0], BELOW, np.where(numbers > edges[-1], ABOVE, cell))
    if (reach := FAR_WIDTHS * (edges[-1] - edges[0])) > 0:  # nothing is far from the only value that there was
        cell = np.where((numbers < edges[0] - reach) | (numbers > edges[-1] + reach), FAR, cell)
    return np.where(np.isnan(numbers), MISSING, cell)


def texts(values: pd.Series[Any]) -> pa.Array | pa.ChunkedArray:
    """A column as the texts that categories are known by."""
    return pa.array(values.astype("string"), pa.large_string())


def assign_texts(bins: FeatureBins, values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """As `assign`, of `texts`."""
    known = pc.index_in(values, value_set=pa.array(bins.categories, values.type))
    if known.null_count:
        known = pc.if_else(pc.is_null(values), MISSING, pc.fill_null(known, UNSEEN))
    return np.asarray(known.to_numpy(), dtype=np.int64)


def slice_names(bins: FeatureBins) -> list[str]:
    """The names of a slice column's values, by cell.

    >>> slice_names(FeatureBins("origin", categories=("EWR", "JFK")))
    ['origin=EWR', 'origin=JFK']
    >>> slice_names(FeatureBins("age", edges=(0.0, 30.0, 99.0)))
    ['age=[0, 30)', 'age=[30, 99]']
    """
    if not bins.numeric:
        return [f"{bins.name}={c}" for c in bins.categories]
    labels = _distinct_labels(bins.edges)
    pairs = list(pairwise(labels))
    return [f"{bins.name}=[{a}, {b}{']' if i == len(pairs) - 1 else ')'}" for i, (a, b) in enumerate(pairs)]


def _distinct_labels(edges: tuple[float, ...]) -> list[str]:
    """The edges with as few digits as tell them apart, from 6 on: slices are kept by name."""
    for digits in range(6, 17):
        labels = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(labels)) >= len(set(edges)):
            return labels
    return [f"{edge:.17g}" for edge in edges]
