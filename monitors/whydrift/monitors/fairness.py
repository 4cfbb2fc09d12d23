"""Gaps between groups of people, as log ratios of a group's rate to the reference group's.

| stream          | rate                              | of                   | question   |
|-----------------|-----------------------------------|----------------------|------------|
| gap_selection   | selected / all                    | the window's rows    | validation |
| gap_tpr         | selected / all with the outcome   | mature labelled rows | validation |
| gap_fpr         | selected / all without it         | mature labelled rows | validation |
| gap_calibration | outcomes / sum of the predictions | mature labelled rows | validation |

A row is selected if its prediction is at least the decision threshold. Log ratios, because ratios of small rates are
skew; their variances are the delta method's, from sums of squared weights. Where a count is 0, or all, half a row is
added on either side (Haldane 1956, doi 10.1111/j.1469-1809.1955.tb01285.x).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import FeatureBins, assign, slice_names
from whydrift.monitors.confusion import Fairness, FairnessColumn
from whydrift.monitors.dense import dense
from whydrift.monitors.evidence import Stream
from whydrift.monitors.grid import COARSE, coarsen
from whydrift.monitors.stream_input import StreamInput, Values
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict_slices import FairnessGap

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SELECTION = ("gap_selection",)
OUTCOMES = ("gap_tpr", "gap_fpr", "gap_calibration")
METRICS = {
    "gap_selection": "selection_rate",
    "gap_tpr": "true_positive_rate",
    "gap_fpr": "false_positive_rate",
    "gap_calibration": "calibration",
}
MIN_ROWS = 10  # that a rate is of, for a gap to be shown
MIN_WATCHED = 30  # for its log to be near normal from window to window
_MOST_NUMERIC = 5  # groups of a number
_SELECTION = ("rows", "weight", "weight2", "selected", "selected2")
_CONFUSION = ("rows", "positives", "tp", "fp", "tn", "fn", "tp2", "fp2", "tn2", "fn2", "p", "p2", "py2")


@dataclass(frozen=True, slots=True)
class Gaps:
    """Log ratios of groups to their reference and sampling variances, (m,) each, NaN where a group has no such rows.

    `rows` are those of the smaller of the two groups; `rate` and `reference` are as counted.
    """

    value: FloatArray
    variance: FloatArray
    rows: FloatArray
    rate: FloatArray
    reference: FloatArray


@dataclass(frozen=True, slots=True)
class UsualGaps:
    """What the baseline says, (m,): log ratios of all its rows, and their variance between windows beyond sampling."""

    value: FloatArray
    between: FloatArray


def fit_fairness(
    frame: pd.DataFrame, layout: Layout, columns: Sequence[str], threshold: float, references: Mapping[str, str]
) -> Layout:
    """The layout with the groups whose gaps are watched.

    Args:
        frame: all rows of the baseline.
        layout: of a classifier, without them.
        columns: features by name; a number's range is cut into five groups, of categories the ten largest are taken.
        threshold: the prediction from which on a row is selected.
        references: by column the name of the group that others are compared with; else it is the largest.

    Raises:
        ValueError: a column has fewer than two groups, or none that is called like the reference.
    """
    found = []
    for name in columns:
        bins = layout.features[layout.names.index(name)]
        groups = coarsen(bins, _count(bins, frame[name]), most=_MOST_NUMERIC if bins.numeric else COARSE)
        names = slice_names(groups)
        if len(names) < 2:
            raise ValueError(f"{name} has fewer than two groups")
        reference = references.get(name, names[int(_count(groups, frame[name]).argmax())])
        if reference not in names:
            raise ValueError(f"{reference!r} is no group of {name}; its groups are {', '.join(names)}")
        found.append(FairnessColumn(groups, names.index(reference)))
    return replace(layout, fairness=Fairness(tuple(found), threshold))


def _count(bins: FeatureBins, values: pd.Series[Any]) -> FloatArray:
    """Rows in each cell; those in none do not count."""
    cells = assign(bins, values)
    return np.bincount(cells[cells >= 0], minlength=max(len(bins.edges) - 1, len(bins.categories))).astype(np.float64)


def list_selection(layout: Layout) -> tuple[Stream, ...]:
    """The gap in the selection rate, of every group but the references."""
    return _list(SELECTION, layout)


def list_gaps(layout: Layout) -> tuple[Stream, ...]:
    """Gaps that need labels, of every group but the references."""
    return _list(OUTCOMES, layout)


def observe_selection(window: StreamInput, layout: Layout) -> Values:
    """The window's values, in the order of `list_selection`."""
    return _observe(SELECTION, window.frame, layout)


