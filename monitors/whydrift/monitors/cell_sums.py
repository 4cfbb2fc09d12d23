"""The outcomes of a window by one- and two-way cells: a summary of its own, which only the report reads.

| block | slice        | name          | cell          | stats                                       |
|-------|--------------|---------------|---------------|---------------------------------------------|
| cells |              |               |               | rows, weight, weight2, loss, loss2, p, y    |
| cells | first column |               | code          | the same                                    |
| cells | first column | second column | combined code | the same                                    |
| usual |              |               |               | windows, correlation: of a baseline         |
| usual | first column | (second)      | code          | seen, concentration, dispersion: as well    |

Sums are exact as all summaries' are. Losses are squared errors in units of `Layout.loss_scale`, p and y are weighted
predictions and labels in the same unit. What `usual` holds is not additive: a baseline fixes it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.sparse import csc_array

from whydrift.monitors.grid import cell_codes, size
from whydrift.monitors.summary import SCHEMA, Layout, Outcomes, WindowSummary, chunks, merge
from whydrift.monitors.summary_terms import BITS, LIMIT, NO_CELL, held, limbs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STATS = ("rows", "weight", "weight2", "loss", "loss2", "p", "y")
_BY_CELL, _OF_ALL = ("seen", "concentration", "dispersion"), ("windows", "correlation")


@dataclass(frozen=True, slots=True)
class Grid:
    """The order of all cells, K of them: those of `columns` (indices), then those of each pair of columns.

    `starts` are the first cells of each, `sizes` the numbers of codes of the single columns.
    """

    columns: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    length: int


def lay_out(layout: Layout) -> Grid:
    """The grid of the searched columns."""
    sizes = tuple(size(bins) for bins in layout.searched)
    columns = [(i,) for i in range(len(sizes))] + list(combinations(range(len(sizes)), 2))
    lengths = [int(np.prod([sizes[i] for i in some])) for some in columns]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
    return Grid(tuple(columns), tuple(map(int, starts[:-1])), sizes, int(starts[-1]))


def summarise_cells(batch: Outcomes, layout: Layout) -> WindowSummary:
    """Reduce labelled rows to their sums by cell."""
    return merge(_summarise(part, layout) for part in chunks(batch))


def _summarise(batch: Outcomes, layout: Layout) -> WindowSummary:
    grid = lay_out(layout)
    w = held(batch.weight, 1.0)
    y, p = held(batch.label, layout.loss_scale), held(batch.prediction, layout.loss_scale)
    loss = (y - p) * (y - p)
    terms = (np.ones_like(w), w, w * w, w * loss, w * loss * loss, w * p, w * y)
    # Integers below 2**53 however many rows: a product with zeros and ones adds them exactly, in any order.
    parts = np.column_stack([limb for stat in terms for limb in limbs(stat)]).astype(np.float64)
    used = np.flatnonzero(parts.any(axis=0))  # ones have no low limb, and small numbers no high one
    codes = [cell_codes(bins, batch.features[bins.name]) for bins in layout.searched]
    sums = np.zeros((grid.length, parts.shape[1]), dtype=np.int64)
    amounts, pointers = np.ascontiguousarray(parts[:, used]), np.arange(w.size + 1)
    for some, start in zip(grid.columns, grid.starts, strict=True):
        combined = codes[some[0]] if len(some) == 1 else codes[some[0]] * grid.sizes[some[1]] + codes[some[1]]
        length = int(np.prod([grid.sizes[i] for i in some]))
        member = csc_array((np.ones(w.size), combined, pointers), shape=(length, w.size))
        sums[start : start + length, used] = member @ amounts
    whole = _table("cells", _places(grid, layout, whole=True), STATS, parts.sum(axis=0).astype(np.int64)[None, :])
    return merge([whole, _table("cells", _places(grid, layout), STATS, sums)])


@dataclass(frozen=True, slots=True)
class _Places:
    """Where cells stand in a summary's table: indices into `names` and codes, (K,) each."""

    names: list[str]
    first: IntArray
    second: IntArray
    cell: IntArray


