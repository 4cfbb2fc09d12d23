"""What the model answers as a whole, as streams.

| stream             | value                                                                 | sides | question   |
|--------------------|-----------------------------------------------------------------------|-------|------------|
| score_mean         | mean output in units of `Layout.scale`                                | two   | diagnosis  |
| score_shape        | distance of the scores' distribution, see `distances`                 | up    | diagnosis  |
| effective_features | log of the number of features that share the attributions: entropy    | two   | validation |
| residual           | log of the mean of what explanations miss of the output               | up    | validation |
"""

from __future__ import annotations

import numpy as np

from whydrift.monitors.attribution import Moments, logged_rows
from whydrift.monitors.distances import score_counts, standardise
from whydrift.monitors.evidence import Stream
from whydrift.monitors.stream_input import StreamInput, Values, score_shape
from whydrift.monitors.summary import Layout

_EXACT = 1e-6  # in units of the scale: an explainer that misses less in the baseline misses nothing that could vary


def list_model(layout: Layout) -> tuple[Stream, ...]:  # noqa: ARG001 - the signature of every family
    """Four streams, the same ones of every model."""
    return (
        Stream("score_mean"),
        Stream("score_shape", one_sided=True),
        Stream("effective_features"),
        Stream("residual", one_sided=True),
    )


def observe_model(window: StreamInput, layout: Layout) -> Values:
    """The window's values, in the order of `list_model`."""
    now, base = window.moments, window.baseline
    if now is None:
        return np.full(4, np.nan), np.full(4, np.nan)
    distance = score_shape(score_counts(window.frame, layout), logged_rows(window.frame), base.counts)
    streams = (
        (now.output, max(now.output2 - now.output**2, 0.0) / now.rows),
        (float(standardise(distance, base.score_excess)[0]), 0.0),
        _entropy(now),
        _residual(now) if base.moments.residual > _EXACT else (np.nan, np.nan),
    )
    return np.array([value for value, _ in streams]), np.array([variance for _, variance in streams])


def _entropy(now: Moments) -> tuple[float, float]:
    """-sum s log s, and its variance to first order, as if shares were independent of each other."""
    weighted = now.share * (now.log_share + (entropy := -float(now.share @ now.log_share)))
    return entropy, float(weighted**2 @ now.log_share_variance)


def _residual(now: Moments) -> tuple[float, float]:
    """The log of the mean residual, held above what an explainer that adds up has, and its variance to first order."""
    mean = max(now.residual, _EXACT)
    return float(np.log(mean)), max(now.residual2 / mean**2 - 1, 0.0) / now.rows
