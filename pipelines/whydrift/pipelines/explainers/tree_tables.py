"""Exact Shapley values of the leaves of a block, for every pattern that a row may have there.

A leaf of value v below conditions on d distinct features is a product game: a coalition S of features is worth
v prod_{k in S} a_k prod_{k not in S} b_k, where a_k is 1 if the row meets all the leaf's conditions of feature k, else
0. Of one background row b_k is the same for that row (interventional), and the value is the mean over background rows.
Path-dependent, b_k is the product of the shares of cover along the path where feature k is asked (Lundberg et al.
2020, doi:10.1038/s42256-019-0138-9). With Owen's multilinear extension of the game (1972, doi:10.1287/mnsc.18.5.64)

    phi_j = v (a_j - b_j) * integral over t in 0..1 of prod_{k != j} (t a_k + (1 - t) b_k) dt,

a polynomial of degree d - 1 in t, for which Gauss-Legendre quadrature with ceil(d / 2) nodes is exact.

The integrand at one t, for all 2^d patterns a, with a weight for each of the 2^d patterns b of the background, is a
product of d two-by-two matrices, [b][a] = [[0, t], [1 - t, 1]]: d passes over 2^d numbers, however many rows the
background has. That of phi_j follows from it by taking the matrix of j back. One table for a leaf, from the pattern to
the values, is the idea of WOODELF (Nadel and Wettenstein 2025, arXiv:2511.09376). Tables of leaves are added up to
tables of blocks here, child by child, so that a row's cost is one look-up a block and feature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import MOST_BITS, Blocks, Trees, add_conditions, path_features


def gauss_legendre(most: int) -> FloatArray:
    """Nodes and weights on 0..1, (most + 1, 2, most); those of order n are `[n, :, :n]`."""
    table = np.zeros((most + 1, 2, most))
    for order in range(1, most + 1):
        nodes, weights = np.polynomial.legendre.leggauss(order)
        table[order, :, :order] = (nodes + 1) / 2, weights / 2
    return table


@kernel
def _find(values: IntArray, count: int, value: int) -> int:
    place = 0
    while place < count and values[place] != value:
        place += 1
    return place if place < count else -1


class Inside(NamedTuple):
    """The M nodes of a block, `top` the first of them.

    `features` (M, MOST_BITS) are those of a node's path, `known` of them, and then of what is below, `all` in total;
    `conditions` (M, MOST_BITS) are the distinct ones below; a node's pattern has `bits` (M,) = known + conditions.
    """

    top: int
    features: IntArray
    conditions: IntArray
    known: IntArray
    all: IntArray
    bits: IntArray


@kernel
def _look_inside(trees: Trees, top: int, tree: int) -> Inside:
    count = trees.end[top] - top
    features = np.empty((count, MOST_BITS), np.int64)
    conditions = np.empty((count, MOST_BITS), np.int64)
    known, total, bits = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        known[i] = total[i] = path_features(trees, top + i, features[i])
        below = add_conditions(trees, top + i, conditions[i], 0)
        bits[i] = known[i] + below
        for j in range(below):
            feature = trees.feature[trees.asker[trees.asked[tree] + conditions[i, j]]]
            if _find(features[i], total[i], feature) < 0:
                features[i, total[i]] = feature
                total[i] += 1
    return Inside(top, features, conditions, known, total, bits)


@kernel
def _child_patterns(trees: Trees, inside: Inside, i: int, c: int, found: IntArray) -> None:
    """Which pattern child c has for each pattern of its parent i.

    Bits pass through, except that of the parent's own feature: it says whether that was met so far (if it was asked
    before) and by the parent's condition, which is the first of the conditions.
    """
    known, below = inside.known[i], inside.known[c]
    before = _find(inside.features[i], known, trees.feature[inside.top + i])
    own = 1 << (before if before >= 0 else below - 1)
    to_left = trees.left[inside.top + i] == inside.top + c
    size = 1
    found[0] = 0
    for bit in range(inside.bits[i]):
        moved = 0
        if bit < known and bit != before:
            moved = 1 << bit
        elif bit >= known:
            place = _find(inside.conditions[c], inside.bits[c] - below, inside.conditions[i, bit - known])
            moved = 1 << (below + place) if place >= 0 else 0
        for j in range(size):
            found[size + j] = found[j] | moved
        size *= 2
    for j in range(size):
        if ((j >> known) & 1 == 1) == to_left and (before < 0 or j & own):
            found[j] |= own


@kernel
def _met(trees: Trees, inside: Inside, i: int, met: FloatArray) -> None:
    """The part of the cover that each feature of a leaf's path leaves over."""
    for j in range(inside.known[i]):
        met[j] = 1.0
    node = inside.top + i
    while trees.parent[node] >= 0:
        met[_find(inside.features[i], inside.known[i], trees.feature[trees.parent[node]])] *= trees.share[node]
        node = trees.parent[node]


