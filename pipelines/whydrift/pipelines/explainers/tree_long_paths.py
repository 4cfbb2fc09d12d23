"""Interventional values of leaves whose paths ask too many features for tables of 2^d patterns.

Against one background row a leaf of value v is a game whose Shapley values are known (interventional TreeSHAP, Lundberg
et al. 2020, doi:10.1038/s42256-019-0138-9). Let the background row miss the conditions of x of the features, the set M,
and the explained row those of y, the set N. The leaf gives something only where no feature is in both, and then

    phi_j = v (x - 1)! y! / (x + y)! for j in M,    -v x! (y - 1)! / (x + y)! for j in N,    0 for all others.

So a leaf needs the distinct sets M of the background with their weights, at most as many as there are rows, and what it
gives to a row is a function of the row's set N alone. A set is a word of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import comb
from typing import NamedTuple

import numpy as np

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import Blocks, Trees, leaf_blocks
from whydrift.pipelines.explainers.tree_rows import find_missed
from whydrift.pipelines.explainers.tree_spans import CHUNK, Chunks, Span, in_turn

MOST_FEATURES = 64  # on a path, a bit each
_SORTED = 8  # features by which rows are sorted, so that those that go together miss much the same
_LANES = 64  # rows that go together: fewer do not fill vectors, more have less in common
_GROUP_BYTES = 8 * 2**20  # of the sets that are found at once, of a chunk of rows or of the background

# What one of x features gets that only the explained row meets, beside y that only the background row meets.
_GAMES = np.array([[1 / (x * comb(x + y, x)) if x else 0.0 for y in range(65)] for x in range(65)])


class Missed(NamedTuple):
    """What background rows miss at L leaves: at leaf k the distinct sets `start[k]:start[k + 1]`, and their weights."""

    start: IntArray
    sets: IntArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class LongPaths:
    """Leaves with long paths, cut into spans; `kept` is None where their sets are found again at each call."""

    trees: Trees
    leaves: Blocks
    spans: tuple[Span, ...]
    background: Chunks
    kept: list[Missed] | None

    @classmethod
    def of(cls, trees: Trees, nodes: IntArray, background: Chunks, most_bytes: int, threads: int) -> LongPaths:
        """Get ready for the leaves `nodes`; what the background misses is kept if it takes at most `most_bytes`."""
        rows = sum(weight.size for _, weight in background)
        step = max(1, _GROUP_BYTES // (8 * max(rows, CHUNK)))
        spans = tuple((begin, min(begin + step, nodes.size)) for begin in range(0, nodes.size, step))
        made = cls(trees, leaf_blocks(trees, nodes, MOST_FEATURES), spans, background, None)
        if 16 * rows * nodes.size > most_bytes:
            return made
        with ThreadPoolExecutor(threads) as pool:
            return replace(made, kept=list(pool.map(made.make, spans)), background=[])

    def make(self, span: Span) -> Missed:
        """The sets that the background misses at some leaves."""
        found = [find_missed(self.trees, self.leaves, span, rows) for rows, _ in self.background]
        return _collect(np.concatenate(found, axis=1), np.concatenate([weight for _, weight in self.background]))

    def all(self, pool: ThreadPoolExecutor, threads: int) -> Iterator[tuple[Span, Missed]]:
        """Spans and their sets, in order."""
        if self.kept is not None:
            return zip(self.spans, self.kept, strict=True)
        return in_turn(self.make, self.spans, pool, threads)

    def add(self, span: Span, missed: Missed, rows: FloatArray, sums: FloatArray) -> None:
        """Add what some leaves give R rows (q, R) to their sums (C, q + 1, R), the output coming last."""
        mine = find_missed(self.trees, self.leaves, span, rows)
        _add(self.trees, self.leaves, span[0], missed, mine, _GAMES, sums)


@kernel
def _slots(rows: int) -> IntArray:
    size = 16
    while size < 2 * rows:
        size *= 2
    return np.empty(size, np.int64)


@kernel
def _number(sets: IntArray, slots: IntArray, first: IntArray, number: IntArray) -> int:
    """Number the distinct sets of R rows as they come; how many there are.

    `number` (R,) gets the number of each row's set, `first` (R,) the first row of each number. `slots` is room for a
    hash table, a power of two; a slot's set is looked up by its number.
    """
    count = 0
    for i in range(slots.size):
        slots[i] = -1
    for r in range(sets.size):
        mixed = sets[r] * -7046029254386353131
        at = (mixed ^ (mixed >> 29)) & (slots.size - 1)
        while slots[at] >= 0 and sets[first[slots[at]]] != sets[r]:
            at = (at + 1) & (slots.size - 1)
        if slots[at] < 0:
            slots[at] = count
            first[count] = r
            count += 1
        number[r] = slots[at]
    return count


@kernel
def _collect(found: IntArray, weight: FloatArray) -> Missed:
    """The distinct ones among what rows miss (L, R), and the sums of the rows' weights (R,)."""
    leaves, rows = found.shape
    start = np.zeros(leaves + 1, np.int64)
    sets, total = np.empty(found.size, np.int64), np.zeros(found.size)
    first, number, slots = np.empty(rows, np.int64), np.empty(rows, np.int64), _slots(rows)
    for k in range(leaves):
        begin = start[k]
        count = _number(found[k], slots, first, number)
        for i in range(count):
            sets[begin + i] = found[k, first[i]]
        for r in range(rows):
            total[begin + number[r]] += weight[r]
        start[k + 1] = begin + count
    return Missed(start, sets[: start[-1]].copy(), total[: start[-1]].copy())


