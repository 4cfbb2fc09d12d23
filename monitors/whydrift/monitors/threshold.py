"""How high the evidence must rise for a page: guaranteed by the budget lemma, or calibrated by simulation.

The lemma (see `evidence`) holds whatever the streams do, and pays for it: streams that move alike, and fewer than
all of them at once, come to a fraction of the pages that it allows. A calibrated threshold is the lowest one whose
false pages stay within the budget in a simulation of this very model: its streams' number, kinds, weights, units,
tails, autocorrelation and correlation, its windows' sizes and gaps, and all that the detector does, learning from
a baseline of the same length included. It is an estimate, where the other is a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from scipy import special, stats

from whydrift.monitors.evidence import MIN_BASELINE_WINDOWS, Observation, Stream, group_by_kind, learn
from whydrift.monitors.mixture import CLIP, LAMBDA, mixture, page_weights
from whydrift.monitors.residuals import (
    MOST_CORRELATED,
    BoolArray,
    FloatArray,
    History,
    IntArray,
    Scale,
    Window,
    advance,
    fit_scale,
    lag_one,
    no_history,
    predict,
)

_RUNS = (50, 400)
_WORK = 3e7  # streams x windows x runs that take about a minute
_BATCH = 4000  # streams that are simulated side by side: their state stays in the processor's cache
_LOWEST = 16.0  # the lemma is loose by 4 to 10 times
_STEPS = 16
_FEW = 20  # fewer residuals do not show a kind's tails
_WIDEST = 1e100  # a sampling variance, so that nothing overflows
_NORMAL = np.linspace(-8.0, 8.0, 801)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold, and the false pages a period that were simulated at it, with a 95 % interval."""

    threshold: float
    false_pages: float
    interval: tuple[float, float]
    runs: int


@dataclass(frozen=True, slots=True)
class _Noise:
    """What the baseline shows of its streams when nothing happens.

    Arrays: `usual` (D + T, m) is what the calendar makes of each window, `variances` (D, m) are the sampling
    variances of the baseline's, NaN where a stream was not observed; `loadings` (R, m) mix independent normal numbers
    into correlated ones, `own` (m,) is the part of each stream's variance that is its own; `quantiles` (kinds, 801)
    are what stands at `_NORMAL` in the distribution of a kind's residuals. `lag` is their autocorrelation, as
    estimated and not on the safe side: the detector is slower the higher it takes it to be.
    """

    unit: FloatArray
    between: FloatArray
    group: IntArray
    usual: FloatArray
    variances: FloatArray
    loadings: FloatArray
    own: FloatArray
    quantiles: FloatArray
    lag: float
    lag_error: float


