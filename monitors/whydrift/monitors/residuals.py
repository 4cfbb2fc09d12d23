"""Self-starting standardisation: each stream's window value becomes one number that is N(0, 1) without a change.

A plug-in baseline mean is wrong by an amount that never goes away, and every cumulative detector ends up
firing on it. So nothing is plugged in: a window is predicted from the windows before it only, by a ridge
regression on the calendar, and its error is divided by what the errors before it were. Under Gaussian
noise these recursive residuals are independent and exactly t distributed (Brown, Durbin & Evans, JRSS B
1975, doi 10.1111/j.2517-6161.1975.tb01532.x; Quesenberry, J. Quality Technology 1991).

Shapes: `m` streams, `p` calendar regressors; `...` are leading axes over models that share nothing but the
calendar, none in production, one in simulations. A stream that a window does not carry is left untouched.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import numpy.typing as npt
from scipy import special

from whydrift.monitors.calendar_terms import WEEKDAYS, calendar, microseconds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MIN_HISTORY = 8  # residuals before a stream may speak: a t with fewer degrees of freedom says too little

_INTERCEPT_RIDGE = 1e-8
_WEEKDAY_RIDGE = 0.25
_VALUE_LIMIT = 1e100  # squares of squares of it still are finite
_UNIT_FLOOR = (1e-6, 1e-9)  # of the stream's level, and absolute: a constant stream is given this much noise
_VARIANCE_FLOOR = 1e-4  # in units of the fitted variance
MOST_CORRELATED = 0.9
LEARN_LIMIT = 6.0  # a window moves the regression as if it lay at most this many sd off
_MAX_LEVERAGE = 2.0
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Scale:
    """What the baseline fixes about each stream, arrays (..., m). Values are held as `(value - centre) / unit`.

    `unit` is the standard deviation of a typical window, `between` the share of `unit**2` that is
    between-window variance and not sampling; `group` (m,) numbers the streams whose variances are pooled.
    """

    centre: FloatArray
    unit: FloatArray
    between: FloatArray
    group: IntArray


@dataclass(frozen=True, slots=True)
class History:
    """What the windows so far taught, per stream, arrays (..., m): the regression, the noise, its autocorrelation."""

    information: FloatArray  # (..., m, p, p)
    moment: FloatArray  # (..., m, p)
    rss: FloatArray
    df: IntArray
    previous: FloatArray  # the residual of the window that started at `last`
    last: IntArray  # microseconds since 1970
    cross: FloatArray
    square: FloatArray
    pairs: IntArray


@dataclass(frozen=True, slots=True)
class Window:
    """When a window is: its start and width in microseconds, and its regressors (p,)."""

    time: int
    width: int
    design: FloatArray

    @classmethod
    def at(cls, start: datetime, width: timedelta, holidays: AbstractSet[date] = frozenset()) -> Window:
        return cls(microseconds(start), width // timedelta(microseconds=1), calendar(start, width, holidays))


@dataclass(frozen=True, slots=True)
class Residuals:
    """One window against its prediction, arrays (..., m).

    `q` is N(0, 1) without a change; `effect` is the residual in window standard deviations, `expected` and
    `half_width` (95 %) are in the stream's own units, `noise` is the window's sd in `Scale.unit`. `heard`
    marks the streams that were observed and have a history; the others have q = effect = 0.
    """

    q: FloatArray
    effect: FloatArray
    expected: FloatArray
    half_width: FloatArray
    noise: FloatArray
    observed: BoolArray
    heard: BoolArray


def observed_in(values: FloatArray, variances: FloatArray) -> BoolArray:
    """Where a window carries a stream: neither its value nor its sampling variance is NaN."""
    return np.asarray(~(np.isnan(values) | np.isnan(variances)))


def fit_scale(values: FloatArray, variances: FloatArray, design: FloatArray, group: IntArray) -> Scale:
    """Scale of every stream from D baseline windows: values and variances (D, ..., m), design (D, p), group (m,).

    The between-window variance is the calendar-adjusted variance less the mean sampling variance, but at
    least 5 % of it (method of moments). A constant stream is given a small unit, never zero.
    """
    seen = observed_in(values, variances)
    count = np.maximum(seen.sum(axis=0), 1)
    value = np.where(seen, _bounded(values), 0.0)
    centre = value.sum(axis=0) / count
    value = np.where(seen, value - centre, 0.0)
    sampling = np.where(seen, _bounded_variance(variances), 0.0).sum(axis=0) / count
    size = design.shape[1]
    gram = np.tensordot(seen, design[:, :, None] * design[:, None, :], axes=(0, 0))
    solved = np.linalg.solve(
        gram + _ridge(size), np.concatenate([np.tensordot(value, design, (0, 0))[..., None], gram], -1)
    )
    rss = np.where(seen, (value - np.moveaxis(solved[..., 0] @ design.T, -1, 0)) ** 2, 0.0).sum(axis=0)
    used = np.trace(solved[..., 1:], axis1=-2, axis2=-1)
    variance = rss / np.maximum(count - used, 1.0)
    between = np.maximum(variance - sampling, 0.05 * variance)
    floor = np.maximum(_UNIT_FLOOR[0] * np.abs(centre), _UNIT_FLOOR[1])
    # Nothing is known of a stream's noise from one window: unit 1, and it learns in production.
    total = np.where(seen.sum(axis=0) > 1, np.maximum(between + sampling, floor**2), 1.0 + sampling)
    return Scale(centre, np.sqrt(total), 1 - sampling / total, group)


def no_history(shape: tuple[int, ...], regressors: int) -> History:
    """The state before any window, `shape` (..., m): an all but flat prior on the level, a weak one on the calendar."""
    zero, none = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    return History(
        information=np.tile(_ridge(regressors), (*shape, 1, 1)),
        moment=np.zeros((*shape, regressors)),
        rss=zero,
        df=none,
        previous=zero,
        last=np.full(shape, _NEVER),
        cross=zero,
        square=zero,
        pairs=none,
    )


def advance(
    scale: Scale,
    history: History,
    window: Window,
    values: FloatArray,
    variances: FloatArray,
    held: BoolArray | None = None,
) -> tuple[History, Residuals]:
    """Judge one window, values and variances (..., m), by the windows before it; then learn from it.

    The streams `held` (m,) are judged and learn nothing: a change that was paged must not become the new normal.
    """
    observed, value, relative = in_units(scale, values, variances)
    prediction, leverage = predict(history, window.design)
    spread = np.sqrt(relative + leverage)
    residual = (value - prediction) / spread
    phi = autocorrelation(history)[..., None]
    adjacent = history.last == window.time - window.width
    innovation = np.where(adjacent, (residual - phi * history.previous) / np.sqrt(1 - phi**2), residual)

    variance, df = moderate(history.rss / np.maximum(history.df, 1), history.df, scale.unit, scale.group)
    noise = np.sqrt(variance)
    ready = history.df >= MIN_HISTORY
    heard = observed & ready
    result = Residuals(
        q=np.where(heard, t_to_normal(innovation / noise, np.maximum(df, 1.0)), 0.0),
        effect=np.where(heard, residual / noise, 0.0),
        expected=scale.centre + scale.unit * prediction,
        half_width=np.where(ready, _quantile(df) * noise * spread * scale.unit, np.inf),
        noise=noise * np.sqrt(relative),
        observed=observed,
        heard=heard,
    )
    # One absurd window must not make a stream deaf for months. A window is still never left out for
    # its own residual: that would bias what is learned.
    limit = np.where(ready, LEARN_LIMIT * noise, np.inf)
    kept = np.clip(residual, -limit, limit)
    # The first value of a stream, or of a weekday, tells the level and nothing about the noise: its error
    # is the prior's guess.
    taken = observed if held is None else observed & ~held
    counted = taken & (leverage <= _MAX_LEVERAGE)
    learned = _learn(
        history,
        counted=counted,
        adjacent=counted & adjacent,
        residual=kept,
        innovation=np.clip(innovation, -limit, limit),
    )
    learned = _learn_level(learned, window.design, prediction + kept * spread, taken / relative)
    return replace(learned, last=np.where(counted, window.time, history.last)), result


def in_units(scale: Scale, values: FloatArray, variances: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
    """Which streams are observed, their values, and the variances of these relative to a typical window's."""
    observed = observed_in(values, variances)
    value = np.where(observed, (_bounded(values) - scale.centre) / scale.unit, 0.0)
    sampling = np.where(observed, _bounded_variance(variances) / scale.unit**2, 1 - scale.between)
    return observed, value, np.clip(scale.between + sampling, 1e-6, 1e12)


