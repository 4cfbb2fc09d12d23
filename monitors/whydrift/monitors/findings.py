"""From evidence to findings: each named stream's value, in the unit and the words that people read it in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from whydrift.monitors import evidence as ev
from whydrift.monitors.distances import multiple
from whydrift.monitors.frozen import WINDOWS, Drift
from whydrift.monitors.outcome_streams import OUTCOME_STREAMS
from whydrift.monitors.performance import BLIND
from whydrift.monitors.reference import Reference
from whydrift.monitors.verdict import Channel, Finding, Status, WindowKey

_MOST_FINDINGS = 12


def evidence_findings(
    reference: Reference, observation: ev.Observation, evidence: ev.Evidence, key: WindowKey
) -> Iterator[Finding]:
    """A finding for each stream that an open page names, or else for each that the window's ticket is about."""
    thresholds = reference.settings.thresholds
    if evidence.firing:
        status, found, parts, threshold = Status.PAGE, evidence.named, evidence.weighted, thresholds.page
    else:
        status, found, parts, threshold = Status.TICKET, evidence.suspected, evidence.concern, thresholds.ticket
    for index in found[:_MOST_FINDINGS]:
        stream = reference.detector.streams[index]
        finding = Finding(
            channel=Channel.EVIDENCE,
            stream=stream.kind,
            status=status,
            message=f"{_subject(stream)} moved in earlier windows; this one does not tell",
            feature=stream.feature,
            slice=stream.slice,
            group=stream.group,
            class_name=stream.class_name,
            baseline=_in_its_unit(reference, stream, float(evidence.expected[index])),
            evidence=float(parts[index]),
            threshold=threshold,
            onset=(evidence.onset[index] or key.start) - _delay(reference, stream),
            confirmed=index in evidence.confirmed,
        )
        yield _with_value(reference, finding, observation, evidence, index) if evidence.observed[index] else finding


def slow_findings(reference: Reference, drifts: Sequence[Drift]) -> Iterator[Finding]:
    """A ticket for each stream that is beyond its tolerance on average over the newest windows."""
    for drift in drifts[:_MOST_FINDINGS]:
        stream = reference.detector.streams[drift.stream]
        value, baseline = (_in_its_unit(reference, stream, number) for number in (drift.mean, drift.expected))
        low, high = (_in_its_unit(reference, stream, end) for end in drift.interval)
        yield Finding(
            channel=Channel.EVIDENCE,
            stream=stream.kind,
            status=Status.TICKET,
            message=f"{_subject(stream)} has drifted slowly: over {WINDOWS} windows it was"
            f" {_numbers(stream, value, baseline, drift.effect)}",
            feature=stream.feature,
            slice=stream.slice,
            group=stream.group,
            class_name=stream.class_name,
            value=value,
            baseline=baseline,
            effect=drift.effect,
            interval=(low, high),
            onset=drift.since - _delay(reference, stream),
        )


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


_SHARES = frozenset({"share", "group_share"})
_PARTS = _SHARES | {"coverage"}
_DISTANCES = frozenset({"shape", "score_shape", "response"})
_LOGARITHMS = frozenset({"effective_features", "residual", "gap_selection", "gap_tpr", "gap_fpr", "gap_calibration"})
_LARGEST_LOG = 300.0  # exp of it is finite, in units of any scale


def _in_its_unit(reference: Reference, stream: ev.Stream, value: float) -> float:
    """A stream's value as people read it: a share, units of the output, multiples of a usual distance, or as it is."""
    if stream.kind in _SHARES:
        return float(np.exp(min(value, 0.0)))
    if stream.kind in _DISTANCES:
        return multiple(value)
    if stream.kind == "coverage":
        return float(np.sin(np.clip(value, 0.0, np.pi / 2)) ** 2)
    return _unit(reference, stream) * (float(np.exp(min(value, _LARGEST_LOG))) if stream.kind in _LOGARITHMS else value)


def _unit(reference: Reference, stream: ev.Stream) -> float:
    """What a value of 1 is of the output."""
    head = reference.head(stream.class_name)
    layout, fixed = head.layout, head.streams
    if stream.kind == "level" and stream.feature is not None:
        return float(fixed.deviation[layout.names.index(stream.feature)]) * layout.scale
    if stream.kind == "group_level":
        names = [group.name for group in layout.groups]
        return float(fixed.group_deviation[names.index(stream.group or "")]) * layout.scale
    if stream.kind in {"bias", "loss"}:
        return layout.loss_scale ** (1 if stream.kind == "bias" else 2)
    return layout.scale if stream.kind in {"score_mean", "residual"} else 1.0


_WORDS = {
    "share": "the share of {name} in the attributions",
    "level": "the mean attribution of {name}",
    "shape": "the distance between the attributions of {name} and those of the baseline",
    "response": "the difference in how equal values of {name} are answered",
    "group_share": "the share of {name} together in the attributions",
    "group_level": "the mean attribution of {name} together",
    "score_mean": "the mean output",
    "score_shape": "the distance between the scores and those of the baseline",
    "effective_features": "the number of features that the attributions are shared among",
    "residual": "what the explanations miss of the output",
    "calibration_intercept": "the calibration intercept",
    "calibration_slope": "the calibration slope",
    "smece": "the smooth calibration error",
    "bias": "the mean of outcome - prediction",
    "coverage": "the part of outcomes in the interval that held 90 % of the baseline's",
    "loss": "the mean loss of {name}",
    "estimated_loss": f"the loss expected from the scores alone ({BLIND})",
    "estimated_error": f"the share of wrong answers expected from the scores alone ({BLIND})",
    "gap_selection": "the selection rate of {name} by that of its reference group",
    "gap_tpr": "the true positive rate of {name} by that of its reference group",
    "gap_fpr": "the false positive rate of {name} by that of its reference group",
    "gap_calibration": "the outcomes by predictions of {name} by those of its reference group",
}


def _subject(stream: ev.Stream) -> str:
    words = _WORDS[stream.kind].format(name=stream.feature or stream.group or stream.slice or "all rows")
    return words if stream.class_name is None else f"{words}, for class {stream.class_name},"


def _say(stream: ev.Stream, value: float, baseline: float, effect: float) -> str:
    return f"{_subject(stream)} is {_numbers(stream, value, baseline, effect)}"


def _numbers(stream: ev.Stream, value: float, baseline: float, effect: float) -> str:
    form = ".1%" if stream.kind in _PARTS else ".3g"
    of = " times what is usual" if stream.kind in _DISTANCES else ""
    return f"{value:{form}} instead of {baseline:{form}}{of} ({effect:+.1f} window deviations)"
