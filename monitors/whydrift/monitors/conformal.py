"""Whether the errors of a regression are still those that the baseline had.

No predictive distribution is logged, so the baseline's own residuals, outcome - prediction, stand for one: prediction
intervals are the prediction plus two of their quantiles, as in split conformal prediction (Papadopoulos et al. 2002,
doi 10.1007/3-540-36755-1_29; Lei et al. 2018, doi 10.1080/01621459.2017.1307116). They hold for all rows together, and
not for rows of every kind: a model that is sure of some rows and not of others shows the mean of both.

A baseline fixes 39 quantiles, each a fortieth apart. A window's outcomes are counted between them, from which follow
the histogram of the probability integral transform (Dawid 1984, doi 10.2307/2981683) and the coverage of the central
intervals of 50, 80, 90 and 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import GRAIN
from whydrift.monitors.dense import by_stat, dense
from whydrift.monitors.summary_terms import Rows, term
from whydrift.monitors.verdict_validation import IntervalCoverage, RegressionCalibration

FloatArray = npt.NDArray[np.float64]

CELLS = 40
PIT_CELLS = 20
MIN_RESIDUALS = 10 * CELLS  # of a baseline: the outermost quantiles of fewer are hardly known
# Central intervals as the cells that they span.
INTERVALS = {0.5: (10, 30), 0.8: (4, 36), 0.9: (2, 38), 0.95: (1, 39)}
_TWO_SIDED_95, _TWO_SIDED_90 = 1.959964, 1.644854


@dataclass(frozen=True, slots=True)
class Residuals:
    """A cohort's labelled rows by residual, in units of `Layout.loss_scale`.

    `weight` (40,) is that between the baseline's quantiles, `mean` and `variance` are those of the residuals, and
    `rows` is the effective number of rows (Kish 1965).
    """

    weight: FloatArray
    mean: float
    variance: float
    rows: float

    def coverage(self, nominal: float) -> float:
        """The part of the outcomes in the central interval."""
        first, last = INTERVALS[nominal]
        return float(self.weight[first:last].sum() / self.weight.sum())

    @property
    def pit(self) -> FloatArray:
        """Shares of outcomes by cell of the probability integral transform, (20,): equal ones where nothing changed."""
        return np.asarray(self.weight.reshape(PIT_CELLS, -1).sum(axis=1) / self.weight.sum())


def fit_residual_edges(residuals: FloatArray, weight: FloatArray) -> tuple[float, ...]:
    """The 39 quantiles of a baseline's residuals, (n,) both; empty where there are too few.

    Of n equal rows the lower ones are the floor((n + 1) k / 40)-th smallest residuals and the upper ones the ceil, so
    that a new row of the same kind lies in a central interval at least as often as its name says. They are half a
    grain wider, so that rounding carries no residual over an edge.
    """
    order = np.argsort(residuals, kind="stable")
    ordered, w = residuals[order], weight[order]
    if float(w.sum()) ** 2 < MIN_RESIDUALS * float((w**2).sum()) or not w.any():
        return ()
    at = np.cumsum(w) / (w.sum() + w.mean())
    aims = np.arange(1, CELLS) / CELLS
    slack = 1e-12  # a sum of weights may miss the part that it comes to
    lower = ordered[np.maximum(np.searchsorted(at, aims + slack, side="right") - 1, 0)] - GRAIN / 2
    upper = ordered[np.minimum(np.searchsorted(at, aims - slack, side="left"), w.size - 1)] + GRAIN / 2
    return tuple(map(float, np.where(aims < 0.5, lower, upper)))


def residual_terms(edges: tuple[float, ...], residuals: FloatArray, weight: FloatArray) -> Iterator[Rows]:
    """The sums of labelled rows, (n,) both; nothing where the baseline has no quantiles."""
    if edges:
        yield term("residual", "weight", weight, cells=np.searchsorted(np.array(edges), residuals, side="left"))
        yield term("residual", "value", weight * residuals)


def read_residuals(outcomes: pd.DataFrame) -> Residuals | None:
    """Those of a cohort's frame, or of several together; None where it has none."""
    weight = dense(outcomes, "residual", ("",), ("weight",), CELLS)[0, 0]
    whole = by_stat(outcomes, "loss", slice="")
    total, weight2 = whole.get("weight", 0.0), whole.get("weight2", 0.0)
    if weight.sum() <= 0 or total <= 0 or weight2 <= 0:
        return None
    mean = float(dense(outcomes, "residual", ("",), ("value",)).sum()) / total
    return Residuals(
        weight=weight,
        mean=mean,
        variance=max(float(whole.get("loss", 0.0)) / total - mean**2, 0.0),
        rows=total**2 / weight2,
    )


def tell_regression(
    now: Residuals,
    before: Residuals | None,
    edges: tuple[float, ...],
    unit: float,
    cohort: tuple[datetime, datetime],
    rows: int,
) -> RegressionCalibration:
    """A cohort's residuals among the baseline's; `unit` is `Layout.loss_scale`, `rows` counts the labelled ones."""
    error = _TWO_SIDED_95 * sqrt(now.variance / now.rows)
    usual = 1 / PIT_CELLS
    noise = 1 / now.rows + (1 / before.rows if before is not None else 0.0)
    reach = _TWO_SIDED_90 * sqrt(usual * (1 - usual) * noise)
    return RegressionCalibration(
        cohort_start=cohort[0],
        cohort_end=cohort[1],
        rows=rows,
        bias=now.mean * unit,
        bias_interval=((now.mean - error) * unit, (now.mean + error) * unit),
        baseline_bias=before.mean * unit if before is not None else None,
        coverage=tuple(
            IntervalCoverage(
                nominal=nominal,
                low=edges[first - 1] * unit,
                high=edges[last - 1] * unit,
                observed=now.coverage(nominal),
                interval=wilson(now.coverage(nominal), now.rows),
                baseline=before.coverage(nominal) if before is not None else None,
            )
            for nominal, (first, last) in INTERVALS.items()
        ),
        pit=tuple(map(float, now.pit)),
        pit_band=(max(usual - reach, 0.0), min(usual + reach, 1.0)),
    )


def wilson(rate: float, rows: float) -> tuple[float, float]:
    """The 95 % interval of a rate of so many rows (Wilson 1927, doi 10.2307/2276774).

    >>> [round(end, 3) for end in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    z2 = _TWO_SIDED_95**2 / rows
    centre = (rate + z2 / 2) / (1 + z2)
    reach = sqrt(max(rate * (1 - rate) * z2 + z2**2 / 4, 0.0)) / (1 + z2)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)
