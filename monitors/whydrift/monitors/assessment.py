"""State is a fold: a baseline, then every window since in event-time order, and out comes a verdict for each.

Nothing is stored as truth but summaries. To correct a window is to replace its summary and to fold again; a
verdict depends on its own and earlier windows only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pandas as pd

from whydrift.monitors import evidence as ev
from whydrift.monitors.attribution import Moments, Split, cells, split_shift
from whydrift.monitors.checks import check
from whydrift.monitors.diagnosis import diagnose
from whydrift.monitors.findings import evidence_findings
from whydrift.monitors.policy import decide
from whydrift.monitors.reference import Reference, Settings, judged_moments
from whydrift.monitors.streams import losses, observe
from whydrift.monitors.summary import WindowSummary
from whydrift.monitors.verdict import Cause, Channel, Finding, Retraining, Status, WindowKey


@dataclass(frozen=True, slots=True)
class WindowInput:
    """A window's stored summaries; `outcomes` are those of the cohort that matured by its end."""

    key: WindowKey
    summary: WindowSummary
    outcomes: WindowSummary | None


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
    now = judged_moments(frame, layout, settings)
    observation = observe(window.key.start, now, outcomes, layout, reference.deviation, labels=settings.labels)
    state, evidence = ev.step(reference.detector, before.state, observation)

    failed = check(frame, layout, reference.limits, settings.min_rows)
    onsets = {(f.stream, f.feature): before.check_onsets.get((f.stream, f.feature), window.key.start) for f in failed}
    if now is None:  # a check that did not run did not pass: what it found before may well go on
        onsets = {**before.check_onsets, **onsets}
    checks = [replace(f, onset=onsets[f.stream, f.feature]) for f in failed]
    spoke = evidence.firing or evidence.ticket
    heard = list(evidence_findings(reference, observation, evidence, window.key)) if spoke else []
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


def _cohorts(
    before: tuple[tuple[datetime, int], ...], window: WindowInput, outcomes: pd.DataFrame | None, settings: Settings
) -> tuple[tuple[datetime, int], ...]:
    """Mature labels by the start of the window that they were predicted in."""
    if outcomes is None:
        return before
    everything = losses(outcomes).get("")
    start = window.key.start - settings.lag * settings.width
    return (*before, (start, everything.rows if everything else 0))