def _places(grid: Grid, layout: Layout, *, whole: bool = False) -> _Places:
    names = ["", *(bins.name for bins in layout.searched)]
    if whole:
        nowhere = np.zeros(1, dtype=np.int64)
        return _Places(names, nowhere, nowhere, nowhere + NO_CELL)
    lengths = np.diff([*grid.starts, grid.length])
    first = np.repeat([some[0] + 1 for some in grid.columns], lengths)
    second = np.repeat([some[1] + 1 if len(some) > 1 else 0 for some in grid.columns], lengths)
    return _Places(names, first, second, np.arange(grid.length) - np.repeat(grid.starts, lengths))


def _table(block: str, at: _Places, stats: Sequence[str], sums: IntArray) -> WindowSummary:
    """Sums (K, 2 x stats), high and low limb side by side, as a summary's table."""
    pairs = sums.reshape(len(sums), len(stats), 2)
    cell, stat = np.nonzero(pairs.any(axis=2))
    columns = [
        pa.array([block], pa.string()).take(pa.array(np.zeros(cell.size, dtype=np.int64))),
        pa.array(at.names, pa.string()).take(pa.array(at.first[cell])),
        pa.array(at.names, pa.string()).take(pa.array(at.second[cell])),
        pa.array(at.cell[cell], pa.int32()),
        pa.array(stats, pa.string()).take(pa.array(stat)),
        pa.array(pairs[cell, stat, 0]),
        pa.array(pairs[cell, stat, 1]),
    ]
    return WindowSummary(pa.table(columns, schema=SCHEMA))


@dataclass(frozen=True, slots=True)
class WindowCells:
    """A window's sums: `stats` (7, K) by cell in the order of `STATS`, and `whole` (7,) of all rows."""

    stats: FloatArray
    whole: FloatArray

    def of(self, name: str) -> FloatArray:
        return np.asarray(self.stats[STATS.index(name)])

    def rest(self, name: str) -> FloatArray:
        """Of all rows that are not in the cell."""
        return np.asarray(self.whole[STATS.index(name)] - self.of(name))


@dataclass(frozen=True, slots=True)
class CellSums:
    """Windows together: `sums` of them all.

    `concentration`, (K,), is the sum of squared weights of the windows by the square of their sum: 1 / T where T
    windows weigh the same. `seen`, (K,), counts the windows with rows.
    """

    sums: WindowCells
    concentration: FloatArray
    seen: FloatArray
    windows: int


def pool(windows: Sequence[WindowCells]) -> CellSums:
    """Windows together, at least one."""
    sums = WindowCells(np.sum([w.stats for w in windows], axis=0), np.sum([w.whole for w in windows], axis=0))
    squares = np.sum([w.of("weight") ** 2 for w in windows], axis=0)
    seen = np.sum([w.of("weight") > 0 for w in windows], axis=0, dtype=np.float64)
    weight2 = np.maximum(sums.of("weight") ** 2, 1e-300)
    return CellSums(sums, np.asarray(squares / weight2), np.asarray(seen), len(windows))


def read_cells(window: WindowSummary, layout: Layout) -> WindowCells:
    """What `summarise_cells` stored."""
    return WindowCells(*_read(window, layout, "cells", STATS))


