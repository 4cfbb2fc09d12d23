"""What each feature contributes, and which part of the score shift is its own.

With a fixed background an explanation adds up, f(x) = base + sum_j phi_j(x), and so do means over windows:

    E_t f - E_0 f = sum_j (E_t phi_j - E_0 phi_j) + (base_t - base_0)

Each feature's part splits over its baseline cells (Kitagawa 1955; Oaxaca, Blinder 1973) into composition, its
own inputs moved between cells, and response, the same cell is answered differently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.dense import by_stat, dense, width
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]

SHARE_FLOOR = 1e-6  # a feature that died has a share of 0, and its logarithm must stay a number
_TOTAL_FLOOR = 1e-100  # so must the variance where all have died; squares of it are still above 0
_STATS = ("value", "square", "absolute", "cross")


@dataclass(frozen=True, slots=True)
class Moments:
    """Means over the explained rows of a window; arrays have shape (p,), in the layout's feature order.

    `absolute_total` is the mean over rows of the sum of absolute attributions, `residual` of what explanations miss of
    the output, and `*2` are means of squares. Units are `Layout.scale`. `rows` is the effective number of rows,
    (sum w)^2 / sum w^2 (Kish 1965). `groups` are the moments of the layout's groups, arrays (g,), and None in those
    themselves.
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
    residual: float
    residual2: float
    groups: Moments | None = None

    @property
    def share(self) -> FloatArray:
        """Each feature's part of the total absolute attribution, shape (p,), summing to 1; groups' parts overlap."""
        return np.asarray(self.absolute / max(self.absolute_total, np.finfo(float).tiny))

    @property
    def log_share(self) -> FloatArray:
        return np.log(np.maximum(self.share, SHARE_FLOOR))

    @property
    def log_share_variance(self) -> FloatArray:
        """Sampling variance of `log_share` by the delta method, shape (p,)."""
        return (
            _relative_variance(
                self.absolute,
                self.square,
                self.cross,
                np.asarray(self.absolute_total),
                np.asarray(self.absolute_total2),
            )
            / self.rows
        )

    @property
    def variance(self) -> FloatArray:
        """Variance over rows of each attribution, shape (p,)."""
        return np.maximum(self.square - self.value**2, 0.0)


def steady_log_share(now: Moments, before: Moments) -> tuple[FloatArray, FloatArray]:
    """The log of each share and its sampling variance, (p,), where rare features do not make it jump.

    As many of the baseline's rows as tell of one value, E phi^2 / (E |phi|)^2, are added to the window's, in units of
    the window's total: 1.6 of a normal attribution, 100 of one that a hundredth of the rows have. So in a window where
    such a feature happens to be absent its share is small and uncertain, and not minus infinity and certain.
    """
    known = before.absolute > SHARE_FLOOR * before.absolute_total
    extra = np.divide(before.square, before.absolute**2, out=np.zeros_like(before.square), where=known)
    unit = now.absolute_total / max(before.absolute_total, _TOTAL_FLOOR)
    rows = now.rows + extra

    def mixed(own: FloatArray | float, usual: FloatArray | float) -> FloatArray:
        return np.asarray((now.rows * own + extra * usual) / rows)

    absolute = mixed(now.absolute, before.absolute * unit)
    square, cross = mixed(now.square, before.square * unit**2), mixed(now.cross, before.cross * unit**2)
    total = mixed(now.absolute_total, before.absolute_total * unit)
    total2 = mixed(now.absolute_total2, before.absolute_total2 * unit**2)
    share = absolute / np.maximum(total, np.finfo(float).tiny)
    return np.log(np.maximum(share, SHARE_FLOOR)), _relative_variance(absolute, square, cross, total, total2) / rows