def observe_gaps(window: StreamInput, layout: Layout) -> Values:
    """The mature cohort's values, in the order of `list_gaps`."""
    return _observe(OUTCOMES, window.outcomes, layout)


def _list(kinds: Sequence[str], layout: Layout) -> tuple[Stream, ...]:
    return tuple(Stream(kind, slice=group) for kind in kinds for _, group, _ in _pairs(layout.fairness))


def _observe(kinds: Sequence[str], frame: pd.DataFrame | None, layout: Layout) -> Values:
    gaps = read_gaps(kinds, frame, layout.fairness)
    watched = gaps.rows >= MIN_WATCHED
    return np.where(watched, gaps.value, np.nan), np.where(watched, gaps.variance, np.nan)


def fit_usual_gaps(frames: Sequence[pd.DataFrame], outcomes: Sequence[pd.DataFrame], layout: Layout) -> UsualGaps:
    """From the baseline's windows: frames of their summaries, and of their outcomes' where there are labels."""
    parts = []
    for kinds, windows in ((SELECTION, frames), (OUTCOMES, outcomes)):
        each = [read_gaps(kinds, frame, layout.fairness) for frame in windows]
        together = read_gaps(kinds, pd.concat(windows, ignore_index=True) if windows else None, layout.fairness)
        judged = np.array([gaps.rows >= MIN_WATCHED for gaps in each]).reshape(len(each), together.rows.size)
        value, noise = (
            np.array([getattr(gaps, name) for gaps in each]).reshape(judged.shape) for name in ("value", "variance")
        )
        count = np.maximum(judged.sum(axis=0), 1)
        mean = np.where(judged, value, 0.0).sum(axis=0) / count
        spread = np.where(judged, (value - mean) ** 2 - noise, 0.0).sum(axis=0) / np.maximum(count - 1, 1)
        parts.append((np.where(together.rows >= MIN_ROWS, together.value, np.nan), np.maximum(spread, 0.0)))
    return UsualGaps(*(np.concatenate([part[i] for part in parts]) for i in range(2)))


def tell_gaps(
    frame: pd.DataFrame, outcomes: pd.DataFrame | None, usual: UsualGaps, layout: Layout
) -> tuple[FairnessGap, ...]:
    """Every gap of a window and of its mature cohort, with its 95 % interval."""
    found: list[FairnessGap] = []
    pairs = _pairs(layout.fairness)
    for kinds, source in ((SELECTION, frame), (OUTCOMES, outcomes)):
        gaps = read_gaps(kinds, source, layout.fairness)
        for at, (kind, (column, group, reference)) in enumerate((k, pair) for k in kinds for pair in pairs):
            known = bool(gaps.rows[at] >= MIN_ROWS)
            before, between = usual.value[len(found)], usual.between[len(found)]
            value, half = float(gaps.value[at]), 1.96 * float(np.sqrt(gaps.variance[at] + between))
            found.append(
                FairnessGap(
                    metric=METRICS[kind],
                    column=column,
                    group=group,
                    reference=reference,
                    rows=round(float(gaps.rows[at])),
                    rate=float(gaps.rate[at]) if known else None,
                    reference_rate=float(gaps.reference[at]) if known else None,
                    log_ratio=value if known else None,
                    interval=(value - half, value + half) if known else None,
                    baseline_log_ratio=None if np.isnan(before) else float(before),
                )
            )
    return tuple(found)


def read_gaps(kinds: Sequence[str], frame: pd.DataFrame | None, fairness: Fairness | None) -> Gaps:
    """A frame's gaps: kind by kind, and of each in the order of columns and groups without the references."""
    nothing = np.empty(0)
    if fairness is None:
        return Gaps(nothing, nothing, nothing, nothing, nothing)
    width = max(len(slice_names(c.groups)) for c in fairness.columns)
    groups, references = [], []
    for row, column in enumerate(fairness.columns):
        others = [g for g in range(len(slice_names(column.groups))) if g != column.reference]
        groups += [row * width + g for g in others]
        references += [row * width + column.reference] * len(others)
    parts = [_gap(rate, np.array(groups), np.array(references)) for rate in _rates(kinds, frame, fairness, width)]
    return Gaps(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Gaps)))