def _read(window: WindowSummary, layout: Layout, block: str, stats: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """The block's values by cell, (stats, K), and of all rows, (stats,)."""
    grid, table = lay_out(layout), window.table
    index = pd.Index(["", *(bins.name for bins in layout.searched)])
    first, second = (_codes(table[key], index) for key in ("slice", "name"))
    stat = _codes(table["stat"], pd.Index(stats))
    ours = (_codes(table["block"], pd.Index([block])) == 0) & (first >= 0) & (second >= 0) & (stat >= 0)
    start = np.full((len(index), len(index)), -1)
    for some, at in zip(grid.columns, grid.starts, strict=True):
        start[some[0] + 1, some[1] + 1 if len(some) > 1 else 0] = at
    value = table["hi"].to_numpy() + table["lo"].to_numpy() / 2.0**BITS
    cell = start[first, second] + table["cell"].to_numpy()
    inside, single = ours & (first > 0), ours & (first == 0)
    size_ = len(stats) * grid.length
    dense = np.bincount(stat[inside] * grid.length + cell[inside], weights=value[inside], minlength=size_)
    whole = np.bincount(stat[single], weights=value[single], minlength=len(stats))
    return np.asarray(dense.reshape(len(stats), grid.length), dtype=np.float64), np.asarray(whole, dtype=np.float64)


def _codes(column: pa.ChunkedArray, known: pd.Index) -> IntArray:
    """Indices into `known`, -1 where the value is not there; by distinct value, of which there are few."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(known.get_indexer(encoded.dictionary.to_pandas())[encoded.indices.to_numpy()], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class UsualCells:
    """What a baseline says of cells: its sums, and how far windows differ beyond what their rows explain.

    `correlation` is that of rows of one window in one cell (the design effect of n such rows is
    1 + (n - 1) correlation); `dispersion`, (K,), is each cell's own variance between windows by what that gives.
    """

    sums: CellSums
    correlation: float
    dispersion: FloatArray


def fit_usual(windows: Sequence[WindowCells], layout: Layout) -> WindowSummary:
    """The baseline's windows together, as `read_usual` reads them."""
    grid, together = lay_out(layout), pool(windows)
    sums = together.sums
    ratio, spread, rest_spread = _levels(sums)
    residual2, sampling, squares = np.zeros(grid.length), np.zeros(grid.length), np.zeros(grid.length)
    for one in windows:
        there = (one.of("weight") > 0) & (one.rest("weight") > 0)
        scale = np.where(there, ratio * one.of("weight") / np.where(there, one.rest("weight"), 1.0), 0.0)
        scale = np.minimum(scale, LIMIT)  # its square is finite whatever the weights are
        residual2 += np.where(there, (one.of("loss") - scale * one.rest("loss")) ** 2, 0.0)
        sampling += np.where(there, spread * one.of("weight2") + scale**2 * rest_spread * one.rest("weight2"), 0.0)
        squares += np.where(there, spread * one.of("weight") ** 2, 0.0)
    residual2 *= together.seen / np.maximum(together.seen - 1, 1.0)  # the ratio was fitted to the same windows
    judged = (together.seen > 1) & (sampling > 0)
    by = np.where(judged, np.maximum(sampling, 1 / LIMIT**2), 1.0)
    excess, most = ((residual2 - sampling) / by)[judged].sum(), (squares / by)[judged].sum()
    correlation = float(np.clip(excess / most, 0.0, 1.0)) if most > 0 else 0.0
    expected = np.where(judged, np.maximum(sampling + correlation * squares, 1 / LIMIT**2), 1.0)
    dispersion = np.where(judged, np.minimum(residual2 / expected, LIMIT), 0.0)
    places, nowhere = _places(grid, layout), _places(grid, layout, whole=True)
    fixed = np.array([together.seen, together.concentration, dispersion])
    return merge(
        [
            _table("cells", places, STATS, _fixed(sums.stats)),
            _table("cells", nowhere, STATS, _fixed(sums.whole[:, None])),
            _table("usual", places, _BY_CELL, _fixed(fixed)),
            _table("usual", nowhere, _OF_ALL, _fixed(np.array([[together.windows], [correlation]]))),
        ]
    )


def read_usual(stored: WindowSummary, layout: Layout) -> UsualCells:
    """What `fit_usual` made."""
    (seen, concentration, dispersion), _ = _read(stored, layout, "usual", _BY_CELL)
    _, (windows, correlation) = _read(stored, layout, "usual", _OF_ALL)
    sums = CellSums(read_cells(stored, layout), concentration, seen, round(float(windows)))
    return UsualCells(sums, float(correlation), dispersion)


def _fixed(values: FloatArray) -> IntArray:
    """Values (stats, K) as `_table` takes them."""
    whole = np.floor(values)
    limbs_ = np.stack([whole, np.rint((values - whole) * 2.0**BITS)], axis=-1)
    return np.asarray(limbs_.transpose(1, 0, 2).reshape(values.shape[1], -1), dtype=np.int64)


def _levels(sums: WindowCells) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Each cell's mean loss by that of all other rows, and the variances of both rows' losses; (K,) each."""
    mean, spread = moments(sums.of("weight"), sums.of("loss"), sums.of("loss2"))
    rest, rest_spread = moments(sums.rest("weight"), sums.rest("loss"), sums.rest("loss2"))
    return np.where(rest > 0, mean / np.where(rest > 0, rest, 1.0), 0.0), spread, rest_spread


def moments(weight: FloatArray, loss: FloatArray, loss2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of the losses, (K,) each; 0 without rows."""
    some = np.where(weight > 0, weight, 1.0)
    mean = np.where(weight > 0, loss / some, 0.0)
    return mean, np.where(weight > 0, np.maximum(loss2 / some - mean**2, 0.0), 0.0)
