"""The page for one window, which a person woken at night reads in a minute.

A view: it decides nothing and computes no statistic. One HTML file without scripts and without anything to fetch,
so that it can be mailed, archived and opened years later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from whydrift.monitors.loss_attribution import BEYOND
from whydrift.monitors.verdict import (
    CalibrationResult,
    FeatureAttribution,
    SliceResult,
    Status,
    Verdict,
)
from whydrift.monitors.verdict_loss import LossAttribution
from whydrift.pipelines.outputs import charts, wording

TIMELINE_WINDOWS = 90
NO_VIEWS: Mapping[str, str] = MappingProxyType({})
TOP_FEATURES = 15
LOSS_FEATURES = 3
SHOWN_FINDINGS = 20
_ROUNDING = 1e-6  # of the shift: what may be missing from an identity of floats

SHAPES = {
    Status.OK: "●",
    Status.TICKET: "▲",
    Status.PAGE: "■",
    Status.INSUFFICIENT_DATA: "◆",
    Status.NOT_EVALUATED: "✖",
}
"""The timeline's marks, see `charts.MARKERS`, as characters."""


def render(verdict: Verdict, history: Sequence[Verdict] = (), *, views: Mapping[str, str] = NO_VIEWS) -> str:
    """The page as HTML; equal verdicts give equal bytes.

    Args:
        verdict: the window that is reported.
        history: earlier verdicts; those of another model version or baseline and later ones are left out.
        views: addresses of the views `evidently` and `interactions`, where they were made.
    """
    template = environment().get_template("report.html.j2")
    return template.render(
        v=verdict,
        meaning=wording.MEANING[verdict.status],
        figures=_figures(verdict, history),
        shift=_shift_identity(verdict),
        calibration=_calibration_rows(verdict.calibration),
        absent=wording.absent(verdict),
        calibration_absent=wording.calibration_absent(verdict),
        losses_absent=wording.losses_absent(verdict),
        findings=(verdict.findings[:SHOWN_FINDINGS], verdict.findings[SHOWN_FINDINGS:]),
        slices=_order_slices(verdict),
        missing=[a for a in verdict.attribution if a.missing_rate or a.baseline_missing_rate],
        budget_sentences=wording.budget_sentences(verdict),
        detectable=[wording.detectable_sentence(d, verdict) for d in verdict.detectable],
        sample=wording.sample_sentences(verdict.sample) if verdict.sample is not None else [],
        windows_since=_windows_since(verdict),
        top_features=TOP_FEATURES,
        beyond=BEYOND,
        views=views,
        palette=charts.PALETTE,
        shapes=SHAPES,
    )


def environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        wording.number,
        wording.signed,
        wording.percent,
        wording.when,
        wording.words,
        wording.in_units,
        wording.from_log,
    )
    environment.filters |= {f.__name__: f for f in filters}
    return environment


def _figures(verdict: Verdict, history: Sequence[Verdict]) -> dict[str, Markup | None]:
    drawn: dict[str, str | None] = dict.fromkeys(("timeline", "shares", "shift", "reliability", "losses"))
    drawn["timeline"] = charts.timeline(_timeline(verdict, history))
    if verdict.attribution:
        top = sorted(verdict.attribution, key=lambda a: (-max(a.share, a.baseline_share), a.feature))
        drawn["shares"] = charts.shares(top[:TOP_FEATURES], drifted_features(verdict), _group_labels(verdict))
    if verdict.attribution and verdict.score is not None:
        moved = sorted(verdict.attribution, key=lambda a: (-abs(a.shift), a.feature))
        drawn["shift"] = charts.score_shift(moved[:TOP_FEATURES], _together(moved[TOP_FEATURES:]), verdict.score)
    if verdict.calibration is not None and verdict.calibration.diagram:
        drawn["reliability"] = charts.reliability(verdict.calibration.diagram)
    if verdict.loss_attribution is not None:
        cohorts = [v.loss_attribution for v in _timeline(verdict, history) if v.loss_attribution is not None]
        drawn["losses"] = charts.losses(cohorts, _most_changed(verdict.loss_attribution))
    # matplotlib has escaped every text in these, see charts._embed
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}  # noqa: S704


