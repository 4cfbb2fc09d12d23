"""When a page asks for a new model.

Drift alone is no reason to retrain: broken data is to be mended first, and a model learned from a few rows after
the onset would be worse. Causes, labels and a cooldown decide; promotion is never automatic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from whydrift.monitors.verdict import Cause, CauseKind, Retraining


@dataclass(frozen=True, slots=True)
class RetrainingPolicy:
    """Which causes a new model can mend, and what must be there before one is asked for."""

    causes: frozenset[CauseKind]
    min_labelled_rows: int
    cooldown: timedelta


def decide(
    policy: RetrainingPolicy, cause: Cause | None, *, labelled: int, now: datetime, last: datetime | None
) -> Retraining:
    """Whether this window raises a request.

    Args:
        policy: the owner's.
        cause: of the page, None where there is none.
        labelled: mature labels of rows since the onset.
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
    elif last is not None and now < last + policy.cooldown:
        reason = (
            f"a request was raised on {last:%Y-%m-%d}, and the cooldown runs until {last + policy.cooldown:%Y-%m-%d}"
        )
    else:
        reason = f"{name} since {cause.onset:%Y-%m-%d}, {labelled:,} mature labels since then"
        return Retraining(requested=True, reason=reason, labelled_since_onset=labelled)
    return Retraining(requested=False, reason=reason, labelled_since_onset=labelled)
