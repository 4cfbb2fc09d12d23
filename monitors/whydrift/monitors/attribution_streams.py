"""What each feature contributes, as streams.

| stream      | of      | value                                                            | sides | question   |
|-------------|---------|------------------------------------------------------------------|-------|------------|
| share       | feature | log of its share of all absolute attribution                     | two   | validation |
| level       | feature | mean attribution / its baseline deviation                        | two   | diagnosis  |
| shape       | feature | distance of its attributions' distribution, see `distances`      | up    | validation |
| response    | feature | how differently the same inputs are answered, see `distances`    | up    | diagnosis  |
| group_share | group   | log of the share of its members' sum                             | two   | validation |
| group_level | group   | mean of its members' sum / its baseline deviation                | two   | diagnosis  |
"""

from __future__ import annotations

import numpy as np

from whydrift.monitors.attribution import Moments, steady_log_share
from whydrift.monitors.distances import counts, response, shape, standardise
from whydrift.monitors.evidence import Stream
from whydrift.monitors.stream_input import FloatArray, StreamInput, Values
from whydrift.monitors.summary import Layout


def list_attribution(layout: Layout) -> tuple[Stream, ...]:
    """Four streams of every feature, by kind."""
    kinds = (("share", False), ("level", False), ("shape", True), ("response", True))
    return tuple(Stream(kind, feature=name, one_sided=up) for kind, up in kinds for name in layout.names)


def observe_attribution(window: StreamInput, layout: Layout) -> Values:
    """The window's values, in the order of `list_attribution`."""
    if window.moments is None:
        return _unseen(len(list_attribution(layout)))
    now, base = counts(window.frame, layout), window.baseline
    shapes = standardise(shape(now.phi, base.counts.phi, now.rows, base.counts.rows), base.shape_excess)
    responses = standardise(response(now, base.counts), base.response_excess)
    values, variances = _share_and_level(window.moments, base.moments, base.deviation)
    exact = np.zeros(2 * len(layout.features))  # a standardised distance varies alike in windows of any size
    return np.concatenate([values, shapes, responses]), np.concatenate([variances, exact])


def list_groups(layout: Layout) -> tuple[Stream, ...]:
    """Two streams of every group, by kind."""
    return tuple(Stream(kind, group=group.name) for kind in ("group_share", "group_level") for group in layout.groups)


def observe_groups(window: StreamInput, layout: Layout) -> Values:
    """The window's values, in the order of `list_groups`."""
    if window.moments is None or window.moments.groups is None:
        return _unseen(len(list_groups(layout)))
    base = window.baseline
    return _share_and_level(window.moments.groups, base.moments.groups or base.moments, base.group_deviation)


def _share_and_level(now: Moments, before: Moments, deviation: FloatArray) -> Values:
    share, variance = steady_log_share(now, before)
    one = np.full_like(deviation, 1 / now.rows)  # of a mean in units of the deviation
    return np.concatenate([share, now.value / deviation]), np.concatenate([variance, one])


def _unseen(streams: int) -> Values:
    nothing = np.full(streams, np.nan)
    return nothing, nothing
