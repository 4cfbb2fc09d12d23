"""Rows through tables: decisions, patterns, look-ups. Each row's sums are made in the order of the blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import Blocks, ByteArray, Trees

PatternArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32] | npt.NDArray[np.int64]

_SHORT = 16  # bits of a pattern that fit two bytes, which are read a fifth faster than four


@kernel
def decide(trees: Trees, node: int, column: FloatArray, answer: ByteArray) -> None:
    """What a node's condition says of R values of its feature: 1 for left."""
    threshold, missing = trees.threshold[node], trees.missing_left[node]
    if trees.category[node] >= 0:
        for r in range(column.size):
            answer[r] = missing if np.isnan(column[r]) else _in_set(trees, trees.category[node], column[r])
    elif missing:
        for r in range(column.size):
            answer[r] = not column[r] >= threshold
    else:
        for r in range(column.size):
            answer[r] = column[r] < threshold


@kernel
def _in_set(trees: Trees, category: int, value: float) -> bool:
    begin, end = trees.offsets[category], trees.offsets[category + 1]
    if not 0 <= value < 64 * (end - begin):
        return False
    code = int(value)
    return bool((trees.words[begin + (code >> 6)] >> np.uint64(code & 63)) & np.uint64(1))


@kernel
def _find_patterns(
    trees: Trees,
    blocks: Blocks,
    block: int,
    rows: FloatArray,
    decisions: ByteArray,
    decided: ByteArray,
    patterns: PatternArray,
) -> None:
    """The patterns (R,) that rows have in a block; conditions are decided when they are first met."""
    met = np.empty(patterns.size, np.uint8)
    asked = trees.asked[blocks.tree[block]]
    for r in range(patterns.size):
        patterns[r] = 0
    for k in range(blocks.bit[block + 1] - blocks.bit[block]):
        begin, end = blocks.bits[blocks.bit[block] + k], blocks.bits[blocks.bit[block] + k + 1]
        for i in range(begin, end):
            condition = blocks.literal[i] >> 1
            if not decided[condition]:
                node = trees.asker[asked + condition]
                decide(trees, node, rows[trees.feature[node]], decisions[condition])
                decided[condition] = 1
            _meet(decisions[condition], blocks.literal[i] & 1, i == begin, met)
        bit = 1 << k
        for r in range(patterns.size):
            patterns[r] |= bit * met[r]


@kernel
def _meet(answer: ByteArray, false: int, fresh: int, met: ByteArray) -> None:
    flip = np.uint8(false)
    if fresh:
        for r in range(met.size):
            met[r] = answer[r] ^ flip
    else:
        for r in range(met.size):
            met[r] &= answer[r] ^ flip


@kernel
def _most_asked(trees: Trees) -> int:
    most = 0
    for tree in range(trees.asked.size - 1):
        most = max(most, trees.asked[tree + 1] - trees.asked[tree])
    return most


@kernel
def _forget(decided: ByteArray) -> None:
    for i in range(decided.size):
        decided[i] = 0


@kernel
def count_patterns(
    trees: Trees, blocks: Blocks, span: tuple[int, int], rows: FloatArray, weight: FloatArray, counts: FloatArray
) -> None:
    """Add the weights of background rows (q, R) to the patterns that they have in the blocks `span[0]:span[1]`."""
    size = rows.shape[1]
    short, long, most = np.empty(size, np.uint16), np.empty(size, np.uint32), _most_asked(trees)
    decisions, decided = np.empty((most, size), np.uint8), np.zeros(most, np.uint8)
    seen = 0
    for k in range(span[0], span[1]):
        if k > span[0] and blocks.tree[k] != blocks.tree[k - 1]:
            _forget(decided)
        bits = blocks.bit[k + 1] - blocks.bit[k]
        mine = counts[seen : seen + (1 << bits)]
        if bits <= _SHORT:
            _find_patterns(trees, blocks, k, rows, decisions, decided, short)
            _count(short, weight, mine)
        else:
            _find_patterns(trees, blocks, k, rows, decisions, decided, long)
            _count(long, weight, mine)
        seen += mine.size


