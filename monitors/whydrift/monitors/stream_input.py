"""What a window offers to the families of streams, and what the baseline fixed for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.attribution import Moments
from whydrift.monitors.distances import Counts, Distances, counts, fit_excess, recut, response, shape
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]
Values = tuple[FloatArray, FloatArray]  # of a family's streams: values and sampling variances, (m,) each

_DEVIATION_FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class StreamBaseline:
    """What the baseline's windows fix for the streams.

    `moments` and `counts` are those of all its rows. `deviation` (p,) and `group_deviation` (g,) are the standard
    deviations of the attributions over these, and the `*_excess` (p,), of the scores (1,), what the windows' distances
    have beyond sampling (see `distances`). `recalibrated` is the rate at which each score of the mesh came true,
    (200,), None without labels.
    """

    moments: Moments
    deviation: FloatArray
    group_deviation: FloatArray
    counts: Counts
    shape_excess: FloatArray
    response_excess: FloatArray
    score_excess: FloatArray
    recalibrated: FloatArray | None = None

    def without(self, window: Counts) -> StreamBaseline:
        """As the baseline's own window has to see it: a window is always nearer to rows that are its own."""
        return replace(self, counts=self.counts.without(window))


@dataclass(frozen=True, slots=True)
class StreamInput:
    """One window.

    Attributes:
        start: of the window.
        frame: of its summary.
        moments: of its attributions, None where it was too small to be judged.
        outcomes: frame of the summary of the cohort whose labels are mature by now, None where there is none.
        baseline: what the baseline fixed.
    """

    start: datetime
    frame: pd.DataFrame
    moments: Moments | None
    outcomes: pd.DataFrame | None
    baseline: StreamBaseline


def fit_stream_baseline(
    whole: pd.DataFrame, together: Moments, windows: Sequence[Counts], layout: Layout
) -> StreamBaseline:
    """Fit it on the frame and the moments of all of the baseline's rows, and on the windows that can be judged."""
    everything = counts(whole, layout)
    pairs = [(window, everything.without(window)) for window in windows]
    rows, logged = [window.rows for window in windows], [window.logged_rows for window in windows]
    groups = together.groups.variance if together.groups is not None else np.zeros(0)
    return StreamBaseline(
        moments=together,
        deviation=_deviation(together.variance),
        group_deviation=_deviation(groups),
        counts=everything,
        shape_excess=fit_excess([shape(a.phi, b.phi, a.rows, b.rows) for a, b in pairs], rows, len(layout.features)),
        response_excess=fit_excess([response(a, b) for a, b in pairs], rows, len(layout.features)),
        score_excess=fit_excess([score_shape(a.score, a.logged_rows, b) for a, b in pairs], logged, 1),
    )


def score_shape(score: FloatArray, rows: float, baseline: Counts) -> Distances:
    """The distance of a window's scores, (cells,), from the baseline's, (1,); `rows` are all that were logged."""
    now, before = (recut(s, baseline.score) for s in (score, baseline.score))
    return shape(now, before, rows, baseline.logged_rows)


def _deviation(variance: FloatArray) -> FloatArray:
    return np.maximum(np.sqrt(variance), _DEVIATION_FLOOR)
