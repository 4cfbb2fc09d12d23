"""What a verdict says of rows that were not explained, because a sample of them tells as much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSample:
    """How many of a window's rows were explained, why so many, and what explaining more would buy.

    `chance` is that of a row in no slice with a floor of its own. `why` is what sized the sample when the baseline was
    made: the `floor`, the page-tier `stream` that is named, the `cap` that this stream ran into, `quiet` windows, or
    what was `configured`. Of `least_certain`, the page-tier stream whose variance is sampling to the largest part,
    `sampling_part` is that part; the smallest shift of it that can be found would be `with_tenfold` and `with_all`
    times what it is now if ten times as many rows were explained, or all. These are None where no stream was observed.
    """

    explained: int
    rows: int
    chance: float
    why: Literal["floor", "stream", "cap", "quiet", "configured"]
    stream: str | None = None
    least_certain: str | None = None
    sampling_part: float | None = None
    with_tenfold: float | None = None
    with_all: float | None = None
