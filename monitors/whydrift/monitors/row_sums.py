"""Rows to sums: the one loop over a window's rows, in parts that fit the cache, on all cores where numba is installed.

Sums are integers, so that neither the size of the parts nor the number of threads shows in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors import sum_arrays
from whydrift.monitors.binning import FeatureBins, slice_names
from whydrift.monitors.cell_index import CellIndex, Column, columns, frozen, index_cells, place, raw_thresholds
from whydrift.monitors.sum_arrays import STATS, Attributed, ByRow, Kernels
from whydrift.monitors.summary_terms import CHUNK, NO_CELL, Rows, Summand, Terms, Weight, held, weigh

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WORTH_COMPILING = 2**19  # rows x features: fewer are summed before numba is imported


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows' features with their cells; `slices` are the columns whose cells are slices."""

    features: pd.DataFrame
    weight: FloatArray
    bins: tuple[FeatureBins, ...]
    slices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """The attributions (n, p) to one output, with their cells in units of `unit`; its blocks' names end with `mark`.

    `groups` are the indices of features whose attributions are added.
    """

    values: FloatArray
    base: float
    bins: tuple[FeatureBins, ...]
    unit: float
    groups: tuple[tuple[int, ...], ...]
    mark: str = ""


RowTerms = Callable[
    [slice, Weight, Sequence[ByRow]], Iterable[Summand]
]  # of a part, by what its attributions add up to


@dataclass(frozen=True, slots=True)
class _Sums:
    """See `sum_arrays.Kernels`; `missing` is None where what the log says of the rows is not asked for."""

    rows: IntArray
    missing: IntArray | None
    heads: tuple[Attributed, ...]

    def arrays(self) -> list[IntArray]:
        own = [array for head in self.heads for array in (head.high, head.low, head.own)]
        return [self.rows, *own] if self.missing is None else [self.rows, self.missing, *own]


@dataclass(frozen=True, slots=True)
class _Task:
    inputs: Inputs
    index: CellIndex
    columns: list[Column]
    heads: tuple[Head, ...]
    own: tuple[CellIndex, ...]
    terms: RowTerms
    logged: bool

    @property
    def slices(self) -> IntArray:
        """The numbers of the columns whose cells are slices."""
        inputs = self.inputs
        return np.array([j for j, bins in enumerate(inputs.bins) if bins.name in inputs.slices], dtype=np.int64)

    def zero(self) -> _Sums:
        cells, wide = len(self.index.codes), np.diff(self.index.starts)[self.slices].sum()
        missing = np.zeros((wide, len(self.index.bins), 3), dtype=np.int64) if self.logged else None
        heads = (_nothing(head, own, cells) for head, own in zip(self.heads, self.own, strict=True))
        return _Sums(np.zeros((cells, 3), dtype=np.int64), missing, tuple(heads))


def reduce_rows(
    inputs: Inputs, heads: Sequence[Head], terms: RowTerms, *, logged: bool, kernels: Kernels | None = None
) -> list[Rows]:
    """The sums by cell, with the row-level `terms` of each part.

    `logged` asks for what the log says of the rows, which the blocks input, slice and missing hold. By default
    `kernels` are compiled ones where there are rows enough, and numba. Raises ValueError for a weight or an
    attribution that is not a number.
    """
    index = index_cells(inputs.bins)
    own = tuple(index_cells(head.bins) for head in heads)
    task = _Task(inputs, index, columns(inputs.features, index), tuple(heads), own, terms, logged)
    n, p = len(inputs.features), max(len(inputs.bins), 1)
    kernels = kernels or _choose(n * p)
    size = min(max(kernels.ELEMENTS // p, 1), CHUNK)
    parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    workers = max(min(kernels.THREADS, len(parts)), 1)
    shares = [parts[k::workers] for k in range(workers)]
    work = partial(_reduce, task, kernels)
    if workers == 1:
        done = [work(parts)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(work, shares))
    sums = done[0][0]
    for other, _ in done[1:]:
        for array, more in zip(sums.arrays(), other.arrays(), strict=True):
            np.add(array, more, out=array)
    return [*chain.from_iterable(rows for _, rows in done), *_tables(task, sums)]


def _choose(elements: int) -> Kernels:
    if elements >= WORTH_COMPILING:
        try:
            from whydrift.monitors import sum_kernels
        except ModuleNotFoundError:  # the extra `fast` is not installed
            return sum_arrays
        return sum_kernels
    return sum_arrays


def _nothing(head: Head, own: CellIndex, cells: int) -> Attributed:
    """Empty sums of the head's attributions."""
    zeros = np.zeros((2, cells, len(STATS)), dtype=np.int64)
    members = np.array([j for group in head.groups for j in group], dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(group) for group in head.groups])]).astype(np.int64)
    of_own = np.zeros((len(own.codes), 2), dtype=np.int64)
    raw = raw_thresholds(own.thresholds, head.unit, head.values.dtype)
    return Attributed(own.thresholds, raw, own.starts, members, bounds, zeros[0], zeros[1], of_own)