def _relative_variance(
    absolute: FloatArray, square: FloatArray, cross: FloatArray, total: FloatArray, total2: FloatArray
) -> FloatArray:
    """The variance that one row gives the log of a ratio of means; means of rows' |phi|, phi^2, |phi| T, T, and T^2."""
    total = np.maximum(total, _TOTAL_FLOOR)
    mean = np.maximum(absolute, SHARE_FLOOR * total)
    own = (square - absolute**2) / mean**2
    all_ = (total2 - total**2) / total**2
    both = (cross - absolute * total) / (mean * total)
    return np.asarray(np.maximum(own + all_ - 2 * both, 0.0))


def moments(frame: pd.DataFrame, layout: Layout) -> Moments | None:
    """The moments of a summary's frame; None where no row was explained, or with weights that round to 0."""
    total = by_stat(frame, "total") | by_stat(frame, "quality", name="")
    weight, weight2 = total.get("weight", 0.0), total.get("weight2", 0.0)
    if weight <= 0 or weight2 <= 0:
        return None
    mean = {stat: value / weight for stat, value in total.items()}
    value, square, absolute, cross = dense(frame, "attribution", layout.names, _STATS)[:, :, 0] / weight
    of_features = Moments(
        rows=weight**2 / weight2,
        value=value,
        square=square,
        absolute=absolute,
        cross=cross,
        absolute_total=float(absolute.sum()),
        absolute_total2=mean.get("absolute2", 0.0),
        output=mean.get("output", 0.0),
        output2=mean.get("output2", 0.0),
        base=mean.get("base", 0.0),
        residual=mean.get("residual", 0.0),
        residual2=mean.get("residual2", 0.0),
    )
    value, square, absolute, cross = dense(frame, "group", [g.name for g in layout.groups], _STATS)[:, :, 0] / weight
    groups = replace(of_features, value=value, square=square, absolute=absolute, cross=cross)
    return replace(of_features, groups=groups)


def logged_rows(frame: pd.DataFrame) -> float:
    """The effective number of all rows of a summary's frame, explained or not (Kish 1965); 0 without any."""
    whole = by_stat(frame, "rows")
    weight2 = whole.get("weight2", 0.0)
    return whole.get("weight", 0.0) ** 2 / weight2 if weight2 > 0 else 0.0


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
    weight, value = dense(frame, "attribution", layout.names, ("weight", "value"), width(layout.features))
    return Cells(weight, np.divide(value, weight, out=np.full_like(value, np.nan), where=weight > 0))


def split_cells(baseline: Cells, window: Cells) -> tuple[FloatArray, FloatArray]:
    """Composition and response of each cell, shapes (p, cells): Kitagawa's split before it is added up.

    A cell that one side never saw has no mean there: it takes the other side's, so that arriving in a new cell
    counts as composition.
    """
    p0, p1 = (
        c.weight / np.maximum(c.weight.sum(axis=1, keepdims=True), np.finfo(float).tiny) for c in (baseline, window)
    )
    m0 = np.nan_to_num(np.where(np.isnan(baseline.mean), window.mean, baseline.mean))
    m1 = np.nan_to_num(np.where(np.isnan(window.mean), baseline.mean, window.mean))
    return (p1 - p0) * (m0 + m1) / 2, (m1 - m0) * (p0 + p1) / 2


def split_shift(baseline: Cells, window: Cells) -> Split:
    """Kitagawa's split of the change of each mean attribution."""
    composition, response = split_cells(baseline, window)
    return Split(
        composition=composition.sum(axis=1),
        response=response.sum(axis=1),
        composition_size=np.abs(composition).sum(axis=1),
        response_size=np.abs(response).sum(axis=1),
    )


def cell_rates(frame: pd.DataFrame, layout: Layout, cell: int) -> FloatArray:
    """Share of the rows' weight in one of the cells (see `binning`) of each feature, shape (p,); NaN without rows."""
    weight = dense(frame, "input", layout.names, ("weight",), width(layout.features))[0]
    total = weight.sum(axis=1)
    return np.asarray(np.divide(weight[:, cell], total, out=np.full_like(total, np.nan), where=total > 0))
