"""The sums that reason contracts are read from, and the numbers they give, each with its interval.

Intervals are three standard errors of sampling to either side: of a window's rows, not of what windows differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from whydrift.monitors.binning import ABOVE, BELOW, GRAIN
from whydrift.monitors.dense import by_stat, dense, width
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]

Z = 3.0
_CHANCE = 1 / 741  # that a normal variable lies so far above its mean
MIN_IN_CELL = 10.0  # rows, for a cell's own mean and variance
_SIZES = ("absolute", "square", "cross")
_CELLS = ("weight", "value", "square")


@dataclass(frozen=True, slots=True)
class Sums:
    """Of the rows of a window, or of a slice in it, in units of `Layout.scale`.

    `total` is the sum of all absolute attribution, `total2` of its squares by row. `features` (3, p) and `groups`
    (3, g) are sums of |phi|, phi^2 and |phi| T, where T is a row's total; `cells` (3, p, cells) of weight, phi and
    phi^2 by the feature's own cells.
    """

    weight: float
    weight2: float
    total: float
    total2: float
    features: FloatArray
    groups: FloatArray
    cells: FloatArray

    @property
    def rows(self) -> float:
        """Effective rows (Kish 1965)."""
        return self.weight**2 / self.weight2


@dataclass(frozen=True, slots=True)
class Measured:
    """A value with its interval; `what` is the feature that the value turned out to be of, where it could be any."""

    value: float
    low: float
    high: float
    what: str | None = None


def read_sums(frame: pd.DataFrame, layout: Layout, slice_: str | None = None) -> Sums | None:
    """Those of a summary's frame; None without rows, or where the summary was made without this slice."""
    prefix = "" if slice_ is None else "contract_"
    if slice_ is not None:
        frame = frame[frame["slice"] == slice_]
    whole = by_stat(frame, f"{prefix}total")
    weight, weight2 = whole.get("weight", 0.0), whole.get("weight2", 0.0)
    if weight <= 0 or weight2 <= 0:
        return None
    features = dense(frame, f"{prefix}attribution", layout.names, _SIZES)[:, :, 0]
    return Sums(
        weight=weight,
        weight2=weight2,
        total=float(features[0].sum()) if slice_ is None else whole.get("absolute", 0.0),
        total2=whole.get("absolute2", 0.0),
        features=features,
        groups=dense(frame, f"{prefix}group", [g.name for g in layout.groups], _SIZES)[:, :, 0],
        cells=dense(
            frame,
            "attribution" if slice_ is None else "contract_cells",
            layout.names,
            _CELLS,
            width(layout.features),
        ),
    )


def pool(windows: Sequence[Sums]) -> Sums:
    """The rows of all windows together; at least one."""
    return Sums(
        weight=sum(w.weight for w in windows),
        weight2=sum(w.weight2 for w in windows),
        total=sum(w.total for w in windows),
        total2=sum(w.total2 for w in windows),
        features=np.sum([w.features for w in windows], axis=0),
        groups=np.sum([w.groups for w in windows], axis=0),
        cells=np.sum([w.cells for w in windows], axis=0),
    )


def share(sums: Sums, sizes: FloatArray) -> Measured | None:
    """A feature's or group's part of all absolute attribution; `sizes` (3,) are its sums. None if all are 0.

    A ratio of two means, whose variance is that of |phi| - share T to first order; the interval is that of its
    logarithm, so it stays above 0.
    """
    if sums.total <= 0:
        return None
    absolute, square, cross = (float(s) for s in sizes)
    value = absolute / sums.total
    spread = (square - 2 * value * cross + value**2 * sums.total2) / sums.weight
    error = sqrt(max(spread, 0.0) / sums.rows) / (sums.total / sums.weight)
    reach = exp(min(Z * error / value, 300.0)) if value > 0 else 1.0
    return Measured(value, value / reach, min(value * reach, 1.0))


def largest(sums: Sums, names: Sequence[str]) -> Measured | None:
    """The largest share of one feature."""
    if sums.total <= 0 or not names:
        return None
    top = int(np.argmax(sums.features[0]))
    found = share(sums, sums.features[:, top])
    return Measured(found.value, found.low, found.high, names[top]) if found is not None else None


