"""What can be said while labels are still on their way.

Positives and negatives do not arrive equally fast, so the labels so far are not a fair sample: their base rate is
wrong until all are there. F_y(a), the share of class y's labels that are known at age a, is taken from those cohorts
of the baseline whose labels are complete. Then a young cohort has about `known_y / F_y(a)` labels of class y, and all
classes together about as many as its predictions, times the share that the baseline's cohorts were labelled in the end.
Both are noisy, and are weighed by how noisy (generalised least squares, with the delta method for F's own error and
for how cohorts differ in it). Within a class, arrival is taken not to depend on the score.

The bounds need none of this: they let the missing labels be whatever is best or worst (Manski 1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.arrivals import Cohort, read_delays
from whydrift.monitors.calibration import POINTS
from whydrift.monitors.policy import UsualLoss
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import Channel, Finding, Status
from whydrift.monitors.verdict_labels import CohortEstimate, Interval, LabelMaturity

FloatArray = npt.NDArray[np.float64]

MATURE = 0.9  # of each class's labels, for a metric of the cohort to be a headline
ARRIVED = 0.2  # of a class's labels, for a correction to be more than a guess
MIN_COHORTS = 5  # complete ones, for their differences to be known
BOUND_DEVIATIONS = 3.0  # of the loss between the baseline's windows: what the bounds tolerate
_Z = 1.959964
_LOSSES: FloatArray = np.stack([POINTS**2, (1 - POINTS) ** 2])  # squared errors of a negative and a positive, (2, 200)


@dataclass(frozen=True, slots=True)
class Delays:
    """How labels arrived in the baseline's complete cohorts.

    `known` (classes, ages) is F, the share of a class's labels known at each age, and `variance` that of a new cohort's
    F around it, beyond what its number of labels explains. `labelled` is the share of predictions that got a label in
    the end, `labelled_variance` that of a new cohort's. `cohorts` is how many it rests on.
    """

    known: FloatArray
    variance: FloatArray
    labelled: float
    labelled_variance: float
    cohorts: int

    def at(self, age: int) -> tuple[FloatArray, FloatArray]:
        """F and its variance at an age, (classes,) each; beyond the last one all labels are there."""
        last = min(age, self.known.shape[1] - 1)
        return self.known[:, last], self.variance[:, last]


def fit_delays(frame: pd.DataFrame, layout: Layout) -> Delays | None:
    """From the frame of complete cohorts' arrivals; None of fewer than five cohorts with labels of each class."""
    by_age, predictions = read_delays(frame, layout)
    total = by_age.sum(axis=2)
    if len(total) < MIN_COHORTS or not np.all((total > 0).sum(axis=0) >= MIN_COHORTS):
        return None
    known, variance = _ratio(by_age.cumsum(axis=2), np.broadcast_to(total[:, :, None], by_age.shape))
    labelled, labelled_variance = _ratio(total.sum(axis=1), predictions)
    return Delays(known, variance, float(labelled), float(labelled_variance), len(total))


def _ratio(part: FloatArray, whole: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A share over cohorts, axis 0, and the variance of a new cohort's around it beyond the binomial one."""
    count, size = (whole > 0).sum(axis=0), whole.sum(axis=0)
    share = part.sum(axis=0) / size
    own = np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), share)
    between = (whole * (own - share) ** 2).sum(axis=0) / size * count / (count - 1)
    chance = share * (1 - share) * count / size
    return np.asarray(share), np.asarray(np.maximum(between - chance, 0.0) + between / count)


def judge_maturity(
    frame: pd.DataFrame, start: datetime, width: timedelta, lag: int, of: Delays | None
) -> LabelMaturity | None:
    """Of the cohort that began at `start` and has the age `lag`; None where the table does not have it."""
    own = frame[(frame["slice"] == start.isoformat()) & (frame["block"] == "arrival") & (frame["stat"] == "weight")]
    every = float(own.loc[own["name"] == "", "value"].sum())
    if not every > 0:
        return None
    known = None if of is None else of.at(lag)[0]
    return LabelMaturity(
        cohort_start=start,
        cohort_end=start + width,
        coverage=float(own.loc[own["name"] != "", "value"].sum()) / every,
        negatives=None if known is None else float(known[0]),
        positives=None if known is None else float(known[-1]),
        mature=None if known is None else bool(known.min() >= MATURE),
        cohorts=0 if of is None else of.cohorts,
    )


def estimate_cohort(cohort: Cohort, age: int, width: timedelta, of: Delays | None) -> CohortEstimate:
    """What a classifier's cohort comes to: as seen, corrected for arrival, and at worst and at best."""
    n, known = cohort.weight, cohort.known_weight
    missing = np.maximum(cohort.mesh - cohort.known_mesh.sum(axis=0), 0.0)
    error = float((cohort.known_mesh * _LOSSES).sum())
    some = known.sum() > 0
    corrected = None if of is None else _correct(cohort, age, of)
    rate = loss = None
    if corrected is not None:
        rate, loss = corrected
    bounds = (known[1] / n, 1 - known[0] / n)
    loss_bounds = (
        (error + float(missing @ _LOSSES.min(axis=0))) / n,
        (error + float(missing @ _LOSSES.max(axis=0))) / n,
    )
    score = float(cohort.mesh @ POINTS) / n
    return CohortEstimate(
        cohort_start=cohort.start,
        cohort_end=cohort.start + width,
        age=age,
        rows=round(cohort.rows),
        labelled=round(float(cohort.known_rows.sum())),
        coverage=min(float(known.sum()) / n, 1.0),
        base_rate_bounds=_within(bounds, (0.0, 1.0)),
        loss_bounds=_within(loss_bounds, (0.0, 1.0)),
        seen_base_rate=float(known[1] / known.sum()) if some else None,
        seen_loss=error / float(known.sum()) if some else None,
        base_rate=rate[0] if rate else None,
        base_rate_interval=_interval(rate, bounds),
        calibration=rate[0] - score if rate else None,
        calibration_interval=_interval(rate, bounds, score),
        loss=loss[0] if loss else None,
        loss_interval=_interval(loss, loss_bounds),
    )


