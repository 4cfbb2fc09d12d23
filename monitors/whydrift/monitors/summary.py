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
| input       |       | feature | x-cell   | rows, weight                                                |
| slice       | s     |         |          | rows, weight                                                |
| missing     | s     | feature |          | rows: those of slice s that miss the feature                |
| attribution |       | feature | x-cell   | weight, value, square, absolute, cross (absolute x total)   |
| total       |       |         |          | weight, weight2, absolute, absolute2, output, output2, base |
| quality     |       |         |          | explained, not_additive, prediction_differs                 |
| score       |       |         | mesh     | weight                                                      |
| outcome     |       |         | mesh     | labelled, positive                                          |
| loss        | s     |         |          | rows, positives, weight, weight2, loss, loss2               |

Attributions and outputs are in units of `Layout.scale`, losses are squared errors in units of `Layout.loss_scale`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from whydrift.monitors.binning import FeatureBins, assign
from whydrift.monitors.calibration import MESH, split

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
NO_CELL = -100
BITS = 32
LIMIT = 2.0**30
CHUNK = 2**20  # rows whose limbs a float64 adds without rounding: 2**20 * 2**32 < 2**53

ADDITIVITY_TOLERANCE = 1e-3  # of the output's scale


@dataclass(frozen=True, slots=True)
class Layout:
    """What a baseline fixes, so that every later window can be added to and compared with it.

    `scale` (a power of two near the standard deviation of the output) is the unit of attributions; `link` says
    how the output relates to the logged prediction: `logit` means prediction = sigmoid(output).
    `prediction_tolerance` is a probability, or for a regression in units of `scale`.
    """

    task: Literal["binary", "regression"]
    link: Literal["logit", "identity"]
    scale: float
    loss_scale: float
    features: tuple[FeatureBins, ...]
    slices: tuple[str, ...]
    prediction_tolerance: float = 1e-4

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(bins.name for bins in self.features)


@dataclass(frozen=True, slots=True)
class Explained:
    """Rows with their attributions: `features` (n, p) frame, `values` (n, p), the others (n,)."""

    features: pd.DataFrame
    prediction: FloatArray
    weight: FloatArray
    values: FloatArray
    output: FloatArray
    base: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows with their mature labels: `features` (n, p) frame, the others (n,)."""

    features: pd.DataFrame
    prediction: FloatArray
    weight: FloatArray
    label: FloatArray


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
        return cls(pq.read_table(pa.BufferReader(data)).cast(SCHEMA))


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
    return _collect(_term("set_aside", "rows", np.array([n]), name=reason) for reason, n in counts.items())


def count_digests(digests: Mapping[str, str], rows: int) -> WindowSummary:
    """A summary that holds only which model and explainer the rows were explained with."""
    return _collect(_term("digest", "rows", np.array([rows]), name=f"{kind}={d}") for kind, d in digests.items())


def summarise(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce explained rows: inputs, attributions, scores, slices and the explanations' quality."""
    return merge(_collect(_explained_terms(part, layout)) for part in _chunks(batch))


def summarise_outcomes(batch: Outcomes, layout: Layout) -> WindowSummary:
    """Reduce rows whose labels are mature: the calibration mesh and the loss per slice."""
    return merge(_collect(_outcome_terms(part, layout)) for part in _chunks(batch))


def slice_names(bins: FeatureBins) -> list[str]:
    """The names of a slice column's values, by cell.

    >>> slice_names(FeatureBins("origin", categories=("EWR", "JFK")))
    ['origin=EWR', 'origin=JFK']
    >>> slice_names(FeatureBins("age", edges=(0.0, 30.0, 99.0)))
    ['age=[0, 30)', 'age=[30, 99]']
    """
    if not bins.numeric:
        return [f"{bins.name}={c}" for c in bins.categories]
    labels = _distinct_labels(bins.edges)
    pairs = list(pairwise(labels))
    return [f"{bins.name}=[{a}, {b}{']' if i == len(pairs) - 1 else ')'}" for i, (a, b) in enumerate(pairs)]


