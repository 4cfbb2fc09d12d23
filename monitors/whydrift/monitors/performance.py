"""How well a classifier does on rows that have no labels yet, if its scores still mean what they meant.

A score is worth the rate at which it came true in the baseline, c(p), by isotonic regression on the score mesh
(CBPE, confidence-based performance estimation). A window's expected true and false answers then follow from its
scores alone: of the weight n(p) at a score, c(p) n(p) is expected to be positive. All of it is exact from the mesh.

Where inputs moved, the same score may stand for other rows. c(p) can be taken anew from the baseline's rows, weighted
so that one feature has the window's cells in the window's shares (PAPE, Bialek et al. 2025, importance-weighted
recalibration). The weights are those of one feature at a time: that is what sums over cells can tell, and it is
right where that feature moved alone. The sums are a baseline's own:

| block       | name    | cell                          | stats                      |
|-------------|---------|-------------------------------|----------------------------|
| score_joint | feature | x-cell code x bins + its bin  | labelled, positive         |

Neither sees a changed concept: an answer that comes true more or less often at the same score and the same inputs.
Both may open a ticket, never a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import isotonic_regression

from whydrift.monitors.binning import assign
from whydrift.monitors.calibration import MESH, POINTS
from whydrift.monitors.dense import dense, width
from whydrift.monitors.summary import Layout, Outcomes, WindowSummary, chunks, collect
from whydrift.monitors.summary_terms import Rows, held, term

FloatArray = npt.NDArray[np.float64]

BLIND = "blind to a change of what a score means"
THRESHOLD = 0.5  # from which on a row is taken for positive, where no other is configured
SCORE_BINS = 20
_CLIP = 1 / (4 * MESH)  # of a score in a logarithm


@dataclass(frozen=True, slots=True)
class Performance:
    """What answers come to. The four parts of the confusion table are shares of all rows and sum to 1.

    `brier` and `log_loss` are means; `auroc` is None of one class alone.
    """

    true_positive: float
    false_positive: float
    true_negative: float
    false_negative: float
    auroc: float | None
    brier: float
    log_loss: float

    @property
    def accuracy(self) -> float:
        return self.true_positive + self.true_negative


def threshold_of(layout: Layout) -> float:
    """The score from which on a row is taken for positive."""
    return layout.fairness.threshold if layout.fairness is not None else THRESHOLD


def mesh_of(frame: pd.DataFrame, block: str, stat: str) -> FloatArray:
    """One of a summary's meshes, (200,)."""
    return np.asarray(dense(frame, block, [""], [stat], MESH)[0, 0])


def recalibrate(labelled: FloatArray, positive: FloatArray) -> FloatArray | None:
    """The rate at which each score comes true, (200,), from the weights of labelled and of positive rows, (200,) each.

    Isotonic regression where there are rows, straight lines between, level beyond; None without rows.
    """
    seen = labelled > 0
    if not seen.any():
        return None
    rate = np.clip(positive[seen] / labelled[seen], 0.0, 1.0)
    fit = isotonic_regression(rate, weights=labelled[seen]).x
    return np.asarray(np.interp(POINTS, POINTS[seen], fit))


def usual_rates(outcomes: Sequence[pd.DataFrame]) -> FloatArray | None:
    """`recalibrate` on the frames of a baseline's outcomes, together."""
    return recalibrate(*_together(outcomes))


def realised(outcomes: Sequence[pd.DataFrame], threshold: float) -> Performance | None:
    """What the labelled rows of a baseline's outcomes came to, together; None without labels."""
    labelled, positive = _together(outcomes)
    return expect(labelled, positive / np.where(labelled > 0, labelled, 1.0), threshold)


def _together(outcomes: Sequence[pd.DataFrame]) -> tuple[FloatArray, FloatArray]:
    """Weights of labelled and of positive rows by score, (200,) each."""
    meshes = [[mesh_of(frame, "outcome", stat) for frame in outcomes] for stat in ("labelled", "positive")]
    labelled, positive = np.array(meshes).reshape(2, len(outcomes), MESH).sum(axis=1)
    return labelled, positive


def expect(weight: FloatArray, rate: FloatArray, threshold: float = THRESHOLD) -> Performance | None:
    """What rows with these weights on the mesh come to if `rate` of each are positive; (200,) each.

    With the rates that were observed this is the performance itself. A row between two points of the mesh counts on
    both, so rows within 1/199 of the threshold count in part on its other side. None without rows.
    """
    total = float(weight.sum())
    if not total > 0:
        return None
    share = weight / total
    positive, negative = share * rate, share * (1 - rate)
    chosen = threshold <= POINTS
    miss, alarm = log_losses()
    return Performance(
        true_positive=float(positive[chosen].sum()),
        false_positive=float(negative[chosen].sum()),
        true_negative=float(negative[~chosen].sum()),
        false_negative=float(positive[~chosen].sum()),
        auroc=auroc(positive, negative),
        brier=float(positive @ (1 - POINTS) ** 2 + negative @ POINTS**2),
        log_loss=float(positive @ miss + negative @ alarm),
    )


