"""What a baseline fixes: settings, layout, limits, detector and usual values, fitted once a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from whydrift.monitors import evidence as ev
from whydrift.monitors.attribution import Cells, Moments, cells, moments
from whydrift.monitors.calibration_multiclass import ClassMeshes
from whydrift.monitors.checks import Limits, fit_limits
from whydrift.monitors.class_sums import as_seen_by, head_names, heads, read_class_meshes
from whydrift.monitors.conformal import Residuals, read_residuals
from whydrift.monitors.contract_sums import Measured
from whydrift.monitors.distances import Counts, counts
from whydrift.monitors.expectations import Expectation, check_expectations, measure_all
from whydrift.monitors.fairness import UsualGaps, fit_usual_gaps
from whydrift.monitors.loss_attribution import UsualLosses, fit_usual_losses
from whydrift.monitors.outcome_streams import Loss, UsualCalibration, losses, usual_calibration
from whydrift.monitors.performance import usual_rates
from whydrift.monitors.policy import RetrainingPolicy, UsualLoss, fit_usual_loss
from whydrift.monitors.shifts import Null, fit_null, sums
from whydrift.monitors.slices import SearchRules
from whydrift.monitors.stream_input import StreamBaseline, StreamInput, fit_stream_baseline
from whydrift.monitors.streams import list_streams, observe
from whydrift.monitors.summary import Layout, WindowSummary, merge
from whydrift.monitors.threshold import Calibrated, calibrate
from whydrift.monitors.verdict import Mute
from whydrift.monitors.verdict_validation import ExpectationResult


@dataclass(frozen=True, slots=True)
class Settings:
    """What the owner says about one model; `lag` is the number of windows until a cohort's labels are mature.

    `tolerances` are harmless shifts by kind of stream, in the units that the configuration documents; `calibrated` is
    where `thresholds.page` comes from, None where that is the guaranteed one.
    """

    width: timedelta
    min_rows: int
    labels: bool
    lag: int
    thresholds: ev.Thresholds
    false_pages: float
    period: timedelta
    groups: Mapping[str, Sequence[str]]
    policy: RetrainingPolicy
    search: SearchRules = field(default_factory=SearchRules)
    tolerances: Mapping[str, float] = field(default_factory=dict)
    holidays: frozenset[date] = frozenset()
    mutes: tuple[Mute, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    calibrated: Calibrated | None = None


@dataclass(frozen=True, slots=True)
class BaselineWindow:
    """A window of the reference period; `outcomes` are its own."""

    start: datetime
    summary: WindowSummary
    outcomes: WindowSummary | None


@dataclass(frozen=True, slots=True)
class HeadReference:
    """What the baseline says of one head: of a class, or of a model that has none, whose head has no name.

    `layout` is the head's own, `frame` that of all of the baseline's rows as the head sees them.
    """

    name: str | None
    layout: Layout
    frame: pd.DataFrame
    moments: Moments
    cells: Cells
    null: Null
    streams: StreamBaseline
    calibration: UsualCalibration


@dataclass(frozen=True, slots=True)
class Reference:
    """All that the baseline says, fitted once a process; `frame` and `meshes` are of all of its rows, the latter of
    a multiclass model's.
    """

    layout: Layout
    settings: Settings
    limits: Limits
    detector: ev.Detector
    observations: tuple[ev.Observation, ...]
    heads: tuple[HeadReference, ...]
    frame: pd.DataFrame
    meshes: ClassMeshes | None
    losses: Mapping[str, Loss]
    usual_loss: UsualLoss | None
    loss_attribution: UsualLosses | None
    gaps: UsualGaps
    residuals: Residuals | None
    windows: int
    reasons: Mapping[str, Measured | str]

    def head(self, name: str | None) -> HeadReference:
        """The head of a class, or of a model without classes the only one."""
        return next((head for head in self.heads if head.name == name), self.heads[0])


def refer(windows: Sequence[BaselineWindow], layout: Layout, settings: Settings, digests: dict[str, str]) -> Reference:
    """Fit everything that the baseline fixes: limits, deviations, and the detector, warmed up on its windows."""
    whole = merge([w.summary for w in windows]).frame()
    frames = [w.summary.frame() for w in windows]
    outcomes = {w.start: w.outcomes.frame() for w in windows if w.outcomes is not None}
    seen, lag = _by_head(frames, layout), settings.lag * settings.width
    late = [dict(zip(outcomes, side, strict=True)) for side in _by_head(list(outcomes.values()), layout)]
    judged = [
        [judged_moments(frame, one, settings) for frame in own] for one, own in zip(heads(layout), seen, strict=True)
    ]
    counted = [[counts(frame, one) for frame in own] for one, own in zip(heads(layout), seen, strict=True)]
    fitted = [
        _fit_head(
            name, one, [_Judged(f, c, now) for f, c, now in zip(*own, strict=True) if now is not None], all_rows, known
        )
        for name, one, all_rows, known, *own in zip(
            head_names(layout), heads(layout), as_seen_by(whole, layout), late, seen, counted, judged, strict=True
        )
    ]
    observations = tuple(
        observe(
            [
                StreamInput(w.start, own[i], mean[i], known.get(w.start - lag), head.streams.without(count[i]))
                for own, count, mean, head, known in zip(seen, counted, judged, fitted, late, strict=True)
            ],
            layout,
            labels=settings.labels,
        )
        for i, w in enumerate(windows)
    )
    labelled = pd.concat(outcomes.values(), ignore_index=True) if outcomes else None
    own = [outcomes.get(w.start) for w in windows]
    return Reference(
        layout=layout,
        settings=settings,
        limits=fit_limits(frames, layout, digests, own),
        detector=ev.fit(
            _tolerant(list_streams(layout, labels=settings.labels), layout, settings),
            observations,
            settings.width,
            settings.thresholds,
            holidays=settings.holidays,
            mutes=settings.mutes,
        ),
        observations=observations,
        heads=tuple(fitted),
        frame=whole,
        meshes=_meshes(windows, layout),
        losses=losses(labelled) if labelled is not None else {},
        usual_loss=fit_usual_loss(
            [found[""].mean * layout.loss_scale**2 for f in outcomes.values() if "" in (found := losses(f))]
        ),
        loss_attribution=fit_usual_losses(list(outcomes.values()), layout),
        gaps=fit_usual_gaps(frames, list(outcomes.values()), layout),
        residuals=read_residuals(labelled) if labelled is not None else None,
        windows=len(windows),
        reasons=measure_all(settings.expectations, whole, layout, settings.min_rows),
    )


def _meshes(windows: Sequence[BaselineWindow], layout: Layout) -> ClassMeshes | None:
    if not layout.classes:
        return None
    return read_class_meshes(merge([w.outcomes for w in windows if w.outcomes is not None]).frame(), layout)


def _by_head(frames: Sequence[pd.DataFrame], layout: Layout) -> list[list[pd.DataFrame]]:
    """The frames as each head sees them, one list a head."""
    views = [as_seen_by(frame, layout) for frame in frames]
    return [[view[number] for view in views] for number in range(len(heads(layout)))]


class _Judged(NamedTuple):
    """A window of the baseline as a head sees it."""

    frame: pd.DataFrame
    counts: Counts
    moments: Moments


def _fit_head(
    name: str | None,
    layout: Layout,
    judged: Sequence[_Judged],
    whole: pd.DataFrame,
    outcomes: Mapping[datetime, pd.DataFrame],
) -> HeadReference:
    """From the windows that can be judged, all of the baseline's rows, and its outcomes, as the head sees them."""
    together = moments(whole, layout)
    if together is None:
        raise ValueError("a baseline needs explained rows")
    fixed = fit_stream_baseline(whole, together, [window.counts for window in judged], layout)
    shifts = [sums(cells(window.frame, layout), window.moments.rows) for window in judged]
    return HeadReference(
        name=name,
        layout=layout,
        frame=whole,
        moments=together,
        cells=cells(whole, layout),
        null=fit_null(whole, layout, shifts),
        streams=replace(fixed, recalibrated=usual_rates(list(outcomes.values()))),
        calibration=usual_calibration(list(outcomes.values())),
    )


