"""What mature labels say of a regression beside its loss: whether it errs to one side, and as much as it used to.

| stream   | value                                                              | sides | question   |
|----------|--------------------------------------------------------------------|-------|------------|
| bias     | mean of outcome - prediction in units of `Layout.loss_scale`       | two   | validation |
| coverage | arcsine of the root of the part of outcomes in the 90 % interval   | two   | validation |

The arcsine has the same sampling variance, 1 / (4 n), at every coverage (Anscombe 1948, doi 10.2307/2332343).
"""

from __future__ import annotations

from math import asin, sqrt

import numpy as np

from whydrift.monitors.conformal import read_residuals
from whydrift.monitors.evidence import Stream
from whydrift.monitors.outcome_streams import MIN_LABELLED
from whydrift.monitors.stream_input import StreamInput, Values
from whydrift.monitors.summary import Layout

WATCHED = 0.9


def list_regression(layout: Layout) -> tuple[Stream, ...]:
    """Two streams of a regression whose baseline has labels enough for quantiles of its residuals."""
    return (Stream("bias"), Stream("coverage")) if layout.residual_edges else ()


def observe_regression(window: StreamInput, layout: Layout) -> Values:
    """The mature cohort's values, in the order of `list_regression`."""
    if not layout.residual_edges:
        return np.zeros(0), np.zeros(0)
    found = read_residuals(window.outcomes) if window.outcomes is not None else None
    if found is None or found.rows < MIN_LABELLED:
        return np.full(2, np.nan), np.full(2, np.nan)
    angle = asin(sqrt(min(found.coverage(WATCHED), 1.0)))
    return np.array([found.mean, angle]), np.array([found.variance / found.rows, 1 / (4 * found.rows)])