@kernel
def _transform(grid: FloatArray, count: int, t: float) -> None:
    """From the weights of the background's patterns to the integrand at t for the row's patterns, in place."""
    size, step = 1 << count, 1
    if count >= 3:
        for j in range(0, size, 8):
            _transform_eight(grid[j : j + 8], t)
        step = 8
    while 4 * step <= size:
        for j in range(0, size, 4 * step):
            k = j + 2 * step
            _transform_four(
                grid[j : j + step], grid[j + step : k], grid[k : k + step], grid[k + step : k + 2 * step], t
            )
        step *= 4
    if step < size:
        for j in range(step):
            absent, present = grid[j], grid[j + step]
            grid[j] = (1.0 - t) * present
            grid[j + step] = t * absent + present


@kernel
def _transform_four(first: FloatArray, second: FloatArray, third: FloatArray, fourth: FloatArray, t: float) -> None:
    """Two passes at once, which halves what is read and written: over numbers one, two and three steps apart."""
    s = 1.0 - t
    for j in range(first.size):
        a, b, c, d = first[j], second[j], third[j], fourth[j]
        a, b, c, d = s * b, t * a + b, s * d, t * c + d
        first[j], second[j], third[j], fourth[j] = s * c, s * d, t * a + c, t * b + d


@kernel
def _transform_eight(grid: FloatArray, t: float) -> None:
    """The first three passes over eight numbers, whose steps are too short for vectors, at once."""
    s = 1.0 - t
    a, b, c, d, e, f, g, h = grid[0], grid[1], grid[2], grid[3], grid[4], grid[5], grid[6], grid[7]
    a, b, c, d, e, f, g, h = s * b, t * a + b, s * d, t * c + d, s * f, t * e + f, s * h, t * g + h
    a, b, c, d, e, f, g, h = s * c, s * d, t * a + c, t * b + d, s * g, s * h, t * e + g, t * f + h
    grid[0], grid[1], grid[2], grid[3] = s * e, s * f, s * g, s * h
    grid[4], grid[5], grid[6], grid[7] = t * a + e, t * b + f, t * c + g, t * d + h


class Scratch(NamedTuple):
    """Room (P,) for one leaf: the integrand, and what the values at each pattern are made of.

    The integrand without the factor of a feature is, whichever it is, that of the pattern without the feature over
    1 - t. So the value of a feature that is not met is `absent` of the pattern; of one that is met it is `met` of the
    pattern less `missed` of the pattern without it.
    """

    grid: FloatArray
    absent: FloatArray
    met: FloatArray
    missed: FloatArray


@kernel
def _scratch(patterns: int) -> Scratch:
    return Scratch(np.empty(patterns), np.empty(patterns), np.empty(patterns), np.empty(patterns))


