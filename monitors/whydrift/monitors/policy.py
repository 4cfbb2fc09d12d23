"""When a page asks for a new model.

Drift alone is no reason to retrain: broken data or labels and a changed explainer are to be mended first, and a model
learned from a few rows after the onset would be worse. Cause, loss, labels and a cooldown decide; promotion is never
automatic.

Inputs that moved, alone or together, may be answered as well as ever. They ask for a new model only if the loss of
what was predicted since the onset is certainly above the baseline's. A changed concept was found by its outcomes, and
a cause that the owner added, such as data_broken, is one that he has decided to live with: they need no other ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from scipy.stats import t as student

from whydrift.monitors.verdict import Cause, CauseKind, Retraining

RISKY = frozenset({CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED})  # only where the loss says so
_CONFIDENCE = 0.95
_FEWEST = 2  # windows with labels before a higher loss is believed: a single bad day is no reason for a new model


@dataclass(frozen=True, slots=True)
class RetrainingPolicy:
    """Which causes a new model can mend, and what must be there before one is asked for."""

    causes: frozenset[CauseKind]
    min_labelled_rows: int
    cooldown: timedelta


@dataclass(frozen=True, slots=True)
class Cohort:
    """A window's mature labels: `loss` is their mean, by the start of the window that they were predicted in."""

    start: datetime
    labelled: int
    loss: float


@dataclass(frozen=True, slots=True)
class UsualLoss:
    """Mean loss of the baseline's windows, each counting once, and the deviation between them."""

    mean: float
    deviation: float
    windows: int


def fit_usual_loss(means: Sequence[float]) -> UsualLoss | None:
    """From the mean losses of the baseline's windows; None of fewer than two, whose spread is not known."""
    if len(means) < 2:
        return None
    return UsualLoss(float(np.mean(means)), float(np.std(means, ddof=1)), len(means))


@dataclass(frozen=True, slots=True)
class Risk:
    """Mean loss since an onset, `lower` its one-sided 95 % bound, beside the `usual` one."""

    mean: float
    lower: float
    usual: float
    windows: int


def risk_since(onset: datetime, cohorts: Sequence[Cohort], usual: UsualLoss | None) -> Risk | None:
    """The loss of the cohorts predicted since the onset, each window a replicate; None where nothing is known.

    The difference of two means of k and D windows of the baseline's variance: Student's t with D - 1 degrees.
    """
    since = [cohort.loss for cohort in cohorts if cohort.start >= onset and cohort.labelled > 0]
    if usual is None or not since:
        return None
    factor = float(student.ppf(_CONFIDENCE, usual.windows - 1))
    half = factor * usual.deviation * float(np.sqrt(1 / len(since) + 1 / usual.windows))
    mean = float(np.mean(since))
    return Risk(mean, mean - half, usual.mean, len(since))


def decide(
    policy: RetrainingPolicy,
    cause: Cause | None,
    *,
    labelled: int,
    risk: Risk | None,
    now: datetime,
    last: datetime | None,
) -> Retraining:
    """Whether this window raises a request.

    Args:
        policy: the owner's.
        cause: of the page, None where there is none.
        labelled: mature labels of rows since the onset.
        risk: the loss since the onset, None where it is not known.
        now: the window's end.
        last: when the last request was raised, if one was.
    """
    if cause is None:
        return Retraining(requested=False, reason="no page")
    name = cause.kind.value
    if cause.kind not in policy.causes:
        reason = f"{name} is not among the causes that a new model is asked for"
    elif labelled < policy.min_labelled_rows:
        reason = f"{labelled:,} mature labels since the onset, {policy.min_labelled_rows:,} are needed"
    elif cause.kind in RISKY and (risk is None or risk.lower <= risk.usual):
        reason = f"{name}, and {_say(risk)}: the model answers what it gets now no worse for all that is known"
    elif cause.kind in RISKY and risk is not None and risk.windows < _FEWEST:
        reason = f"{name}, and {_say(risk)}: {risk.windows} window with labels tells too little"
    elif last is not None and now < last + policy.cooldown:
        reason = (
            f"a request was raised on {last:%Y-%m-%d}, and the cooldown runs until {last + policy.cooldown:%Y-%m-%d}"
        )
    else:
        reason = f"{name} since {cause.onset:%Y-%m-%d}, {labelled:,} mature labels since then"
        reason += f"; {_say(risk)}" if cause.kind in RISKY else ""
        return Retraining(requested=True, reason=reason, labelled_since_onset=labelled)
    return Retraining(requested=False, reason=reason, labelled_since_onset=labelled)


def _say(risk: Risk | None) -> str:
    if risk is None:
        return "no label tells of the loss since then"
    return f"the loss since then is {risk.mean:.4g} (at least {risk.lower:.4g}) and was {risk.usual:.4g}"
