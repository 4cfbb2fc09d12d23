"""What a verdict says of which feature makes the model wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLoss:
    """A feature's mean loss attribution, in units of the loss: above 0 it makes the model worse, below 0 better.

    `error` is the standard error of `value`, of sampled rows and of the background's choice together. `baseline` is
    the mean over the baseline's windows and `deviation` how much these differ. `effect` is `change` (value - baseline)
    in its standard errors, which count how windows differ; None where the baseline has too few windows to tell.
    """

    feature: str
    value: float
    error: float
    baseline: float | None = None
    deviation: float | None = None
    change: float | None = None
    effect: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossAttribution:
    """Of the newest mature cohort: how far each feature moves the loss, largest rise first. It has no part in status.

    The features' values sum to `mean - expected`: the mean loss of the sampled `rows`, and what it would be if the
    model knew no feature, by `background_rows` rows of the baseline. Rows were taken with the chance `rate`;
    `left_out` of them could not be explained.
    """

    cohort_start: datetime
    cohort_end: datetime
    loss: str
    rows: int
    left_out: int
    rate: float
    background_rows: int
    mean: float
    expected: float
    baseline_mean: float | None
    baseline_expected: float | None
    features: tuple[FeatureLoss, ...]