@kernel
def _integrate(background: FloatArray, count: int, quadrature: FloatArray, scratch: Scratch) -> None:
    """What values are made of, for a leaf of `count` features and the weights (2^count,) of the background there."""
    size, order = 1 << count, (count + 1) // 2
    grid, absent, met, missed = scratch
    for j in range(size):
        absent[j] = met[j] = missed[j] = 0.0
    for i in range(order):
        t, weight = quadrature[order, 0, i], quadrature[order, 1, i]
        for j in range(size):
            grid[j] = weight * background[j]
        _transform(grid, count, t)
        if_absent, if_met, if_missed = 1.0 / (1.0 - t), 1.0 / t, 1.0 / (t * (1.0 - t))
        for j in range(size):
            absent[j] -= grid[j] * if_absent
            met[j] += grid[j] * if_met
            missed[j] += grid[j] * if_missed


@kernel
def _write_line(
    absent: FloatArray, met: FloatArray, missed: FloatArray, step: int, value: float, line: FloatArray
) -> None:
    """The values of the feature of bit `step`, of all patterns from that bit on."""
    for j in range(line.size):
        with_it = met[j] - missed[j]
        line[j] = value * (absent[j] if j & step else with_it)


@kernel
def _write_values(scratch: Scratch, count: int, value: float, values: FloatArray) -> None:
    """Shapley values of a leaf of some value, 2^count of each feature, and then its output: where everything is met."""
    size, absent, met, missed = 1 << count, scratch.absent, scratch.met, scratch.missed
    for k in range(count):
        step, line = 1 << k, values[k * size : (k + 1) * size]
        for j in range(step):
            line[j] = value * absent[j]
        _write_line(absent[step:size], met[step:size], missed, step, value, line[step:])
    output = values[count * size : (count + 1) * size]
    for j in range(size):
        output[j] = 0.0
    output[size - 1] = value


@kernel
def _independent(met: FloatArray, count: int, background: FloatArray) -> None:
    """The weights of patterns whose bits are set independently of each other, bit k with probability met[k]."""
    background[0] = 1.0
    size = 1
    for k in range(count):
        for j in range(size):
            background[size + j] = background[j] * met[k]
            background[j] *= 1.0 - met[k]
        size *= 2


@kernel
def table_starts(trees: Trees, blocks: Blocks) -> IntArray:
    """Where the table of each block begins, and the end. A table is (heads, features + 1, patterns)."""
    start = np.zeros(blocks.node.size + 1, np.int64)
    for k in range(blocks.node.size):
        heads = trees.head[blocks.tree[k], 1] - trees.head[blocks.tree[k], 0]
        lines = blocks.out[k + 1] - blocks.out[k] + 1
        start[k + 1] = start[k] + heads * lines * (1 << (blocks.bit[k + 1] - blocks.bit[k]))
    return start


@kernel
def _spread(trees: Trees, inside: Inside, weights: FloatArray, patterns: IntArray, spread: FloatArray) -> None:
    """From the weights of the block's patterns those of the patterns of each of its nodes, (M, patterns)."""
    for j in range(weights.size):
        spread[0, j] = weights[j]
    for i in range(inside.bits.size):
        for child in (trees.left[inside.top + i], trees.right[inside.top + i]):
            if child >= 0:
                c = child - inside.top
                _child_patterns(trees, inside, i, c, patterns)
                for j in range(1 << inside.bits[i]):
                    spread[c, patterns[j]] += spread[i, j]


@kernel
def _join(
    trees: Trees, inside: Inside, i: int, patterns: IntArray, start: IntArray, heads: int, sums: FloatArray
) -> None:
    """Add the tables of an inner node's children to its own."""
    size, lines = 1 << inside.bits[i], inside.all[i] + 1
    for child in (trees.left[inside.top + i], trees.right[inside.top + i]):
        c = child - inside.top
        _child_patterns(trees, inside, i, c, patterns)
        small, count = 1 << inside.bits[c], inside.all[c]
        for line in range(count + 1):
            to = lines - 1 if line == count else _find(inside.features[i], lines - 1, inside.features[c, line])
            for head in range(heads):
                mine = sums[start[i] + (head * lines + to) * size :]
                part = sums[start[c] + (head * (count + 1) + line) * small :]
                for j in range(size):
                    mine[j] += part[patterns[j]]