def _most_changed(told: LossAttribution) -> list[str]:
    """The features whose loss attribution changed most, the largest change first."""
    ordered = sorted(told.features, key=lambda f: (-abs(f.value if f.change is None else f.change), f.feature))
    return [f.feature for f in ordered[:LOSS_FEATURES]]


def _timeline(verdict: Verdict, history: Sequence[Verdict]) -> list[Verdict]:
    """The last windows of this baseline by time, each once, up to and with this one."""

    def series(of: Verdict) -> tuple[str, str, str]:
        return of.key.model, of.key.model_version, of.key.baseline_id

    earlier = {h.key.start: h for h in history if series(h) == series(verdict) and h.key.start < verdict.key.start}
    return [*(earlier[start] for start in sorted(earlier)[1 - TIMELINE_WINDOWS :]), verdict]


def drifted_features(verdict: Verdict) -> frozenset[str]:
    """Features that the cause names or that a confirmed finding is about."""
    named = verdict.cause.features if verdict.cause else ()
    return frozenset(named) | {f.feature for f in verdict.findings if f.confirmed and f.feature}


def _group_labels(verdict: Verdict) -> dict[str, str]:
    cause = verdict.cause
    return dict.fromkeys(cause.features, cause.group) if cause and cause.group else {}


def _together(rest: Sequence[FeatureAttribution]) -> FeatureAttribution | None:
    """The features that have no line of their own, as one."""
    if not rest:
        return None
    sums = {
        name: math.fsum(getattr(a, name) for a in rest)
        for name in ("share", "baseline_share", "level", "baseline_level", "shift", "composition", "response")
    }
    return FeatureAttribution(feature=f"{len(rest)} others", missing_rate=0.0, baseline_missing_rate=0.0, **sums)


def _shift_identity(verdict: Verdict) -> dict[str, float] | None:
    """The parts of the score shift; `rest` is what they leave unexplained, and 0 where explanations add up."""
    if verdict.score is None or not verdict.attribution:
        return None
    features = math.fsum(a.shift for a in verdict.attribution)
    rest = verdict.score.shift - features - verdict.score.base_shift
    size = math.fsum(abs(a.shift) for a in verdict.attribution) + abs(verdict.score.shift)
    return {
        "features": features,
        "composition": math.fsum(a.composition for a in verdict.attribution),
        "response": math.fsum(a.response for a in verdict.attribution),
        "rest": 0.0 if abs(rest) <= _ROUNDING * size else rest,
    }


def _calibration_rows(result: CalibrationResult | None) -> list[tuple[str, float, float | None, str]]:
    """Name, now, then, and what the number should be."""
    if result is None:
        return []
    return [
        ("Intercept", result.intercept, result.baseline_intercept, "0; below: scores are too high"),
        ("Slope", result.slope, result.baseline_slope, "1; below: scores are too extreme"),
        ("smECE", result.smece, result.baseline_smece, "0; mean gap of score and outcome"),
        ("Brier score", result.brier, result.baseline_brier, "small; mean squared error"),
    ]


def _order_slices(verdict: Verdict) -> list[tuple[SliceResult, bool]]:
    """Slices that a finding or the cause names first, then by rows; with whether they are named."""
    named = {f.slice for f in verdict.findings} | {verdict.cause.slice if verdict.cause else None}
    ordered = sorted(verdict.slices, key=lambda s: (s.slice not in named, -s.rows, s.slice))
    return [(s, s.slice in named) for s in ordered]


def _windows_since(verdict: Verdict) -> int | None:
    if verdict.since is None:
        return None
    return math.ceil((verdict.key.end - verdict.since) / (verdict.key.end - verdict.key.start))
