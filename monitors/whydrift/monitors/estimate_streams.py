"""What a classifier's answers are expected to come to before their labels are there (see `performance`).

| stream          | of        | value                                 | sides | question  |
|-----------------|-----------|---------------------------------------|-------|-----------|
| estimated_loss  | the model | expected mean squared error           | up    | knowledge |
| estimated_error | the model | expected share of answers that are wrong | up | knowledge |

They only ever open a ticket: a changed concept, another rate at which the same score comes true, does not move them.
"""

from __future__ import annotations

import numpy as np

from whydrift.monitors.attribution import logged_rows
from whydrift.monitors.calibration import POINTS
from whydrift.monitors.performance import mean_and_variance, mesh_of, threshold_of
from whydrift.monitors.stream import Stream
from whydrift.monitors.stream_input import StreamInput, Values
from whydrift.monitors.summary import Layout

_UNSEEN = (np.full(2, np.nan), np.full(2, np.nan))


def list_estimates(layout: Layout) -> tuple[Stream, ...]:
    """Of a classifier: a regression's errors are not a matter of its predictions."""
    if layout.task != "binary":
        return ()
    return tuple(Stream(kind, one_sided=True, tier="ticket") for kind in ("estimated_loss", "estimated_error"))


def observe_estimates(window: StreamInput, layout: Layout) -> Values:
    """The window's values, in the order of `list_estimates`; NaN where no label ever said what a score is worth."""
    rate, now = window.baseline.recalibrated, window.moments
    if layout.task != "binary":
        return np.zeros(0), np.zeros(0)
    weight = mesh_of(window.frame, "score", "weight")
    if rate is None or now is None or not weight.any():
        return _UNSEEN
    loss = rate * (1 - POINTS) ** 2 + (1 - rate) * POINTS**2
    wrong = np.where(threshold_of(layout) <= POINTS, 1 - rate, rate)
    both = [mean_and_variance(weight, expected, logged_rows(window.frame)) for expected in (loss, wrong)]
    return np.array([mean for mean, _ in both]), np.array([variance for _, variance in both])
