"""Whether a score of 0.3 still comes true three times in ten.

A window keeps no rows, only the weight of its labelled rows on a mesh of 200 scores. A row's weight is split
linearly between its score's two neighbours on the mesh, which keeps the sums of the weights and of the scores,
and adds at most `1 / (4 * 199**2)`, 6e-6, to the mean of the squared scores. Every measure below is a function of that
mesh, so it is the same however the window was divided.

Rows may be weighted. A mesh is therefore first turned into effective rows: the weights, scaled so that they sum
to `ScoreMesh.rows`. A mesh without rows has no error to show: its measures are 0, its fit None, its diagram
empty; ask `rows` before judging it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, idct
from scipy.optimize import brentq, isotonic_regression
from scipy.special import expit, logit

from whydrift.monitors.verdict import ReliabilityBin

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MESH = 200
DIAGRAM_BINS = 20

POINTS: FloatArray = np.linspace(0.0, 1.0, MESH)
POINTS.setflags(write=False)

_CLIP = 1 / (4 * MESH)
_MIN_ROWS = 10.0
_MAX_SHIFT = 30.0  # log-odds
_PRIOR_PRECISION = 1 / 10.0**2


@dataclass(frozen=True, slots=True)
class ScoreMesh:
    """A window's labelled rows by score.

    `labelled` and `positive` are the weights of all and of the positive labelled rows on the mesh, shape (200,),
    in one unit. `squared_error` is the sum of `weight * (label - score)**2` over the rows themselves, in
    that unit too. `rows` is the effective number of labelled rows, `sum(weight)**2 / sum(weight**2)`.
    """

    labelled: FloatArray
    positive: FloatArray
    squared_error: float
    rows: float


@dataclass(frozen=True, slots=True)
class Cox:
    """Labels as a logistic function of the scores' log-odds: `P(y) = sigmoid(intercept + slope * logit(p))`.

    A calibrated model has intercept 0 and slope 1; a slope below 1 means scores too extreme.
    `intercept_at_slope_one` is calibration in the large, the shift of all log-odds that makes the sum of the
    scores that of the labels: the steadiest of the three and the one to monitor. Variances are of sampling.
    """

    intercept: float
    slope: float
    intercept_variance: float
    slope_variance: float
    intercept_at_slope_one: float
    intercept_at_slope_one_variance: float


def split(p: FloatArray) -> tuple[IntArray, FloatArray]:
    """Each score's lower neighbour on the mesh, in 0..198, and the part in [0, 1] that goes to the upper one.

    Takes scores and returns arrays of shape (n,). Raises ValueError for a score that is not in [0, 1].

    >>> lower, part = split(np.array([0.0, 0.25, 1.0]))
    >>> lower, part
    (array([  0,  49, 198]), array([0.  , 0.75, 1.  ]))
    """
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("A score mesh takes probabilities, but some scores are missing or not between 0 and 1.")
    position = p * (MESH - 1)
    lower = np.minimum(position.astype(np.int64), MESH - 2)
    return lower, position - lower


def smece(mesh: ScoreMesh) -> float:
    """The smooth calibration error, in [0, 1]: how far scores are from the rates that come true.

    The residuals are smoothed by a Gaussian kernel reflected at 0 and 1, and the bandwidth is the one that equals
    the error it yields (Blasiok & Nakkiran 2023, arXiv 2309.12236): no bins, and no width to choose.
    """
    rows, positive = _effective(mesh)
    if not rows.any():
        return 0.0
    residual = (positive - rows * POINTS) / rows.sum()
    residual[[0, -1]] *= 2  # an end point stands for half a cell, so its density is twice its mass
    spectrum = dct(residual, type=1)
    # The discrete Gaussian: unlike a sampled one it is a proper kernel (positive, mass 1) below the mesh's width
    # too, so the error never grows with the bandwidth and the fixed point is unique.
    decay = (MESH - 1) ** 2 * (1 - np.cos(np.pi * POINTS))

    def excess(bandwidth: float) -> float:
        smooth = np.abs(idct(spectrum * np.exp(-(bandwidth**2) * decay), type=1))
        return bandwidth - float(smooth.sum() - (smooth[0] + smooth[-1]) / 2)

    return min(float(brentq(excess, 0.0, 2.0, xtol=1e-9)), 1.0)


def cox(mesh: ScoreMesh) -> Cox | None:
    """Intercept and slope of recalibration (Cox 1958, Biometrika 45; Van Calster et al. 2019, BMC Med. 17:230).

    None where they cannot be known: fewer than 10 effective rows, no positives or no negatives, or so many scores
    of exactly 0 or 1 that the intercept's standard error passes 10 log-odds.

    The slope needs logarithms, so there mesh points are clipped to [1/800, 1 - 1/800], which biases the joint fit
    if most scores are within 0.01 of 0 or 1; and a normal prior of standard deviation 10 on the slope and on the
    shift at the mean score keeps it finite if the scores separate the labels or hardly differ. The intercept at
    slope one needs neither.
    """
    rows, positive = _effective(mesh)
    if rows.sum() < _MIN_ROWS or not positive.any() or not (rows - positive).any():
        return None
    large = _in_the_large(rows, positive)
    if large is None:
        return None
    theta, covariance = _newton(rows, positive, large[0])
    return Cox(
        intercept=float(theta[0]),
        slope=float(theta[1]),
        intercept_variance=float(covariance[0, 0]),
        slope_variance=float(covariance[1, 1]),
        intercept_at_slope_one=large[0],
        intercept_at_slope_one_variance=large[1],
    )


def brier(mesh: ScoreMesh) -> float:
    """The mean squared error of the scores, in [0, 1]; from the rows' own errors, not from the mesh."""
    scale = float(mesh.labelled.max())
    if not (scale > 0 and mesh.rows > 0):
        return 0.0
    return float(mesh.squared_error / scale / (mesh.labelled / scale).sum())


