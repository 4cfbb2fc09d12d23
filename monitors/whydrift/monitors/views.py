"""From an assessed window to its verdict: the tables that a person reads beside the decision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pandas as pd

from whydrift.monitors.assessment import Assessed
from whydrift.monitors.attribution import logged_rows
from whydrift.monitors.checks import kept_rows, rows_seen, set_aside
from whydrift.monitors.conformal import read_residuals, tell_regression
from whydrift.monitors.evidence import smallest_detectable
from whydrift.monitors.fairness import tell_gaps
from whydrift.monitors.head_views import tell_attribution, tell_calibration, tell_classes, tell_multiclass, tell_score
from whydrift.monitors.label_view import Arrivals, view_labels, with_bounds
from whydrift.monitors.outcome_streams import MIN_LABELLED, all_slices, losses
from whydrift.monitors.peer_table import Side, peer_table
from whydrift.monitors.quality import in_window, relative_error
from whydrift.monitors.reference import Reference, hold_against
from whydrift.monitors.sampling import describe, more_rows
from whydrift.monitors.slices import Searched, search
from whydrift.monitors.verdict import (
    Budget,
    CauseKind,
    Detectable,
    PeerStatistic,
    RowCounts,
    SliceResult,
    Soundness,
    Status,
    Verdict,
)
from whydrift.monitors.verdict_sample import RowSample
from whydrift.monitors.verdict_validation import RegressionCalibration

_HORIZONS = (2, 7, 14, 30)

_CAUSE_WORDS = {
    CauseKind.DATA_BROKEN: "Data broken",
    CauseKind.MODEL_CHANGED: "Model changed",
    CauseKind.EXPLAINER_CHANGED: "Explainer changed",
    CauseKind.INPUTS_MOVED: "Inputs moved",
    CauseKind.JOINT_MOVED: "Joint distribution moved",
    CauseKind.CONCEPT_CHANGED: "Concept changed",
    CauseKind.LABEL_BROKEN: "Labels broken",
    CauseKind.UNKNOWN: "Something changed",
}


@dataclass(frozen=True, slots=True)
class Extras:
    """What only the report needs: nothing of it is folded. `searched` are the cells of the trailing windows.

    `arrivals` is what is known of labels on their way.
    """

    searched: Searched | None = None
    arrivals: Arrivals | None = None


_NOTHING_MORE = Extras()


def write_verdict(
    reference: Reference,
    assessed: Assessed,
    digests: dict[str, str],
    soundness: Soundness | None = None,
    extras: Extras = _NOTHING_MORE,
) -> Verdict:
    """The verdict of one window; `soundness` is what was measured when the baseline was made."""
    labels = view_labels(reference, assessed, extras.arrivals) if extras.arrivals is not None else None
    assessed = with_bounds(reference, assessed, labels.cohorts) if labels is not None else assessed
    cause = assessed.cause
    return Verdict(
        key=assessed.window.key,
        status=assessed.status,
        headline=_headline(reference, assessed),
        since=cause.onset if cause is not None else None,
        findings=assessed.findings,
        cause=cause,
        retraining=assessed.retraining,
        budget=_budget(reference, assessed),
        detectable=_detectable(reference, assessed),
        attribution=tell_attribution(reference, assessed),
        score=None if reference.layout.classes else tell_score(reference.heads[0], assessed.heads[0]),
        calibration=None if reference.layout.classes else tell_calibration(reference, assessed, 0),
        classes=tell_classes(reference, assessed),
        multiclass=tell_multiclass(reference, assessed),
        slices=_slices(reference, assessed),
        rows=_rows(assessed),
        sample=_sample(reference, assessed),
        labels=labels,
        missing_windows=assessed.missing_windows,
        digests=digests,
        soundness=_soundness(reference, assessed, soundness) if soundness is not None else None,
        peers=_peers(reference, assessed),
        muted=tuple(m for m in reference.settings.mutes if m.since <= assessed.window.key.start < m.until),
        search=search(extras.searched, reference.layout, reference.settings.search) if extras.searched else None,
        expectations=hold_against(reference, assessed.frame),
        regression=_regression(reference, assessed),
        loss_attribution=assessed.loss_attribution,
        fairness=tell_gaps(assessed.frame, assessed.outcomes, reference.gaps, reference.layout),
    )


def _headline(reference: Reference, assessed: Assessed) -> str:
    if assessed.cause is not None:
        since = assessed.cause.onset
        time = f"{since:%Y-%m-%d}" if reference.settings.width >= timedelta(days=1) else f"{since:%Y-%m-%d %H:%M} UTC"
        told = f"{_CAUSE_WORDS[assessed.cause.kind]} since {time}: {assessed.cause.sentence}."
        return told if assessed.judged else f"{told} {_too_few(reference, assessed)}"
    if assessed.status is Status.INSUFFICIENT_DATA:
        return _too_few(reference, assessed)
    if assessed.status is Status.TICKET:
        return f"Worth a look: {assessed.findings[0].message}."
    if reference.detector.learning:
        return f"No check failed. Still learning: {reference.windows} baseline windows, 28 are needed for a budget."
    return "Nothing that the budget calls a change."


def _too_few(reference: Reference, assessed: Assessed) -> str:
    explained = _rows(assessed).explained
    return f"Cannot tell of this window: {explained} rows could be explained, {reference.settings.min_rows} are needed."


def _budget(reference: Reference, assessed: Assessed) -> Budget:
    settings, evidence = reference.settings, assessed.evidence
    expected, simulated = evidence.expected_false_pages, settings.calibrated
    if simulated is not None:
        expected = evidence.windows * (settings.width / settings.period) * simulated.interval[1]
    return Budget(
        false_pages=settings.false_pages,
        period_days=settings.period / timedelta(days=1),
        page_threshold=settings.thresholds.page,
        ticket_threshold=settings.thresholds.ticket,
        evidence=evidence.model,
        windows=evidence.windows,
        pages=evidence.pages,
        expected_false_pages=expected,
        learning=reference.detector.learning,
        armed=evidence.armed,
        threshold="guaranteed" if simulated is None else "calibrated",
        simulated_false_pages=simulated.false_pages if simulated is not None else None,
        simulated_interval=simulated.interval if simulated is not None else None,
    )


def _detectable(reference: Reference, assessed: Assessed) -> tuple[Detectable, ...]:
    if not reference.layout.features:
        return ()
    effects = smallest_detectable(reference.detector, assessed.state, _HORIZONS)
    shares = np.concatenate([head.moments.share for head in reference.heads])
    number, top = divmod(int(np.argmax(shares)), len(reference.layout.names))
    first = number * (len(reference.detector.streams) // len(reference.heads))  # a head's own begin with its shares
    # Half widths are 95 % intervals of one window, so 1.96 window deviations.
    deviation = float(assessed.evidence.half_width[first + top]) / 1.96
    return tuple(
        Detectable(
            windows=windows,
            effect_sd=effect,
            example_feature=reference.layout.names[top],
            example_share_ratio=float(np.exp(min(effect * deviation, 50.0))) if np.isfinite(deviation) else None,
        )
        for windows, effect in zip(_HORIZONS, effects, strict=True)
    )


def _regression(reference: Reference, assessed: Assessed) -> RegressionCalibration | None:
    """Of the newest mature cohort; None for a classifier, or where labels are too few, now or in the baseline."""
    layout, settings, key = reference.layout, reference.settings, assessed.window.key
    found = read_residuals(assessed.outcomes) if assessed.outcomes is not None and layout.residual_edges else None
    if found is None or found.rows < MIN_LABELLED:
        return None
    late = settings.lag * settings.width
    cohort = (key.start - late, key.end - late)
    rows = _rows(assessed).labelled
    return tell_regression(found, reference.residuals, layout.residual_edges, layout.loss_scale, cohort, rows)


def _slices(reference: Reference, assessed: Assessed) -> tuple[SliceResult, ...]:
    rows = _by_slice(assessed.frame, "rows")
    now, before = _by_slice(assessed.frame, "weight"), _by_slice(reference.frame, "weight")
    loss = losses(assessed.outcomes) if assessed.outcomes is not None else {}
    unit = reference.layout.loss_scale**2
    total, total_before = _whole(assessed.frame, "weight"), _whole(reference.frame, "weight")
    found = []
    for name in all_slices(reference.layout):
        own, old = loss.get(name), reference.losses.get(name)
        found.append(
            SliceResult(
                slice=name,
                rows=round(rows.get(name, 0.0)),
                labelled=own.rows if own is not None else 0,
                share=now.get(name, 0.0) / total if total else 0.0,
                baseline_share=before.get(name, 0.0) / total_before if total_before else 0.0,
                loss=own.mean * unit if own is not None and own.effective >= MIN_LABELLED else None,
                baseline_loss=old.mean * unit if old is not None and old.effective >= MIN_LABELLED else None,
            )
        )
    return tuple(found)


def _by_slice(frame: pd.DataFrame, stat: str) -> dict[str, float]:
    block = frame[(frame["block"] == "slice") & (frame["stat"] == stat)]
    return {str(k): float(v) for k, v in zip(block["slice"], block["value"], strict=True)}


def _whole(frame: pd.DataFrame, stat: str) -> float:
    return float(frame.loc[(frame["block"] == "rows") & (frame["stat"] == stat), "value"].sum())


def _peers(reference: Reference, assessed: Assessed) -> tuple[PeerStatistic, ...]:
    """Empty of several classes: the peers' defaults are for one output."""
    head, now = reference.heads[0], assessed.heads[0]
    if now.moments is None or reference.layout.classes:
        return ()
    return peer_table(Side(now.frame, now.moments), Side(head.frame, head.moments), head.layout)