@dataclass(frozen=True, slots=True)
class _Rate:
    """Of each group, (g,): unweighted rows, numerator and denominator, the variance of their ratio, and the sum of
    weights and of squared weights of the rows that it is of. A `proportion` has its numerator in the denominator.
    """

    rows: FloatArray
    part: FloatArray
    total: FloatArray
    variance: FloatArray
    weight: FloatArray
    weight2: FloatArray
    proportion: bool = True


def _rates(kinds: Sequence[str], frame: pd.DataFrame | None, fairness: Fairness, width: int) -> Iterator[_Rate]:
    names = [column.groups.name for column in fairness.columns]
    block, stats = ("selection", _SELECTION) if kinds == SELECTION else ("confusion", _CONFUSION)
    sums = dense(frame, block, names, stats, width) if frame is not None else np.zeros((len(stats), len(names), width))
    of = dict(zip(stats, sums.reshape(len(stats), -1), strict=True))
    for kind in kinds:
        if kind == "gap_selection":
            yield _proportion(of["rows"], of["selected"], of["weight"], of["selected2"], of["weight2"])
        elif kind == "gap_tpr":
            yield _proportion(of["positives"], of["tp"], of["tp"] + of["fn"], of["tp2"], of["tp2"] + of["fn2"])
        elif kind == "gap_fpr":
            negatives = of["rows"] - of["positives"]
            yield _proportion(negatives, of["fp"], of["fp"] + of["tn"], of["fp2"], of["fp2"] + of["tn2"])
        else:
            part, part2 = of["tp"] + of["fn"], of["tp2"] + of["fn2"]
            ratio = _by(part, of["p"])
            variance = _by(np.maximum(part2 - 2 * ratio * of["py2"] + ratio**2 * of["p2"], 0.0), of["p"] ** 2)
            weight2 = part2 + of["fp2"] + of["tn2"]
            weight = part + of["fp"] + of["tn"]
            yield _Rate(of["rows"], part, of["p"], variance, weight, weight2, proportion=False)


def _proportion(rows: FloatArray, part: FloatArray, total: FloatArray, part2: FloatArray, total2: FloatArray) -> _Rate:
    """Its variance is that of a ratio of weighted sums: of the rows' residuals w (d - rate), each squared."""
    rate = _by(part, total)
    variance = _by((1 - rate) ** 2 * part2 + rate**2 * (total2 - part2), total**2)
    return _Rate(rows, part, total, variance, total, total2)


def _gap(rate: _Rate, groups: IntArray, references: IntArray) -> Gaps:
    degenerate = (rate.part <= 0) | (rate.proportion & (rate.part >= rate.total))
    corrected = degenerate[groups] | degenerate[references]
    plain = _by(rate.part, rate.total)
    unit = _by(rate.weight2, rate.weight)
    half = (rate.part + unit / 2, rate.total + (unit if rate.proportion else unit / 2))
    shifted = np.where(half[1] > 0, _by(*half), 1.0)
    error = _by(unit, half[0]) * ((1 - shifted) if rate.proportion else 1.0)
    own, other = (
        (np.where(corrected, shifted[i], plain[i]), np.where(corrected, error[i], _by(rate.variance, plain**2)[i]))
        for i in (groups, references)
    )
    some = (rate.rows > 0) & (rate.total > 0)
    there = some[groups] & some[references] & (own[0] > 0) & (other[0] > 0)  # squares of tiny weights round to 0
    ratio = np.log(np.where(there, own[0], 1.0) / np.where(there, other[0], 1.0))
    return Gaps(
        value=np.where(there, ratio, np.nan),
        variance=np.where(there, own[1] + other[1], np.nan),
        rows=np.where(there, np.minimum(rate.rows[groups], rate.rows[references]), 0.0),
        rate=plain[groups],
        reference=plain[references],
    )


def _by(a: FloatArray, b: FloatArray) -> FloatArray:
    """The ratio, 0 where there is nothing to divide by."""
    return np.asarray(np.divide(a, b, out=np.zeros_like(b), where=b > 0))


def _pairs(fairness: Fairness | None) -> list[tuple[str, str, str]]:
    """Column, group and reference of every gap of a kind, in the order of `read_gaps`."""
    found = []
    for column in fairness.columns if fairness is not None else ():
        names = slice_names(column.groups)
        reference = names[column.reference]
        found += [(column.groups.name, name, reference) for name in names if name != reference]
    return found