def lag_one(history: History) -> tuple[FloatArray, FloatArray]:
    """Lag-1 autocorrelation (...) of the residuals, pooled over the streams, and of how many pairs a stream has.

    `r + (1 + 3 r) / N` undoes Kendall's bias of a series of N pairs.
    """
    used = (history.pairs > 0) & (history.square > 0)
    pairs = np.where(used, history.pairs, 0)
    total = pairs.sum(axis=-1)
    length = np.maximum(total / np.maximum(used.sum(axis=-1), 1), 1.0)
    each = np.where(used, history.cross / np.where(used, history.square, 1.0), 0.0)
    pooled = (pairs * each).sum(axis=-1) / np.maximum(total, 1)
    return pooled + (1 + 3 * pooled) / length, length


def autocorrelation(history: History) -> FloatArray:
    """`lag_one` (...) and half a standard error more, to be on the safe side.

    With fewer than `MIN_HISTORY` pairs it is 0: nothing is judged by then.
    """
    pooled, length = lag_one(history)
    safe = np.clip(pooled + 0.5 / np.sqrt(length), 0.0, MOST_CORRELATED)
    return np.asarray(np.where(length < MIN_HISTORY, 0.0, safe))


def moderate(variance: FloatArray, df: IntArray, unit: FloatArray, group: IntArray) -> tuple[FloatArray, FloatArray]:
    """Empirical-Bayes variances and their degrees of freedom, each (..., m) (Smyth 2004, doi 10.2202/1544-6115.1027).

    Each variance is drawn towards the typical one of its `group`, the more the less the variances differ
    beyond chance; one prior weight serves all groups. `variance` is in units of `unit**2`, but what is
    compared is the variance in the group's own units: a unit fitted to the same windows would make all
    streams look alike. Streams without a history, or constant ones, neither give nor take.
    """
    floored = np.maximum(variance, _VARIANCE_FLOOR)
    ready = (df >= MIN_HISTORY) & (variance > _VARIANCE_FLOOR)
    member = np.equal.outer(group, np.arange(group.max(initial=0) + 1)).astype(np.float64)
    size, count = ready @ member, ready.sum(axis=-1)
    spare = count - np.count_nonzero(size, axis=-1)
    half, log_unit = np.maximum(df, 1) / 2, 2 * np.log(unit)
    level = np.where(ready, np.log(floored) + log_unit - special.digamma(half) + np.log(half), 0.0)
    location = (level @ member / np.maximum(size, 1))[..., group]
    chance = np.where(ready, special.zeta(2.0, half), 0.0).sum(axis=-1) / np.maximum(count, 1)  # zeta(2, x): trigamma
    excess = np.where(ready, (level - location) ** 2, 0.0).sum(axis=-1) / np.maximum(spare, 1) - chance
    differ = (excess > 0)[..., None]
    prior_df = 2 * _inverse_trigamma(np.where(excess > 0, excess, 1.0))[..., None]
    offset = np.where(differ, special.digamma(prior_df / 2) - np.log(prior_df / 2), 0.0)
    weight = np.where(differ, prior_df / (prior_df + df), 1.0)
    typical = np.exp(np.clip(location + offset - log_unit, -300, 300))
    # A prior learned from the group knows no more than the group's residuals taken together.
    known = np.where(ready, df, 0.0) @ member
    total = np.minimum(np.where(differ, df + prior_df, np.inf), known[..., group])
    shrunk = np.maximum(weight * typical + (1 - weight) * floored, _VARIANCE_FLOOR)
    ready &= (spare >= 1)[..., None]
    return np.where(ready, shrunk, floored), np.where(ready, total, df)


