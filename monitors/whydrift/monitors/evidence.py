"""Alerts with a stated false-alarm budget: one e-detector over all streams of a model.

Every stream's residual q (see `residuals`) feeds a mixture of Shiryaev-Roberts e-detectors (Shin, Ramdas &
Rinaldo, NEJSDS 2024, doi 10.51387/23-NEJSDS51), and their weighted mean is the model's evidence M.

Budget lemma. Let M_t = sum_i w_i M_it with sum w = 1 and M_it = (M_i,t-1 + 1) L_it, where E[L_it | past] <= 1
as long as nothing changed; page when M_t >= A, then set all M to 0. Then at most T / A pages are expected in
T windows, whatever the number of streams and their dependence. Proof: E[M_t | past] <= M_t-1 + 1, and a page
takes away at least A, so M_t + A N_t - t is a supermartingale that starts at 0; hence A E[N_T] <= T.

The lemma is exact for Gaussian noise with at most AR(1) dependence. Heavy tails are met by a clip and an
empirical moment generating function; there it holds by simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from whydrift.monitors.residuals import (
    BoolArray,
    FloatArray,
    History,
    IntArray,
    Residuals,
    Scale,
    advance,
    autocorrelation,
    calendar,
    fit_scale,
    from_microseconds,
    microseconds,
    no_history,
)

__all__ = [
    "MIN_BASELINE_WINDOWS",
    "Detector",
    "Evidence",
    "Observation",
    "State",
    "Stream",
    "Thresholds",
    "calendar",
    "fit",
    "smallest_detectable",
    "step",
]

MIN_BASELINE_WINDOWS = 28  # fewer replicates carry no budget

LAMBDA = np.array([0.5, 1.0, 2.0, 3.0])
CLIP = 4.0  # one odd window can hardly page alone; total breakage is for the deterministic checks
_SIGNS = np.array([1.0, -1.0])
_QUIET = (3, 2.0)  # a page closes when the last 3 |q| of its cause are below 2
_NAMED_SHARE = 0.9
_LOG_LIMIT = 690.0  # exp of it is finite


@dataclass(frozen=True, slots=True)
class Stream:
    """One number watched per window. `tolerance` is the harmless shift, in units of the value.

    Streams of one `kind` share their units, and borrow strength for their variances from each other.
    A `one_sided` stream can only be too large. Weights are relative.
    """

    kind: str
    feature: str | None = None
    slice: str | None = None
    one_sided: bool = False
    tolerance: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One window: its start (aware), values (m,), NaN where a stream was not observed, and their sampling
    variances (m,). An infinite value, such as the log of an empty share, counts as an extreme one.
    """

    start: datetime
    values: FloatArray
    variances: FloatArray


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Evidence that opens a page, and that is worth a ticket: windows per false alarm."""

    page: float
    ticket: float


@dataclass(frozen=True, slots=True)
class State:
    """All that the windows so far left behind. Immutable; arrays (m, 2 signs, K) unless said otherwise."""

    history: History
    log_evidence: FloatArray  # log M, set to 0 evidence by a page
    log_concern: FloatArray  # the same, but set to 0 by a ticket also
    log_cusum: FloatArray
    run_start: IntArray  # microseconds since 1970
    recent: FloatArray  # (m, 3) last |q| since the page
    named: tuple[int, ...] = ()
    firing: bool = False
    windows: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Detector:
    """What a baseline fixes. `psi` (K,) bounds the log moment generating function of q, `mix` (m, 2, K) sums to 1."""

    streams: tuple[Stream, ...]
    width: timedelta
    thresholds: Thresholds
    learning: bool
    weights: FloatArray
    scale: Scale
    psi: FloatArray
    mix: FloatArray
    start: State


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one window adds up to. Arrays are (m,), in the order of the streams.

    `model` is M before any reset. `page`: this window opened a page. `ticket`: an M that tickets set to 0
    as well reached the ticket threshold while no page was open, so the budget lemma holds for tickets too.
    `firing`: a page is open, this one included. `armed`: the next window can page. `weighted` are the
    parts w_j M_j of M, `effect` is in window standard deviations, `expected` and `half_width` (95 %, inf
    before a stream has a history) in units of the value. `observed`: the window carries the stream; where
    not, q = effect = 0. `onset`: start of the leading CUSUM run, None without one. `named`: the streams
    that make up 90 % of M, strongest first, kept from the page while it is open. `confirmed`: the e-BH set
    at the page threshold (Dandapanthula & Ramdas, arXiv 2501.04130).
    """

    model: float
    page: bool
    ticket: bool
    firing: bool
    armed: bool
    windows: int
    pages: int
    expected_false_pages: float
    q: FloatArray
    weighted: FloatArray
    expected: FloatArray
    effect: FloatArray
    half_width: FloatArray
    observed: BoolArray
    onset: tuple[datetime | None, ...]
    named: tuple[int, ...]
    confirmed: frozenset[int]


