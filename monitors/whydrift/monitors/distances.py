"""How far a window lies from the baseline, next to how far chance alone puts it.

Two squared distances: Hellinger's between shares of cells, and the response of equal cells, which is the rate term
of Kitagawa's split without its signs. Both are above 0 where nothing moved, the more so the smaller the window. So
each comes with what sampling alone makes of it, and with the `excess` that the baseline's own windows have beyond
that, which no number of rows removes: days differ (a design effect; Rao & Scott 1981, doi 10.2307/2287815).

    x = (squared distance / (sampling + excess)) ** (1/6)

is near normal and about 1 where nothing moved, whatever the size of the window. Wilson & Hilferty (1931, doi
10.1073/pnas.17.12.684) take the cube root of a chi-squared; days that differ in one or two ways add one of one or two
degrees of freedom, which leaves that with a long upper tail, and the root of it without. A sampling variance is not
needed beside it: x has the same spread in small and in large windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import poisson

from whydrift.monitors.calibration import MESH
from whydrift.monitors.dense import by_stat, dense, width
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]

SCORE_CELLS = 20
_ROUNDING = 1e-8  # of a mean square; a variance below it is what the rounding of sums leaves of nothing
_LEAST_FREEDOM = 0.5  # one row more or less would be everything that there is to see
_EMPTY = 1e-9  # of a cell's weight: what a difference of sums leaves of nothing
_ABSOLUTE_NORMAL = np.sqrt(2 / np.pi)  # mean of the absolute value of a standard normal variable

_COUNT = np.arange(1, 200)
_EXPECTED = np.geomspace(1e-4, 100.0, 120)  # rows expected in a cell
_CHANCE = poisson.pmf(_COUNT, _EXPECTED[:, None])
_ROOT, _INVERSE_ROOT = _CHANCE @ np.sqrt(_COUNT), _CHANCE @ (1 / np.sqrt(_COUNT))
# 4 E(sqrt(X) - sqrt(l))^2 and E((X + l) / sqrt(X); X > 0) / (2 sqrt(l)) of a Poisson X with mean l: 1 for large l.
_ROOT_SPREAD = 8 * np.sqrt(_EXPECTED) * (np.sqrt(_EXPECTED) - _ROOT)
_MEAN_SPREAD = (_ROOT + _EXPECTED * _INVERSE_ROOT) / (2 * np.sqrt(_EXPECTED))


@dataclass(frozen=True, slots=True)
class Counts:
    """The additive parts of a summary that are compared cell by cell.

    Weights of the explained rows and of their squares, and of all that were `logged`; `cells` (3, p, cells) are sums
    of weight, attribution and its square over the cells of the inputs; `phi` (p, cells) are weights over the cells of
    the attributions, and `score` (cells,) those of all rows over the cells of the scores. Means and squares in units
    of `Layout.scale`.
    """

    weight: float
    weight2: float
    cells: FloatArray
    phi: FloatArray
    score: FloatArray
    logged: float
    logged2: float

    @property
    def rows(self) -> float:
        """Effective explained rows (Kish 1965); 0 without any."""
        return self.weight**2 / self.weight2 if self.weight2 > 0 else 0.0

    @property
    def logged_rows(self) -> float:
        """Effective rows of all that were logged."""
        return self.logged**2 / self.logged2 if self.logged2 > 0 else 0.0

    def without(self, part: Counts) -> Counts:
        """The other rows, where `part` is some of these."""
        filled = self.cells[0] - part.cells[0] > _EMPTY * self.cells[0]
        return Counts(
            weight=max(self.weight - part.weight, 0.0),
            weight2=max(self.weight2 - part.weight2, 0.0),
            logged=max(self.logged - part.logged, 0.0),
            logged2=max(self.logged2 - part.logged2, 0.0),
            cells=np.where(filled, self.cells - part.cells, 0.0),
            phi=np.maximum(self.phi - part.phi, 0.0),
            score=np.maximum(self.score - part.score, 0.0),
        )


def counts(frame: pd.DataFrame, layout: Layout) -> Counts:
    """Those of a summary's frame."""
    total, logged = by_stat(frame, "total"), by_stat(frame, "rows")
    return Counts(
        weight=total.get("weight", 0.0),
        weight2=total.get("weight2", 0.0),
        logged=logged.get("weight", 0.0),
        logged2=logged.get("weight2", 0.0),
        cells=dense(frame, "attribution", layout.names, ("weight", "value", "square"), width(layout.features)),
        phi=dense(frame, "phi", layout.names, ("weight",), width(layout.attributions))[0],
        score=score_counts(frame, layout),
    )


def score_counts(frame: pd.DataFrame, layout: Layout) -> FloatArray:
    """Weights over the mesh, or over the cells of a regression's predictions: (cells,)."""
    cells = MESH if layout.task == "binary" else width((layout.predictions,) if layout.predictions else ())
    return np.asarray(dense(frame, "score", ("",), ("weight",), cells)[0, 0])


