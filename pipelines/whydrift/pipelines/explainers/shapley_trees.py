"""Exact Shapley values of decision trees, path-dependent or against a whole background.

Needs numba, so import it only where trees are going to be explained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whydrift.monitors.compiled import THREADS
from whydrift.pipelines.explainers.forest import Forest, IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import MOST_BITS, Blocks, Trees, find_blocks, lay_out
from whydrift.pipelines.explainers.tree_interactions import add_interactions
from whydrift.pipelines.explainers.tree_long_paths import MOST_FEATURES, LongPaths
from whydrift.pipelines.explainers.tree_paths import add_path_values, expected_values, longest_path
from whydrift.pipelines.explainers.tree_rows import add_values, count_patterns, walk
from whydrift.pipelines.explainers.tree_spans import CHUNK, Chunks, Span, in_turn
from whydrift.pipelines.explainers.tree_tables import fill_tables, gauss_legendre, table_starts

_LIMITS = (10, 9, 8, 7, 6)  # bits of a pattern; more make fewer look-ups and larger tables
_UNLIMITED = 9  # where the tables do not fit anyway
_BYTES = 128 * 2**20  # of all tables; twice as many took a sixth off a row's time, and more than that with busy memory
_MOST_BYTES = 2**37  # made and thrown away at each call, which takes minutes
_GROUP_BYTES = 8 * 2**20  # of the tables that all rows go through before the next ones are fetched
_BATCH = 65536  # rows
_FEW = 128  # rows whose interactions are summed together
_QUADRATURE = gauss_legendre((MOST_BITS + 1) // 2)


class Counted(NamedTuple):
    """The patterns that the background has in the blocks of a span, numbered through, and their weights."""

    pattern: npt.NDArray[np.uint32]
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Tables:
    """The blocks of a forest, cut into spans, and how their tables are made.

    `kept` are the tables of the spans; None where they would be too large, then they are made again at each call: from
    `counted`, or from the `background` for spans whose patterns are too many to be kept as well. Both are empty for
    path-dependent values. `long` are leaves whose paths ask too many features for a table.
    """

    trees: Trees
    blocks: Blocks
    start: IntArray
    spans: tuple[Span, ...]
    background: Chunks
    counted: Mapping[Span, Counted]
    kept: list[FloatArray] | None
    long: IntArray

    def make(self, span: Span) -> tuple[FloatArray, FloatArray]:
        """The tables of some blocks, and what their leaves add to the base, (C,)."""
        weights = self._weights(span) if self.background or self.counted else np.zeros(0)
        table = np.empty(self.start[span[1]] - self.start[span[0]])
        return table, fill_tables(self.trees, self.blocks, span, weights, _QUADRATURE, self.start, table)

    def count(self, span: Span) -> Counted:
        """What the background has in some blocks."""
        weights = self._weights(span)
        pattern = np.flatnonzero(weights)
        return Counted(pattern.astype(np.uint32), weights[pattern])

    def _weights(self, span: Span) -> FloatArray:
        """Those of all patterns of some blocks, one block after the other."""
        weights = np.zeros(int(np.sum(1 << np.diff(self.blocks.bit[span[0] : span[1] + 1]))))
        if (counted := self.counted.get(span)) is not None:
            weights[counted.pattern] = counted.weight
            return weights
        for rows, weight in self.background:
            count_patterns(self.trees, self.blocks, span, rows, weight, weights)
        return weights

    def all(self, pool: ThreadPoolExecutor, threads: int) -> Iterator[tuple[Span, FloatArray]]:
        """Spans and their tables, in order; those that are not kept are made for a few spans at a time."""
        if self.kept is not None:
            yield from zip(self.spans, self.kept, strict=True)
            return
        for span, (table, _) in in_turn(self.make, self.spans, pool, threads):
            yield span, table


@dataclass(frozen=True, slots=True)
class ShapleyTrees:
    """What follows from the forest and the background alone; rows then go through it in any batches.

    `base` (C,) is the expected output, `intercept` (C,) what all rows start from. A row's values are the same bit for
    bit in any batch, at any place in it, with any number of threads.
    """

    trees: Trees
    base: FloatArray
    intercept: FloatArray
    threads: int
    tables: Tables | None
    long_paths: LongPaths | None

    @property
    def made_at_each_call(self) -> bool:
        """Whether the tables are too large to be kept."""
        return self.tables is not None and self.tables.kept is None

    @classmethod
    def path_dependent(cls, forest: Forest, threads: int | None = None, table_bytes: int = _BYTES) -> ShapleyTrees:
        """Absent features are averaged over by the cover of the nodes that ask them, for trees of any depth.

        Where the tables would take more than `table_bytes`, the trees are walked instead, see tree_paths.py.

        Raises:
            ValueError: the nodes of a tree are not in depth-first order.
        """
        trees, threads = lay_out(forest), threads or THREADS
        base = forest.base + expected_values(trees)
        tables = _plan(trees, [], table_bytes, MOST_BITS)
        if tables.kept is None or tables.long.size:
            return cls(trees, base, forest.base, threads, None, None)
        return cls(trees, base, forest.base, threads, _filled(tables, threads)[0], None)

    @classmethod
    def interventional(
        cls,
        forest: Forest,
        background: FloatArray,
        weight: FloatArray | None = None,
        threads: int | None = None,
        table_bytes: int = _BYTES,
    ) -> ShapleyTrees:
        """Absent features take the values of all background rows (m, q), of some weight (m,), else of equal weight.

        Where the tables would take more than `table_bytes`, they are made at each call, and a call should bring as
        many rows as possible; of what they are made from at most as many bytes are kept. Leaves with long paths go
        without, see tree_long_paths.py.

        Raises:
            ValueError: there is no background, a path asks more than 64 features, the tables would take more than
                128 GiB in total, or the nodes are out of order.
        """
        share = np.ones(len(background)) if weight is None else np.asarray(weight, dtype=np.float64)
        if share.shape != (len(background),) or not share.sum() > 0 or (share < 0).any():
            raise ValueError(f"{len(background)} background rows, weights {share.shape} of sum {share.sum():g}")
        share = share / share.sum()
        trees, threads = lay_out(forest), threads or THREADS
        if longest_path(trees)[0] > MOST_FEATURES:
            raise ValueError(
                f"a path of a tree asks more than {MOST_FEATURES} features, too many for interventional values"
            )
        chunks = [(rows, share[i : i + CHUNK].copy()) for i, rows in _columns(trees, background)]
        tables = _plan(trees, chunks, table_bytes, MOST_BITS)
        if tables.kept is None:
            tables = _plan(trees, chunks, table_bytes, min(MOST_BITS, _worth_a_table(len(background))))
        if 8 * tables.start[-1] > _MOST_BYTES:
            raise ValueError(f"interventional values take {tables.start[-1] >> 27} GiB of tables, made at each call")
        if tables.kept is None:
            tables = _counted(tables, table_bytes, threads)
        long_paths = LongPaths.of(trees, tables.long, chunks, table_bytes, threads) if tables.long.size else None
        if tables.kept is not None:
            tables, part = _filled(tables, threads)
            if long_paths is None:
                return cls(trees, forest.base + part, forest.base, threads, tables, None)
        with ThreadPoolExecutor(threads) as pool:
            outputs = list(pool.map(partial(_walked, trees), [rows for rows, _ in chunks]))
        mean = sum(
            ((output * part).sum(axis=1) for output, (_, part) in zip(outputs, chunks, strict=True)),
            np.zeros_like(forest.base),
        )
        return cls(trees, forest.base + mean, forest.base, threads, tables, long_paths)

    def explain(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n, C, q) of rows (n, q), and the forest's output (n, C) by the same decisions."""
        values = np.empty((len(rows), self.base.size, rows.shape[1]))
        output = np.empty((len(rows), self.base.size))
        # Tables that are made at each call serve all rows; else a part of the rows at a time saves memory.
        batch = _BATCH if self.tables is None or self.tables.kept is not None else max(len(rows), 1)
        with ThreadPoolExecutor(self.threads) as pool:
            for begin in range(0, len(rows), batch):
                chunks = [columns for _, columns in _columns(self.trees, rows[begin : begin + batch])]
                for i, sums in enumerate(self._sums(pool, chunks)):
                    at = slice(begin + i * CHUNK, begin + i * CHUNK + sums.shape[2])
                    values[at] = sums[:, :-1].transpose(2, 0, 1)
                    output[at] = sums[:, -1].T + self.intercept
        return values, output

    def values(self, rows: FloatArray) -> FloatArray:
        """Shapley values of rows (n, q): (n, q), of several outputs (n, C, q)."""
        values = self.explain(rows)[0]
        return values[:, 0] if self.base.size == 1 else values

    def output(self, rows: FloatArray) -> FloatArray:
        """The forest's output, (n, C)."""
        found = [_walked(self.trees, columns) for _, columns in _columns(self.trees, rows)]
        return np.concatenate([np.empty((self.base.size, 0)), *found], axis=1).T + self.intercept

    def interactions(self, rows: FloatArray) -> FloatArray:
        """Path-dependent interaction values, (n, q, q), of several outputs (n, C, q, q), whatever the values are.

        A row of the matrix adds up to the path-dependent value of its feature, and the effect of a pair is half on
        either side of the diagonal. For a few thousand rows: the cost is that of each leaf and pair of features.
        """
        most, longest = longest_path(self.trees)
        heads, width = self.base.size, rows.shape[1]
        found = np.empty((len(rows), heads, width, width))

        def fill(begin: int) -> None:
            chunk = np.ascontiguousarray(rows[begin : begin + _FEW].T, dtype=np.float64)
            pairs, values = np.zeros((heads, width, width, chunk.shape[1])), _empty(self.trees, chunk)
            add_interactions(self.trees, _quadrature(most), most, chunk, pairs)
            add_path_values(self.trees, _quadrature(most), longest, chunk, values)
            pairs = (pairs + pairs.transpose(0, 2, 1, 3)).transpose(3, 0, 1, 2)
            diagonal = values[:, :-1].transpose(2, 0, 1) - pairs.sum(axis=3)
            found[begin : begin + _FEW] = pairs + diagonal[..., None] * np.eye(width)

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(fill, range(0, len(rows), _FEW)))
        return found[:, 0] if heads == 1 else found

    def _sums(self, pool: ThreadPoolExecutor, chunks: list[FloatArray]) -> list[FloatArray]:
        """Values and outputs of chunks (q, R), (C, q + 1, R) each."""
        sums = [_empty(self.trees, chunk) for chunk in chunks]
        if self.tables is None:
            most, longest = longest_path(self.trees)
            list(pool.map(partial(add_path_values, self.trees, _quadrature(most), longest), chunks, sums))
            list(pool.map(partial(walk, self.trees), chunks, sums))
            return sums
        for span, table in self.tables.all(pool, self.threads):
            list(pool.map(partial(add_values, self.trees, self.tables.blocks, span, table), chunks, sums))
        if self.long_paths is not None:
            for span, missed in self.long_paths.all(pool, self.threads):
                list(pool.map(partial(self.long_paths.add, span, missed), chunks, sums))
        return sums