@dataclass(frozen=True, slots=True)
class _Response:
    """Mean attributions in a numeric feature's cells, in the order of its values, (b,).

    `part` is each cell's share of the weight of all these, `variance` that of the mean.
    """

    part: FloatArray
    mean: FloatArray
    variance: FloatArray


def _response(sums: Sums, layout: Layout, feature: str) -> _Response | None:
    """Cells with too few rows are left out, as are missing values and those far out of range; None below two cells."""
    j = layout.names.index(feature)
    order = [BELOW, *range(len(layout.features[j].edges) - 1), ABOVE]
    weight, value, square = sums.cells[:, j, order]
    rows = weight / sums.weight * sums.rows
    enough = rows >= MIN_IN_CELL
    if enough.sum() < 2:
        return None
    weight, value, square, rows = weight[enough], value[enough], square[enough], rows[enough]
    mean = value / weight
    return _Response(weight / weight.sum(), mean, np.maximum(square / weight - mean**2, 0.0) / rows)


def direction(sums: Sums, layout: Layout, feature: str) -> Measured | None:
    """Spearman's correlation, over rows, of a row's cell and the mean attribution in that cell, in [-1, 1].

    0 where the means do not differ: then the feature has no effect in either direction. Ranks of means have no
    simple error, so the correlation's is that of a statistic that is normal even where all means are alike: their
    covariance with the ranks of the cells. If that has the other sign, the interval reaches to the other end.
    """
    response = _response(sums, layout, feature)
    if response is None:
        return None
    of_cell = _midranks(np.arange(response.mean.size), response.part)
    of_mean = _midranks(response.mean, response.part)
    x, y = of_cell - response.part @ of_cell, of_mean - response.part @ of_mean
    if np.ptp(response.mean) <= GRAIN:
        return Measured(0.0, 0.0, 0.0)
    spread = sqrt(float(response.part @ x**2) * float(response.part @ y**2))
    value = float(np.clip(response.part @ (x * y) / spread, -1.0, 1.0))
    slope = float(response.part @ (x * response.mean))
    error = sqrt(float((response.part * x) ** 2 @ response.variance))
    if slope * value <= 0:
        return Measured(value, -1.0 if value > 0 else value, 1.0 if value < 0 else value)
    reach = Z * abs(value) * error / abs(slope)
    return Measured(value, max(value - reach, -1.0), min(value + reach, 1.0))


def _midranks(values: npt.NDArray[np.generic], part: FloatArray) -> FloatArray:
    """The mean rank of the rows that share a value, in parts of all rows; (b,)."""
    dense_rank = rankdata(values, method="dense") - 1
    together = np.bincount(dense_rank, weights=part)
    return np.asarray((np.cumsum(together) - together / 2)[dense_rank])


def monotone(sums: Sums, layout: Layout, feature: str, *, rising: bool) -> Measured | None:
    """How far the mean attributions of the cells are from monotone: root mean square distance / range, in [0, 1].

    The nearest monotone means are those of isotonic regression, weighted by rows. The distance of a point from a
    convex set changes by no more than the point moves, so noise adds at most its own length, which is sqrt(V) in the
    mean and beyond that by chance t with probability exp(-t^2 / (2 L)), where V sums the cells' weighted variances
    and L is the largest (Gaussian concentration; Boucheron, Lugosi & Massart 2013, theorem 5.6).
    """
    response = _response(sums, layout, feature)
    if response is None:
        return None
    span = float(np.ptp(response.mean))
    if span <= GRAIN:
        return Measured(0.0, 0.0, 0.0)
    nearest = isotonic_regression(response.mean, weights=response.part, increasing=rising).x
    distance = sqrt(float(response.part @ (response.mean - nearest) ** 2))
    noise = response.part * response.variance
    reach = sqrt(float(noise.sum())) + sqrt(-2 * log(_CHANCE) * float(noise.max()))
    return Measured(distance / span, max(distance - reach, 0.0) / span, (distance + reach) / span)
