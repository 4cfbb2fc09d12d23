"""What a verdict says of the calibration of a multiclass model as a whole (see `calibration_multiclass`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationErrors:
    """Smooth calibration error, Brier score, and debiased L2 error."""

    smece: float
    brier: float
    l2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticlassResult:
    """Calibration of the newest mature cohort, of the likeliest class and over classes; `baseline_*` of all its rows.

    `worst_class` has the largest smooth calibration error. `brier` is the mean over rows of the sum of squared errors
    over classes, from 0 to 2.
    """

    cohort_start: datetime
    cohort_end: datetime
    rows: int
    brier: float
    baseline_brier: float | None
    top: CalibrationErrors
    baseline_top: CalibrationErrors | None
    mean: CalibrationErrors
    baseline_mean: CalibrationErrors | None
    largest: CalibrationErrors
    baseline_largest: CalibrationErrors | None
    worst_class: str
