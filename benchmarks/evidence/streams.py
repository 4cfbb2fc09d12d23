"""Simulated streams: what windows look like while nothing happens, and what is done to them.

The unit of everything is a stream's window standard deviation: that of a window of typical size, calendar effects
set aside. Streams have units of their own where a null says so; nothing here depends on rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from whydrift.monitors import calendar_terms, evidence, mixture, residuals
from whydrift.monitors.evidence import Detector, Evidence, Observation, Stream, Thresholds, fit, step

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
HORIZON = 90  # windows in the period that the budget is stated for
GUARANTEED = Thresholds(page=90.0, ticket=7.0)
DETECTOR: Sequence[Any] = (evidence, residuals, mixture, calendar_terms)  # the modules that decide

_KINDS = ("share", "level")
_JUMPS = (10.0, 0.1)


@dataclass(frozen=True, slots=True)
class Null:
    """How windows vary although nothing changed.

    Attributes:
        name: of the null.
        correlation: of every two streams in the same window.
        autocorrelation: of each stream's day effects, AR(1).
        weekday: standard deviation of each stream's weekday effects.
        tails: degrees of freedom of Student's t, None for the normal distribution.
        sampling: part of a typical window's variance that is sampling of rows, white in time.
        spread: coefficient of variation of the lognormal sizes of windows.
        jumps: part of the windows that are ten times as large, and again that are a tenth.
        gaps: part of the days that have no window.
        units: standard deviation of the log of the streams' units.
    """

    name: str
    correlation: float = 0.0
    autocorrelation: float = 0.0
    weekday: float = 0.0
    tails: float | None = None
    sampling: float = 0.05
    spread: float = 0.0
    jumps: float = 0.0
    gaps: float = 0.0
    units: float = 0.5


NULLS = (
    Null("iid"),
    Null("day effects", correlation=0.3),
    Null("weekday", weekday=1.0),
    Null("AR .3", autocorrelation=0.3),
    Null("AR .5", autocorrelation=0.5),
    Null("AR .7", autocorrelation=0.7),
    Null("t4", tails=4.0),
    Null("sizes x10", sampling=0.5, spread=0.5, jumps=0.1, gaps=0.05),
    Null("correlated .8", correlation=0.8),
    Null(
        "all at once",
        correlation=0.3,
        autocorrelation=0.3,
        weekday=1.0,
        tails=4.0,
        sampling=0.5,
        spread=0.5,
        jumps=0.1,
        gaps=0.05,
    ),
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """T windows of m streams: `day` (T,) counts from `START`, `values` and `variances` (T, m), `unit` (m,)."""

    day: IntArray
    values: FloatArray
    variances: FloatArray
    unit: FloatArray

    def moved(self, effect: FloatArray, onset: int) -> Simulated:
        """With `effect`, (m,) or (windows, m) in units, added to the windows from the onset on."""
        values = self.values.copy()
        values[onset:] += effect * self.unit
        return replace(self, values=values)

    def observations(self) -> list[Observation]:
        return [
            Observation(START + int(day) * DAY, value, variance)
            for day, value, variance in zip(self.day, self.values, self.variances, strict=True)
        ]

    def streams(self) -> list[Stream]:
        """Of two kinds, by turns."""
        return [Stream(_KINDS[j % len(_KINDS)], feature=f"f{j}") for j in range(self.unit.size)]


def simulate(null: Null, streams: int, windows: int, rng: np.random.Generator) -> Simulated:
    """So many windows of so many streams."""
    days = windows if null.gaps == 0 else round(windows / (1 - null.gaps) * 1.2) + 20
    unit = np.exp(null.units * rng.standard_normal(streams))
    effects = _shocks(null, (days, streams), rng)
    r = null.autocorrelation
    for day in range(1, days):
        effects[day] = r * effects[day - 1] + np.sqrt(1 - r**2) * effects[day]
    kept = np.sort(rng.permutation(days)[:windows]) if null.gaps else np.arange(windows)
    weekday = null.weekday * rng.standard_normal((7, streams))
    size = _sizes(null, windows, rng)[:, None]
    sampling = np.sqrt(null.sampling / size) * _shocks(replace(null, tails=None), (windows, streams), rng)
    values = np.sqrt(1 - null.sampling) * effects[kept] + sampling + weekday[kept % 7]
    return Simulated(kept, unit * values, unit**2 * null.sampling / size, unit)


def _shocks(null: Null, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Unit variance, equally correlated over the streams."""

    def draw(*size: int) -> FloatArray:
        if null.tails is None:
            return rng.standard_normal(size)
        return rng.standard_t(null.tails, size) * np.sqrt((null.tails - 2) / null.tails)

    return np.sqrt(1 - null.correlation) * draw(*shape) + np.sqrt(null.correlation) * draw(shape[0], 1)


def _sizes(null: Null, windows: int, rng: np.random.Generator) -> FloatArray:
    """Relative sizes of the windows, (windows,); without jumps their mean is 1."""
    sigma = np.sqrt(np.log1p(null.spread**2))
    size = np.exp(sigma * rng.standard_normal(windows) - sigma**2 / 2)
    factor = rng.choice([1.0, *_JUMPS], size=windows, p=[1 - 2 * null.jumps, null.jumps, null.jumps])
    return np.asarray(size * factor)


def prepare(simulated: Simulated, baseline: int, thresholds: Thresholds = GUARANTEED) -> Detector:
    """The detector, fitted on the first windows."""
    return fit(simulated.streams(), simulated.observations()[:baseline], DAY, thresholds)


def watch(detector: Detector, windows: Sequence[Observation]) -> list[Evidence]:
    """What the detector says of each of the windows after its baseline."""
    state, found = detector.start, []
    for window in windows:
        state, now = step(detector, state, window)
        found.append(now)
    return found