def fit(
    streams: Sequence[Stream], baseline: Sequence[Observation], width: timedelta, thresholds: Thresholds
) -> Detector:
    """Fit the constants on the baseline's windows, in order, and warm the state up on them without alarms.

    With fewer than `MIN_BASELINE_WINDOWS` windows the detector is `learning`: it computes evidence, but no
    budget can be stated, so it neither pages nor tickets. A stream speaks once it has
    `residuals.MIN_HISTORY` residuals, not counting its first window of each weekday (15 daily windows);
    one that the baseline carries less often goes on learning in production and is silent until then.

    Raises ValueError for weights that are negative or all zero, and for a NaN or non-positive threshold.
    """
    weights = np.array([stream.weight for stream in streams], dtype=np.float64)
    if len(streams) and not (np.all(weights >= 0) and 0 < weights.sum() < np.inf):
        raise ValueError(f"stream weights must be finite, not negative and not all zero, got {weights.tolist()}")
    if not (thresholds.page > 0 and thresholds.ticket > 0):
        raise ValueError(f"thresholds are windows per false alarm and must be positive, got {thresholds}")
    kinds = {kind: code for code, kind in enumerate(dict.fromkeys(stream.kind for stream in streams))}
    group = np.array([kinds[stream.kind] for stream in streams], dtype=np.int64)
    regressors = calendar(from_microseconds(0), width).size
    design = np.array([calendar(window.start, width) for window in baseline]).reshape(len(baseline), regressors)
    shape = (len(baseline), len(streams))
    values = np.array([window.values for window in baseline], dtype=np.float64).reshape(shape)
    variances = np.array([window.variances for window in baseline], dtype=np.float64).reshape(shape)
    scale = fit_scale(values, variances, design, group)

    history, heard = no_history(len(streams), regressors), [np.empty(0)]
    for window in baseline:
        history, residuals = advance(scale, history, window.start, width, window.values, window.variances)
        heard.append(residuals.q[residuals.heard])
    return Detector(
        streams=tuple(streams),
        width=width,
        thresholds=thresholds,
        learning=len(baseline) < MIN_BASELINE_WINDOWS,
        weights=weights / weights.sum() if len(streams) else weights,
        scale=scale,
        psi=_log_mgf(np.concatenate(heard)),
        mix=_mixture(streams),
        start=_silent(history),
    )


def step(detector: Detector, state: State, observation: Observation) -> tuple[State, Evidence]:
    """Fold one window into the state. Pure: the same state and window give the same bits.

    While a page is open the streams that it names learn nothing, so that it closes when they are back where they
    were, and not when the change has become familiar.
    """
    held = np.zeros(len(detector.streams), dtype=bool)
    held[list(state.named) if state.firing else []] = True
    history, residuals = advance(
        detector.scale,
        state.history,
        observation.start,
        detector.width,
        observation.values,
        observation.variances,
        held,
    )
    state = replace(
        _accumulate(detector, state, residuals, microseconds(observation.start)),
        history=history,
        windows=state.windows + bool(residuals.observed.any()),
    )
    if state.firing and np.all(state.recent[list(state.named)] < _QUIET[1]):
        state = replace(_silent(history), windows=state.windows, pages=state.pages)

    weighted = _weighted(detector, state.log_evidence)
    model = float(weighted.sum())
    armed = not (detector.learning or state.firing)
    page = armed and model >= detector.thresholds.page
    ticket = armed and float(_weighted(detector, state.log_concern).sum()) >= detector.thresholds.ticket
    evidence = Evidence(
        model=model,
        page=page,
        ticket=ticket,
        firing=state.firing or page,
        armed=armed and not page,
        windows=state.windows,
        pages=state.pages + page,
        expected_false_pages=state.windows / detector.thresholds.page,
        q=residuals.q,
        weighted=weighted,
        expected=residuals.expected,
        effect=residuals.effect,
        half_width=residuals.half_width,
        observed=residuals.observed,
        onset=tuple(_onset(detector, state)),
        named=state.named if state.firing else _leading(weighted),
        confirmed=_confirmed(weighted, detector.thresholds.page),
    )
    if ticket:
        state = replace(state, log_concern=np.full_like(state.log_concern, -np.inf))
    return (_opened(state, evidence.named) if page else state), evidence


def smallest_detectable(detector: Detector, state: State, windows: Sequence[int]) -> tuple[float, ...]:
    """The lasting shift of one stream, in window standard deviations, that is found within about L windows.

    tolerance + sqrt(2 log(2 m K A) / L), and the second term times sqrt((1 + phi) / (1 - phi)), because
    evidence grows by about shift**2 / 2 a window and autocorrelated windows say less. The tolerance is the
    streams' weighted mean.
    """
    if not detector.streams:
        return tuple(float("inf") for _ in windows)
    phi = autocorrelation(state.history)
    needed = np.log(2 * len(detector.streams) * LAMBDA.size * max(detector.thresholds.page, 1.0))
    tolerance = float(detector.weights @ (_tolerance(detector) / detector.scale.unit))
    return tuple(float(tolerance + np.sqrt(2 * needed / count * (1 + phi) / (1 - phi))) for count in windows)