@kernel
def _count_bits(word: int) -> int:
    count = 0
    while word:
        word &= word - 1
        count += 1
    return count


@kernel
def _features(sets: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """The features of each set, one set after the other, and where those of each begin, and the end."""
    start, found = np.zeros(sets.size + 1, np.int64), np.empty(sets.size * count + 1, np.int64)
    at = 0
    for i in range(sets.size):
        for j in range(count):
            found[at] = j
            at += (sets[i] >> j) & 1
        start[i + 1] = at
    return found[:at], start


@kernel
def _sort(mine: IntArray, features: IntArray, count: int) -> IntArray:
    """An order of what rows miss in which neighbours have the same of the features that come most often."""
    often = np.bincount(features, minlength=count)
    bits = min(count, _SORTED)
    key = np.zeros(mine.size, np.int64)
    for _ in range(bits):
        feature = often.argmax()
        often[feature] = -1
        for g in range(mine.size):
            key[g] = 2 * key[g] + ((mine[g] >> feature) & 1)
    place, order = np.zeros((1 << bits) + 1, np.int64), np.empty(mine.size, np.int64)
    for g in range(mine.size):
        place[key[g] + 1] += 1
    for i in range(1 << bits):
        place[i + 1] += place[i]
    for g in range(mine.size):
        order[place[key[g]]] = g
        place[key[g]] += 1
    return order


@kernel
def _play(
    one: int, weight: float, own: IntArray, win: FloatArray, lose: FloatArray, gain: FloatArray, lost: FloatArray
) -> None:
    """What rows that miss `own` gain and lose by one set of the background, nothing where a feature is in both."""
    for r in range(own.size):
        share = weight if one & own[r] == 0 else 0.0
        gain[r] = share * win[r]
        lost[r] -= share * lose[r]


@kernel
def _plus(line: FloatArray, gain: FloatArray) -> None:
    for r in range(gain.size):
        line[r] += gain[r]


@kernel
def _leaf_values(sets: IntArray, weight: FloatArray, mine: IntArray, games: FloatArray, values: FloatArray) -> None:
    """Values (d, U) of a leaf of value 1 for the distinct sets (U,) that rows miss.

    Rows go in groups: a set of the background with a feature that all rows of a group miss is left out at once. Each
    row adds up in the order of the sets, whatever its group.
    """
    count = len(values)
    features, start = _features(sets, count)
    order = _sort(mine, features, count)
    win, lose = np.empty((count + 1, _LANES)), np.empty((count + 1, _LANES))
    sums, gain, lost = np.empty((count, _LANES)), np.empty(_LANES), np.empty(_LANES)
    for begin in range(0, mine.size, _LANES):
        own = mine[order[begin : begin + _LANES]]
        rows, common = own.size, -1
        for r in range(rows):
            common &= own[r]
            missing = _count_bits(own[r])
            for size in range(count + 1):
                win[size, r], lose[size, r] = games[size, missing], games[missing, size]
        sums[:] = 0.0
        lost[:] = 0.0
        for i in range(sets.size):
            if sets[i] & common:
                continue
            size = start[i + 1] - start[i]
            _play(sets[i], weight[i], own, win[size], lose[size], gain[:rows], lost)
            for feature in features[start[i] : start[i + 1]]:
                _plus(sums[feature], gain[:rows])
        for j in range(count):
            for r in range(rows):
                values[j, order[begin + r]] = lost[r] if (own[r] >> j) & 1 else sums[j, r]


@kernel
def _add(
    trees: Trees, leaves: Blocks, begin: int, missed: Missed, found: IntArray, games: FloatArray, sums: FloatArray
) -> None:
    """Add what the leaves from `begin` on give rows that miss `found` (L, R) to their sums (C, q + 1, R)."""
    rows = found.shape[1]
    first, number, slots = np.empty(rows, np.int64), np.empty(rows, np.int64), _slots(rows)
    values = np.empty((MOST_FEATURES, rows))
    for k in range(found.shape[0]):
        leaf = begin + k
        tree, node = leaves.tree[leaf], leaves.node[leaf]
        features = leaves.output[leaves.out[leaf] : leaves.out[leaf + 1]]
        count = _number(found[k], slots, first, number)
        of = slice(missed.start[k], missed.start[k + 1])
        mine = found[k][first[:count]]
        _leaf_values(missed.sets[of], missed.weight[of], mine, games, values[: features.size])
        for head in range(trees.head[tree, 0], trees.head[tree, 1]):
            value = trees.value[node, head]
            for j in range(features.size):
                line = sums[head, features[j]]
                for r in range(rows):
                    line[r] += value * values[j, number[r]]
            for r in range(rows):
                sums[head, -1, r] += value if found[k, r] == 0 else 0.0
