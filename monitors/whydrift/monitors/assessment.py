"""State is a fold: a baseline, then every window since in event-time order, and out comes a verdict for each.

Nothing is stored as truth but summaries. To correct a window is to replace its summary and to fold again; a
verdict depends on its own and earlier windows only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors import evidence as ev
from whydrift.monitors.attribution import Cells, Moments, Split, cells, moments, split_shift
from whydrift.monitors.checks import Limits, check, fit_limits
from whydrift.monitors.diagnosis import SplitNull, diagnose, fit_split_null
from whydrift.monitors.policy import RetrainingPolicy, decide
from whydrift.monitors.streams import (
    OUTCOME_STREAMS,
    Loss,
    UsualCalibration,
    list_streams,
    losses,
    observe,
    usual_calibration,
)
from whydrift.monitors.summary import Layout, WindowSummary, merge
from whydrift.monitors.verdict import Cause, Channel, Finding, Retraining, Status, WindowKey

FloatArray = npt.NDArray[np.float64]

_MOST_FINDINGS = 12


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
class WindowInput:
    """A window's stored summaries; `outcomes` are those of the cohort that matured by its end."""

    key: WindowKey
    summary: WindowSummary
    outcomes: WindowSummary | None


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


@dataclass(frozen=True, slots=True)
class Incident:
    """What earlier windows left behind for the next one."""

    state: ev.State
    check_onsets: Mapping[tuple[str, str | None], datetime] = field(default_factory=dict)
    paged: Cause | None = None
    last_request: datetime | None = None
    cohorts: tuple[tuple[datetime, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Assessed:
    """One window's outcome, with what `views` needs to write its verdict."""

    window: WindowInput
    frame: pd.DataFrame
    outcomes: pd.DataFrame | None
    moments: Moments | None
    split: Split | None
    evidence: ev.Evidence
    state: ev.State
    status: Status
    findings: tuple[Finding, ...]
    cause: Cause | None
    retraining: Retraining
    missing_windows: int


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
    judged = [_judged(frame, layout, settings) for frame in frames]
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


def fold(reference: Reference, windows: Iterable[WindowInput]) -> Iterator[Assessed]:
    """Assess windows in the order of time; each result depends on its own and earlier windows only."""
    incident = Incident(reference.detector.start)
    first: datetime | None = None
    for count, window in enumerate(windows):
        first = first or window.key.start
        expected = (window.key.start - first) // reference.settings.width
        incident, assessed = _step(reference, incident, window, missing=expected - count)
        yield assessed


def _step(reference: Reference, before: Incident, window: WindowInput, *, missing: int) -> tuple[Incident, Assessed]:
    layout, settings = reference.layout, reference.settings
    frame = window.summary.frame()
    outcomes = window.outcomes.frame() if window.outcomes is not None else None
    now = _judged(frame, layout, settings)
    observation = observe(window.key.start, now, outcomes, layout, reference.deviation, labels=settings.labels)
    state, evidence = ev.step(reference.detector, before.state, observation)

    failed = check(frame, layout, reference.limits, settings.min_rows)
    onsets = {(f.stream, f.feature): before.check_onsets.get((f.stream, f.feature), window.key.start) for f in failed}
    if now is None:  # a check that did not run did not pass: what it found before may well go on
        onsets = {**before.check_onsets, **onsets}
    checks = [replace(f, onset=onsets[f.stream, f.feature]) for f in failed]
    spoke = evidence.firing or evidence.ticket
    heard = list(_evidence_findings(reference, observation, evidence, window.key)) if spoke else []
    if not evidence.firing:  # evidence ties where it is clipped; a ticket leads with what moved most
        heard.sort(key=lambda f: -abs(f.effect or 0.0))
    findings = [*checks, *heard]
    split = split_shift(reference.cells, cells(frame, layout)) if now is not None else None

    def why(channel: Channel) -> Cause | None:
        paging = [f for f in findings if f.status is Status.PAGE and f.channel is channel]
        return diagnose(paging, frame, layout, split, reference.null, settings.groups)

    opened = why(Channel.EVIDENCE) if evidence.page else before.paged
    paged = opened if evidence.firing else None
    cause = why(Channel.CHECK) or paged  # while a page is open its cause is the one that opened it
    cohorts = _cohorts(before.cohorts, window, outcomes, settings)
    labelled = sum(n for start, n in cohorts if cause is not None and start >= cause.onset)
    retraining = decide(settings.policy, cause, labelled=labelled, now=window.key.end, last=before.last_request)
    after = Incident(
        state=state,
        check_onsets=onsets,
        paged=paged,
        last_request=window.key.end if retraining.requested else before.last_request,
        cohorts=cohorts,
    )
    return after, Assessed(
        window=window,
        frame=frame,
        outcomes=outcomes,
        moments=now,
        split=split,
        evidence=evidence,
        state=state,
        status=_status(findings, firing=evidence.firing, judged=now is not None),
        findings=tuple(findings),
        cause=cause,
        retraining=retraining,
        missing_windows=missing,
    )


def _status(findings: Sequence[Finding], *, firing: bool, judged: bool) -> Status:
    found = {f.status for f in findings}
    if firing or Status.PAGE in found:
        return Status.PAGE
    if not judged:
        return Status.INSUFFICIENT_DATA
    return Status.TICKET if Status.TICKET in found else Status.OK


def _judged(frame: pd.DataFrame, layout: Layout, settings: Settings) -> Moments | None:
    """The moments of a window, None with too few rows: their sampling variance would be a guess."""
    explained = frame.loc[(frame["block"] == "quality") & (frame["stat"] == "explained"), "value"].sum()
    return moments(frame, layout) if explained >= settings.min_rows else None


def _cohorts(
    before: tuple[tuple[datetime, int], ...], window: WindowInput, outcomes: pd.DataFrame | None, settings: Settings
) -> tuple[tuple[datetime, int], ...]:
    """Mature labels by the start of the window that they were predicted in."""
    if outcomes is None:
        return before
    everything = losses(outcomes).get("")
    start = window.key.start - settings.lag * settings.width
    return (*before, (start, everything.rows if everything else 0))


def _evidence_findings(
    reference: Reference, observation: ev.Observation, evidence: ev.Evidence, key: WindowKey
) -> Iterator[Finding]:
    status = Status.PAGE if evidence.firing else Status.TICKET
    for index in evidence.named[:_MOST_FINDINGS]:
        stream = reference.detector.streams[index]
        finding = Finding(
            channel=Channel.EVIDENCE,
            stream=stream.kind,
            status=status,
            message=f"{_subject(stream)} moved in earlier windows; this one does not tell",
            feature=stream.feature,
            slice=stream.slice,
            baseline=_in_its_unit(reference, stream, float(evidence.expected[index])),
            evidence=float(evidence.weighted[index]),
            threshold=reference.settings.thresholds.page,
            onset=(evidence.onset[index] or key.start) - _delay(reference, stream),
            confirmed=index in evidence.confirmed,
        )
        yield _with_value(reference, finding, observation, evidence, index) if evidence.observed[index] else finding


def _with_value(
    reference: Reference, finding: Finding, observation: ev.Observation, evidence: ev.Evidence, index: int
) -> Finding:
    """The finding with what the window says of its stream."""
    stream, effect = reference.detector.streams[index], float(evidence.effect[index])
    now, half = float(observation.values[index]), float(evidence.half_width[index])
    value = _in_its_unit(reference, stream, now)
    low, high = (_in_its_unit(reference, stream, now + side * half) for side in (-1, 1))
    return replace(
        finding,
        message=_say(stream, value, finding.baseline or 0.0, effect),
        value=value,
        effect=effect,
        interval=(low, high) if np.isfinite(half) else None,
    )


def _delay(reference: Reference, stream: ev.Stream) -> timedelta:
    """Outcome streams speak of a cohort that was predicted so long before the window."""
    return reference.settings.lag * reference.settings.width if stream.kind in OUTCOME_STREAMS else timedelta(0)


def _in_its_unit(reference: Reference, stream: ev.Stream, value: float) -> float:
    """A stream's value as people read it: a share, margin units, or as it is."""
    if stream.kind == "share":
        return float(np.exp(min(value, 0.0)))
    if stream.kind == "level" and stream.feature is not None:
        index = reference.layout.names.index(stream.feature)
        return float(value * reference.deviation[index] * reference.layout.scale)
    return value


_WORDS = {
    "share": "the share of {name} in the attributions",
    "level": "the mean attribution of {name}",
    "calibration_intercept": "the calibration intercept",
    "smece": "the smooth calibration error",
    "loss": "the mean loss of {name}",
}


def _subject(stream: ev.Stream) -> str:
    return _WORDS[stream.kind].format(name=stream.feature or stream.slice or "all rows")


def _say(stream: ev.Stream, value: float, baseline: float, effect: float) -> str:
    numbers = (
        f"{value:.1%} instead of {baseline:.1%}" if stream.kind == "share" else f"{value:.3g} instead of {baseline:.3g}"
    )
    return f"{_subject(stream)} is {numbers} ({effect:+.1f} window deviations)"
