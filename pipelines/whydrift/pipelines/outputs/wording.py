"""How the report says numbers and states, in words for people."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from whydrift.monitors.verdict import Budget, Detectable, Finding, Mute, Status, Verdict
from whydrift.monitors.verdict_sample import RowSample

NOTHING = "–"
_NBSP = "\N{NO-BREAK SPACE}"
# Streams in [0, 1].
_RATES = {"share", "group_share", "missing_rate", "unseen_rate", "set_aside", "additivity", "prediction_differs"}
_RATES |= {"coverage"}

MEANING = {
    Status.OK: "nothing to do",
    Status.TICKET: "look when you have time",
    Status.PAGE: "act now",
    Status.INSUFFICIENT_DATA: "too few rows to tell",
    Status.NOT_EVALUATED: "cannot tell, this window was not evaluated",
}


def number(value: float | None) -> str:
    """Three decimals or three significant digits, whichever is less to read.

    >>> number(0.04132), number(1204.4), number(-0.21), number(90.0), number(None)
    ('0.041', '1,204', '−0.210', '90', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0:
        return "0"
    if math.isinf(value) or float(value).is_integer():
        text = f"{value:,.0f}"
    elif abs(value) < 1e-4:
        text = f"{value:.1e}"
    else:
        magnitude = math.floor(math.log10(abs(value)))
        digits = max(0, 2 - magnitude) if magnitude >= -1 else 1 - magnitude
        text = f"{value:,.{digits}f}"
    return text.replace("-", "−")


def signed(value: float | None) -> str:
    """`number` with its sign.

    >>> signed(0.21), signed(-0.21), signed(0.0)
    ('+0.210', '−0.210', '0')
    """
    return "+" + number(value) if value is not None and value > 0 else number(value)


def from_log(value: float | None) -> str:
    """A ratio of which the logarithm is given.

    >>> from_log(0.0), from_log(-0.2231), from_log(None)
    ('1', '0.800', '–')
    """
    return number(None if value is None else math.exp(min(value, 300.0)))


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
    """A finding's value as a person reads it: shares and rates in per cent."""
    return percent(value) if finding.stream in _RATES else number(value)


def absent(verdict: Verdict) -> str:
    """Why a block that every judged window has is not there."""
    if verdict.status is Status.NOT_EVALUATED:
        return "the window was not evaluated; the headline says why"
    return f"{verdict.rows.explained:,} of {verdict.rows.seen:,} rows could be explained, too few to compare"


def calibration_absent(verdict: Verdict) -> str:
    """Why there is no calibration, which needs labels and not attributions."""
    if verdict.status is Status.NOT_EVALUATED:
        return absent(verdict)
    if not verdict.rows.labelled:
        return "no mature labels reached this window: none are configured, or they have not arrived"
    return f"{verdict.rows.labelled:,} labelled rows are too few for it, now or in the baseline of a regression"


def losses_absent(verdict: Verdict) -> str:
    """Why it is not said which feature makes the model wrong."""
    if verdict.status is Status.NOT_EVALUATED:
        return absent(verdict)
    if not verdict.rows.labelled:
        return "no mature labels reached this window: none are configured, or they have not arrived"
    return "too few labelled rows were explained, or loss_attribution was off when the baseline was made or is off now"


def budget_sentences(verdict: Verdict) -> list[str]:
    """The accepted false alarms, what came of them so far, and whether the next window can page."""
    budget = verdict.budget
    period = "a day" if budget.period_days == 1 else f"in {number(budget.period_days)} days"
    if budget.learning:
        state = (
            "Learning: the baseline has too few windows to know how much this model varies by itself, so evidence"
            " opens no page and no ticket; checks do."
        )
    elif budget.armed:
        state = "Armed: the next time that evidence reaches the page threshold, somebody is paged."
    else:
        state = (
            "Not armed: a page is open. Evidence can open the next one after this one's cause has been quiet for"
            " some windows, or with a new baseline."
        )
    thresholds = f"a ticket needs {number(budget.ticket_threshold)}, a page {number(budget.page_threshold)}"
    return [
        f"Accepted: {_amount(budget.false_pages, 'false page')} {period}, over all features and slices together.",
        f"Opened by evidence: {_amount(budget.pages, 'page')} in {_amount(budget.windows, 'watched window')}.",
        f"Expected by now without any change: at most {_amount(budget.expected_false_pages, 'page')}.",
        f"Evidence is {number(budget.evidence)}; {thresholds}.",
        *_how_calibrated(budget),
        state,
        *(mute_sentence(mute) for mute in verdict.muted),
    ]


def _how_calibrated(budget: Budget) -> list[str]:
    if budget.simulated_false_pages is None or budget.simulated_interval is None:
        return []
    low, high = budget.simulated_interval
    simulated = f"{number(budget.simulated_false_pages)} false pages in {number(budget.period_days)} days"
    interval = f"(95 % interval {number(low)} to {number(high)})"
    return [f"The page threshold is calibrated: the baseline's own noise, simulated, came to {simulated} {interval}."]


def mute_sentence(mute: Mute) -> str:
    """What nobody is told of for a while, and why."""
    named = [mute.kind, mute.feature, mute.group, mute.slice, mute.class_name]
    return (
        f"Muted from {when(mute.since)} until {when(mute.until)} (UTC): {', '.join(name for name in named if name)};"
        f" {mute.reason}."
    )


def detectable_sentence(detectable: Detectable, verdict: Verdict) -> str:
    """The smallest shift that so many windows would have shown."""
    width = verdict.key.end - verdict.key.start
    within = f"Within {_amount(detectable.windows, 'window')} ({_duration(detectable.windows * width)}):"
    if not math.isfinite(detectable.effect_sd):
        return f"{within} no shift, however large."
    sentence = f"{within} a shift of {detectable.effect_sd:.2g} times what a stream varies by itself between windows"
    ratio = detectable.example_share_ratio
    if detectable.example_feature is None or ratio is None:
        return f"{sentence}."
    factor = "more than 1,000" if ratio > 1000 else f"{ratio:.3g}"
    return f"{sentence}; for {detectable.example_feature}, a share that is multiplied or divided by {factor}."


_SIZED = {
    "floor": "the least that is ever explained",
    "stream": "so many that chance adds a tenth to what windows differ by in {stream}, and less in all others",
    "cap": "the most that is explained: {stream} hardly differs between windows, and asks for more",
    "quiet": "so many that quiet windows keep enough to be judged",
    "configured": "as explainer.rows asks",
}


def sample_sentences(sample: RowSample) -> list[str]:
    """How many rows were explained, why so many, and what more would buy."""
    why = _SIZED[sample.why].format(stream=sample.stream)
    drawn = f"{sample.explained:,} of {sample.rows:,} rows are explained, drawn by a hash of the event id"
    told = f"{drawn}: {why}. All else uses every row."
    if sample.sampling_part is None or sample.with_tenfold is None or sample.with_all is None:
        return [told]
    part = percent(sample.sampling_part)
    gain = f"{percent(1 - sample.with_tenfold)} smaller with ten times as many rows"
    bought = (
        f"Most of all {sample.least_certain} could gain from more: {part} of its variance is chance. The smallest shift"
        f" of it that can be found would be {gain}, and {percent(1 - sample.with_all)} with all."
    )
    return [told, bought]


def _amount(value: float, noun: str) -> str:
    """A number of things.

    >>> _amount(1.0, "false page"), _amount(44, "window")
    ('1 false page', '44 windows')
    """
    text = f"{value:,.0f}" if float(value).is_integer() else number(value)
    return f"{text} {noun}" + ("" if value == 1 else "s")


def _duration(span: timedelta) -> str:
    """A time span in its largest whole unit.

    >>> _duration(timedelta(days=7)), _duration(timedelta(hours=2))
    ('7 days', '2 hours')
    """
    for unit, size in (("day", timedelta(days=1)), ("hour", timedelta(hours=1))):
        if span % size == timedelta(0):
            return _amount(span // size, unit)
    return _amount(span // timedelta(minutes=1), "minute")