def calibrate(
    streams: Sequence[Stream],
    baseline: Sequence[Observation],
    width: timedelta,
    false_pages: float,
    period: timedelta,
    rng: np.random.Generator,
    *,
    holidays: AbstractSet[date] = frozenset(),
) -> Calibrated:
    """The lowest page threshold whose simulated false pages a period are at most the allowed ones.

    "At most" is said of the upper end of a 95 % interval, which carries what the simulation and the baseline leave
    open; no threshold above the guaranteed one is returned. Two periods are simulated and the second is counted: in the
    first the evidence rises from nothing, and pages come half as often as later.
    Tolerances are not simulated: at the edge of a tolerance it gives nothing away.

    Raises ValueError for a baseline of fewer than `MIN_BASELINE_WINDOWS` windows, or without a stream that pages.
    """
    if len(baseline) < MIN_BASELINE_WINDOWS:
        raise ValueError(f"calibrating takes {MIN_BASELINE_WINDOWS} baseline windows, got {len(baseline)}")
    paging = np.flatnonzero(page_weights(streams) > 0)
    if not paging.size:
        raise ValueError("calibrating takes a stream that may page")
    chosen = [streams[index] for index in paging.tolist()]
    seen = [Observation(w.start, w.values[paging], w.variances[paging]) for w in baseline]
    windows = max(round(period / width), 1)
    guaranteed = windows / false_pages
    thresholds = np.geomspace(min(max(guaranteed / _LOWEST, 1.0), guaranteed), guaranteed, _STEPS)
    least, most = _RUNS
    runs = int(np.clip(_WORK / (paging.size * (len(baseline) + 2 * windows)), least, most))
    clock = [Window.at(w.start, width, holidays) for w in seen]
    clock += [Window.at(seen[-1].start + (i + 1) * width, width, holidays) for i in range(2 * windows)]
    noise, batch = _fit_noise(chosen, seen, clock, width, holidays), max(_BATCH // paging.size, 1)
    pages = np.concatenate(
        [_pages(chosen, noise, clock, windows, thresholds, min(batch, runs - at), rng) for at in range(0, runs, batch)],
        axis=1,
    )
    rates = [_interval(row, max(len(noise.loadings), 1)) for row in pages]
    too_many = [index for index, (_, high) in enumerate(rates) if high > false_pages]
    index = min(too_many[-1] + 1 if too_many else 0, _STEPS - 1)
    return Calibrated(float(thresholds[index]), float(pages[index].mean()), rates[index], runs)


def _fit_noise(
    streams: Sequence[Stream],
    baseline: Sequence[Observation],
    clock: Sequence[Window],
    width: timedelta,
    holidays: AbstractSet[date],
) -> _Noise:
    scale, history, judged = learn(streams, baseline, width, holidays)
    q, heard = np.array([window.q for window in judged]), np.array([window.heard for window in judged])
    loadings, own = _correlation(q, heard)
    lag, length = lag_one(history)
    variances = np.array([w.variances for w in baseline], dtype=np.float64)
    alike = ((loadings.T @ loadings + np.diag(own)) ** 2).mean()  # streams that move alike tell it less exactly
    return _Noise(
        unit=scale.unit,
        between=scale.between,
        group=scale.group,
        usual=np.array([predict(history, when.design)[0] for when in clock]),
        variances=np.where(np.isnan([w.values for w in baseline]), np.nan, np.clip(variances, 0.0, _WIDEST)),
        loadings=loadings,
        own=own,
        quantiles=_quantiles(q, heard, scale.group),
        lag=float(lag),
        lag_error=float(np.sqrt(alike / length)),
    )


def _correlation(q: FloatArray, heard: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Loadings (R, m) that give the residuals' correlations, and what is left to each stream.

    R windows make the mean square of correlations larger by 1 / R; all are shrunk by so much.
    """
    rows = q[heard.any(axis=1)]
    length = np.sqrt((rows**2).sum(axis=0))
    loadings = rows / np.where(length > 0, length, 1.0)
    square = (loadings.T @ loadings) ** 2
    pairs = max(square.size - len(square), 1)
    excess = (square.sum() - np.trace(square)) / pairs - 1 / max(len(rows), 1)
    share = np.sqrt(max(excess, 0.0) / (excess + 1 / max(len(rows), 1))) if excess > 0 else 0.0
    return loadings * np.sqrt(share), np.where(length > 0, 1 - share, 1.0)


def _quantiles(q: FloatArray, heard: BoolArray, group: IntArray) -> FloatArray:
    """Each kind's residuals as a function of a standard normal number, (kinds, 801).

    Between the smallest and the largest residual it is what was seen, skew included; beyond them it goes on like a
    t distribution with the kurtosis of all residuals.
    """
    pooled = np.sort(q[heard])
    kurtosis = float(stats.kurtosis(pooled)) if pooled.size >= _FEW and np.ptp(pooled) > 0 else 0.0
    tail = _t_quantile(_NORMAL, 4 + 6 / max(kurtosis, 0.06))
    tables = []
    for kind in range(group.max(initial=0) + 1):
        own = np.sort(q[:, group == kind][heard[:, group == kind]])
        seen = next((values for values in (own, pooled) if values.size >= _FEW and values[0] < 0 < values[-1]), None)
        if seen is None:
            tables.append(_NORMAL)
            continue
        at = special.ndtri((np.arange(seen.size) + 0.5) / seen.size)
        low, high = np.interp(at[[0, -1]], _NORMAL, tail)
        inside = np.interp(_NORMAL, at, seen)
        beyond = np.where(_NORMAL < 0, seen[0] * tail / low, seen[-1] * tail / high)
        tables.append(np.where(np.abs(_NORMAL) > at[-1], beyond, inside))
    return np.array(tables)


def _t_quantile(normal: FloatArray, df: float) -> FloatArray:
    return np.asarray(np.copysign(special.stdtrit(df, special.ndtr(-np.abs(normal))), normal))


def _draw(noise: _Noise, previous: FloatArray | None, lag: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The next window's noise of every run and stream, (runs, m), of unit variance or so; `lag` (runs, 1)."""
    shape = (len(lag), noise.unit.size)
    normal = rng.standard_normal((len(lag), len(noise.loadings))) @ noise.loadings
    normal += np.sqrt(noise.own) * rng.standard_normal(shape)
    shock = np.empty(shape)
    for kind, table in enumerate(noise.quantiles):
        of_kind = noise.group == kind
        shock[:, of_kind] = np.interp(normal[:, of_kind], _NORMAL, table)
    return shock if previous is None else lag * previous + np.sqrt(1 - lag**2) * shock


def _observe(noise: _Noise, window: int, state: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Values and sampling variances of a window of every run, (runs, m): as large as one of the baseline's."""
    days = len(noise.variances)
    variances = noise.variances[rng.integers(days, size=len(state))]
    if window >= days:  # what the baseline never carried may come later, such as labels
        variances[:, np.isnan(noise.variances).all(axis=0)] = 0.0
    spread = np.sqrt(noise.between + variances / noise.unit**2)
    return noise.unit * (noise.usual[window] + spread * state), variances


def _pages(
    streams: Sequence[Stream],
    noise: _Noise,
    clock: Sequence[Window],
    counted: int,
    thresholds: FloatArray,
    runs: int,
    rng: np.random.Generator,
) -> IntArray:
    """Pages of each run at each threshold, (A, runs), in the last `counted` windows of `clock`.

    An open page is taken to close at once. In truth it is open for three windows or more, so that fewer follow.
    """
    state = _warm_up(streams, noise, clock[: len(noise.variances)], runs, rng)
    weights = page_weights(streams)[:, None, None] * mixture(streams)
    evidence = np.zeros((thresholds.size, runs, *weights.shape))
    pages = np.zeros((thresholds.size, runs), dtype=np.int64)
    noisy, history = state.noisy, state.history
    for window in range(len(noise.variances), len(clock)):
        noisy = _draw(noise, noisy, state.lag, rng)
        history, residuals = advance(state.scale, history, clock[window], *_observe(noise, window, noisy, rng))
        grown = _grow(residuals.q)
        factor = np.stack([grown, 1 / grown], axis=2) * state.shrink[:, None, None, :]
        spoke = residuals.heard[:, :, None, None]
        evidence += spoke
        evidence *= np.where(spoke, factor, 1.0)
        paged = np.tensordot(evidence, weights, 3) >= thresholds[:, None]
        evidence[paged] = 0.0
        if window >= len(clock) - counted:
            pages += paged
    return pages


@dataclass(frozen=True, slots=True)
class _Warm:
    """Every run after its baseline; `shrink` (runs, K) is exp(-psi), `noisy` (runs, m) the last window's noise.

    `lag` (runs, 1) is their autocorrelation, which differs as far as the baseline leaves it open.
    """

    scale: Scale
    history: History
    shrink: FloatArray
    noisy: FloatArray
    lag: FloatArray


def _warm_up(
    streams: Sequence[Stream], noise: _Noise, clock: Sequence[Window], runs: int, rng: np.random.Generator
) -> _Warm:
    """What `evidence.fit` does, for many baselines at once."""
    lag = np.clip(noise.lag + noise.lag_error * rng.standard_normal((runs, 1)), 0.0, MOST_CORRELATED)
    noisy, seen = None, []
    for window in range(len(clock)):
        noisy = _draw(noise, noisy, lag, rng)
        seen.append(_observe(noise, window, noisy, rng))
    values, variances = (np.array(part) for part in zip(*seen, strict=True))
    scale = fit_scale(values, variances, np.array([when.design for when in clock]), group_by_kind(streams))
    history = no_history((runs, len(streams)), clock[0].design.size)
    moments, heard = np.zeros((runs, LAMBDA.size)), np.zeros((runs, 1))
    for when, value, variance in zip(clock, values, variances, strict=True):
        history, residuals = advance(scale, history, when, value, variance)
        grown = _grow(residuals.q)
        moments += np.where(residuals.heard[..., None], grown + 1 / grown, 0.0).sum(axis=1)
        heard += 2 * residuals.heard.sum(axis=1)[:, None]
    mgf = np.maximum(moments / np.maximum(heard, 1), np.exp(LAMBDA**2 / 2))
    return _Warm(scale, history, 1 / mgf, noisy if noisy is not None else np.zeros((runs, len(streams))), lag)


def _grow(q: FloatArray) -> FloatArray:
    """exp(lambda q), (..., K)."""
    return np.asarray(np.exp(np.clip(q, -CLIP, CLIP)[..., None] * LAMBDA))


def _interval(pages: IntArray, windows: int) -> tuple[float, float]:
    """A 95 % interval of the mean pages of a run: of the simulation, and of what it takes from the baseline.

    Noise that is known from so many windows leaves a rate uncertain by about one part in the root of their number:
    in simulations over baselines of 10 and 100 streams it was 0.16 to 0.33 where this says 0.16 to 0.28.
    """
    mean = float(pages.mean())
    spread = max(float(pages.var()), mean, 1 / pages.size) / pages.size
    half = 1.96 * float(np.sqrt(spread + mean**2 / windows))
    return max(mean - half, 0.0), mean + half
