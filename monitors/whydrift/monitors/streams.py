"""From summaries to the numbers that are watched: families of streams, one after the other.

A family is a pair of functions: one lists its streams from the layout alone, the other gives their values in a
window, in that order, NaN where the window does not carry a stream. To watch something new, add a family. A multiclass
model has the families of a binary one for each class, class after class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from whydrift.monitors.attribution_streams import (
    list_attribution,
    list_groups,
    observe_attribution,
    observe_groups,
)
from whydrift.monitors.class_sums import head_names, heads
from whydrift.monitors.estimate_streams import list_estimates, observe_estimates
from whydrift.monitors.evidence import Observation, Stream
from whydrift.monitors.fairness import list_gaps, list_selection, observe_gaps, observe_selection
from whydrift.monitors.model_streams import list_model, observe_model
from whydrift.monitors.outcome_streams import list_outcomes, observe_outcomes
from whydrift.monitors.regression_streams import list_regression, observe_regression
from whydrift.monitors.stream_input import StreamInput, Values
from whydrift.monitors.summary import Layout

Family = tuple[Callable[[Layout], tuple[Stream, ...]], Callable[[StreamInput, Layout], Values]]

_OF_THE_WINDOW: tuple[Family, ...] = (
    (list_attribution, observe_attribution),
    (list_groups, observe_groups),
    (list_model, observe_model),
    (list_selection, observe_selection),
)
_OF_MATURE_LABELS: tuple[Family, ...] = (
    (list_outcomes, observe_outcomes),
    (list_regression, observe_regression),
    (list_gaps, observe_gaps),
    (list_estimates, observe_estimates),
)


def list_streams(layout: Layout, *, labels: bool) -> tuple[Stream, ...]:
    """Every stream of a model, in the order in which `observe` gives their values."""
    return tuple(
        stream if name is None else replace(stream, class_name=name)
        for name, head in zip(head_names(layout), heads(layout), strict=True)
        for list_family, _ in _families(labels=labels)
        for stream in list_family(head)
    )


def observe(window: Sequence[StreamInput], layout: Layout, *, labels: bool) -> Observation:
    """The values of a window, as each head of the layout sees it; NaN where it has none.

    `labels` says whether the model has labels at all.
    """
    parts = [
        observe_family(seen, head)
        for seen, head in zip(window, heads(layout), strict=True)
        for _, observe_family in _families(labels=labels)
    ]
    return Observation(
        window[0].start, np.concatenate([values for values, _ in parts]), np.concatenate([noise for _, noise in parts])
    )


def _families(*, labels: bool) -> tuple[Family, ...]:
    return _OF_THE_WINDOW + _OF_MATURE_LABELS if labels else _OF_THE_WINDOW