def _distinct_labels(edges: tuple[float, ...]) -> list[str]:
    """The edges with as few digits as tell them apart, from 6 on: slices are kept by name."""
    for digits in range(6, 17):
        labels = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(labels)) >= len(set(edges)):
            return labels
    return [f"{edge:.17g}" for edge in edges]


_Batch = TypeVar("_Batch", Explained, Outcomes)
_Rows = list[tuple[str, str, str, int, str, int, int]]


def _explained_terms(batch: Explained, layout: Layout) -> Iterator[_Rows]:
    w = _held(batch.weight, 1.0)
    yield _term("rows", "rows", np.ones_like(w))
    yield _term("rows", "weight", w)
    yield _term("rows", "weight2", w * w)
    z = _held(batch.values, layout.scale)
    total = np.zeros_like(w)
    for j in range(z.shape[1]):  # by column: a sum along rows could depend on the memory layout
        total += np.abs(z[:, j])
    for j, bins in enumerate(layout.features):
        cells = assign(bins, batch.features[bins.name])
        yield _term("input", "rows", np.ones_like(w), name=bins.name, cells=cells)
        yield _term("input", "weight", w, name=bins.name, cells=cells)
        phi = np.ascontiguousarray(z[:, j])
        size = np.abs(phi)
        stats = {
            "weight": w,
            "value": w * phi,
            "square": w * phi * phi,
            "absolute": w * size,
            "cross": w * size * total,
        }
        for stat, term in stats.items():
            yield _term("attribution", stat, term, name=bins.name, cells=cells)
    output = _held(batch.output, layout.scale)
    base = _held(np.full_like(w, batch.base), layout.scale)
    for stat, term in {
        "absolute": total,
        "absolute2": total * total,
        "output": output,
        "output2": output * output,
    }.items():
        yield _term("total", stat, w * term)
    yield _term("total", "weight", w)
    yield _term("total", "weight2", w * w)
    yield _term("total", "base", w * base)
    yield from _quality_terms(batch, z, output, base, layout)
    if layout.task == "binary":
        yield from _mesh_terms("score", "weight", batch.prediction, w)
    yield from _slice_terms(batch, layout)


def _quality_terms(
    batch: Explained, z: FloatArray, output: FloatArray, base: FloatArray, layout: Layout
) -> Iterator[_Rows]:
    explained = base.copy()
    for j in range(z.shape[1]):
        explained += z[:, j]
    if layout.link == "logit":
        difference = np.abs(expit(batch.output) - batch.prediction)
    elif layout.task == "binary":
        difference = np.abs(batch.output - batch.prediction)
    else:
        difference = np.abs(output - _held(batch.prediction, layout.scale))
    yield _term("quality", "explained", np.ones_like(output))
    yield _term("quality", "not_additive", _ones_where(np.abs(explained - output) > ADDITIVITY_TOLERANCE))
    yield _term("quality", "prediction_differs", _ones_where(difference > layout.prediction_tolerance))


def _slice_terms(batch: Explained, layout: Layout) -> Iterator[_Rows]:
    missing = {name: _ones_where(batch.features[name].isna().to_numpy()) for name in layout.names}
    for names, cells in _slice_columns(batch.features, layout):
        inside = cells >= 0  # what the baseline never saw belongs to no slice
        at = cells[inside]
        counted = {"rows": np.ones(at.size), "weight": batch.weight[inside]}
        for stat, term in counted.items():
            yield _by_slice(_term("slice", stat, term, cells=at), names)
        for feature, flags in missing.items():
            yield _by_slice(_term("missing", "rows", flags[inside], name=feature, cells=at), names)


def _by_slice(rows: _Rows, names: list[str]) -> _Rows:
    """The same sums under the names of the slices instead of their cells."""
    return [(block, names[cell], name, NO_CELL, stat, hi, lo) for block, _, name, cell, stat, hi, lo in rows]


