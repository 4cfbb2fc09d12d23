"""Slow drift, which a detector that learns comes to take for normal: the newest 28 windows against the baseline.

Nothing is learned here. The mean of the newest windows is compared with what the approved baseline predicts for the
same days, and a stream is named only if the confidence interval of the difference lies wholly outside its tolerance:
that it moved is not enough, it must have moved too far (the two one-sided tests of Schuirmann, J. Pharmacokinetics
and Biopharmaceutics 1987, doi 10.1007/BF01068419, with the roles of the hypotheses exchanged).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy import special

from whydrift.monitors.calendar_terms import calendar
from whydrift.monitors.evidence import Detector, Observation, harmless_shifts
from whydrift.monitors.residuals import (
    LEARN_LIMIT,
    MIN_HISTORY,
    BoolArray,
    FloatArray,
    IntArray,
    autocorrelation,
    in_units,
    moderate,
    observed_in,
    predict,
)

WINDOWS = 28

_FEWEST = 14  # of the windows must carry a stream
_LEVEL = 0.05  # of naming one of all streams in a check, if each is as far off as its tolerance
_TOLERANCE = 1.0  # window standard deviations, for a stream whose kind has no tolerance


@dataclass(frozen=True, slots=True)
class Drift:
    """A stream that is beyond its tolerance, in its own units, and by how many window deviations (`effect`).

    `mean` and `expected` are those of the newest windows, `interval` is the confidence interval of `mean`.
    """

    stream: int
    since: datetime
    mean: float
    expected: float
    interval: tuple[float, float]
    tolerance: float
    effect: float


def remember(recent: tuple[Observation, ...], observation: Observation) -> tuple[Observation, ...]:
    """The newest `WINDOWS` windows that carried a stream."""
    if not observed_in(observation.values, observation.variances).any():
        return recent
    return (*recent, observation)[-WINDOWS:]


def drifted(detector: Detector, recent: Sequence[Observation], deaf: BoolArray) -> tuple[Drift, ...]:
    """The streams that the newest windows show beyond their tolerance, farthest first; not those that are `deaf` (m,).

    A window counts as at most 6 deviations off, so that a single odd one cannot pass for drift. Standard errors carry
    the baseline's own error, and the autocorrelation of its residuals. A baseline that is too short for a budget is
    too short for this.
    """
    if detector.learning or len(recent) < WINDOWS:
        return ()
    scale, history = detector.scale, detector.start.history
    variance, df = moderate(history.rss / np.maximum(history.df, 1), history.df, scale.unit, scale.group)
    noise = np.sqrt(variance)
    found = _compare(detector, recent, noise)
    judged = (history.df >= MIN_HISTORY) & (found.windows >= _FEWEST) & ~deaf
    half = special.stdtrit(np.maximum(df, 1.0), 1 - _LEVEL / 2 / max(judged.sum(), 1)) * found.error
    own = harmless_shifts(detector)
    tolerance = np.where(own > 0, own, _TOLERANCE * noise)
    upward = np.array([stream.one_sided for stream in detector.streams], dtype=np.bool_)
    beyond = judged & (np.where(upward, found.shift, np.abs(found.shift)) - half > tolerance)
    effect, expected = found.shift / noise, scale.centre + scale.unit * found.expected
    mean, half = expected + scale.unit * found.shift, scale.unit * half
    return tuple(
        Drift(
            stream=stream,
            since=recent[0].start,
            mean=float(mean[stream]),
            expected=float(expected[stream]),
            interval=(float(mean[stream] - half[stream]), float(mean[stream] + half[stream])),
            tolerance=float(scale.unit[stream] * tolerance[stream]),
            effect=float(effect[stream]),
        )
        for stream in sorted(np.flatnonzero(beyond).tolist(), key=lambda stream: -abs(effect[stream]))
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Mean prediction, mean difference from it, and the latter's standard error, (m,), in `Scale.unit`."""

    expected: FloatArray
    shift: FloatArray
    error: FloatArray
    windows: IntArray


def _compare(detector: Detector, recent: Sequence[Observation], noise: FloatArray) -> _Comparison:
    """The windows against the regression as it was at the end of the baseline."""
    scale, history = detector.scale, detector.start.history
    design = np.array([calendar(window.start, detector.width, detector.holidays) for window in recent])
    units = [in_units(scale, window.values, window.variances) for window in recent]
    observed, value, relative = (np.array(part) for part in zip(*units, strict=True))
    expected, leverage = (np.array(part) for part in zip(*(predict(history, row) for row in design), strict=True))
    limit = LEARN_LIMIT * noise * np.sqrt(relative + leverage)
    off = np.where(observed, np.clip(value - expected, -limit, limit), 0.0)
    windows = observed.sum(axis=0)
    count = np.maximum(windows, 1)
    mean = (observed.T @ design / count[:, None])[:, :, None]
    own = (mean * np.linalg.solve(history.information, mean)).sum(axis=(1, 2))  # the baseline's variance of the mean
    phi = autocorrelation(history)
    spread = np.where(observed, relative, 0.0).sum(axis=0) / count**2 + own
    return _Comparison(
        expected=np.where(observed, expected, 0.0).sum(axis=0) / count,
        shift=off.sum(axis=0) / count,
        error=noise * np.sqrt(spread * (1 + phi) / (1 - phi)),
        windows=windows,
    )
