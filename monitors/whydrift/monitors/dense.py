"""A block of a summary's frame as an array: one pass over its rows, whatever the number of features and cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import OUTSIDE, FeatureBins

FloatArray = npt.NDArray[np.float64]


def width(features: Iterable[FeatureBins]) -> int:
    """Cells that every feature fits in: its own from the left, the codes of `binning.OUTSIDE` at the right end."""
    return max((max(len(b.edges) - 1, len(b.categories)) for b in features), default=0) + len(OUTSIDE)


def dense(frame: pd.DataFrame, block: str, names: Sequence[str], stats: Sequence[str], cells: int = 1) -> FloatArray:
    """The block's values, shape (stats, names, cells); 0 where the frame has none.

    Negative codes of cells count from the right end. With `cells=1` all cells of a name are added up.
    """
    rows = frame[frame["block"] == block]
    stat, name = (pd.Index(keys).get_indexer(pd.Index(rows[key])) for keys, key in ((stats, "stat"), (names, "name")))
    known = (stat >= 0) & (name >= 0)
    index = (stat * len(names) + name) * cells + rows["cell"].to_numpy() % cells
    size = len(stats) * len(names) * cells
    sums = np.bincount(index[known], weights=rows["value"].to_numpy()[known], minlength=size)
    return np.asarray(sums.reshape(len(stats), len(names), cells), dtype=np.float64)  # of nothing they are integers