def _accumulate(detector: Detector, state: State, residuals: Residuals, now: int) -> State:
    """Multiply every detector by this window's factor; streams that were not heard keep theirs."""
    heard = residuals.heard[:, None, None]
    harmless = (_tolerance(detector) / (detector.scale.unit * residuals.noise))[:, None, None]
    score = _SIGNS[None, :, None] * np.clip(residuals.q, -CLIP, CLIP)[:, None, None]
    factor = LAMBDA * (score - harmless) - detector.psi
    fresh = state.log_cusum <= 0
    return replace(
        state,
        log_evidence=np.where(heard, np.logaddexp(state.log_evidence, 0.0) + factor, state.log_evidence),
        log_concern=np.where(heard, np.logaddexp(state.log_concern, 0.0) + factor, state.log_concern),
        log_cusum=np.where(heard, np.maximum(state.log_cusum, 0.0) + factor, state.log_cusum),
        run_start=np.where(heard & fresh, now, state.run_start),
        recent=np.where(heard[:, :, 0], np.column_stack([state.recent[:, 1:], np.abs(residuals.q)]), state.recent),
    )


def _weighted(detector: Detector, log_evidence: FloatArray) -> FloatArray:
    """The streams' parts w_j M_j of the model's evidence, (m,)."""
    linear = np.exp(np.minimum(log_evidence, _LOG_LIMIT))
    return np.asarray(detector.weights * (detector.mix * linear).sum(axis=(1, 2)))


def _silent(history: History) -> State:
    """No evidence yet, no page open."""
    shape = (history.df.size, _SIGNS.size, LAMBDA.size)
    return State(
        history=history,
        log_evidence=np.full(shape, -np.inf),
        log_concern=np.full(shape, -np.inf),
        log_cusum=np.zeros(shape),
        run_start=np.zeros(shape, dtype=np.int64),
        recent=np.full((shape[0], _QUIET[0]), np.inf),
    )


def _opened(state: State, named: tuple[int, ...]) -> State:
    """After a page: M starts again from 0, and its cause must be quiet for three windows from here on."""
    return replace(
        state,
        log_evidence=np.full_like(state.log_evidence, -np.inf),
        log_concern=np.full_like(state.log_concern, -np.inf),
        recent=np.full_like(state.recent, np.inf),
        named=named,
        firing=True,
        pages=state.pages + 1,
    )


def _onset(detector: Detector, state: State) -> Iterator[datetime | None]:
    """Each stream's leading CUSUM run, or None while no run is above water."""
    run = np.where(detector.mix > 0, state.log_cusum, -np.inf).reshape(len(detector.streams), detector.psi.size * 2)
    leader = run.argmax(axis=1)[:, None]
    starts = np.take_along_axis(state.run_start.reshape(run.shape), leader, axis=1)[:, 0]
    for height, start in zip(np.take_along_axis(run, leader, axis=1)[:, 0], starts, strict=True):
        yield from_microseconds(int(start)) if height > 0 else None


def _leading(weighted: FloatArray) -> tuple[int, ...]:
    """The fewest streams that make up 90 % of the evidence, strongest first.

    >>> _leading(np.array([1.0, 0.0, 12.0, 3.0]))
    (2, 3)
    """
    order = np.argsort(-weighted, kind="stable")
    before = np.cumsum(weighted[order]) - weighted[order]
    enough = (before < _NAMED_SHARE * weighted.sum()) & (weighted[order] > 0)
    return tuple(int(index) for index in order[enough])


def _confirmed(weighted: FloatArray, threshold: float) -> frozenset[int]:
    """The largest k streams whose weakest part of M is at least threshold / k (weighted e-BH).

    >>> sorted(_confirmed(np.array([50.0, 1.0, 46.0]), threshold=90.0))
    [0, 2]
    """
    order = np.argsort(-weighted, kind="stable")
    rank = np.arange(1, order.size + 1)
    passed = np.flatnonzero(rank * weighted[order] >= threshold)
    return frozenset(int(index) for index in order[: passed[-1] + 1]) if passed.size else frozenset()


def _log_mgf(q: FloatArray) -> FloatArray:
    """psi_k, (K,): log E exp(lambda_k q) of the clipped baseline q of either sign, at least the Gaussian's."""
    gaussian = LAMBDA**2 / 2
    if not q.size:
        return gaussian
    clipped = np.clip(q, -CLIP, CLIP)
    both = np.concatenate([clipped, -clipped])
    return np.asarray(np.maximum(gaussian, np.log(np.exp(np.multiply.outer(both, LAMBDA)).mean(axis=0))))


def _mixture(streams: Sequence[Stream]) -> FloatArray:
    """Equal weights (m, 2, K) over signs and lambdas; a one-sided stream has no negative sign."""
    sides = np.array([[1.0, 0.0] if stream.one_sided else [0.5, 0.5] for stream in streams]).reshape(-1, 2)
    return np.repeat(sides[:, :, None], LAMBDA.size, axis=2) / LAMBDA.size


def _tolerance(detector: Detector) -> FloatArray:
    return np.array([stream.tolerance for stream in detector.streams], dtype=np.float64)