def log_losses() -> tuple[FloatArray, FloatArray]:
    """The log loss of a positive and of a negative row at each point of the mesh, (200,)."""
    held_in = np.clip(POINTS, _CLIP, 1 - _CLIP)
    return -np.log(held_in), -np.log1p(-held_in)


def auroc(positive: FloatArray, negative: FloatArray) -> float | None:
    """The chance that a positive row scores above a negative one, equal scores counting half; (200,) each.

    >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    0.75
    """
    pairs = float(positive.sum()) * float(negative.sum())
    if not pairs > 0:
        return None
    below = np.cumsum(negative) - negative
    return min(float(positive @ (below + negative / 2)) / pairs, 1.0)


def mean_and_variance(weight: FloatArray, expected: FloatArray, rows: float) -> tuple[float, float]:
    """The mean of a row's expected value over the mesh, (200,) each, and its sampling variance of `rows` rows."""
    share = weight / weight.sum()
    mean = float(share @ expected)
    return mean, float(share @ (expected - mean) ** 2) / max(rows, 1.0)


def summarise_joint(batch: Outcomes, layout: Layout) -> WindowSummary:
    """Reduce labelled rows to their counts by score and by each feature's cell."""
    return collect(rows for part in chunks(batch) for rows in _joint_terms(part, layout))


def _joint_terms(batch: Outcomes, layout: Layout) -> Iterator[Rows]:
    if layout.task != "binary":
        return
    w, cells = held(batch.weight, 1.0), width(layout.features)
    own = score_bin(batch.prediction)
    for bins in layout.features:
        code = (assign(bins, batch.features[bins.name]) % cells) * SCORE_BINS + own
        yield term("score_joint", "labelled", w, name=bins.name, cells=code)
        yield term("score_joint", "positive", w * batch.label, name=bins.name, cells=code)


def score_bin(p: FloatArray) -> npt.NDArray[np.int64]:
    """The bin of each score, (n,); bins are equally wide."""
    return np.asarray(np.minimum(np.floor(p * SCORE_BINS), SCORE_BINS - 1), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Joint:
    """The baseline's labelled and positive weight by feature, x-cell and score bin, (p, cells, bins) each."""

    labelled: FloatArray
    positive: FloatArray


def read_joint(frame: pd.DataFrame, layout: Layout) -> Joint:
    """What `summarise_joint` stored."""
    cells = width(layout.features)
    both = dense(frame, "score_joint", layout.names, ("labelled", "positive"), cells * SCORE_BINS)
    labelled, positive = both.reshape(2, len(layout.names), cells, SCORE_BINS)
    return Joint(labelled, positive)


def x_cells(frame: pd.DataFrame, layout: Layout) -> FloatArray:
    """A window's weight by feature and x-cell, (p, cells), as `Joint` has them."""
    return np.asarray(dense(frame, "input", layout.names, ("weight",), width(layout.features))[0])


def most_moved(now: FloatArray, then: FloatArray) -> int:
    """The feature whose cells' shares differ most (Hellinger distance); weights by feature and cell, (p, cells)."""
    shares = [np.sqrt(w / np.maximum(w.sum(axis=1, keepdims=True), 1e-300)) for w in (now, then)]
    return int(np.argmax(((shares[0] - shares[1]) ** 2).sum(axis=1)))


def reweigh(rate: FloatArray, joint: Joint, feature: int, now: FloatArray) -> FloatArray:
    """Rates (200,) as they are where a feature's cells have the weights `now`, (cells,), instead of the baseline's.

    In each score bin the weighted rate over the plain one moves `rate`, on the log-odds scale, where the bin's weighted
    rows are worth at least ten (Kish 1965); cells that the baseline did not see count for nothing, and where there are
    no others the rates stay.
    """
    labelled, positive = joint.labelled[feature], joint.positive[feature]
    before = labelled.sum(axis=1)
    known = before > 0
    if now[known].sum() <= 0:
        return rate
    weight = np.zeros_like(before)
    weight[known] = now[known] / now[known].sum() / (before[known] / before.sum())
    total, hits = weight @ labelled, weight @ positive
    effective = total**2 / np.maximum(weight**2 @ labelled, 1e-300)
    plain = (positive.sum(axis=0) + 0.5) / (labelled.sum(axis=0) + 1)
    tilted = (hits / np.maximum(total, 1e-300) * effective + 0.5) / (effective + 1)
    shift = np.where(effective >= 10, np.log(tilted / (1 - tilted)) - np.log(plain / (1 - plain)), 0.0)
    middle = (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS
    odds = np.exp(np.interp(POINTS, middle, shift))
    return np.asarray(odds * rate / (1 - rate + odds * rate))