def brier_variance(mesh: ScoreMesh) -> float:
    """The sampling variance of `brier`; without rows 1/4, the most that a value in [0, 1] can have."""
    rows, positive = _effective(mesh)
    total = rows.sum()
    if not total:
        return 0.25
    miss, alarm = (1 - POINTS) ** 2, POINTS**2
    mean = (positive @ miss + (rows - positive) @ alarm) / total
    spread = positive @ (miss - mean) ** 2 + (rows - positive) @ (alarm - mean) ** 2
    return float(spread / total / max(total - 1, 1.0))


def spiegelhalter(mesh: ScoreMesh) -> float:
    """The test of calibration that is standard normal if the scores are right (Spiegelhalter 1986, Stat. Med. 5).

    `sum((y - p) (1 - 2p)) / sqrt(sum((1 - 2p)**2 p (1 - p)))`. Scores that are all 0 or 1 leave no variance; there
    1e-12 a row stands in for it, so that one error gives a huge z and none gives 0.
    """
    rows, positive = _effective(mesh)
    if not rows.any():
        return 0.0
    lean = 1 - 2 * POINTS
    # The split adds the same to the mesh's squared errors as to its squared scores, and there it can be seen.
    blur = _squared_error(rows, positive, POINTS) - brier(mesh) * float(rows.sum())
    excess = float((positive - rows * POINTS) @ lean) - 2 * blur
    variance = float(rows @ (lean**2 * POINTS * (1 - POINTS)))
    return excess / math.sqrt(max(variance, 1e-12 * float(rows.sum())))


def debiased_l2(mesh: ScoreMesh, bins: int = 15) -> float:
    """The root mean squared calibration error over equal-mass bins, less what chance alone adds to it.

    `sum_b n_b/n ((p_b - y_b)**2 - y_b (1 - y_b) / (n_b - 1))`, then the root, or 0 if that is negative
    (Kumar, Liang & Ma 2019, arXiv 1909.10155).
    """
    rows, predicted, observed = _equal_mass(mesh, bins)
    if not rows.size:
        return 0.0
    chance = observed * (1 - observed) / np.maximum(rows - 1, 1.0)
    squared = rows @ ((predicted - observed) ** 2 - chance) / rows.sum()
    return float(np.sqrt(max(squared, 0.0)))


def corp(mesh: ScoreMesh) -> tuple[float, float, float]:
    """The Brier score's parts: miscalibration - discrimination + uncertainty, none of them negative.

    Calibrated scores are those of isotonic regression (Dimitriadis, Gneiting & Jordan 2021, PNAS 118(8)). The
    parts sum to the mesh's Brier score, which is at most 6e-6 above `brier`.
    """
    rows, positive = _effective(mesh)
    seen = rows > 0
    if not seen.any():
        return 0.0, 0.0, 0.0
    rows, positive, total = rows[seen], positive[seen], float(rows.sum())
    recalibrated = _squared_error(rows, positive, isotonic_regression(positive / rows, weights=rows).x) / total
    uncertainty = _squared_error(rows, positive, float(positive.sum()) / total) / total
    score = _squared_error(rows, positive, POINTS[seen]) / total
    return max(score - recalibrated, 0.0), max(uncertainty - recalibrated, 0.0), uncertainty