def _correct(cohort: Cohort, age: int, of: Delays) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Base rate and mean loss of all labels that the cohort will have, with their variances.

    The unknowns are the classes' final weights, (2,). The known ones say known / F, the predictions say their sum.
    None while no positive, or less than a fifth of their labels, can be there. Negatives may still be missing: then
    what is not positive is negative.
    """
    (share, spread), known = of.at(age), cohort.known_weight
    usable = (share >= ARRIVED) & (known > 0)
    if not usable[1]:
        return None
    unit = cohort.weight2 / cohort.weight  # the weight of one row
    share, least = np.where(usable, share, 1.0), 1e-6 * unit * cohort.weight
    total = known / share
    noise = np.maximum((total + unit) * unit * (1 - share) / share + (total / share) ** 2 * spread, least)
    whole = of.labelled * cohort.weight
    whole_noise = max(of.labelled_variance * cohort.weight**2, least)
    covariance = np.linalg.inv(np.diag(usable / noise) + 1 / whole_noise)
    final = np.maximum(covariance @ (usable * total / noise + whole / whole_noise), known)
    size, rate = float(final.sum()), float(final[1] / final.sum())
    means, slopes, errors = _class_losses(cohort, final, usable, of)
    loss = float(final @ means) / size
    by_rate, by_loss = np.array([-rate, 1 - rate]) / size, (slopes - loss) / size
    own = float(final**2 @ (errors * (1 - known / np.maximum(final, 1e-300)))) / size**2
    return (rate, float(by_rate @ covariance @ by_rate)), (loss, float(by_loss @ covariance @ by_loss) + own)


def _class_losses(
    cohort: Cohort, final: FloatArray, usable: npt.NDArray[np.bool_], of: Delays
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each class, (2,): the mean squared error, what one row more adds to their sum, and the mean's variance.

    Where negatives are not known theirs is that of all predictions as if negative, less that of the positives.
    """
    one = (cohort.known_mesh.T / np.where(cohort.known_weight > 0, cohort.known_weight, 1.0)).T
    means, gain = (one * _LOSSES).sum(axis=1), _LOSSES
    slopes = means
    if not usable[0]:
        as_negative = float(one[1] @ _LOSSES[0])
        rest = of.labelled * float(cohort.mesh @ _LOSSES[0]) - final[1] * as_negative
        means = np.array([np.clip(rest / max(final[0], 1e-300), 0.0, 1.0), means[1]])
        slopes, gain = np.array([as_negative, means[1]]), np.stack([np.zeros_like(POINTS), _LOSSES[1] - _LOSSES[0]])
    spread = np.maximum((one * gain**2).sum(axis=1) - (one * gain).sum(axis=1) ** 2, 0.0)
    per_row = cohort.known_weight2 / np.where(cohort.known_weight > 0, cohort.known_weight, 1.0) ** 2
    return means, slopes, spread * per_row


def find_bounds_broken(cohorts: Sequence[CohortEstimate], usual: UsualLoss | None, min_rows: int) -> Finding | None:
    """A ticket where even the best that the missing labels can be leaves a cohort's loss above the baseline's.

    Of several such cohorts the oldest is named: it is where the change is known longest.
    """
    if usual is None:
        return None
    limit = usual.mean + BOUND_DEVIATIONS * usual.deviation
    broken = [c for c in cohorts if c.rows >= min_rows and c.loss_bounds[0] > limit]
    if not broken:
        return None
    first = min(broken, key=lambda c: c.cohort_start)
    best = first.loss_bounds[0]
    return Finding(
        channel=Channel.CHECK,
        stream="loss_bounds",
        status=Status.TICKET,
        message=f"the mean loss of what was predicted from {first.cohort_start:%Y-%m-%d %H:%M} UTC on is at least"
        f" {best:.3g}, whatever its missing labels ({1 - first.coverage:.0%}) turn out to be; it was {usual.mean:.3g}",
        value=best,
        baseline=usual.mean,
        effect=best - usual.mean,
        threshold=limit,
        onset=first.cohort_start,
        confirmed=True,
    )


def _interval(estimate: tuple[float, float] | None, bounds: Interval, less: float = 0.0) -> Interval | None:
    """The 95 % interval of (value, variance), no wider than the bounds, and both less a constant."""
    if estimate is None:
        return None
    value, half = estimate[0], _Z * float(np.sqrt(max(estimate[1], 0.0)))
    low, high = _within((value - half, value + half), bounds)
    return low - less, high - less


def _within(interval: Interval, bounds: Interval) -> Interval:
    low, high = (float(np.clip(end, bounds[0], max(bounds))) for end in interval)
    return low, high