def _columns(trees: Trees, rows: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Rows (n, q) in chunks of columns (q, R), with where they begin."""
    if rows.shape[1] <= trees.feature.max():
        raise ValueError(f"the rows have {rows.shape[1]} columns, the trees ask column {trees.feature.max()}")
    for begin in range(0, len(rows), CHUNK):
        yield begin, np.array(rows[begin : begin + CHUNK].T, dtype=np.float64, order="C")


def _empty(trees: Trees, columns: FloatArray) -> FloatArray:
    return np.zeros((trees.value.shape[1], columns.shape[0] + 1, columns.shape[1]))


def _walked(trees: Trees, columns: FloatArray) -> FloatArray:
    """What the trees give rows, (C, R)."""
    sums = _empty(trees, columns)
    walk(trees, columns, sums)
    return sums[:, -1]


def _quadrature(features: int) -> FloatArray:
    """Nodes and weights, (2, K), for paths with up to so many distinct features."""
    return np.array(np.polynomial.legendre.leggauss(max((features + 1) // 2, 1))) * 0.5 + [[0.5], [0.0]]


def _worth_a_table(background: int) -> int:
    """The bits up to which tables that are made at each call cost less than going through the background's patterns.

    Measured at windows of ten thousand rows: 11 bits at 100 background rows, 13 at 1,000, 15 at 10,000.
    """
    return 8 + background.bit_length() // 2


def _plan(trees: Trees, background: Chunks, table_bytes: int, most: int) -> Tables:
    """Blocks with the longest patterns whose tables fit; leaves with patterns of more than `most` bits stay outside."""
    blocks, long = find_blocks(trees, _LIMITS[-1], most)
    start = table_starts(trees, blocks)
    fits = bool(8 * start[-1] <= table_bytes)
    for limit in _LIMITS[:-1] if fits else (_UNLIMITED,):
        larger, _ = find_blocks(trees, limit, most)
        if not fits or 8 * table_starts(trees, larger)[-1] <= table_bytes:
            blocks, start = larger, table_starts(trees, larger)
            break
    return Tables(trees, blocks, start, _cut(start), background, {}, [] if fits else None, long)


def _cut(start: IntArray) -> tuple[Span, ...]:
    """Spans of blocks whose tables are read together."""
    cuts = [0]
    for k in range(1, start.size - 1):
        if 8 * (start[k + 1] - start[cuts[-1]]) > _GROUP_BYTES:
            cuts.append(k)
    return tuple(zip(cuts, [*cuts[1:], start.size - 1], strict=True))


def _counted(tables: Tables, most_bytes: int, threads: int) -> Tables:
    """The tables with the background's patterns kept, of the first spans, up to so many bytes."""
    counted: dict[Span, Counted] = {}
    room = most_bytes
    with ThreadPoolExecutor(threads) as pool:
        for span, found in in_turn(tables.count, tables.spans, pool, threads):
            room -= found.pattern.nbytes + found.weight.nbytes
            if room < 0:
                return replace(tables, counted=counted)
            counted[span] = found
    return replace(tables, counted=counted, background=[])


def _filled(tables: Tables, threads: int) -> tuple[Tables, FloatArray]:
    """The tables with all of them made and kept, and what the leaves add to the base, (C,)."""
    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(tables.make, tables.spans))
    base = sum((part for _, part in made), np.zeros(tables.trees.value.shape[1]))
    return replace(tables, kept=[table for table, _ in made], background=[]), base
