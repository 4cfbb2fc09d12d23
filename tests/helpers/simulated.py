"""Streams that are simulated, and detectors that watch them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from whydrift.monitors.evidence import Detector, Evidence, Observation, Stream, Thresholds, fit, step

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
THRESHOLDS = Thresholds(page=90, ticket=7)


def streams(count: int, **changes) -> list[Stream]:
    return [Stream("share", feature=f"f{index}", **changes) for index in range(count)]


def observations(values, variances=0.01, *, start=START, width=DAY) -> list[Observation]:
    values = np.asarray(values, dtype=float)
    variances = np.broadcast_to(variances, values.shape)
    return [Observation(start + i * width, values[i], variances[i]) for i in range(len(values))]


def simulate(seed: int, count: int, windows: int, *, ar: float = 0.0, df: float = np.inf) -> np.ndarray:
    """Equicorrelated (0.3) streams with unit variance, t-distributed with `df`, weekday effects of their own."""
    rng = np.random.default_rng(seed)
    shocks = np.sqrt(0.7) * rng.standard_normal((windows + 50, count))
    shocks += np.sqrt(0.3) * rng.standard_normal((windows + 50, 1))
    if np.isfinite(df):
        shocks *= np.sqrt((df - 2) / rng.chisquare(df, shocks.shape))
    values = shocks.copy()
    for previous, now in pairwise(range(windows + 50)):
        values[now] = ar * values[previous] + np.sqrt(1 - ar**2) * shocks[now]
    return values[50:] + 0.5 * rng.standard_normal((7, count))[np.arange(windows) % 7]


def fold(detector: Detector, windows: list[Observation]) -> list[Evidence]:
    state, found = detector.start, []
    for window in windows:
        state, result = step(detector, state, window)
        found.append(result)
    return found


def watch(values, baseline: int, variances=0.01, **changes) -> list[Evidence]:
    windows = observations(values, variances)
    detector = fit(streams(values.shape[1], **changes), windows[:baseline], DAY, THRESHOLDS)
    return fold(detector, windows[baseline:])