def reliability(
    mesh: ScoreMesh, rng: np.random.Generator, *, resamples: int = 200, coverage: float = 0.9
) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram: isotonic rates over up to 20 equal-mass bins, each with its consistency band.

    A bin's band holds `coverage` of the rates that the same fit gives when labels are drawn from the scores
    (Dimitriadis, Gneiting & Jordan 2021, PNAS 118(8)): a calibrated model stays within it that often.
    """
    rows, predicted, observed = _equal_mass(mesh, DIAGRAM_BINS)
    if not rows.size:
        return ()
    trials = np.clip(np.rint(rows), 1.0, 2.0**53).astype(np.int64)
    draws = rng.binomial(trials, predicted, size=(resamples, rows.size)) / trials
    refits = np.stack([isotonic_regression(draw, weights=rows).x for draw in draws])
    lower, upper = np.quantile(refits, [(1 - coverage) / 2, (1 + coverage) / 2], axis=0)
    fit = isotonic_regression(observed, weights=rows).x
    return tuple(
        ReliabilityBin(predicted=float(p), observed=float(y), lower=float(low), upper=float(high), rows=float(n))
        for p, y, low, high, n in zip(predicted, fit, lower, upper, rows, strict=True)
    )


def _effective(mesh: ScoreMesh) -> tuple[FloatArray, FloatArray]:
    """Effective rows and effective positive rows at each mesh point, shapes (200,)."""
    scale = float(mesh.labelled.max())
    if not (scale > 0 and mesh.rows > 0):
        return np.zeros(MESH), np.zeros(MESH)
    # By the largest weight first: sums of huge or tiny weights would overflow or vanish.
    labelled = mesh.labelled / scale
    positive = np.clip(mesh.positive / scale, 0.0, labelled)
    return labelled * (mesh.rows / labelled.sum()), positive * (mesh.rows / labelled.sum())


def _squared_error(rows: FloatArray, positive: FloatArray, forecast: FloatArray | float) -> float:
    return float(np.sum(positive * (1 - forecast) ** 2 + (rows - positive) * forecast**2))


def _in_the_large(rows: FloatArray, positive: FloatArray) -> tuple[float, float] | None:
    """The shift of log-odds at which scores and labels have equal sums, and its variance."""

    def shifted(shift: float) -> FloatArray:
        # sigmoid(shift + logit(p)) without the logarithm, hence defined at 0 and 1.
        odds = math.exp(shift)
        return odds * POINTS / (1 - POINTS + odds * POINTS)

    def surplus(shift: float) -> float:
        return float(rows @ shifted(shift) - positive.sum())

    if not surplus(-_MAX_SHIFT) < 0 < surplus(_MAX_SHIFT):
        return None
    shift = float(brentq(surplus, -_MAX_SHIFT, _MAX_SHIFT, xtol=1e-10))
    chance = shifted(shift)
    information = float(rows @ (chance * (1 - chance)))
    return (shift, 1 / information) if information > _PRIOR_PRECISION else None


def _newton(rows: FloatArray, positive: FloatArray, shift: float) -> tuple[FloatArray, FloatArray]:
    """Intercept and slope of greatest posterior density, shape (2,), and their covariance, shape (2, 2)."""
    log_odds = logit(np.clip(POINTS, _CLIP, 1 - _CLIP))
    # Centred, so that the two coefficients stay apart when all scores are nearly equal.
    centre = float(rows @ log_odds / rows.sum())
    design = np.stack([np.ones(MESH), log_odds - centre], axis=1)
    prior = np.array([centre, 1.0])

    def loss(theta: FloatArray) -> float:
        linear = design @ theta
        likelihood = rows @ np.logaddexp(0.0, linear) - positive @ linear
        return float(likelihood + _PRIOR_PRECISION * np.sum((theta - prior) ** 2) / 2)

    def curvature(theta: FloatArray) -> FloatArray:
        chance = expit(design @ theta)
        information: FloatArray = design.T @ (design * (rows * chance * (1 - chance))[:, None])
        return information + _PRIOR_PRECISION * np.eye(2)

    theta = prior + np.array([shift, 0.0])
    for _ in range(50):
        gradient = design.T @ (rows * expit(design @ theta) - positive) + _PRIOR_PRECISION * (theta - prior)
        step = np.linalg.solve(curvature(theta), gradient)
        # Half the step until it does not climb by more than rounding: far from the optimum Newton's overshoots.
        while np.abs(step).max() > 1e-9 and loss(theta - step) > loss(theta) * (1 + 1e-12):
            step = step / 2
        theta = theta - step
        if np.abs(step).max() <= 1e-9:
            break
    uncentre = np.array([[1.0, -centre], [0.0, 1.0]])
    return uncentre @ theta, uncentre @ np.linalg.inv(curvature(theta)) @ uncentre.T


def _equal_mass(mesh: ScoreMesh, bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Effective rows, mean score and rate of up to `bins` bins of about equal mass; a mesh point is never divided."""
    rows, positive = _effective(mesh)
    if not rows.any():
        return np.zeros(0), np.zeros(0), np.zeros(0)
    middle = (np.cumsum(rows) - rows / 2) / rows.sum()
    index = np.clip((middle * bins).astype(np.int64), 0, bins - 1)
    sums = np.zeros((3, bins))
    np.add.at(sums.T, index, np.stack([rows, rows * POINTS, positive], axis=1))
    count, score, hits = sums[:, sums[0] > 0]
    return count, np.clip(score / count, 0.0, 1.0), np.clip(hits / count, 0.0, 1.0)