def predict(history: History, design: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The predicted value and its variance relative to the noise, each (..., m), of a window with regressors (p,).

    One weekday excludes the others, so that their block of the information is diagonal, and is eliminated first.
    """
    others = np.delete(np.arange(design.size), WEEKDAYS)
    weekdays = np.einsum("...ii->...i", history.information[..., WEEKDAYS, WEEKDAYS])
    between = history.information[..., others, WEEKDAYS]
    scaled = between / weekdays[..., None, :]
    schur = history.information[..., others[:, None], others] - scaled @ np.swapaxes(between, -1, -2)
    right = design[others] - scaled @ design[WEEKDAYS]
    rest = np.linalg.solve(schur, right[..., None])[..., 0]
    weekday = design[WEEKDAYS] / weekdays - np.einsum("...kd,...k->...d", scaled, rest)
    value = np.einsum("...k,...k->...", history.moment[..., others], rest)
    value = value + np.einsum("...d,...d->...", history.moment[..., WEEKDAYS], weekday)
    return value, np.maximum(rest @ design[others] + weekday @ design[WEEKDAYS], 0.0)


def t_to_normal(t: FloatArray, df: FloatArray) -> FloatArray:
    """The standard normal value with the same tail probability as `t`; it saturates at 37 where that leaves the floats.

    >>> t_to_normal(np.array([0.0, -2.0, 1e9]), np.array([10.0, 10.0, 1e3])).round(2)
    array([ 0.  , -1.79, 37.05])
    """
    tail = np.maximum(special.stdtr(df, -np.abs(t)), 1e-300)
    return np.asarray(np.copysign(special.ndtri(tail), t))


def _learn(
    history: History, *, counted: BoolArray, adjacent: BoolArray, residual: FloatArray, innovation: FloatArray
) -> History:
    """The noise and its autocorrelation with one window more."""
    return replace(
        history,
        rss=history.rss + np.where(counted, innovation**2, 0.0),
        df=history.df + counted,
        previous=np.where(counted, residual, history.previous),
        cross=history.cross + np.where(adjacent, residual * history.previous, 0.0),
        square=history.square + np.where(adjacent, (residual**2 + history.previous**2) / 2, 0.0),
        pairs=history.pairs + adjacent,
    )


def _learn_level(history: History, design: FloatArray, value: FloatArray, weight: FloatArray) -> History:
    """The regression with one window more; a weight of 0 leaves a stream's as it is."""
    some = np.flatnonzero(design)
    information, moment = history.information.copy(), history.moment.copy()
    information[..., some[:, None], some] += weight[..., None, None] * np.outer(design[some], design[some])
    moment[..., some] += (weight * value)[..., None] * design[some]
    return replace(history, information=information, moment=moment)


def _ridge(regressors: int) -> FloatArray:
    return np.diag([_INTERCEPT_RIDGE] + [_WEEKDAY_RIDGE] * (regressors - 1))


def _bounded(values: FloatArray) -> FloatArray:
    return np.clip(values, -_VALUE_LIMIT, _VALUE_LIMIT)


def _bounded_variance(variances: FloatArray) -> FloatArray:
    return np.clip(variances, 0.0, _VALUE_LIMIT**2)


def _quantile(df: FloatArray) -> FloatArray:
    """The 97.5 % quantile of t. Few different degrees of freedom occur, and it is slow."""
    distinct, where = np.unique(np.maximum(df, 1.0), return_inverse=True)
    return np.asarray(special.stdtrit(distinct, 0.975)[where])


def _inverse_trigamma(value: FloatArray) -> FloatArray:
    """Solve trigamma(y) = value by Newton steps on its reciprocal, which is convex and nearly linear.

    trigamma(y) = zeta(2, y), and its derivative is -2 zeta(3, y).
    """
    root = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.zeta(2.0, root)
        change = trigamma * (1 - trigamma / value) / (-2 * special.zeta(3.0, root))
        root = root + change
        if np.all(np.abs(change) < 1e-9 * root):
            break
    return np.asarray(root)
