"""What a verdict says of promises: the owner's expectations, and whether a regression's errors are the usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationResult:
    """Validation: does the model still decide for the reasons that its owner agreed to?

    `bound` is the end of the `interval` (three standard errors of sampling on either side of `value`) that speaks most
    for the model. `passed` is false if even the bound is on the wrong side of `limit`, and None where the window does
    not tell. `baseline` is the value in the baseline, None where that does not tell either.
    """

    name: str
    asks: Literal["at least", "at most"]
    limit: float
    tier: Literal["page", "ticket"]
    passed: bool | None
    message: str
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None
    baseline: float | None = None
    feature: str | None = None
    group: str | None = None
    slice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalCoverage:
    """How many outcomes lie between prediction + `low` and prediction + `high`, which held `nominal` of the baseline's.

    `low` and `high` are in units of the prediction. `interval` is the 95 % interval of `observed`.
    """

    nominal: float
    low: float
    high: float
    observed: float
    interval: tuple[float, float]
    baseline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionCalibration:
    """Residuals of the newest mature cohort among those of the baseline.

    `bias` is the mean of outcome - prediction in units of the prediction, `bias_interval` its 95 % interval. `pit` are
    the shares of outcomes in 20 cells that held a twentieth of the baseline's residuals each, from far below the
    prediction to far above it; `pit_band` holds 90 % of the shares where nothing changed.
    """

    cohort_start: datetime
    cohort_end: datetime
    rows: int
    bias: float
    bias_interval: tuple[float, float]
    baseline_bias: float | None
    coverage: tuple[IntervalCoverage, ...]
    pit: tuple[float, ...]
    pit_band: tuple[float, float]