def _reduce(task: _Task, kernels: Kernels, parts: list[slice]) -> tuple[_Sums, list[Rows]]:
    sums = task.zero()
    found: list[Rows] = []
    for part in parts:
        weight = weigh(task.inputs.weight[part])
        places = place(task.index, task.columns, part, kernels)
        kernels.add_rows(places, weight, sums.rows)
        if sums.missing is not None:
            lacking = np.flatnonzero(sums.rows[task.index.missing, 0])
            kernels.add_missing(places, weight, lacking, task.slices, task.index.starts, sums.missing)
        added = []
        for head, to in zip(task.heads, sums.heads, strict=True):
            n = weight.held.size
            rows = ByRow(
                np.empty(n), np.repeat(held(np.array(head.base), head.unit), n), np.empty((len(head.groups), n))
            )
            kernels.add_attributions(frozen(head.values[part]), head.unit, weight, places, to, rows)
            if np.isnan(rows.total).any():
                raise ValueError("an attribution is not a number; such rows are to be set aside and counted")
            added.append(rows)
        terms = task.terms(part, weight, added)
        found += [one.summed(kernels.add_terms) if isinstance(one, Terms) else one for one in terms]
    return sums, found


def _tables(task: _Task, sums: _Sums) -> Iterator[Rows]:
    """The sums by cell as rows of a summary's table."""
    index, rows, at = task.index, sums.rows, task.index.owners
    names, nothing = [bins.name for bins in index.bins], np.zeros(len(sums.rows), dtype=np.int64)
    if sums.missing is not None:
        yield Rows("input", "rows", index.codes, rows[:, 0], nothing, names=names, name_at=at)
        yield Rows("input", "weight", index.codes, rows[:, 1], rows[:, 2], names=names, name_at=at)
        yield from _slices(task, rows, sums.missing, names)
    for head, own, to in zip(task.heads, task.own, sums.heads, strict=True):
        block = f"attribution{head.mark}"
        yield Rows(block, "weight", index.codes, rows[:, 1], rows[:, 2], names=names, name_at=at)
        for number, stat in enumerate(STATS):
            yield Rows(block, stat, index.codes, to.high[:, number], to.low[:, number], names=names, name_at=at)
        own_at = own.owners
        yield Rows(f"phi{head.mark}", "weight", own.codes, to.own[:, 0], to.own[:, 1], names=names, name_at=own_at)


def _slices(task: _Task, rows: IntArray, missing: IntArray, names: list[str]) -> Iterator[Rows]:
    first = 0
    for j in task.slices:
        bins, start, end = task.index.bins[j], task.index.starts[j], task.index.starts[j + 1]
        codes = task.index.codes[start:end]
        known = codes >= 0  # what the baseline never saw belongs to no slice
        slices, slice_at, nowhere = slice_names(bins), codes[known], np.full(known.sum(), NO_CELL)
        for stat, high, low in _counted(rows[start:end][known]):
            yield Rows("slice", stat, nowhere, high, low, slices=slices, slice_at=slice_at)
        absent = missing[first : first + known.size][known].reshape(-1, 3)
        first += known.size
        used = np.flatnonzero(absent[:, 0])
        feature, at = used % len(names), slice_at[used // len(names)]
        nowhere = np.full(used.size, NO_CELL)
        for stat, high, low in _counted(absent[used]):
            yield Rows("missing", stat, nowhere, high, low, slices=slices, slice_at=at, names=names, name_at=feature)


def _counted(sums: IntArray) -> Iterator[tuple[str, IntArray, IntArray]]:
    yield "rows", sums[:, 0], np.zeros(len(sums), dtype=np.int64)
    yield "weight", sums[:, 1], sums[:, 2]
