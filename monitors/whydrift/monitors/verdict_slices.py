"""What a verdict says of slices that were searched for, and of gaps between groups of people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedSlice:
    """A slice that the search found. Diagnosis: it became worse. Knowledge: it was and is worse than the rest.

    `ratio` is its mean loss by that of all other rows, over the trailing windows; `change` is that by
    `baseline_ratio`, both None where the baseline hardly had such rows. `interval` (95 %) and the one-sided `p_value`
    are those of the number that was tested: `change`, or `ratio` where there is none and for knowledge.
    """

    slice: str
    question: Literal["diagnosis", "knowledge"]
    rows: int
    loss: float
    rest_loss: float
    ratio: float
    baseline_ratio: float | None
    change: float | None
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSearch:
    """A search over all one- and two-way cells of the columns; it has no part in the status.

    Of `cells` with labelled rows in the trailing `windows`, those with at least `min_rows` were `tested`. Found are
    effects of at least `min_effect`, of which at most the share `false_discoveries` is expected to be false.
    `watched` are the slices that the baseline found and whose losses are streams.
    """

    columns: tuple[str, ...]
    windows: int
    cells: int
    tested: int
    min_rows: int
    min_effect: float
    false_discoveries: float
    found: tuple[SearchedSlice, ...]
    watched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessGap:
    """A group's rate beside that of the reference group.

    `metric` is selection_rate (all rows of the window), true_positive_rate, false_positive_rate, or calibration:
    outcomes by mean prediction (labelled rows of the mature cohort). `log_ratio` is the log of `rate` by
    `reference_rate`; its 95 % interval counts sampling and what windows differ by. None where either group has too few
    rows.
    """

    metric: str
    column: str
    group: str
    reference: str
    rows: int
    rate: float | None = None
    reference_rate: float | None = None
    log_ratio: float | None = None
    interval: tuple[float, float] | None = None
    baseline_log_ratio: float | None = None
