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
from whydrift.monitors.attribution import Cells, Moments, Split, cells, split_shift
from whydrift.monitors.checks import LABEL_CHECKS, check, check_labels, kept_rows, whole_loss
from whydrift.monitors.class_sums import as_seen_by
from whydrift.monitors.diagnosis import Known, Seen, diagnose
from whydrift.monitors.expectations import broken_contract, contract_findings
from whydrift.monitors.findings import evidence_findings, slow_findings
from whydrift.monitors.frozen import WINDOWS, drifted, remember
from whydrift.monitors.loss_attribution import loss_grounds, tell_losses
from whydrift.monitors.policy import Cohort, decide, risk_since
from whydrift.monitors.reference import HeadReference, Reference, Settings, hold_against, judged_moments
from whydrift.monitors.shifts import Sums, sums
from whydrift.monitors.stream import muted_in
from whydrift.monitors.stream_input import StreamInput
from whydrift.monitors.streams import observe
from whydrift.monitors.summary import WindowSummary
from whydrift.monitors.verdict import Cause, CauseKind, Channel, Finding, Retraining, Status, WindowKey
from whydrift.monitors.verdict_loss import LossAttribution

_POOLED = 7  # newest windows that a diagnosis may take together


@dataclass(frozen=True, slots=True)
class WindowInput:
    """A window's stored summaries; `outcomes` are those of the cohort that matured by its end."""

    key: WindowKey
    summary: WindowSummary
    outcomes: WindowSummary | None


