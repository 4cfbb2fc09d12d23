"""What is watched: a stream is one number a window, an observation is all of them in one window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from whydrift.monitors.verdict import Mute

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stream:
    """One number watched per window. `tolerance` is the harmless shift, in units of the value.

    Streams of one `kind` share their units, and borrow strength for their variances from each other.
    A `one_sided` stream can only be too large. Weights are relative; a stream of the `ticket` tier has none in
    what pages, and those that were found `automatic`ally, not asked for, share a tenth of the whole. Those of a
    multiclass model are each of one class, against the rest.
    """

    kind: str
    feature: str | None = None
    slice: str | None = None
    one_sided: bool = False
    tolerance: float = 0.0
    weight: float = 1.0
    group: str | None = None
    tier: Literal["page", "ticket"] = "page"
    automatic: bool = False
    class_name: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One window: its start (aware), values (m,), NaN where a stream was not observed, and their sampling
    variances (m,). An infinite value, such as the log of an empty share, counts as an extreme one.
    """

    start: datetime
    values: FloatArray
    variances: FloatArray


def muted_in(start: datetime, mutes: Sequence[Mute], streams: Sequence[Stream]) -> BoolArray:
    """Which streams are muted in the window that starts then, (m,)."""
    active = [mute for mute in mutes if mute.since <= start < mute.until]
    if not active:
        return np.zeros(len(streams), dtype=np.bool_)
    return np.array([any(_silences(mute, stream) for mute in active) for stream in streams], dtype=np.bool_)


def _silences(mute: Mute, stream: Stream) -> bool:
    """Whether a stream is all that a mute names."""
    names = ("kind", "feature", "slice", "group", "class_name")
    return all(getattr(mute, name) in (None, getattr(stream, name)) for name in names)
