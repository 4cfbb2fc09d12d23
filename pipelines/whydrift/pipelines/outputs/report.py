"""The page for one window, which a person woken at night reads in a minute.

A view: it decides nothing and computes no statistic. One HTML file without scripts and without anything to fetch,
so that it can be mailed, archived and opened years later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from whydrift.monitors.verdict import (
    CalibrationResult,
    Channel,
    Detectable,
    FeatureAttribution,
    Finding,
    SliceResult,
    Status,
    Verdict,
)
from whydrift.pipelines.outputs import charts

TIMELINE_WINDOWS = 90
TOP_FEATURES = 15
SHOWN_FINDINGS = 20
NOTHING = "–"
_NBSP = "\N{NO-BREAK SPACE}"
_ROUNDING = 1e-6  # of the shift: what may be missing from an identity of floats

MEANING = {
    Status.OK: "nothing to do",
    Status.TICKET: "look when you have time",
    Status.PAGE: "act now",
    Status.INSUFFICIENT_DATA: "too few rows to tell",
    Status.NOT_EVALUATED: "cannot tell, this window was not evaluated",
}

SHAPES = {
    Status.OK: "●",
    Status.TICKET: "▲",
    Status.PAGE: "■",
    Status.INSUFFICIENT_DATA: "◆",
    Status.NOT_EVALUATED: "✖",
}
"""The timeline's marks, see `charts.MARKERS`, as characters."""


