"""From evidence to findings: each named stream's value, in the unit and the words that people read it in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import numpy as np

from whydrift.monitors import evidence as ev
from whydrift.monitors.reference import Reference
from whydrift.monitors.streams import OUTCOME_STREAMS
from whydrift.monitors.verdict import Channel, Finding, Status, WindowKey

_MOST_FINDINGS = 12


def evidence_findings(
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