def _outcome_terms(batch: Outcomes, layout: Layout) -> Iterator[_Rows]:
    w = _held(batch.weight, 1.0)
    if layout.task == "binary":
        yield from _mesh_terms("outcome", "labelled", batch.prediction, w)
        yield from _mesh_terms("outcome", "positive", batch.prediction, w * batch.label)
    error = _held(batch.label, layout.loss_scale) - _held(batch.prediction, layout.loss_scale)
    loss = error * error
    positive = _ones_where(batch.label > 0)
    stats = {
        "rows": np.ones_like(w),
        "positives": positive,
        "weight": w,
        "weight2": w * w,
        "loss": w * loss,
        "loss2": w * loss * loss,
    }
    for stat, term in stats.items():
        yield _term("loss", stat, term)
    for names, cells in _slice_columns(batch.features, layout):
        inside = cells >= 0
        for stat, term in stats.items():
            yield _by_slice(_term("loss", stat, term[inside], cells=cells[inside]), names)


def _slice_columns(features: pd.DataFrame, layout: Layout) -> Iterator[tuple[list[str], IntArray]]:
    """For each slice column the names of its slices, and each row's cell."""
    for bins in layout.features:
        if bins.name in layout.slices:
            yield slice_names(bins), assign(bins, features[bins.name])


def _held(values: FloatArray, unit: float) -> FloatArray:
    """In units, within the bound: a product of two infinities' neighbours would not be a number."""
    return np.asarray(np.clip(values, -LIMIT * unit, LIMIT * unit) / unit)


def _ones_where(flags: npt.NDArray[np.bool_]) -> FloatArray:
    return flags.astype(np.float64)


def _mesh_terms(block: str, stat: str, p: FloatArray, amount: FloatArray) -> Iterator[_Rows]:
    low, upper = split(p)
    yield _term(block, stat, amount * (1 - upper), cells=low)
    yield _term(block, stat, amount * upper, cells=low + 1)


def _term(
    block: str,
    stat: str,
    terms: FloatArray | IntArray,
    *,
    slice_: str = "",
    name: str = "",
    cells: IntArray | None = None,
) -> _Rows:
    """Exact sums of `terms` by cell."""
    fixed = np.rint(np.clip(terms, -LIMIT, LIMIT) * 2.0**BITS).astype(np.int64)
    keys, index = (np.array([NO_CELL]), np.zeros(fixed.size, np.int64)) if cells is None else _codes(cells)
    hi = np.bincount(index, weights=fixed >> BITS, minlength=keys.size)
    lo = np.bincount(index, weights=fixed & ((1 << BITS) - 1), minlength=keys.size)
    return [(block, slice_, name, int(k), stat, int(h), int(v)) for k, h, v in zip(keys, hi, lo, strict=True)]


def _codes(cells: IntArray) -> tuple[IntArray, IntArray]:
    """Cells are small integers from NO_CELL up: shift instead of sorting."""
    shifted = cells - NO_CELL
    present = np.flatnonzero(np.bincount(shifted, minlength=MESH - NO_CELL))
    lookup = np.zeros(present[-1] + 1 if present.size else 1, dtype=np.int64)
    lookup[present] = np.arange(present.size)
    return present + NO_CELL, lookup[shifted]


def _collect(terms: Iterable[_Rows]) -> WindowSummary:
    rows = [row for term in terms for row in term]
    columns: list[Any] = [list(c) for c in zip(*rows, strict=True)] or [[] for _ in SCHEMA]
    return merge([WindowSummary(pa.table(columns, schema=SCHEMA))])


def _chunks(batch: _Batch) -> Iterator[_Batch]:
    """Parts small enough that `_term` adds without rounding; rows of one frame stay together."""
    for start in range(0, len(batch.features), CHUNK):
        part = slice(start, start + CHUNK)
        cut: dict[str, Any] = {
            f.name: value[part] if isinstance(value := getattr(batch, f.name), pd.DataFrame | np.ndarray) else value
            for f in fields(batch)
        }
        yield replace(batch, **cut)
