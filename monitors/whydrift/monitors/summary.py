"""The additive summary of a window: the only thing that outlives the rows.

A `WindowSummary` is one long Arrow table, a row a sum:

    block  slice  name  cell  stat  hi  lo          value = hi + lo / 2**32

Sums are fixed-point integers, so that merging is adding integers: associative, commutative, and exact. Any
split of the same rows, in any order, gives the same bytes. Rounding happens once, per row and term, to 2**-32
of a unit; what is summed, and each of its factors, is held within ±2**30 units. The empty table is the zero.

| block       | slice | name    | cell     | stats                                                       |
|-------------|-------|---------|----------|-------------------------------------------------------------|
| rows        |       |         |          | rows, weight, weight2                                       |
| digest      |       | kind=d  |          | rows                                                        |
| set_aside   |       | reason  |          | rows                                                        |
| golden      |       |         |          | rows, outputs, attributions: those that differ, by replay   |
| golden      |       | feature |          | differs                                                     |
| input       |       | feature | x-cell   | rows, weight                                                |
| slice       | s     |         |          | rows, weight                                                |
| missing     | s     | feature |          | rows, weight: of slice s and without the feature            |
| attribution |       | feature | x-cell   | weight, value, square, absolute, cross (absolute x total)   |
| phi         |       | feature | phi-cell | weight                                                      |
| group       |       | group   |          | value, square, absolute, cross: of the members' sum         |
| total       |       |         |          | weight, weight2, absolute2, output, output2, base           |
| quality     |       |         |          | explained, not_additive, prediction_differs                 |
| quality     |       |         |          | residual, residual2: what explanations miss of the output   |
| quality     |       | feature |          | error2: squared standard errors of sampled attributions     |
| score       |       |         | mesh     | weight; of a regression by cells of the prediction          |
| outcome     |       |         | mesh     | labelled, positive                                          |
| loss        | s     |         |          | rows, positives, weight, weight2, loss, loss2               |
| residual    |       |         | cell     | weight, see `conformal`; and value, of all                  |
| selection   |       | column  | group    | of all rows, see `confusion`                                |
| confusion   |       | column  | group    | of labelled rows, see `confusion`                           |
| loss_attribution |  | feature |          | of some labelled rows, see `loss_attribution`               |

Attributions and outputs are in units of `Layout.scale`, losses are squared errors in units of `Layout.loss_scale`.
The blocks attribution, phi, group, total and quality are those of `explained_sums`. What a multiclass model has of
these once a class, and what as a whole, says `class_sums`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from whydrift.monitors.binning import FeatureBins, assign, slice_names
from whydrift.monitors.conformal import residual_terms
from whydrift.monitors.confusion import Fairness, confusion_terms, selection_terms
from whydrift.monitors.grid import SliceCell, rows_of
from whydrift.monitors.loss_sampling import LossSampling
from whydrift.monitors.row_sums import Inputs, reduce_rows
from whydrift.monitors.sum_arrays import ByRow
from whydrift.monitors.summary_terms import (
    BITS,
    CHUNK,
    SIGNED,
    Rows,
    Summand,
    Terms,
    Weight,
    by_slice,
    count,
    held,
    joined,
    labelled,
    mesh_terms,
    ones_where,
    repeated,
    term,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

KEYS = ("block", "slice", "name", "cell", "stat")
SCHEMA = pa.schema(
    [
        ("block", pa.string()),
        ("slice", pa.string()),
        ("name", pa.string()),
        ("cell", pa.int32()),
        ("stat", pa.string()),
        ("hi", pa.int64()),
        ("lo", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Group:
    """Features whose attributions are added row by row, because an explanation may move credit among them.

    `automatic` groups were found by the baseline, the others are configured.
    """

    name: str
    members: tuple[str, ...]
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class ClassCells:
    """A class of a multiclass model, with the cells of each feature's attribution to its output."""

    name: str
    attributions: tuple[FeatureBins, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which rows are explained, see `sampling`: the chance of a row, and that of rows of some slices, by name.

    `why` is what sized it: the `floor`, one of the page tier's streams, whose name is `stream`, the `cap` that it ran
    into, `quiet` windows, or what was `configured`.
    """

    rate: float
    slices: tuple[tuple[str, float], ...]
    why: Literal["floor", "stream", "cap", "quiet", "configured"]
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a baseline fixes, so that every later window can be added to and compared with it.

    `scale` (a power of two near the standard deviation of the output) is the unit of attributions; `link` says
    how the output relates to the logged prediction: `logit` means prediction = sigmoid(output).
    `prediction_tolerance` is a probability, or for a regression in units of `scale`. `attributions` are the cells
    of each feature's attribution in units of `scale`, in the order of `features`; `predictions` those of a
    regression's predictions, None for a classifier, whose scores have the calibration mesh.
    `searched` are the coarse cells of the columns that are searched for slices, and `promoted` the slices that the
    baseline found there, whose losses are watched; `fairness` is of a classifier only. `residual_edges` are quantiles
    of a regression's residuals in units of `loss_scale`, see `conformal`. `classes` are those of a multiclass model,
    in the order of its outputs, and have the `attributions`; `softmax` says how its outputs give its predictions.
    `loss_attribution` says how losses are explained; None where they are not. `sampling` says which rows are explained;
    None is all.
    """

    task: Literal["binary", "regression", "multiclass"]
    link: Literal["logit", "identity", "softmax"]
    scale: float
    loss_scale: float
    features: tuple[FeatureBins, ...]
    attributions: tuple[FeatureBins, ...]
    slices: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    predictions: FeatureBins | None = None
    prediction_tolerance: float = 1e-4
    searched: tuple[FeatureBins, ...] = ()
    promoted: tuple[SliceCell, ...] = ()
    fairness: Fairness | None = None
    residual_edges: tuple[float, ...] = ()
    classes: tuple[ClassCells, ...] = ()
    loss_attribution: LossSampling | None = None
    sampling: Sampling | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(bins.name for bins in self.features)


@dataclass(frozen=True, slots=True)
class Logged:
    """Rows as they were logged: `features` (n, p) frame, `weight` (n,), `prediction` (n,), or (n, C) of C classes."""

    features: pd.DataFrame
    prediction: FloatArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Explained:
    """Rows with their attributions: `features` (n, p) frame, `values` (n, p), the others (n,).

    `error` holds the standard errors (n, p) of values that were sampled. Of a model of C classes `values` and `error`
    are (n, C, p), `prediction` and `output` (n, C), and `base` has C numbers; see `class_sums`.
    """

    features: pd.DataFrame
    prediction: FloatArray
    weight: FloatArray
    values: FloatArray
    output: FloatArray
    base: float | tuple[float, ...]
    error: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows with their mature labels: `features` (n, p) frame, the others (n,).

    Of a model of C classes `prediction` is (n, C), and `label` the number of the class, 0..C-1; see `class_sums`.
    `event_id` is only needed where losses are explained.
    """

    features: pd.DataFrame
    prediction: FloatArray
    weight: FloatArray
    label: FloatArray
    event_id: npt.NDArray[np.object_] | None = None


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """The table of the module's docstring, in canonical order and without zeros."""

    table: pa.Table

    @classmethod
    def zero(cls) -> WindowSummary:
        return cls(SCHEMA.empty_table())

    def frame(self) -> pd.DataFrame:
        """The table with one float column `value` instead of the limbs."""
        frame: pd.DataFrame = self.table.to_pandas()
        frame["value"] = frame.pop("hi").astype(np.float64) + frame.pop("lo") / 2.0**BITS
        return frame

    def to_bytes(self) -> bytes:
        """Parquet; equal summaries give equal bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table, sink, compression="zstd", store_schema=False)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, data: bytes) -> WindowSummary:
        """Raises ValueError for sums that no rows can have, besides what Arrow raises for bytes that are no table."""
        table = pq.read_table(pa.BufferReader(data)).cast(SCHEMA)
        below = table.filter(pa.array(table["hi"].to_numpy() < 0))
        if impossible := sorted(set(below["stat"].to_pylist()) - SIGNED):
            raise ValueError(f"counts and weights below zero: {', '.join(impossible)}")
        return cls(table)


def merge(summaries: Iterable[WindowSummary]) -> WindowSummary:
    """The summary of all rows together.

    >>> merge([]) == WindowSummary.zero()
    True
    """
    tables = [s.table for s in summaries]
    if not tables:
        return WindowSummary.zero()
    sums = pa.concat_tables(tables).group_by(list(KEYS), use_threads=False).aggregate([("hi", "sum"), ("lo", "sum")])
    lo = sums["lo_sum"].to_numpy()
    hi = sums["hi_sum"].to_numpy() + (lo >> BITS)
    lo = lo & ((1 << BITS) - 1)
    table = pa.table([*(sums[k] for k in KEYS), pa.array(hi), pa.array(lo)], schema=SCHEMA)
    table = table.filter(pa.array((hi != 0) | (lo != 0)))
    return WindowSummary(table.sort_by([(k, "ascending") for k in KEYS]).combine_chunks())


def count_set_aside(counts: Mapping[str, int]) -> WindowSummary:
    """A summary that holds only how many rows were set aside, by reason."""
    return collect(term("set_aside", "rows", np.array([n]), name=reason) for reason, n in counts.items())


def count_digests(digests: Mapping[str, str], rows: int) -> WindowSummary:
    """A summary that holds only which model and explainer the rows were explained with."""
    return collect(term("digest", "rows", np.array([rows]), name=f"{kind}={d}") for kind, d in digests.items())


def count_golden(rows: int, outputs: int, attributions: int, features: Mapping[str, int]) -> WindowSummary:
    """A summary that holds only how many golden rows were replayed, and how many are answered differently."""
    whole = {"rows": rows, "outputs": outputs, "attributions": attributions}
    own = (term("golden", "differs", np.array([n]), name=name) for name, n in features.items())
    return collect([*(term("golden", stat, np.array([n])) for stat, n in whole.items()), *own])


def summarise_logged(batch: Logged, layout: Layout) -> WindowSummary:
    """Reduce what the log says of rows: inputs, scores and slices."""

    def terms(part: slice, weight: Weight, _: Sequence[ByRow]) -> Iterator[Summand]:
        return logged_terms(cut(batch, part), layout, weight.held)

    return collect(reduce_rows(inputs_of(batch, layout), (), terms, logged=True))


def summarise_outcomes(batch: Outcomes, layout: Layout) -> WindowSummary:
    """Reduce rows whose labels are mature: the calibration mesh and the loss per slice."""
    if not np.isfinite(batch.label).all():
        raise ValueError("a label is not a finite number; rows with such labels are to be set aside and counted")
    return merge(collect(_outcome_terms(part, layout)) for part in chunks(batch))


_Batch = TypeVar("_Batch", Logged, Explained, Outcomes)


def inputs_of(batch: Logged | Explained, layout: Layout) -> Inputs:
    """The rows' features, as `row_sums` takes them."""
    return Inputs(batch.features, batch.weight, layout.features, layout.slices)


def logged_terms(batch: Logged | Explained, layout: Layout, w: FloatArray) -> Iterator[Summand]:
    """What the log says of rows beside their features: how many they are, their scores and who is selected."""
    yield from row_terms(w)
    if layout.task == "binary":
        yield from mesh_terms("score", "weight", batch.prediction, w)
    elif layout.predictions is not None:
        cells = assign(layout.predictions, pd.Series(batch.prediction))
        yield Terms("score", "weight", w, cells=cells)
    yield from selection_terms(layout.fairness, batch.features, batch.prediction, w)


def row_terms(w: FloatArray) -> Iterator[Summand]:
    """How many rows there are, by their weights (n,)."""
    yield count("rows", "rows", w.size)
    yield Terms("rows", "weight", w)
    yield Terms("rows", "weight2", w * w)


def _outcome_terms(batch: Outcomes, layout: Layout) -> Iterator[Summand]:
    w = held(batch.weight, 1.0)
    if layout.task == "binary":
        yield from mesh_terms("outcome", "labelled", batch.prediction, w)
        yield from mesh_terms("outcome", "positive", batch.prediction, w * batch.label)
    error = held(batch.label, layout.loss_scale) - held(batch.prediction, layout.loss_scale)
    yield from residual_terms(layout.residual_edges, error, w)
    yield from loss_terms(batch, layout, error * error, ones_where(batch.label > 0))
    yield from confusion_terms(layout.fairness, batch.features, batch.prediction, w, batch.label)


def loss_terms(batch: Outcomes, layout: Layout, loss: FloatArray, positive: FloatArray) -> Iterator[Rows]:
    """The losses (n,) of all rows and by slice; `positive` (n,) is 1 where a label is."""
    w = held(batch.weight, 1.0)
    stats = {
        "rows": np.ones_like(w),
        "positives": positive,
        "weight": w,
        "weight2": w * w,
        "loss": w * loss,
        "loss2": w * loss * loss,
    }
    for stat, terms in stats.items():
        yield term("loss", stat, terms)
    for names, cells in _slice_columns(batch.features, layout):
        inside = cells >= 0
        for stat, terms in stats.items():
            yield by_slice(term("loss", stat, terms[inside], cells=cells[inside]), names)
    for name, inside in rows_of(layout.promoted, layout.searched, batch.features):
        for stat, terms in stats.items():
            yield term("loss", stat, terms[inside], slice_=name)


def _slice_columns(features: pd.DataFrame, layout: Layout) -> Iterator[tuple[list[str], IntArray]]:
    """For each slice column the names of its slices, and each row's cell."""
    for bins in layout.features:
        if bins.name in layout.slices:
            yield slice_names(bins), assign(bins, features[bins.name])


def outcome_columns(layout: Layout) -> list[str]:
    """The features that outcomes are sorted by: those of slices, of the search for some, and of groups."""
    fair = layout.fairness.columns if layout.fairness is not None else ()
    names = [*layout.slices, *(bins.name for bins in layout.searched), *(column.groups.name for column in fair)]
    return [*dict.fromkeys(names)]


def collect(terms: Iterable[Summand]) -> WindowSummary:
    """Exact sums, see `summary_terms.Terms`, as a summary."""
    parts = [one.summed() if isinstance(one, Terms) else one for one in terms]
    lengths = [part.cells.size for part in parts]
    columns = {
        "block": pa.array([part.block for part in parts], pa.string()).take(repeated(lengths)),
        "slice": labelled([(part.slices, part.slice_at) for part in parts], lengths),
        "name": labelled([(part.names, part.name_at) for part in parts], lengths),
        "cell": joined([part.cells for part in parts]).astype(np.int32),
        "stat": pa.array([part.stat for part in parts], pa.string()).take(repeated(lengths)),
        "hi": joined([part.high for part in parts]),
        "lo": joined([part.low for part in parts]),
    }
    return merge([WindowSummary(pa.table(columns, schema=SCHEMA))])


def chunks(batch: _Batch) -> Iterator[_Batch]:
    """Parts small enough that `term` adds without rounding; rows of one frame stay together."""
    for start in range(0, len(batch.features), CHUNK):
        yield cut(batch, slice(start, start + CHUNK))


def cut(batch: _Batch, part: slice) -> _Batch:
    """Some of the rows."""
    arrays: dict[str, Any] = {
        f.name: value[part] if isinstance(value := getattr(batch, f.name), pd.DataFrame | np.ndarray) else value
        for f in fields(batch)
    }
    return replace(batch, **arrays)
