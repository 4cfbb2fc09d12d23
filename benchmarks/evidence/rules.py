"""What others do with the same numbers: rules on standardised streams, each of which can be tuned.

All take z, (runs, windows, m). A rule gives one score per window and stream, and alarms where the largest is above its
limit. CUSUMs start again from 0 after an alarm, so what they score depends on the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Judge = Callable[[FloatArray, float], tuple[BoolArray, npt.NDArray[np.int64]]]

CUSUM_ALLOWANCE = 0.5
_TUNING_STEPS = 14


def largest(z: FloatArray, limit: float) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Shewhart: |z| of some stream is above the limit. Alarms (runs, windows), and the stream that leads (same)."""
    size = np.abs(z)
    return size.max(axis=-1) > limit, size.argmax(axis=-1)


def benjamini_hochberg(z: FloatArray, limit: float) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Some stream is rejected at the false discovery rate exp(-limit), two-sided normal p-values."""
    p = 2 * ndtr(-np.abs(z))
    adjusted = np.sort(p, axis=-1) * z.shape[-1] / np.arange(1, z.shape[-1] + 1)
    return adjusted.min(axis=-1) < np.exp(-limit), p.argmin(axis=-1)


def cusum(z: FloatArray, limit: float) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Page 1954, two-sided: max(0, S + z - k) of some stream is above the limit; then all sums start anew."""
    runs, windows, streams = z.shape
    up, down = np.zeros((runs, streams)), np.zeros((runs, streams))
    alarms, leads = np.zeros((runs, windows), dtype=np.bool_), np.zeros((runs, windows), dtype=np.int64)
    for t in range(windows):
        up = np.maximum(up + z[:, t] - CUSUM_ALLOWANCE, 0.0)
        down = np.maximum(down - z[:, t] - CUSUM_ALLOWANCE, 0.0)
        both = np.maximum(up, down)
        leads[:, t] = both.argmax(axis=1)
        alarms[:, t] = both.max(axis=1) > limit
        up[alarms[:, t]] = down[alarms[:, t]] = 0.0
    return alarms, leads


def tune(alarms_at: Callable[[float], float], low: float, high: float, goal: float = 1.0) -> float:
    """The lowest limit, by halving, at which there are at most `goal` alarms; they fall with the limit."""
    for _ in range(_TUNING_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if alarms_at(middle) > goal else (low, middle)
    return high


def standardise(values: FloatArray, baseline: int) -> FloatArray:
    """The windows after the baseline, by the baseline's own mean and standard deviation (..., windows, m)."""
    first = values[..., :baseline, :]
    centre, spread = first.mean(axis=-2, keepdims=True), first.std(axis=-2, ddof=1, keepdims=True)
    return np.asarray((values[..., baseline:, :] - centre) / spread)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, and between which limits it can be tuned."""

    judge: Judge
    low: float
    high: float


RULES = {
    "largest": Rule(largest, 2.0, 15.0),
    "BH": Rule(benjamini_hochberg, 0.0, 60.0),
    "CUSUM": Rule(cusum, 3.0, 80.0),
}
