"""What a baseline fixes: settings, layout, limits, detector and usual values, fitted once a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors import evidence as ev
from whydrift.monitors.attribution import Cells, Moments, cells, moments, split_shift
from whydrift.monitors.checks import Limits, fit_limits
from whydrift.monitors.diagnosis import SplitNull, fit_split_null
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.streams import (
    Loss,
    UsualCalibration,
    list_streams,
    losses,
    observe,
    usual_calibration,
)
from whydrift.monitors.summary import Layout, WindowSummary, merge

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the owner says about one model; `lag` is the number of windows until a cohort's labels are mature."""

    width: timedelta
    min_rows: int
    labels: bool
    lag: int
    thresholds: ev.Thresholds
    false_pages: float
    period: timedelta
    groups: Mapping[str, Sequence[str]]
    policy: RetrainingPolicy


@dataclass(frozen=True, slots=True)
class BaselineWindow:
    """A window of the reference period; `outcomes` are its own."""

    start: datetime
    summary: WindowSummary
    outcomes: WindowSummary | None


@dataclass(frozen=True, slots=True)
class Reference:
    """All that the baseline says, fitted once a process."""

    layout: Layout
    settings: Settings
    limits: Limits
    detector: ev.Detector
    moments: Moments
    cells: Cells
    null: SplitNull
    deviation: FloatArray
    frame: pd.DataFrame
    calibration: UsualCalibration
    losses: Mapping[str, Loss]
    windows: int


def refer(windows: Sequence[BaselineWindow], layout: Layout, settings: Settings, digests: dict[str, str]) -> Reference:
    """Fit everything that the baseline fixes: limits, deviations, and the detector, warmed up on its windows."""
    whole = merge([w.summary for w in windows]).frame()
    together = moments(whole, layout)
    if together is None:
        raise ValueError("a baseline needs explained rows")
    deviation = np.maximum(np.sqrt(together.variance), 1e-9)
    frames = [w.summary.frame() for w in windows]
    outcomes = {w.start: w.outcomes.frame() for w in windows if w.outcomes is not None}
    lag = settings.lag * settings.width
    judged = [judged_moments(frame, layout, settings) for frame in frames]
    observations = [
        observe(w.start, now, outcomes.get(w.start - lag), layout, deviation, labels=settings.labels)
        for w, now in zip(windows, judged, strict=True)
    ]
    reference_cells = cells(whole, layout)
    return Reference(
        layout=layout,
        settings=settings,
        limits=fit_limits(frames, layout, digests),
        detector=ev.fit(
            list_streams(layout, labels=settings.labels), observations, settings.width, settings.thresholds
        ),
        moments=together,
        cells=reference_cells,
        null=fit_split_null(
            [
                split_shift(reference_cells, cells(frame, layout))
                for frame, now in zip(frames, judged, strict=True)
                if now is not None
            ],
            len(layout.features),
        ),
        deviation=deviation,
        frame=whole,
        calibration=usual_calibration(list(outcomes.values())),
        losses=losses(pd.concat(outcomes.values(), ignore_index=True)) if outcomes else {},
        windows=len(windows),
    )


def judged_moments(frame: pd.DataFrame, layout: Layout, settings: Settings) -> Moments | None:
    """The moments of a window, None with too few rows: their sampling variance would be a guess."""
    explained = frame.loc[(frame["block"] == "quality") & (frame["stat"] == "explained"), "value"].sum()
    return moments(frame, layout) if explained >= settings.min_rows else None
