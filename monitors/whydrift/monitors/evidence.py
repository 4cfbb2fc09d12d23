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

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np

from whydrift.monitors.calendar_terms import calendar, from_microseconds
from whydrift.monitors.mixture import (
    CLIP,
    LAMBDA,
    SIGNS,
    confirmed,
    leading,
    log_mgf,
    mixture,
    page_weights,
    ticket_weights,
)
from whydrift.monitors.residuals import (
    BoolArray,
    FloatArray,
    History,
    IntArray,
    Residuals,
    Scale,
    Window,
    advance,
    autocorrelation,
    fit_scale,
    no_history,
)
from whydrift.monitors.stream import Observation, Stream, muted_in
from whydrift.monitors.verdict import Mute

__all__ = [
    "LAMBDA",
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

_QUIET = (3, 1.5)  # a page closes when the last 3 q of its cause are below 1.5 in the root mean square
_MOST_TOLERATED = 1e100  # as large as a value may be
_MOST = 1e280  # evidence beyond it is not told apart; a window multiplies it by 1e4 at most


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Evidence that opens a page, and that is worth a ticket: windows per false alarm."""

    page: float
    ticket: float


@dataclass(frozen=True, slots=True)
class State:
    """All that the windows so far left behind. Immutable; arrays (m, 2 signs, K) unless said otherwise."""

    history: History
    evidence: FloatArray  # M, set to 0 by a page
    concern: FloatArray  # the same, but set to 0 by a ticket also
    log_cusum: FloatArray
    run_start: IntArray  # microseconds since 1970
    recent: FloatArray  # (m, 3) last |q| since the page
    named: tuple[int, ...] = ()  # by the open page
    parts: tuple[float, ...] = ()  # that these had of M when it opened; sum 1
    firing: bool = False
    windows: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Detector:
    """What a baseline fixes. `psi` (K,) bounds the log moment generating function of q, `mix` (m, 2, K) sums to 1.

    `weights` (m,) are those in the evidence that pages, of the page tier only, `concerns` those in the evidence that
    tickets; each sums to 1 or is all zero.
    """

    streams: tuple[Stream, ...]
    width: timedelta
    thresholds: Thresholds
    learning: bool
    weights: FloatArray
    concerns: FloatArray
    scale: Scale
    psi: FloatArray
    mix: FloatArray
    start: State
    holidays: AbstractSet[date] = frozenset()
    mutes: tuple[Mute, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one window adds up to. Arrays are (m,), in the order of the streams.

    `model` is M before any reset. `page`: this window opened a page. `ticket`: an M that tickets set to 0
    as well reached the ticket threshold while no page was open, so the budget lemma holds for tickets too.
    `firing`: a page is open, this one included. `armed`: the next window can page. `weighted` are the
    parts w_j M_j of M, `effect` is in window standard deviations, `expected` and `half_width` (95 %, inf
    before a stream has a history) in units of the value. `observed`: the window carries the stream; where
    not, q = effect = 0. `named`: the streams that make up 90 % of M, strongest first, kept from the page while it is
    open. `confirmed`: the e-BH set at the page threshold (Dandapanthula & Ramdas, arXiv 2501.04130). `concern` and
    `suspected` are to the ticket what `weighted` and `named` are to the page; nothing is suspected without a ticket.
    `onset`: start of the leading CUSUM run of the streams that an open page names or a ticket suspects, else None.
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
    concern: FloatArray
    suspected: tuple[int, ...]


def fit(
    streams: Sequence[Stream],
    baseline: Sequence[Observation],
    width: timedelta,
    thresholds: Thresholds,
    *,
    holidays: AbstractSet[date] = frozenset(),
    mutes: Sequence[Mute] = (),
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
    scale, history, judged = learn(streams, baseline, width, holidays)
    return Detector(
        streams=tuple(streams),
        width=width,
        thresholds=thresholds,
        learning=len(baseline) < MIN_BASELINE_WINDOWS,
        weights=page_weights(streams),
        concerns=ticket_weights(streams),
        scale=scale,
        psi=log_mgf(np.concatenate([np.empty(0), *(window.q[window.heard] for window in judged)])),
        mix=mixture(streams),
        start=_silent(history),
        holidays=holidays,
        mutes=tuple(mutes),
    )


def learn(
    streams: Sequence[Stream], baseline: Sequence[Observation], width: timedelta, holidays: AbstractSet[date]
) -> tuple[Scale, History, list[Residuals]]:
    """The streams' scale on the baseline's windows, and these judged and learned from one after the other."""
    regressors = calendar(from_microseconds(0), width, holidays).size
    design = np.array([calendar(window.start, width, holidays) for window in baseline]).reshape(-1, regressors)
    shape = (len(baseline), len(streams))
    values = np.array([window.values for window in baseline], dtype=np.float64).reshape(shape)
    variances = np.array([window.variances for window in baseline], dtype=np.float64).reshape(shape)
    scale = fit_scale(values, variances, design, group_by_kind(streams))
    history, judged = no_history((len(streams),), regressors), []
    for window in baseline:
        when = Window.at(window.start, width, holidays)
        history, residuals = advance(scale, history, when, window.values, window.variances)
        judged.append(residuals)
    return scale, history, judged


def group_by_kind(streams: Sequence[Stream]) -> IntArray:
    """The number of each stream's kind, (m,)."""
    kinds = {kind: code for code, kind in enumerate(dict.fromkeys(stream.kind for stream in streams))}
    return np.array([kinds[stream.kind] for stream in streams], dtype=np.int64)


def step(detector: Detector, state: State, observation: Observation) -> tuple[State, Evidence]:
    """Fold one window into the state. Pure: the same state and window give the same bits.

    While a page is open the streams that it names learn nothing, so that it closes when they are back where they
    were, and not when the change has become familiar. Each counts there by its part in the page: of twenty streams one
    or the other is always a little off.
    """
    named = list(state.named) if state.firing else []
    muted = muted_in(observation.start, detector.mutes, detector.streams)
    held = muted.copy()
    held[named] = True
    when = Window.at(observation.start, detector.width, detector.holidays)
    history, residuals = advance(detector.scale, state.history, when, observation.values, observation.variances, held)
    state = replace(
        _hushed(_accumulate(detector, state, residuals, when.time), muted),
        history=history,
        windows=state.windows + bool(residuals.observed.any()),
    )
    if state.firing and _is_over(state, muted):
        state = replace(_silent(history), windows=state.windows, pages=state.pages)
    evidence = _judge(detector, state, residuals)
    if evidence.ticket:
        state = replace(state, concern=np.zeros_like(state.concern))
    return (_opened(state, evidence.named, evidence.weighted) if evidence.page else state), evidence


def _judge(detector: Detector, state: State, residuals: Residuals) -> Evidence:
    """What the accumulated evidence says in this window."""
    weighted = _weighted(detector, detector.weights, state.evidence)
    concern = _weighted(detector, detector.concerns, state.concern)
    model = float(weighted.sum())
    armed = not (detector.learning or state.firing)
    page = armed and model >= detector.thresholds.page
    ticket = armed and float(concern.sum()) >= detector.thresholds.ticket
    named, suspected = state.named if state.firing else leading(weighted), leading(concern) if ticket else ()
    return Evidence(
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
        onset=_onsets(detector, state, {*(named if state.firing or page else ()), *suspected}),
        named=named,
        confirmed=confirmed(weighted, detector.thresholds.page),
        concern=concern,
        suspected=suspected,
    )


def smallest_detectable(detector: Detector, state: State, windows: Sequence[int]) -> tuple[float, ...]:
    """The lasting shift of one stream, in window standard deviations, that is found within about L windows.

    tolerance + sqrt(2 log(2 K A / w) / L), and the second term times sqrt((1 + phi) / (1 - phi)), because
    evidence grows by about shift**2 / 2 a window and autocorrelated windows say less. `w` is the median weight of the
    streams that page and were not found automatically, the tolerance is the weighted mean of all that page.
    """
    asked = np.array([not stream.automatic for stream in detector.streams], dtype=np.bool_) & (detector.weights > 0)
    if not asked.any():
        return tuple(float("inf") for _ in windows)
    phi = float(autocorrelation(state.history))
    typical = float(np.median(detector.weights[asked]))
    needed = np.log(2 * LAMBDA.size * max(detector.thresholds.page, 1.0) / typical)
    tolerance = float(detector.weights @ harmless_shifts(detector) / detector.weights.sum())
    return tuple(float(tolerance + np.sqrt(2 * needed / count * (1 + phi) / (1 - phi))) for count in windows)


def _accumulate(detector: Detector, state: State, residuals: Residuals, now: int) -> State:
    """Multiply every detector by this window's factor; streams that were not heard keep theirs."""
    heard = residuals.heard[:, None, None]
    harmless = (harmless_shifts(detector) / residuals.noise)[:, None, None]
    score = SIGNS[None, :, None] * np.clip(residuals.q, -CLIP, CLIP)[:, None, None]
    factor = LAMBDA * (score - harmless) - detector.psi
    growth, fresh = np.exp(factor), state.log_cusum <= 0
    last = np.concatenate([state.recent[:, 1:], np.abs(residuals.q)[:, None]], axis=1)
    return replace(
        state,
        evidence=np.where(heard, np.minimum((state.evidence + 1) * growth, _MOST), state.evidence),
        concern=np.where(heard, np.minimum((state.concern + 1) * growth, _MOST), state.concern),
        log_cusum=np.where(heard, np.maximum(state.log_cusum, 0.0) + factor, state.log_cusum),
        run_start=np.where(heard & fresh, now, state.run_start),
        recent=np.where(heard[:, :, 0], last, state.recent),
    )


def _weighted(detector: Detector, weights: FloatArray, evidence: FloatArray) -> FloatArray:
    """The streams' parts w_j M_j of the model's evidence, (m,)."""
    return np.asarray(weights * (detector.mix * evidence).sum(axis=(1, 2)))


def _hushed(state: State, muted: BoolArray) -> State:
    """Without what the muted streams had gathered: when their mute ends they begin anew."""
    if not muted.any():
        return state
    mute = muted[:, None, None]
    return replace(
        state,
        evidence=np.where(mute, 0.0, state.evidence),
        concern=np.where(mute, 0.0, state.concern),
        log_cusum=np.where(mute, 0.0, state.log_cusum),
    )


def _silent(history: History) -> State:
    """No evidence yet, no page open."""
    shape = (history.df.size, SIGNS.size, LAMBDA.size)
    return State(
        history=history,
        evidence=np.zeros(shape),
        concern=np.zeros(shape),
        log_cusum=np.zeros(shape),
        run_start=np.zeros(shape, dtype=np.int64),
        recent=np.full((shape[0], _QUIET[0]), np.inf),
    )


def _is_over(state: State, muted: BoolArray) -> bool:
    """Whether the streams that the open page names are back where they were, or muted."""
    named = np.array(state.named, dtype=np.int64)
    parts = np.where(muted[named], 0.0, state.parts)
    heard = parts > 0
    return bool(parts[heard] @ (state.recent[named][heard] ** 2).mean(axis=1) <= _QUIET[1] ** 2 * parts.sum())


def _opened(state: State, named: tuple[int, ...], weighted: FloatArray) -> State:
    """After a page: M starts again from 0, and its cause must be quiet for three windows from here on."""
    own = weighted[list(named)]
    return replace(
        state,
        evidence=np.zeros_like(state.evidence),
        concern=np.zeros_like(state.concern),
        recent=np.full_like(state.recent, np.inf),
        named=named,
        parts=tuple((own / own.sum()).tolist()),
        firing=True,
        pages=state.pages + 1,
    )


def _onsets(detector: Detector, state: State, wanted: AbstractSet[int]) -> tuple[datetime | None, ...]:
    """Where the leading CUSUM run of the wanted streams began; None of the others, and while no run is above water."""
    found: list[datetime | None] = [None] * len(detector.streams)
    for index in wanted:
        run = np.where(detector.mix[index] > 0, state.log_cusum[index], -np.inf)
        leader = np.unravel_index(run.argmax(), run.shape)
        if run[leader] > 0:
            found[index] = from_microseconds(int(state.run_start[index][leader]))
    return tuple(found)


def harmless_shifts(detector: Detector) -> FloatArray:
    """The streams' tolerances in `Scale.unit`, (m,)."""
    tolerances = np.array([stream.tolerance for stream in detector.streams], dtype=np.float64)
    return np.minimum(tolerances, _MOST_TOLERATED) / detector.scale.unit
