"""From an assessed window to what its verdict says of labels that are late, few or absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from whydrift.monitors.arrivals import read_cohorts
from whydrift.monitors.assessment import Assessed
from whydrift.monitors.audit import estimate_audit
from whydrift.monitors.labels import Delays, estimate_cohort, find_bounds_broken, fit_delays, judge_maturity
from whydrift.monitors.performance import (
    Joint,
    Performance,
    expect,
    mesh_of,
    most_moved,
    read_joint,
    realised,
    reweigh,
    threshold_of,
    x_cells,
)
from whydrift.monitors.reference import Reference
from whydrift.monitors.summary import Layout, WindowSummary
from whydrift.monitors.verdict import Status
from whydrift.monitors.verdict_labels import CohortEstimate, LabelMaturity, LabelView, PerformanceEstimate


@dataclass(frozen=True, slots=True)
class UsualLabels:
    """What a baseline says of labels: how late they are, and what scores came to. None where it does not know."""

    delays: Delays | None
    joint: Joint | None
    performance: Performance | None


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What a window stored of labels on their way, None where it stored nothing, beside what is usual."""

    window: WindowSummary | None
    usual: UsualLabels


def fit_usual_labels(learned: WindowSummary, outcomes: Sequence[WindowSummary], layout: Layout) -> UsualLabels:
    """From what a baseline learned of arrivals, see `summarise_delays` and `summarise_joint`, and its outcomes."""
    frame = learned.frame()
    joint = read_joint(frame, layout)
    return UsualLabels(
        delays=fit_delays(frame, layout),
        joint=joint if joint.labelled.any() else None,
        performance=realised([o.frame() for o in outcomes], threshold_of(layout)),
    )


def view_labels(reference: Reference, assessed: Assessed, arrivals: Arrivals) -> LabelView | None:
    """All but the mature labels' metrics; None of a model without labels."""
    if not reference.settings.labels:
        return None
    return LabelView(
        maturity=_maturity(reference, assessed, arrivals),
        cohorts=_cohorts(reference, assessed, arrivals),
        estimates=_performance(reference, assessed, arrivals.usual),
        audit=estimate_audit(assessed.outcomes, reference.layout) if assessed.outcomes is not None else (),
    )


def with_bounds(reference: Reference, assessed: Assessed, cohorts: Sequence[CohortEstimate]) -> Assessed:
    """With a ticket more, where a young cohort's loss is above the baseline's whatever its labels will be."""
    found = find_bounds_broken(cohorts, reference.usual_loss, reference.settings.min_rows)
    if found is None:
        return assessed
    status = Status.TICKET if assessed.status is Status.OK else assessed.status
    return replace(assessed, findings=(*assessed.findings, found), status=status)


def _maturity(reference: Reference, assessed: Assessed, arrivals: Arrivals) -> LabelMaturity | None:
    if arrivals.window is None:
        return None
    settings, key = reference.settings, assessed.window.key
    mature = key.start - settings.lag * settings.width
    return judge_maturity(arrivals.window.frame(), mature, settings.width, settings.lag, arrivals.usual.delays)


def _cohorts(reference: Reference, assessed: Assessed, arrivals: Arrivals) -> tuple[CohortEstimate, ...]:
    """The newest first; empty of a regression, whose labels no class corrects and nothing bounds."""
    if arrivals.window is None or reference.layout.task != "binary":
        return ()
    start, width = assessed.window.key.start, reference.settings.width
    return tuple(
        estimate_cohort(cohort, (start - cohort.start) // width, width, arrivals.usual.delays)
        for cohort in read_cohorts(arrivals.window.frame())
    )


def _performance(reference: Reference, assessed: Assessed, usual: UsualLabels) -> tuple[PerformanceEstimate, ...]:
    """Estimates from the window's scores; empty where it has too few rows, or the baseline no labels."""
    layout, rate = reference.layout, reference.heads[0].streams.recalibrated
    weight, threshold = mesh_of(assessed.frame, "score", "weight"), threshold_of(layout)
    if layout.task != "binary" or rate is None or usual.performance is None or not assessed.judged:
        return ()
    now = x_cells(assessed.frame, layout)
    moved = most_moved(now, x_cells(reference.frame, layout))
    found = [_estimate("cbpe", None, threshold, expect(weight, rate, threshold), usual.performance)]
    if usual.joint is not None:
        tilted = expect(weight, reweigh(rate, usual.joint, moved, now[moved]), threshold)
        found.append(_estimate("pape", layout.names[moved], threshold, tilted, usual.performance))
    return tuple(estimate for estimate in found if estimate is not None)


def _estimate(
    method: Literal["cbpe", "pape"],
    feature: str | None,
    threshold: float,
    expected: Performance | None,
    usual: Performance,
) -> PerformanceEstimate | None:
    if expected is None:
        return None
    return PerformanceEstimate(
        method=method,
        feature=feature,
        threshold=threshold,
        true_positive=expected.true_positive,
        false_positive=expected.false_positive,
        true_negative=expected.true_negative,
        false_negative=expected.false_negative,
        accuracy=expected.accuracy,
        auroc=expected.auroc,
        brier=expected.brier,
        log_loss=expected.log_loss,
        baseline_accuracy=usual.accuracy,
        baseline_auroc=usual.auroc,
        baseline_brier=usual.brier,
        baseline_log_loss=usual.log_loss,
    )