def hold_against(reference: Reference, frame: pd.DataFrame) -> tuple[ExpectationResult, ...]:
    """What a window's frame says of each expectation."""
    settings = reference.settings
    return check_expectations(
        settings.expectations, frame, reference.layout, settings.min_rows, usual=reference.reasons
    )


def calibrate_page(reference: Reference, rng: np.random.Generator) -> Calibrated:
    """The page threshold that the baseline's own noise asks for; takes up to a minute, so do it once a baseline.

    Raises ValueError for a baseline that is too short for a budget.
    """
    settings = reference.settings
    return calibrate(
        reference.detector.streams,
        reference.observations,
        settings.width,
        settings.false_pages,
        settings.period,
        rng,
        holidays=settings.holidays,
    )


def _tolerant(streams: Sequence[ev.Stream], layout: Layout, settings: Settings) -> tuple[ev.Stream, ...]:
    """The streams with what the owner calls harmless, from units of the output or loss to those of the stream."""
    units = {"score_mean": layout.scale, "bias": layout.loss_scale, "loss": layout.loss_scale**2}
    given = settings.tolerances
    return tuple(
        replace(stream, tolerance=given[stream.kind] / units.get(stream.kind, 1.0)) if stream.kind in given else stream
        for stream in streams
    )


def judged_moments(frame: pd.DataFrame, layout: Layout, settings: Settings) -> Moments | None:
    """The moments of a window, None with too few rows: their sampling variance would be a guess."""
    explained = frame.loc[(frame["block"] == "quality") & (frame["stat"] == "explained"), "value"].sum()
    return moments(frame, layout) if explained >= settings.min_rows else None
