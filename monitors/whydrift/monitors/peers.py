"""What other tools would show and alert on, from the same summaries (knowledge; no part in any decision).

Distances are between counts over cells, arrays (..., K) of weights: `now` and `then`, any common scale. Their authors
compute them from rows, partly over cells of their own; over ours they agree up to the width of a cell, and the
Kolmogorov-Smirnov statistic is a lower bound. None of them states how often it is wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

PSI_FLOOR = 1e-4  # what a cell without rows counts as, the usual value, lest the index be infinite
KS_LEVEL = 0.05
NDCG_LIMIT = 0.90


def psi(now: FloatArray, then: FloatArray) -> FloatArray:
    """Population stability index, sum (p - q) ln(p / q), shape (...,)."""
    p, q = (np.maximum(_shares(counts), PSI_FLOOR) for counts in (now, then))
    return np.asarray(np.sum((p - q) * np.log(p / q), axis=-1))


def psi_null(now: FloatArray, then: FloatArray, rows: float, rows_then: float) -> FloatArray:
    """What `psi` comes to on average where nothing moved, shape (...,).

    PSI / (1/n + 1/N) is about chi-square with K - 1 degrees of freedom (Yurdakul and Naranjo 2020, Journal of Risk
    Model Validation), K the number of cells that either side holds.

    Args:
        now: counts or weights, (..., K).
        then: the baseline's.
        rows: independent rows that `now` counts, n.
        rows_then: those of the baseline, N.
    """
    held = np.sum((now > 0) | (then > 0), axis=-1)
    return np.asarray(np.maximum(held - 1, 0) * (1 / rows + 1 / rows_then))


def jensen_shannon(now: FloatArray, then: FloatArray, *, base: float = np.e) -> FloatArray:
    """Jensen-Shannon divergence (Lin 1991, doi:10.1109/18.61115), shape (...,); its root is the distance."""
    p, q = _shares(now), _shares(then)
    middle = (p + q) / 2
    return np.asarray((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / (2 * np.log(base)))


def hellinger(now: FloatArray, then: FloatArray) -> FloatArray:
    """Hellinger distance, the root of 1 - sum sqrt(p q), shape (...,)."""
    return np.asarray(np.sqrt(np.maximum(1 - np.sum(np.sqrt(_shares(now) * _shares(then)), axis=-1), 0.0)))


def largest_difference(now: FloatArray, then: FloatArray) -> FloatArray:
    """The largest change of a cell's share (L-infinity), shape (...,)."""
    return np.asarray(np.abs(_shares(now) - _shares(then)).max(axis=-1))


def kolmogorov_smirnov(now: FloatArray, then: FloatArray) -> FloatArray:
    """The largest gap of the distribution functions at the ends of ordered cells, shape (...,).

    The gap over all values is at least this, and larger by at most the mass of one cell.
    """
    return np.asarray(np.abs(_cumulative(now) - _cumulative(then)).max(axis=-1))


def kolmogorov_smirnov_limit(rows: float, rows_then: float, level: float = KS_LEVEL) -> float:
    """The gap that a two-sample test rejects beyond, for many rows (Smirnov 1948, doi:10.1214/aoms/1177730256)."""
    return float(np.sqrt(-np.log(level / 2) / 2 * (1 / rows + 1 / rows_then)))


def wasserstein(now: FloatArray, then: FloatArray, positions: FloatArray) -> FloatArray:
    """First Wasserstein distance with each ordered cell's mass at its position, in their unit, shape (...,)."""
    gaps = np.abs(_cumulative(now) - _cumulative(then))[..., :-1]
    return np.asarray(np.sum(gaps * np.diff(positions, axis=-1), axis=-1))


def deviation(counts: FloatArray, positions: FloatArray) -> FloatArray:
    """Standard deviation with each cell's mass at its position, shape (...,)."""
    share = _shares(counts)
    mean = np.sum(share * positions, axis=-1, keepdims=True)
    return np.asarray(np.sqrt(np.sum(share * (positions - mean) ** 2, axis=-1)))


def ndcg(now: FloatArray, then: FloatArray) -> float | None:
    """Amazon SageMaker's drift of the ranking of features by mean absolute attribution, both (p,).

    The features are put in the order of now; the gain of each is its value then, discounted by log2(rank + 1), and
    the sum is divided by that of the best order. None where nothing was attributed.

    >>> round(ndcg(np.array([0.10, 0.20, 0.70]), np.array([0.70, 0.50, 0.05])), 4)
    0.6876
    """
    discount = 1 / np.log2(np.arange(2, then.size + 2))
    best = float(np.sort(then)[::-1] @ discount)
    order = np.argsort(-now, kind="stable")
    return float(then[order] @ discount) / best if best > 0 else None


def cosine(now: FloatArray, then: FloatArray) -> float | None:
    """Cosine of the angle between two vectors (p,); None where one of them is 0."""
    sizes = float(np.linalg.norm(now) * np.linalg.norm(then))
    return float(now @ then) / sizes if sizes > 0 else None


def kendall(now: FloatArray, then: FloatArray) -> float | None:
    """Kendall's rank correlation, tau-b, of two vectors (p,); None where one of them is constant."""
    if np.unique(now).size < 2 or np.unique(then).size < 2:
        return None
    return float(stats.kendalltau(now, then).statistic)


def directions_changed(now: FloatArray, then: FloatArray, weight: FloatArray) -> float | None:
    """Share of features that push the other way: over a feature's cells the means now run against those then.

    Args:
        now: mean attribution by feature and cell, (p, K), NaN where a cell is empty.
        then: the baseline's.
        weight: of the cells, (p, K).

    Returns:
        Out of the features whose means differ between cells on both sides; None where there is none.
    """
    w = np.where(np.isnan(now) | np.isnan(then), 0.0, weight)
    centred = [np.nan_to_num(m) - _mean(np.nan_to_num(m), w) for m in (now, then)]
    spread = [np.sum(w * c**2, axis=1) for c in centred]
    judged = (spread[0] > 0) & (spread[1] > 0)
    against = np.sum(w * centred[0] * centred[1], axis=1) < 0
    return float(against[judged].mean()) if judged.any() else None


def _mean(values: FloatArray, weight: FloatArray) -> FloatArray:
    total = np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return np.asarray(np.sum(weight * values, axis=1, keepdims=True) / total)


def _shares(counts: FloatArray) -> FloatArray:
    return np.asarray(counts / np.maximum(counts.sum(axis=-1, keepdims=True), np.finfo(float).tiny))


def _cumulative(counts: FloatArray) -> FloatArray:
    return np.cumsum(_shares(counts), axis=-1)


def _relative_entropy(p: FloatArray, q: FloatArray) -> FloatArray:
    return np.asarray(np.sum(p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)), axis=-1))
