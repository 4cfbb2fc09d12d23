"""A block of a summary's frame as an array: one pass over its rows, whatever the number of features and cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from whydrift.monitors.binning import OUTSIDE, FeatureBins

FloatArray = npt.NDArray[np.float64]


def width(features: Iterable[FeatureBins]) -> int:
    """Cells that every feature fits in: its own from the left, the codes of `binning.OUTSIDE` at the right end."""
    return max((max(len(b.edges) - 1, len(b.categories)) for b in features), default=0) + len(OUTSIDE)


def dense(
    frame: pd.DataFrame,
    block: str,
    names: Sequence[str],
    stats: Sequence[str],
    cells: int = 1,
    *,
    of: Literal["name", "slice"] = "name",
) -> FloatArray:
    """The block's values, shape (stats, names, cells); 0 where the frame has none. Names may be those `of` slices.

    Negative codes of cells count from the right end. With `cells=1` all cells of a name are added up.
    """
    at = np.flatnonzero(frame["block"] == block)
    stat, name = _places(frame["stat"], at, stats), _places(frame[of], at, names)
    known = (stat >= 0) & (name >= 0)
    index = (stat * len(names) + name) * cells + frame["cell"].to_numpy()[at] % cells
    size = len(stats) * len(names) * cells
    sums = np.bincount(index[known], weights=frame["value"].to_numpy()[at][known], minlength=size)
    return np.asarray(sums.reshape(len(stats), len(names), cells), dtype=np.float64)  # of nothing they are integers


def by_stat(frame: pd.DataFrame, block: str, **only: str) -> dict[str, float]:
    """The block's values by stat, added up over names, slices and cells, or over `only` the one name or slice."""
    chosen = (frame["block"] == block).to_numpy()
    for column, text in only.items():
        chosen = chosen & (frame[column] == text).to_numpy()
    at, found = np.flatnonzero(chosen), dict[str, float]()
    for stat, value in zip(frame["stat"].array.take(at), frame["value"].to_numpy()[at].tolist(), strict=True):
        found[stat] = found.get(stat, 0.0) + value
    return found


def _places(texts: pd.Series[Any], at: npt.NDArray[np.intp], among: Sequence[str]) -> npt.NDArray[np.int64]:
    """Where the texts of some rows stand among others; -1 where they do not. Arrow looks up twice as fast as pandas."""
    chosen = pa.array(texts.array.take(at), pa.large_string())
    found = pc.index_in(chosen, value_set=pa.array(list(among), pa.large_string())).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)