@kernel
def _leaf_table(
    trees: Trees, tree: int, top: int, weights: FloatArray, quadrature: FloatArray, table: FloatArray
) -> FloatArray:
    """As `_block_table`, of a block that is a leaf."""
    inside = _look_inside(trees, top, tree)
    count, size = inside.known[0], 1 << inside.bits[0]
    low, heads = trees.head[tree, 0], trees.head[tree, 1] - trees.head[tree, 0]
    base, background = np.zeros(heads), weights
    if heads == 0:
        return base
    if not weights.size:
        met, background = np.empty(MOST_BITS), np.empty(size)
        _met(trees, inside, 0, met)
        _independent(met, count, background)
    scratch, many = _scratch(size), (count + 1) * size
    _integrate(background, count, quadrature, scratch)
    for head in range(heads):
        value = trees.value[top, low + head]
        base[head] = value * background[size - 1]
        _write_values(scratch, count, value, table[head * many : (head + 1) * many])
    return base


@kernel
def _block_table(
    trees: Trees, tree: int, top: int, weights: FloatArray, quadrature: FloatArray, table: FloatArray
) -> FloatArray:
    """Fill one block's table; what its leaves add to the base, (heads,)."""
    inside = _look_inside(trees, top, tree)
    low, heads = trees.head[tree, 0], trees.head[tree, 1] - trees.head[tree, 0]
    base = np.zeros(heads)
    start = np.zeros(inside.bits.size + 1, np.int64)
    most = 0
    for i in range(inside.bits.size):
        start[i + 1] = start[i] + heads * (inside.all[i] + 1) * (1 << inside.bits[i])
        most = max(most, inside.bits[i])
    patterns = np.empty(1 << most, np.int64)
    spread = np.zeros((inside.bits.size if weights.size else 1, 1 << most))
    if weights.size:
        _spread(trees, inside, weights, patterns, spread)
    sums = np.zeros(start[-1])
    met, scratch = np.empty(MOST_BITS), _scratch(1 << most)
    for i in range(inside.bits.size - 1, -1, -1):
        if trees.left[top + i] >= 0:
            _join(trees, inside, i, patterns, start, heads, sums)
            continue
        count, mine = inside.known[i], spread[i if weights.size else 0]
        if not weights.size:
            _met(trees, inside, i, met)
            _independent(met, count, mine)
        _integrate(mine, count, quadrature, scratch)
        many = (count + 1) << count
        for head in range(heads):
            value, at = trees.value[top + i, low + head], start[i] + head * many
            base[head] += value * mine[(1 << count) - 1]
            _write_values(scratch, count, value, sums[at : at + many])
    for j in range(start[1]):
        table[j] = sums[j]
    return base


@kernel
def fill_tables(
    trees: Trees,
    blocks: Blocks,
    span: tuple[int, int],
    weights: FloatArray,
    quadrature: FloatArray,
    start: IntArray,
    tables: FloatArray,
) -> FloatArray:
    """Fill the tables of the blocks `span[0]:span[1]`; what their leaves add to the base, (C,).

    `weights` are those of the blocks' patterns in the background, one block after the other, each adding up to 1; if
    there are none, the values are path-dependent.
    """
    base = np.zeros(trees.value.shape[1])
    seen = 0
    for k in range(span[0], span[1]):
        tree = blocks.tree[k]
        many = 1 << (blocks.bit[k + 1] - blocks.bit[k])
        mine = weights[seen : seen + many] if weights.size else weights
        table = tables[start[k] - start[span[0]] : start[k + 1] - start[span[0]]]
        if trees.left[blocks.node[k]] < 0:
            part = _leaf_table(trees, tree, blocks.node[k], mine, quadrature, table)
        else:
            part = _block_table(trees, tree, blocks.node[k], mine, quadrature, table)
        for head in range(part.size):
            base[trees.head[tree, 0] + head] += part[head]
        seen += many
    return base
