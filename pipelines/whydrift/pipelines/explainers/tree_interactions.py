"""Path-dependent Shapley interaction values, leaf by leaf.

As defined for SHAP (Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9): of the product game of a leaf, see
tree_tables.py, each of two features i and j gets
v / 2 (a_i - b_i) (a_j - b_j) * integral over t in 0..1 of prod_{k != i, j} (t a_k + (1 - t) b_k) dt.
"""

from __future__ import annotations

import numpy as np

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import IntArray
from whydrift.pipelines.explainers.protocol import FloatArray
from whydrift.pipelines.explainers.tree_blocks import ByteArray, Trees, path_features
from whydrift.pipelines.explainers.tree_rows import decide


@kernel
def _describe_leaf(
    trees: Trees, leaf: int, decisions: ByteArray, features: IntArray, share: FloatArray, met: ByteArray
) -> int:
    """The d distinct features of a leaf's path, the share of cover that each leaves over, and who meets it (d, R)."""
    count = path_features(trees, leaf, features)
    for k in range(count):
        share[k] = 1.0
        for r in range(met.shape[1]):
            met[k, r] = 1
    node = leaf
    while trees.parent[node] >= 0:
        parent = trees.parent[node]
        k = 0
        while features[k] != trees.feature[parent]:
            k += 1
        share[k] *= trees.share[node]
        false = np.uint8(trees.right[parent] == node)
        answer = decisions[trees.condition[parent]]
        for r in range(met.shape[1]):
            met[k, r] &= answer[r] ^ false
        node = parent
    return count


@kernel
def _add_leaf(
    value: FloatArray,
    quadrature: FloatArray,
    features: IntArray,
    share: FloatArray,
    met: ByteArray,
    credit: FloatArray,
    sums: FloatArray,
) -> None:
    """Add a leaf's interactions (i, j), where feature i comes before j on its path."""
    count, size = features.size, met.shape[1]
    product = np.empty(size)
    for point in range(quadrature.shape[1]):
        t = quadrature[0, point]
        for r in range(size):
            product[r] = 0.5 * quadrature[1, point]
        for k in range(count):
            missed, has = (1.0 - t) * share[k], t + (1.0 - t) * share[k]
            if_missed, if_met = -1.0 / (1.0 - t), (1.0 - share[k]) / has
            for r in range(size):
                product[r] *= has if met[k, r] else missed
                credit[k, r] = if_met if met[k, r] else if_missed
        for i in range(count):
            for j in range(i + 1, count):
                for head in range(value.size):
                    if value[head] != 0.0:
                        pair = sums[head, features[i], features[j]]
                        for r in range(size):
                            pair[r] += value[head] * product[r] * credit[i, r] * credit[j, r]


@kernel
def add_interactions(trees: Trees, quadrature: FloatArray, most: int, rows: FloatArray, sums: FloatArray) -> None:
    """Add the interactions of R rows (q, R) to their sums (C, q, q, R), those of a pair at either of its two places.

    `quadrature` (2, K) has nodes and weights, `most` is the number of distinct features on the longest path.
    """
    size = rows.shape[1]
    features, share = np.empty(most, np.int64), np.empty(most)
    met, credit = np.empty((most, size), np.uint8), np.empty((most, size))
    for tree in range(trees.first.size - 1):
        asked = trees.asked[tree]
        decisions = np.empty((trees.asked[tree + 1] - asked, size), np.uint8)
        for i in range(decisions.shape[0]):
            node = trees.asker[asked + i]
            decide(trees, node, rows[trees.feature[node]], decisions[i])
        for node in range(trees.first[tree], trees.first[tree + 1]):
            if trees.left[node] < 0:
                count = _describe_leaf(trees, node, decisions, features, share, met)
                _add_leaf(trees.value[node], quadrature, features[:count], share, met, credit, sums)