def render(verdict: Verdict, history: Sequence[Verdict] = (), *, evidently_link: str | None = None) -> str:
    """The page as HTML; equal verdicts give equal bytes.

    Args:
        verdict: the window that is reported.
        history: earlier verdicts; those of another model version or baseline and later ones are left out.
        evidently_link: address of the Evidently view, where one was made.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        v=verdict,
        meaning=MEANING[verdict.status],
        figures=_figures(verdict, history),
        shift=_shift_identity(verdict),
        calibration=_calibration_rows(verdict.calibration),
        absent=_absent(verdict),
        calibration_absent=_calibration_absent(verdict),
        findings=(verdict.findings[:SHOWN_FINDINGS], verdict.findings[SHOWN_FINDINGS:]),
        slices=_order_slices(verdict),
        missing=[a for a in verdict.attribution if a.missing_rate or a.baseline_missing_rate],
        budget_sentences=_budget_sentences(verdict),
        detectable=[_detectable_sentence(d, verdict) for d in verdict.detectable],
        windows_since=_windows_since(verdict),
        top_features=TOP_FEATURES,
        evidently_link=evidently_link,
        palette=charts.PALETTE,
        shapes=SHAPES,
    )


def _environment() -> Environment:
    # Jinja's PackageLoader wants a package with a file; the folder beside this module is there in every install.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "when": when,
        "words": words,
        "in_units": in_units,
    }
    return environment


def number(value: float | None, signed: bool = False) -> str:  # noqa: FBT001 - a template filter's argument
    """Three decimals or three significant digits, whichever is less to read.

    >>> number(0.04132), number(1204.4), number(-0.21, True), number(90.0), number(None)
    ('0.041', '1,204', '−0.210', '90', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    sign = "+" if signed else ""
    if value == 0:
        return "0"
    if math.isinf(value) or float(value).is_integer():
        text = f"{value:{sign},.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:{sign}.1e}"
    else:
        magnitude = math.floor(math.log10(abs(value)))
        digits = max(0, 2 - magnitude) if magnitude >= -1 else 1 - magnitude
        text = f"{value:{sign},.{digits}f}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share or rate.

    >>> percent(0.361).replace(chr(160), " "), percent(0.0004).replace(chr(160), " "), percent(None)
    ('36.1 %', '0.04 %', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0:
        return f"0{_NBSP}%"
    digits = 1 if abs(value) >= 0.001 else 2
    return f"{100 * value:.{digits}f}{_NBSP}%".replace("-", "−")


def when(time: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return NOTHING if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def words(name: str) -> str:
    """`data_broken` as a person says it."""
    return name.replace("_", " ")


def in_units(value: float | None, finding: Finding) -> str:
    """A finding's value as a person reads it: rates in per cent, and log shares as the shares they stand for."""
    if value is not None and finding.stream == "share" and finding.channel is Channel.EVIDENCE:
        return percent(math.exp(value))
    if finding.stream == "share" or finding.stream.endswith("_rate"):
        return percent(value)
    return number(value)


def _figures(verdict: Verdict, history: Sequence[Verdict]) -> dict[str, Markup | None]:
    drawn: dict[str, str | None] = dict.fromkeys(("timeline", "shares", "shift", "reliability"))
    drawn["timeline"] = charts.timeline(_timeline(verdict, history))
    if verdict.attribution:
        top = sorted(verdict.attribution, key=lambda a: (-max(a.share, a.baseline_share), a.feature))
        drawn["shares"] = charts.shares(top[:TOP_FEATURES], drifted_features(verdict), _group_labels(verdict))
    if verdict.attribution and verdict.score is not None:
        moved = sorted(verdict.attribution, key=lambda a: (-abs(a.shift), a.feature))
        drawn["shift"] = charts.score_shift(moved[:TOP_FEATURES], _together(moved[TOP_FEATURES:]), verdict.score)
    if verdict.calibration is not None and verdict.calibration.diagram:
        drawn["reliability"] = charts.reliability(verdict.calibration.diagram)
    # matplotlib has escaped every text in these, see charts._embed
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}  # noqa: S704


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
        ("Slope", result.slope, None, "1; below: scores are too extreme"),
        ("smECE", result.smece, result.baseline_smece, "0; mean gap of score and outcome"),
        ("Brier score", result.brier, result.baseline_brier, "small; mean squared error"),
    ]


def _order_slices(verdict: Verdict) -> list[tuple[SliceResult, bool]]:
    """Slices that a finding or the cause names first, then by rows; with whether they are named."""
    named = {f.slice for f in verdict.findings} | {verdict.cause.slice if verdict.cause else None}
    ordered = sorted(verdict.slices, key=lambda s: (s.slice not in named, -s.rows, s.slice))
    return [(s, s.slice in named) for s in ordered]


def _absent(verdict: Verdict) -> str:
    """Why a block that every evaluated window has is not there."""
    rows = verdict.rows
    if verdict.status is Status.INSUFFICIENT_DATA:
        return f"the window has too few rows to be compared ({rows.seen:,} seen, {rows.explained:,} explained)"
    if verdict.status is Status.NOT_EVALUATED:
        return "the window was not evaluated; the headline says why"
    if not rows.explained:
        return f"none of the {rows.seen:,} rows was explained"
    return "the verdict carries none"


def _calibration_absent(verdict: Verdict) -> str:
    if verdict.status in (Status.INSUFFICIENT_DATA, Status.NOT_EVALUATED):
        return _absent(verdict)
    if not verdict.rows.labelled:
        return "no mature labels reached this window: none are configured, or they have not arrived"
    return f"{verdict.rows.labelled:,} labelled rows are too few for it, or the model is not a binary classifier"


def _windows_since(verdict: Verdict) -> int | None:
    if verdict.since is None:
        return None
    return math.ceil((verdict.key.end - verdict.since) / (verdict.key.end - verdict.key.start))


def _budget_sentences(verdict: Verdict) -> list[str]:
    budget = verdict.budget
    period = "a day" if budget.period_days == 1 else f"in {number(budget.period_days)} days"
    if budget.learning:
        state = (
            "Learning: there are too few windows to know how much this model varies by itself, so no statistic"
            " pages yet; checks do."
        )
    elif budget.armed:
        state = "Armed: the next time that evidence reaches the page threshold, somebody is paged."
    else:
        state = "Not armed: this drift has been paged, and pages again only after it ended or a new baseline is approved."
    return [
        f"Accepted: {_amount(budget.false_pages, 'false page')} {period}, over all features and slices together.",
        f"Sent: {_amount(budget.pages, 'page')} in {_amount(budget.windows, 'watched window')}; without any change"
        f" at most {number(budget.expected_false_pages)} would be expected by now.",
        f"Evidence is {number(budget.evidence)}; a ticket needs {number(budget.ticket_threshold)}"
        f" and a page {number(budget.page_threshold)}.",
        state,
    ]


def _detectable_sentence(detectable: Detectable, verdict: Verdict) -> str:
    width = verdict.key.end - verdict.key.start
    sentence = (
        f"Within {_amount(detectable.windows, 'window')} ({_duration(detectable.windows * width)}): a shift of"
        f" {detectable.effect_sd:.2g} times what a stream varies by itself from window to window"
    )
    if detectable.example_feature is None or detectable.example_share_ratio is None:
        return sentence + "."
    return sentence + (
        f"; for {detectable.example_feature}, a share that is multiplied or divided"
        f" by {detectable.example_share_ratio:.3g}."
    )


def _amount(value: float, noun: str) -> str:
    """
    >>> _amount(1.0, "false page"), _amount(44, "window")
    ('1 false page', '44 windows')
    """
    text = f"{value:,.0f}" if float(value).is_integer() else number(value)
    return f"{text} {noun}" + ("" if value == 1 else "s")


def _duration(span: timedelta) -> str:
    """
    >>> _duration(timedelta(days=7)), _duration(timedelta(hours=2))
    ('7 days', '2 hours')
    """
    for unit, size in (("day", timedelta(days=1)), ("hour", timedelta(hours=1))):
        if span % size == timedelta(0):
            return _amount(span // size, unit)
    return _amount(span // timedelta(minutes=1), "minute")
