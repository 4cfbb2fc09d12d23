"""What each feature contributes, and which part of the score shift is its own.

With a fixed background an explanation adds up, f(x) = base + sum_j phi_j(x), and so do means over windows:

    E_t f - E_0 f = sum_j (E_t phi_j - E_0 phi_j) + (base_t - base_0)

Each feature's part splits over its baseline cells (Kitagawa 1955; Oaxaca, Blinder 1973) into composition, its
own inputs moved between cells, and response, the same cell is answered differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import OUTSIDE
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]

SHARE_FLOOR = 1e-6  # a feature that died has a share of 0, and its logarithm must stay a number
_TOTAL_FLOOR = 1e-100  # so must the variance where all have died; squares of it are still above 0
_STATS = ("weight", "value", "square", "absolute", "cross")


@dataclass(frozen=True, slots=True)
class Moments:
    """Means over the explained rows of a window; arrays have shape (p,), in the layout's feature order.

    `absolute_total` is the mean over rows of the sum of absolute attributions, and `*2` are means of squares.
    Units are `Layout.scale`. `rows` is the effective number of rows, (sum w)^2 / sum w^2.
    """

    rows: float
    value: FloatArray
    square: FloatArray
    absolute: FloatArray
    cross: FloatArray
    absolute_total: float
    absolute_total2: float
    output: float
    output2: float
    base: float

    @property
    def share(self) -> FloatArray:
        """Each feature's part of the total absolute attribution, shape (p,), summing to 1."""
        return np.asarray(self.absolute / max(self.absolute.sum(), np.finfo(float).tiny))

    @property
    def log_share(self) -> FloatArray:
        return np.log(np.maximum(self.share, SHARE_FLOOR))

    @property
    def log_share_variance(self) -> FloatArray:
        """Sampling variance of `log_share` by the delta method, shape (p,)."""
        total = max(self.absolute_total, _TOTAL_FLOOR)
        mean = np.maximum(self.absolute, SHARE_FLOOR * total)
        own = (self.square - self.absolute**2) / mean**2
        all_ = (self.absolute_total2 - self.absolute_total**2) / total**2
        both = (self.cross - self.absolute * self.absolute_total) / (mean * total)
        return np.asarray(np.maximum(own + all_ - 2 * both, 0.0) / self.rows)

    @property
    def variance(self) -> FloatArray:
        """Variance over rows of each attribution, shape (p,)."""
        return np.maximum(self.square - self.value**2, 0.0)


def moments(frame: pd.DataFrame, layout: Layout) -> Moments | None:
    """The moments of a summary's frame; None where no row was explained, or with weights that round to 0."""
    total = frame[frame["block"] == "total"].set_index("stat")["value"]
    weight, weight2 = float(total.get("weight", 0.0)), float(total.get("weight2", 0.0))
    if weight <= 0 or weight2 <= 0:
        return None
    sums = (
        frame[frame["block"] == "attribution"]
        .pivot_table(index="name", columns="stat", values="value", aggfunc="sum")
        .reindex(index=list(layout.names), columns=list(_STATS))
        .fillna(0.0)
    )
    per_row = {stat: sums[stat].to_numpy() / weight for stat in _STATS}
    stats = ("absolute", "absolute2", "output", "output2", "base")
    means = {stat: float(total.get(stat, 0.0)) / weight for stat in stats}
    return Moments(
        rows=weight**2 / weight2,
        value=per_row["value"],
        square=per_row["square"],
        absolute=per_row["absolute"],
        cross=per_row["cross"],
        absolute_total=means["absolute"],
        absolute_total2=means["absolute2"],
        output=means["output"],
        output2=means["output2"],
        base=means["base"],
    )


@dataclass(frozen=True, slots=True)
class Split:
    """Each feature's shift, split; arrays (p,), in units of `Layout.scale`.

    `composition` and `response` are signed and sum to the shift. The `*_size` are the same sums over cells of
    absolute terms: they do not cancel, and have a mean above 0 where nothing moved.
    """

    composition: FloatArray
    response: FloatArray
    composition_size: FloatArray
    response_size: FloatArray

    @property
    def shift(self) -> FloatArray:
        return self.composition + self.response


@dataclass(frozen=True, slots=True)
class Cells:
    """A window's explained weight and mean attribution in each cell, shapes (p, cells); means are NaN where empty."""

    weight: FloatArray
    mean: FloatArray


def cells(frame: pd.DataFrame, layout: Layout) -> Cells:
    """The attribution block of a summary's frame as dense arrays."""
    width = max((max(len(b.edges) - 1, len(b.categories)) for b in layout.features), default=0) + len(OUTSIDE)
    block = frame[frame["block"] == "attribution"]
    feature = pd.Index(layout.names).get_indexer(pd.Index(block["name"]))
    cell = block["cell"].to_numpy() % width  # the negative codes lie at the end
    sums = {}
    for stat in ("weight", "value"):
        chosen = (block["stat"] == stat).to_numpy()
        sums[stat] = np.zeros((len(layout.features), width))
        sums[stat][feature[chosen], cell[chosen]] = block["value"].to_numpy()[chosen]
    mean = np.divide(sums["value"], sums["weight"], out=np.full_like(sums["value"], np.nan), where=sums["weight"] > 0)
    return Cells(sums["weight"], mean)


def split_shift(baseline: Cells, window: Cells) -> Split:
    """Kitagawa's split of the change of each mean attribution.

    A cell that one side never saw has no mean there: it takes the other side's, so that arriving in a new cell
    counts as composition.
    """
    p0, p1 = (
        c.weight / np.maximum(c.weight.sum(axis=1, keepdims=True), np.finfo(float).tiny) for c in (baseline, window)
    )
    m0 = np.nan_to_num(np.where(np.isnan(baseline.mean), window.mean, baseline.mean))
    m1 = np.nan_to_num(np.where(np.isnan(window.mean), baseline.mean, window.mean))
    composition, response = (p1 - p0) * (m0 + m1) / 2, (m1 - m0) * (p0 + p1) / 2
    return Split(
        composition=composition.sum(axis=1),
        response=response.sum(axis=1),
        composition_size=np.abs(composition).sum(axis=1),
        response_size=np.abs(response).sum(axis=1),
    )


def cell_rates(frame: pd.DataFrame, layout: Layout, cell: int) -> FloatArray:
    """Share of rows in one of the cells (see `binning`) of each feature, shape (p,); NaN without rows."""
    block = frame[(frame["block"] == "input") & (frame["stat"] == "rows")]
    count = block[block["cell"] == cell].groupby("name")["value"].sum().reindex(list(layout.names)).fillna(0.0)
    rows = block.groupby("name")["value"].sum().reindex(list(layout.names))
    return np.asarray((count / rows).to_numpy(), dtype=np.float64)