@dataclass(frozen=True, slots=True)
class Distances:
    """Squared distances of a window, (d,), and what sampling alone makes of them; NaN where they cannot vary."""

    size: FloatArray
    sampling: FloatArray


def shape(now: FloatArray, before: FloatArray, rows: float, rows_before: float) -> Distances:
    """Hellinger's 4 sum (sqrt p - sqrt q)^2 of counts (d, cells); a chi-squared by the rows if nothing moved.

    Its mean under sampling is summed over cells for Poisson counts, because in small cells it is not 1 / rows. NaN
    where a window of this size is expected to have hardly a row outside one cell, or where either side has no rows.
    """
    usual = before > 0
    p, q = (c / np.maximum(c.sum(axis=1, keepdims=True), np.finfo(float).tiny) for c in (now, before))
    size = 4 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=1)
    if not (rows > 0 and rows_before > 0):
        return Distances(np.full_like(size, np.nan), np.full_like(size, np.nan))
    freedom = np.maximum(_by_expected(rows * q, _ROOT_SPREAD).sum(axis=1) - 1, 0.0)
    sampling = freedom / rows + np.maximum(usual.sum(axis=1) - 1, 0.0) / rows_before
    known = (freedom > _LEAST_FREEDOM) & (now.sum(axis=1) > 0)
    return Distances(np.where(known, size, np.nan), np.where(known, sampling, np.nan))


def response(now: Counts, before: Counts) -> Distances:
    """The square of sum_b |m'_b - m_b| (p'_b + p_b) / 2 over cells of the inputs, (p,): m are mean attributions.

    Under sampling each term is half normal. NaN where the attributions do not vary within the baseline's cells.
    """
    (p0, m0, s0), (p1, m1, _) = (_cell_means(c.cells) for c in (before, now))
    seen = (p0 > 0) & (p1 > 0)
    size = np.where(seen, np.abs(m1 - m0) * (p0 + p1) / 2, 0.0).sum(axis=1) ** 2
    if not (now.rows > 0 and before.rows > 0):
        return Distances(np.full_like(size, np.nan), np.full_like(size, np.nan))
    spread = s0 * np.sqrt(p0) * _by_expected(now.rows * p0, _MEAN_SPREAD)
    square = (_ABSOLUTE_NORMAL * spread.sum(axis=1)) ** 2 + (1 - _ABSOLUTE_NORMAL**2) * (spread**2).sum(axis=1)
    known = (square > 0) & seen.any(axis=1)
    sampling = square * (1 / now.rows + 1 / before.rows)
    return Distances(np.where(known, size, np.nan), np.where(known, sampling, np.nan))


def recut(score: FloatArray, baseline: FloatArray, cells: int = SCORE_CELLS) -> FloatArray:
    """A mesh of scores in at most so many cells of about equal mass in the baseline, (1, cells)."""
    middle = (np.cumsum(baseline) - baseline / 2) / max(float(baseline.sum()), np.finfo(float).tiny)
    index = np.clip((middle * cells).astype(np.int64), 0, cells - 1)
    return np.asarray(np.bincount(index, weights=score, minlength=cells)[None, :], dtype=np.float64)


def fit_excess(windows: Sequence[Distances], rows: Sequence[float], size: int) -> FloatArray:
    """The mean of what the baseline's windows have beyond sampling, (size,); larger windows tell more of it.

    `rows` are the windows' effective rows. 0 where nothing is known.
    """
    weight = np.asarray(rows)[:, None]
    beyond = np.array([w.size - w.sampling for w in windows]).reshape(len(windows), size)
    known = np.isfinite(beyond)
    total = np.maximum((weight * known).sum(axis=0), np.finfo(float).tiny)
    return np.asarray(np.maximum((weight * np.where(known, beyond, 0.0)).sum(axis=0) / total, 0.0))


def standardise(distances: Distances, excess: FloatArray) -> FloatArray:
    """The x of the formula above, (d,); see `multiple`."""
    return np.asarray(np.cbrt(np.sqrt(distances.size / (distances.sampling + excess))))


def multiple(x: float) -> float:
    """The distance, not squared, in multiples of what is usual."""
    return max(x, 0.0) ** 3


def _cell_means(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Share of the weight, mean and standard deviation in each cell, (p, cells); 0 where empty."""
    weight, value, square = sums
    share = weight / np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    mean, mean2 = (np.divide(s, weight, out=np.zeros_like(s), where=weight > 0) for s in (value, square))
    variance = mean2 - mean**2
    return share, mean, np.sqrt(np.where(variance > _ROUNDING * (1 + mean**2), variance, 0.0))


def _by_expected(expected: FloatArray, table: FloatArray) -> FloatArray:
    """The table at so many expected rows; 0 at none, 1 beyond it."""
    found = np.interp(np.log(np.maximum(expected, _EXPECTED[0])), np.log(_EXPECTED), table, right=1.0)
    return np.where(expected > _EXPECTED[0], found, 0.0)
