"""Days on which nothing happens but that no two are alike, at the level of counts: fast, whatever the rows of a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from scipy import stats

from whydrift.monitors.attribution import Moments, steady_log_share
from whydrift.monitors.distances import Counts, fit_excess, response, shape, standardise
from whydrift.monitors.evidence import Observation, Stream

FEATURES, GRID, CELLS, OUTSIDE = 10, 200, 20, 5
KINDS = ("share", "level", "shape", "response")
STREAMS = tuple(
    Stream(kind, feature=str(j), one_sided=kind in {"shape", "response"}) for kind in KINDS for j in range(FEATURES)
)
START, DAY = datetime(2026, 3, 2, tzinfo=UTC), timedelta(days=1)
_X = stats.norm.ppf((np.arange(GRID) + 0.5) / GRID)
_SIZE = np.geomspace(1, 0.1, FEATURES)


def _answers():
    """Attributions over the grid by feature: linear, exponential, of a rare flag, in steps, and mostly nothing."""
    answers = np.tile(_X, (FEATURES, 1))
    answers[6] = np.exp(_X) - 1.6
    answers[7] = 4.0 * (_X > 1.88)
    answers[8] = np.floor(5 * stats.norm.cdf(_X)) - 2
    answers[9] = np.where(_X > 0.8, _X, 0.0)
    return answers * _SIZE[:, None]


_ANSWERS = _answers()
_X_CELLS = np.tile(np.arange(GRID) // (GRID // CELLS), (FEATURES, 1))
_PHI_CELLS = np.array([np.unique(row, return_inverse=True)[1] * CELLS // GRID for row in _ANSWERS])
for _j in (7, 8):  # few values: a cell each
    _PHI_CELLS[_j] = np.unique(_ANSWERS[_j], return_inverse=True)[1]


def days(seed, count, rows, *, day=0.05, weekday=0.0, ar=0.0):
    """A list of `Counts` and `Moments`, one pair a day.

    `rows` is the mean size of a day, whose coefficient of variation is .5. Features move by `day` standard deviations
    from day to day, with a correlation of .3 among them and an autocorrelation of `ar`, and by `weekday` between
    weekdays; their spread, and a partner of every third one that is not a feature itself, move half as much.
    """
    rng = np.random.default_rng(seed)
    week = weekday * rng.standard_normal((7, FEATURES))
    own, spread, partner = (_series(rng.standard_normal((count, FEATURES)), ar) for _ in range(3))
    centre = day * (np.sqrt(0.7) * own + np.sqrt(0.3) * _series(rng.standard_normal((count, 1)), ar))
    found = []
    for t in range(count):
        number = max(int(rows * np.exp(0.5 * rng.standard_normal() - 0.125)), 100)
        z = (_X[:, None] - centre[t] - week[t % 7]) / np.exp(day / 2 * spread[t])
        chance = np.exp(_X[:, None] ** 2 / 2 - z**2 / 2)
        drawn = np.stack([rng.multinomial(number, p) for p in (chance / chance.sum(axis=0)).T])
        found.append(_reduce(rng, drawn.astype(float), day / 2 * partner[t]))
    return found


def _series(noise, ar):
    """The noise with an autocorrelation."""
    for t in range(1, len(noise)):
        noise[t] = ar * noise[t - 1] + np.sqrt(1 - ar**2) * noise[t]
    return noise


def _reduce(rng, drawn, partner):
    """Rows (features, grid) with phi = answer * (1 + .3 u), u the partner, for every third feature."""
    joint = np.where(np.arange(FEATURES) % 3 == 0, 0.3, 0.0)[:, None]
    first = drawn * partner[:, None] + np.sqrt(drawn) * rng.standard_normal(drawn.shape)
    second = drawn * (1 + partner[:, None] ** 2)
    value = _ANSWERS * (drawn + joint * first)
    square = _ANSWERS**2 * (drawn + 2 * joint * first + joint**2 * second)
    rows = float(drawn[0].sum())
    sums = np.zeros((3, FEATURES, CELLS + OUTSIDE))
    phi = np.zeros((FEATURES, CELLS + OUTSIDE))
    for j in range(FEATURES):
        for stat, terms in enumerate((drawn, value, square)):
            sums[stat, j] = np.bincount(_X_CELLS[j], terms[j], minlength=CELLS + OUTSIDE)
        phi[j] = np.bincount(_PHI_CELLS[j], drawn[j], minlength=CELLS + OUTSIDE)
    absolute = (np.abs(_ANSWERS) * (drawn + joint * first)).sum(axis=1) / rows
    mean, mean2, total = value.sum(axis=1) / rows, square.sum(axis=1) / rows, float(absolute.sum())
    moments = Moments(
        rows=rows,
        value=mean,
        square=mean2,
        absolute=absolute,
        cross=absolute * total - absolute**2 + mean2,
        absolute_total=total,
        absolute_total2=total**2 + float((mean2 - absolute**2).sum()),
        output=0.0,
        output2=0.0,
        base=0.0,
        residual=0.0,
        residual2=0.0,
    )
    return Counts(rows, rows, sums, phi, np.zeros(1), rows, rows), moments


def _total(found):
    """The counts and moments of several days together."""
    parts = [c for c, _ in found]
    whole = Counts(
        *(sum((getattr(c, name) for c in parts[1:]), getattr(parts[0], name)) for name in ("weight", "weight2")),
        *(np.sum([getattr(c, name) for c in parts], axis=0) for name in ("cells", "phi", "score")),
        *(sum(getattr(c, name) for c in parts) for name in ("logged", "logged2")),
    )
    share = np.array([c.weight for c in parts]) / whole.weight
    names = ("value", "square", "absolute", "cross", "absolute_total", "absolute_total2")
    means = {name: np.tensordot(share, np.array([getattr(m, name) for _, m in found]), axes=1) for name in names}
    return whole, Moments(rows=whole.weight, **means, output=0.0, output2=0.0, base=0.0, residual=0.0, residual2=0.0)


def observations(found, baseline):
    """The four streams of each feature by day, fitted on the first days and seen by these without themselves."""
    whole, usual = _total(found[:baseline])
    rest = [whole.without(c) for c, _ in found[:baseline]]
    first, rows = [c for c, _ in found[:baseline]], [c.rows for c, _ in found[:baseline]]
    shapes = fit_excess([shape(c.phi, b.phi, c.rows, b.rows) for c, b in zip(first, rest, strict=True)], rows, FEATURES)
    responses = fit_excess([response(c, b) for c, b in zip(first, rest, strict=True)], rows, FEATURES)
    deviation = np.sqrt(usual.variance)
    for t, (own, now) in enumerate(found):
        base = rest[t] if t < baseline else whole
        share, variance = steady_log_share(now, usual)
        values = (
            share,
            now.value / deviation,
            standardise(shape(own.phi, base.phi, own.rows, base.rows), shapes),
            standardise(response(own, base), responses),
        )
        noise = (variance, np.full(FEATURES, 1 / now.rows), np.zeros(FEATURES), np.zeros(FEATURES))
        yield Observation(START + t * DAY, np.concatenate(values), np.concatenate(noise))