def _soundness(reference: Reference, assessed: Assessed, measured: Soundness) -> Soundness:
    """Of several classes the largest error of each feature."""
    by_head = [relative_error(now.frame, h.layout) for h, now in zip(reference.heads, assessed.heads, strict=True)]
    return in_window(measured, assessed.frame, reference.layout, np.fmax.reduce(by_head))


def _sample(reference: Reference, assessed: Assessed) -> RowSample | None:
    """None where all rows are explained."""
    layout, sampling = reference.layout, reference.layout.sampling
    if sampling is None:
        return None
    counted = RowSample(
        explained=_rows(assessed).explained,
        rows=round(kept_rows(assessed.frame)),
        chance=sampling.rate,
        why=sampling.why,
        stream=sampling.stream,
    )
    now = assessed.heads[0].moments
    bought = more_rows(reference, assessed.observation, now.rows / logged_rows(assessed.frame)) if now else None
    if bought is None or not layout.features:
        return counted
    return replace(
        counted,
        least_certain=describe(bought.stream),
        sampling_part=bought.part,
        with_tenfold=bought.tenfold,
        with_all=bought.all,
    )


def _rows(assessed: Assessed) -> RowCounts:
    outcomes = losses(assessed.outcomes) if assessed.outcomes is not None else {}
    explained = assessed.frame[(assessed.frame["block"] == "quality") & (assessed.frame["stat"] == "explained")]
    return RowCounts(
        seen=round(rows_seen(assessed.frame)),
        explained=round(float(explained["value"].sum())),
        labelled=outcomes[""].rows if "" in outcomes else 0,
        set_aside=set_aside(assessed.frame),
    )