@kernel
def find_missed(trees: Trees, leaves: Blocks, span: tuple[int, int], rows: FloatArray) -> IntArray:
    """The features whose conditions R rows (q, R) do not meet at the L leaves of a span, (L, R): words of 64 bits."""
    size, most = rows.shape[1], _most_asked(trees)
    decisions, decided = np.empty((most, size), np.uint8), np.zeros(most, np.uint8)
    missed = np.empty((span[1] - span[0], size), np.int64)
    for k in range(span[0], span[1]):
        if k > span[0] and leaves.tree[k] != leaves.tree[k - 1]:
            _forget(decided)
        mine = missed[k - span[0]]
        _find_patterns(trees, leaves, k, rows, decisions, decided, mine)
        full = 0
        for j in range(leaves.bit[k + 1] - leaves.bit[k]):
            full |= 1 << j
        for r in range(size):
            mine[r] ^= full
    return missed


@kernel
def _count(patterns: PatternArray, weight: FloatArray, counts: FloatArray) -> None:
    """Even and odd rows are counted apart, so that two rows of one pattern need not wait for each other."""
    odd = np.zeros(counts.size)
    for r in range(0, weight.size - 1, 2):
        counts[patterns[r]] += weight[r]
        odd[patterns[r + 1]] += weight[r + 1]
    if weight.size % 2:
        counts[patterns[-1]] += weight[-1]
    for j in range(counts.size):
        counts[j] += odd[j]


@kernel
def add_values(
    trees: Trees,
    blocks: Blocks,
    span: tuple[int, int],
    tables: FloatArray,
    rows: FloatArray,
    sums: FloatArray,
) -> None:
    """Add what the blocks `span[0]:span[1]` give R rows (q, R) to their sums (C, q + 1, R), the output coming last."""
    size = rows.shape[1]
    short, long, most = np.empty(size, np.uint16), np.empty(size, np.uint32), _most_asked(trees)
    decisions, decided = np.empty((most, size), np.uint8), np.zeros(most, np.uint8)
    at = 0
    for k in range(span[0], span[1]):
        tree = blocks.tree[k]
        if k > span[0] and tree != blocks.tree[k - 1]:
            _forget(decided)
        bits = blocks.bit[k + 1] - blocks.bit[k]
        output = blocks.output[blocks.out[k] : blocks.out[k + 1]]
        if bits <= _SHORT:
            _find_patterns(trees, blocks, k, rows, decisions, decided, short)
        else:
            _find_patterns(trees, blocks, k, rows, decisions, decided, long)
        for head in range(trees.head[tree, 0], trees.head[tree, 1]):
            if bits <= _SHORT:
                at = _look_up(output, 1 << bits, tables, at, short, sums[head])
            else:
                at = _look_up(output, 1 << bits, tables, at, long, sums[head])


@kernel
def _look_up(output: IntArray, many: int, tables: FloatArray, at: int, patterns: PatternArray, sums: FloatArray) -> int:
    """Two lines at a time: one reading of the patterns serves both, which took a tenth off the time."""
    count = output.size
    for i in range(0, count, 2):
        one = sums[output[i]]
        other = sums[output[i + 1] if i + 1 < count else -1]
        here, there = tables[at + i * many :], tables[at + (i + 1) * many :]
        for r in range(patterns.size):
            pattern = np.intp(patterns[r])
            one[r] += here[pattern]
            other[r] += there[pattern]
    if count % 2 == 0:
        last, here = sums[-1], tables[at + count * many :]
        for r in range(patterns.size):
            last[r] += here[np.intp(patterns[r])]
    return at + (count + 1) * many


@kernel
def walk(trees: Trees, rows: FloatArray, sums: FloatArray) -> None:
    """Add the values of the leaves that R rows (q, R) reach to the last line of their sums (C, q + 1, R)."""
    for tree in range(trees.first.size - 1):
        for r in range(rows.shape[1]):
            node = trees.first[tree]
            while trees.left[node] >= 0:
                x = rows[trees.feature[node], r]
                if np.isnan(x):
                    goes_left = trees.missing_left[node] == 1
                elif trees.category[node] >= 0:
                    goes_left = _in_set(trees, trees.category[node], x)
                else:
                    goes_left = x < trees.threshold[node]
                node = trees.left[node] if goes_left else trees.right[node]
            for head in range(trees.head[tree, 0], trees.head[tree, 1]):
                sums[head, -1, r] += trees.value[node, head]
