"""What a verdict says of labels that are late, few or absent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMaturity:
    """Whether the cohort that labels are taken from has them.

    `coverage` is the share of its predictions that are labelled by now. `negatives` and `positives` are the share of
    each class's labels that the baseline's `cohorts` had at this age (of all labels together in a regression, where
    both are the same), None where the baseline has too few complete cohorts. `mature` is whether both are 0.9 or more.
    """

    cohort_start: datetime
    cohort_end: datetime
    coverage: float
    negatives: float | None
    positives: float | None
    mature: bool | None
    cohorts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortEstimate:
    """A cohort some of whose labels are still missing; `age` is in windows since its end.

    `seen_*` are what the labels so far come to, right only if classes arrive equally fast. The estimates correct for
    how fast each class arrived in the baseline; None where too little of it has arrived. `calibration` is the base
    rate less the mean score. Intervals are 95 %. `*_bounds` need no assumption: whatever the missing labels turn
    out to be, the cohort's value lies between. `loss` is the mean squared error.
    """

    cohort_start: datetime
    cohort_end: datetime
    age: int
    rows: int
    labelled: int
    coverage: float
    base_rate_bounds: Interval
    loss_bounds: Interval
    seen_base_rate: float | None = None
    seen_loss: float | None = None
    base_rate: float | None = None
    base_rate_interval: Interval | None = None
    calibration: float | None = None
    calibration_interval: Interval | None = None
    loss: float | None = None
    loss_interval: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceEstimate:
    """A classifier's performance on this window's rows, estimated from their scores and without a label.

    `cbpe` takes a score to be worth what it was in the baseline; `pape` corrects that for the shares of one `feature`'s
    values. Both are blind to a change of what the same score and the same inputs mean. `baseline_*` are the baseline's
    labelled rows as they were. The shares of the confusion table are of all rows, from `threshold` on positive.
    """

    method: Literal["cbpe", "pape"]
    feature: str | None = None
    threshold: float
    true_positive: float
    false_positive: float
    true_negative: float
    false_negative: float
    accuracy: float
    auroc: float | None
    brier: float
    log_loss: float
    baseline_accuracy: float
    baseline_auroc: float | None
    baseline_brier: float
    baseline_log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEstimate:
    """A mean of the mature cohort from labels that were drawn at random, whatever the model and the inputs do.

    `of` is `label` (the base rate) or `loss`. `interval` is the 95 % interval; `audited` rows were drawn.
    """

    of: Literal["label", "loss"]
    audited: int
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelView:
    """All that is known of a window's labels beside the mature ones."""

    maturity: LabelMaturity | None = None
    cohorts: tuple[CohortEstimate, ...] = ()
    estimates: tuple[PerformanceEstimate, ...] = ()
    audit: tuple[AuditEstimate, ...] = ()