@dataclass(frozen=True, slots=True)
class Incident:
    """What earlier windows left behind for the next one.

    `first` is the start of the first window of all, `windows` how many there were.
    `rows` are those of the windows whose labels are not mature yet, `recent` the sums by head of the newest
    windows that could be judged, `month` the newest windows' observations, for what drifts slowly.
    """

    state: ev.State
    first: datetime | None = None
    windows: int = 0
    check_onsets: Mapping[tuple[str, str | None], datetime] = field(default_factory=dict)
    paged: Cause | None = None
    last_request: datetime | None = None
    cohorts: tuple[Cohort, ...] = ()
    rows: tuple[tuple[datetime, float], ...] = ()
    recent: tuple[tuple[datetime, tuple[Sums, ...]], ...] = ()
    month: tuple[ev.Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadWindow:
    """A window as one head sees it; `moments`, `cells` and `split` are None where it could not be judged."""

    frame: pd.DataFrame
    outcomes: pd.DataFrame | None
    moments: Moments | None
    cells: Cells | None
    split: Split | None


@dataclass(frozen=True, slots=True)
class Assessed:
    """One window's outcome, with what `views` needs to write its verdict."""

    window: WindowInput
    frame: pd.DataFrame
    outcomes: pd.DataFrame | None
    heads: tuple[HeadWindow, ...]
    observation: ev.Observation
    evidence: ev.Evidence
    state: ev.State
    status: Status
    findings: tuple[Finding, ...]
    cause: Cause | None
    retraining: Retraining
    missing_windows: int
    loss_attribution: LossAttribution | None

    @property
    def judged(self) -> bool:
        """Whether there were rows enough."""
        return all(head.moments is not None for head in self.heads)


def begin(reference: Reference) -> Incident:
    """Where the fold starts: the baseline, and no window yet."""
    return Incident(reference.detector.start)


def fold(reference: Reference, windows: Iterable[WindowInput]) -> Iterator[Assessed]:
    """Assess windows in the order of time; each result depends on its own and earlier windows only."""
    incident = begin(reference)
    for window in windows:
        incident, assessed = step(reference, incident, window)
        yield assessed


def step(reference: Reference, before: Incident, window: WindowInput) -> tuple[Incident, Assessed]:
    """Assess one window, and what it leaves behind for the next."""
    first = before.first or window.key.start
    missing = (window.key.start - first) // reference.settings.width - before.windows
    layout, settings, frame = reference.layout, reference.settings, window.summary.frame()
    outcomes = window.outcomes.frame() if window.outcomes is not None else None
    heads = tuple(_as_head(head, *own, settings) for head, own in _by_head(reference, frame, outcomes))
    judged = all(head.moments is not None for head in heads)
    seen = [
        StreamInput(window.key.start, own.frame, own.moments, own.outcomes, head.streams)
        for head, own in zip(reference.heads, heads, strict=True)
    ]
    observation = observe(seen, layout, labels=settings.labels)
    state, evidence = ev.step(reference.detector, before.state, observation)

    rows = (*before.rows, (window.key.start, kept_rows(frame)))[-settings.lag - 1 :]
    failed = _checks(reference, window, frame, outcomes, dict(rows))
    onsets = {(f.stream, f.feature): _onset(f, before, window, settings) for f in failed}
    if not judged:  # a check that did not run did not pass: what it found before may well go on
        onsets = {**before.check_onsets, **onsets}
    checks = [replace(f, onset=onsets[f.stream, f.feature]) for f in failed]
    heard = _heard(reference, observation, evidence, window.key)
    month = remember(before.month, observation)
    findings = [*checks, *heard, *_slow(reference, evidence, month, window.key)]
    shift = tuple(sums(own.cells, own.moments.rows) for own in heads if own.cells is not None and own.moments)
    recent = (*before.recent, *([(window.key.start, shift)] if judged else []))[-_POOLED:]
    late = settings.lag * settings.width
    blamed = tell_losses(outcomes, reference.loss_attribution, layout, (window.key.start - late, window.key.end - late))
    cause, paged = _cause(reference, before, evidence, findings, _seen(heads, recent if judged else ()), blamed)
    cohorts = _cohorts(reference, before.cohorts, window, outcomes)
    retraining = _retraining(reference, cause, cohorts, window, before.last_request)
    after = Incident(
        state=state,
        first=first,
        windows=before.windows + 1,
        check_onsets=onsets,
        paged=paged,
        last_request=window.key.end if retraining.requested else before.last_request,
        cohorts=cohorts,
        rows=rows,
        recent=recent,
        month=month,
    )
    return after, Assessed(
        window=window,
        frame=frame,
        outcomes=outcomes,
        heads=heads,
        observation=observation,
        evidence=evidence,
        state=state,
        status=_status(findings, firing=evidence.firing, judged=judged),
        findings=tuple(findings),
        cause=cause,
        retraining=retraining,
        missing_windows=missing,
        loss_attribution=blamed,
    )


def _by_head(
    reference: Reference, frame: pd.DataFrame, outcomes: pd.DataFrame | None
) -> Iterator[tuple[HeadReference, tuple[pd.DataFrame, pd.DataFrame | None]]]:
    """Each head with the frames of the window and of its outcomes as it sees them."""
    late = as_seen_by(outcomes, reference.layout) if outcomes is not None else (None,) * len(reference.heads)
    return zip(reference.heads, zip(as_seen_by(frame, reference.layout), late, strict=True), strict=True)


def _as_head(head: HeadReference, frame: pd.DataFrame, outcomes: pd.DataFrame | None, settings: Settings) -> HeadWindow:
    now = judged_moments(frame, head.layout, settings)
    if now is None:
        return HeadWindow(frame, outcomes, None, None, None)
    own = cells(frame, head.layout)
    return HeadWindow(frame, outcomes, now, own, split_shift(head.cells, own))


def _seen(heads: Sequence[HeadWindow], recent: Sequence[tuple[datetime, tuple[Sums, ...]]]) -> tuple[Seen, ...]:
    """What the window offers a diagnosis of each head."""
    return tuple(
        Seen(head.frame, head.outcomes, [(start, by_head[number]) for start, by_head in recent])
        for number, head in enumerate(heads)
    )


def _cause(
    reference: Reference,
    before: Incident,
    evidence: ev.Evidence,
    findings: Sequence[Finding],
    seen: Sequence[Seen],
    blamed: LossAttribution | None,
) -> tuple[Cause | None, Cause | None]:
    """The window's cause, and that of the evidence's page while one is open: the cause that opened it."""

    def why(channel: Channel) -> Cause | None:
        paging = [f for f in findings if f.status is Status.PAGE and f.channel is channel]
        cause = _diagnose(reference, paging, seen)
        if cause is None or cause.kind is not CauseKind.CONCEPT_CHANGED:
            return cause
        return replace(cause, grounds=(*cause.grounds, *loss_grounds(blamed)))

    opened = why(Channel.EVIDENCE) if evidence.page else before.paged
    paged = opened if evidence.firing else None
    return why(Channel.CHECK) or paged or broken_contract(findings), paged


def _diagnose(reference: Reference, findings: Sequence[Finding], seen: Sequence[Seen]) -> Cause | None:
    """The cause of a page. Of a multiclass model it is that of the class which the most evidence is of."""
    weight = {
        head.name: sum(f.evidence or 0.0 for f in findings if f.class_name == head.name) for head in reference.heads
    }
    number = max(range(len(seen)), key=lambda i: weight[reference.heads[i].name])
    head = reference.heads[number]
    known = Known(head.layout, head.null, head.calibration, reference.settings.groups)
    own = [f for f in findings if f.channel is Channel.CHECK or f.class_name == head.name]
    cause = diagnose(own, seen[number], known)
    classes, named = (tuple(dict.fromkeys(f.class_name for f in fs if f.class_name)) for fs in (findings, own))
    if cause is None or not named:
        return cause
    others = ", ".join(name for name in classes if name not in named)
    grounds = (*cause.grounds, *([f"streams of other classes moved too: {others}"] if others else []))
    return replace(cause, class_name=named[0] if len(named) == 1 else None, grounds=grounds)


def _heard(reference: Reference, observation: ev.Observation, evidence: ev.Evidence, key: WindowKey) -> list[Finding]:
    """The findings of an open page or of a ticket."""
    if not (evidence.firing or evidence.ticket):
        return []
    found = list(evidence_findings(reference, observation, evidence, key))
    if not evidence.firing:  # evidence ties where it is clipped; a ticket leads with what moved most
        found.sort(key=lambda f: -abs(f.effect or 0.0))
    return found


def _slow(
    reference: Reference, evidence: ev.Evidence, month: tuple[ev.Observation, ...], key: WindowKey
) -> Iterable[Finding]:
    """Once every 28 windows: what has drifted beyond its tolerance, unless it is muted or a page is open for it."""
    if evidence.windows % WINDOWS or not evidence.observed.any():
        return ()
    deaf = muted_in(key.start, reference.settings.mutes, reference.detector.streams)
    deaf[list(evidence.named) if evidence.firing else []] = True
    return slow_findings(reference, drifted(reference.detector, month, deaf))


def _checks(
    reference: Reference,
    window: WindowInput,
    frame: pd.DataFrame,
    outcomes: pd.DataFrame | None,
    rows: Mapping[datetime, float],
) -> list[Finding]:
    """The checks that fail, on the window's rows and on its mature cohort's labels."""
    settings = reference.settings
    failed = check(frame, reference.layout, reference.limits, settings.min_rows)
    failed += contract_findings(hold_against(reference, frame))
    if outcomes is None:
        return failed
    cohort = rows.get(window.key.start - settings.lag * settings.width)
    return failed + check_labels(outcomes, reference.layout, reference.limits, cohort, settings.min_rows)


def _onset(finding: Finding, before: Incident, window: WindowInput, settings: Settings) -> datetime:
    """When a check began to fail: when the first of the rows that it speaks of were predicted."""
    late = settings.lag if finding.stream in LABEL_CHECKS else 0
    return before.check_onsets.get((finding.stream, finding.feature), window.key.start - late * settings.width)


def _retraining(
    reference: Reference,
    cause: Cause | None,
    cohorts: Sequence[Cohort],
    window: WindowInput,
    last: datetime | None,
) -> Retraining:
    since = [c for c in cohorts if cause is not None and c.start >= cause.onset]
    return decide(
        reference.settings.policy,
        cause,
        labelled=sum(c.labelled for c in since),
        risk=risk_since(cause.onset, since, reference.usual_loss) if cause is not None else None,
        now=window.key.end,
        last=last,
    )


def _status(findings: Sequence[Finding], *, firing: bool, judged: bool) -> Status:
    found = {f.status for f in findings}
    if firing or Status.PAGE in found:
        return Status.PAGE
    if not judged:
        return Status.INSUFFICIENT_DATA
    return Status.TICKET if Status.TICKET in found else Status.OK


def _cohorts(
    reference: Reference, before: tuple[Cohort, ...], window: WindowInput, outcomes: pd.DataFrame | None
) -> tuple[Cohort, ...]:
    """Mature labels by the start of the window that they were predicted in."""
    if outcomes is None:
        return before
    settings, whole = reference.settings, whole_loss(outcomes)
    weight = whole.get("weight", 0.0)
    if weight <= 0:
        return before
    loss = whole.get("loss", 0.0) / weight * reference.layout.loss_scale**2
    start = window.key.start - settings.lag * settings.width
    return (*before, Cohort(start, round(whole.get("rows", 0.0)), loss))
