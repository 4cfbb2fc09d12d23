"""Path-dependent values without tables, for trees of any depth, and interaction values.

The integral of tree_tables.py, evaluated as the tree is walked: at each quadrature node t the product over the path's
features is carried down, the sum over the leaves below is carried up, and each edge credits the feature that it asks.
A tree of E edges and at most d distinct features on a path takes E ceil(d / 2) steps a row; the sums that are carried
up are those of Linear TreeSHAP (Yu et al. 2022, arXiv:2209.08192), which interpolates where this integrates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import ByteArray, Trees
from whydrift.pipelines.explainers.tree_rows import decide

ROWS = 1024  # that walk a tree together: with fewer, what is done once for all of them takes most of the time


@kernel
def longest_path(trees: Trees) -> tuple[int, int]:
    """The most distinct features and the most edges on a path of the forest."""
    edges = np.zeros(trees.left.size, np.int64)
    features = np.zeros(trees.left.size, np.int64)
    for node in range(trees.left.size):
        parent = trees.parent[node]
        if parent >= 0:
            edges[node] = edges[parent] + 1
            features[node] = features[parent] + (_asked_before(trees, parent) < 0)
    most, longest = 0, 0
    for node in range(trees.left.size):
        most, longest = max(most, features[node]), max(longest, edges[node])
    return most, longest


@kernel
def _asked_before(trees: Trees, node: int) -> int:
    """How many edges above a node its feature was asked last, -1 if it was not."""
    above = 0
    at = trees.parent[node]
    while at >= 0:
        if trees.feature[at] == trees.feature[node]:
            return above
        at = trees.parent[at]
        above += 1
    return -1


@kernel
def _set_state(answer: ByteArray, false: int, before: ByteArray, state: ByteArray) -> None:
    """What is met of an edge's feature: 2 all, 1 all but this edge's condition, 0 something failed before."""
    for r in range(state.size):
        met = answer[r] ^ np.uint8(false)
        state[r] = (before[r] >> np.uint8(1)) * (met + np.uint8(1))


@kernel
def _factors(t: float, before: float, now: float, found: FloatArray) -> None:
    """For each state, by what an edge changes the product (0..2), and what it credits its feature with (3..5)."""
    had, has = t + (1.0 - t) * before, t + (1.0 - t) * now
    found[0] = now / before if before > 0.0 else 0.0
    found[1] = (1.0 - t) * now / had
    found[2] = has / had
    credit = (1.0 - before) / had
    found[3] = 0.0
    found[4] = -1.0 / (1.0 - t) - credit
    found[5] = (1.0 - now) / has - credit


@kernel
def _descend(state: ByteArray, factor: FloatArray, above: FloatArray, product: FloatArray) -> None:
    zero, one, two = factor[0], factor[1], factor[2]
    for r in range(state.size):
        product[r] = above[r] * (two if state[r] == 2 else one if state[r] == 1 else zero)


@kernel
def _ascend(
    state: ByteArray, factor: FloatArray, below: FloatArray, fresh: int, total: FloatArray, credit: FloatArray
) -> None:
    one, two = factor[4], factor[5]
    for r in range(state.size):
        credit[r] += below[r] * (two if state[r] == 2 else one if state[r] == 1 else 0.0)
    if fresh:
        for r in range(state.size):
            total[r] = below[r]
    else:
        for r in range(state.size):
            total[r] += below[r]


@kernel
def _leaf(
    state: ByteArray,
    factor: FloatArray,
    value: float,
    above: FloatArray,
    fresh: int,
    total: FloatArray,
    credit: FloatArray,
) -> None:
    """An edge to a leaf, down and up at once."""
    zero, one, two = value * factor[0], value * factor[1], value * factor[2]
    first, second = one * factor[4], two * factor[5]
    if fresh:
        for r in range(state.size):
            total[r] = above[r] * (two if state[r] == 2 else one if state[r] == 1 else zero)
            credit[r] += above[r] * (second if state[r] == 2 else first if state[r] == 1 else 0.0)
    else:
        for r in range(state.size):
            total[r] += above[r] * (two if state[r] == 2 else one if state[r] == 1 else zero)
            credit[r] += above[r] * (second if state[r] == 2 else first if state[r] == 1 else 0.0)


@kernel
def _prepare(trees: Trees, tree: int, points: FloatArray, above: IntArray, met: FloatArray, factor: FloatArray) -> None:
    """What the edges to the M nodes of a tree do whatever the rows are, counted from its root.

    `above` (M,) says how many edges higher the same feature was asked, -1 if it was not, `met` (M,) which part of the
    cover the feature's conditions leave over up to the edge, `factor` (M, K, 6) is that of `_factors` at each point.
    """
    root = trees.first[tree]
    for node in range(root + 1, trees.first[tree + 1]):
        i, parent = node - root, trees.parent[node]
        above[i] = _asked_before(trees, parent)
        before = 1.0
        if above[i] >= 0:
            other = parent
            for _ in range(above[i]):
                other = trees.parent[other]
            before = met[other - root]
        met[i] = before * trees.share[node]
        for k in range(points.size):
            _factors(points[k], before, met[i], factor[i, k])


class Carried(NamedTuple):
    """What up to ROWS rows carry through a tree of D levels: (D, K, ROWS), (D, C, K, ROWS), and bytes (D, ROWS)."""

    product: FloatArray
    total: FloatArray
    state: ByteArray
    answer: ByteArray


@kernel
def _add_tree(
    trees: Trees,
    tree: int,
    above: IntArray,
    factor: FloatArray,
    carried: Carried,
    rows: FloatArray,
    sums: FloatArray,
    begin: int,
) -> None:
    """Walk a tree with some rows; the edges on the path to the current node have depths 1, 2, ..., `depth`."""
    end = min(begin + ROWS, rows.shape[1])
    many, root = end - begin, trees.first[tree]
    points, low, high = carried.product.shape[1], trees.head[tree, 0], trees.head[tree, 1]
    decide(trees, root, rows[trees.feature[root], begin:end], carried.answer[0, :many])
    depth = 0
    for node in range(root + 1, trees.first[tree + 1]):
        i, parent = node - root, trees.parent[node]
        depth += 1
        state = carried.state[depth, :many]
        known = carried.state[depth - 1 - above[i] if above[i] >= 0 else 0, :many]
        _set_state(carried.answer[depth - 1, :many], trees.right[parent] == node, known, state)
        if trees.left[node] >= 0:
            for k in range(points):
                upper, lower = carried.product[depth - 1, k, :many], carried.product[depth, k, :many]
                _descend(state, factor[i, k], upper, lower)
            decide(trees, node, rows[trees.feature[node], begin:end], carried.answer[depth, :many])
            continue
        for head in range(low, high):
            credit, value = sums[head, trees.feature[parent], begin:end], trees.value[node, head]
            for k in range(points):
                upper, up = carried.product[depth - 1, k, :many], carried.total[depth - 1, head, k, :many]
                _leaf(state, factor[i, k], value, upper, node == parent + 1, up, credit)
        depth -= 1
        while depth > 0 and trees.end[parent] == node + 1:
            edge, parent = parent, trees.parent[parent]
            state = carried.state[depth, :many]
            for head in range(low, high):
                credit = sums[head, trees.feature[parent], begin:end]
                for k in range(points):
                    below, up = carried.total[depth, head, k, :many], carried.total[depth - 1, head, k, :many]
                    _ascend(state, factor[edge - root, k], below, edge == parent + 1, up, credit)
            depth -= 1


@kernel
def add_path_values(trees: Trees, quadrature: FloatArray, longest: int, rows: FloatArray, sums: FloatArray) -> None:
    """Add the values of n rows (q, n) to their sums (C, q + 1, n); `quadrature` (2, K) has nodes and weights."""
    points, heads = quadrature.shape[1], trees.value.shape[1]
    most = 0
    for tree in range(trees.first.size - 1):
        most = max(most, trees.first[tree + 1] - trees.first[tree])
    above, met, factor = np.empty(most, np.int64), np.empty(most), np.empty((most, points, 6))
    product = np.empty((longest + 1, points, ROWS))
    total = np.empty((longest + 1, heads, points, ROWS))
    state = np.full((longest + 1, ROWS), 2, np.uint8)
    carried = Carried(product, total, state, np.empty((longest + 1, ROWS), np.uint8))
    for k in range(points):
        for r in range(ROWS):
            product[0, k, r] = quadrature[1, k]
    for tree in range(trees.first.size - 1):
        if trees.left[trees.first[tree]] < 0:
            continue
        _prepare(trees, tree, quadrature[0], above, met, factor)
        for begin in range(0, rows.shape[1], ROWS):
            _add_tree(trees, tree, above, factor, carried, rows, sums, begin)


@kernel
def expected_values(trees: Trees) -> FloatArray:
    """What the leaves give where no feature is known, (C,): their values by their share of the cover."""
    share = np.ones(trees.left.size)
    expected = np.zeros(trees.value.shape[1])
    for node in range(trees.left.size):
        if trees.parent[node] >= 0:
            share[node] = share[trees.parent[node]] * trees.share[node]
        if trees.left[node] < 0:
            for head in range(expected.size):
                expected[head] += share[node] * trees.value[node, head]
    return expected
