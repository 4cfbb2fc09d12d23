"""Trees as arrays: what a node decides, and the order of the nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whydrift.pipelines.explainers.forest import Forest, at_most, pack


def forest(left, right, **more):
    """One tree that asks column 0 everywhere; node i has the value i."""
    size = len(left)
    left = np.array(left)
    given = {
        "roots": np.array([0]),
        "feature": np.where(left < 0, -1, 0),
        "threshold": np.zeros(size),
        "missing_left": np.zeros(size, bool),
        "category": np.full(size, -1),
        "left": left,
        "right": np.array(right),
        "cover": np.ones(size),
        "value": np.arange(size, dtype=float)[:, None],
        "base": np.zeros(1),
        "offsets": np.zeros(1, np.int64),
        "words": np.zeros(0, np.uint64),
    }
    return Forest(**{**given, **more})


def test_numbers_and_missing_values():
    rows = np.array([[-1.0], [0.0], [1.0], [np.nan], [np.inf], [-np.inf]])
    assert forest([1, -1, -1], [2, -1, -1]).predict(rows).tolist() == [1, 2, 2, 2, 2, 1]
    missing_left = np.array([True, False, False])
    assert forest([1, -1, -1], [2, -1, -1], missing_left=missing_left).predict(rows)[3] == 1
    at = forest([1, -1, -1], [2, -1, -1], threshold=at_most(np.zeros(3)))
    assert at.predict(rows).tolist() == [1, 1, 2, 2, 2, 1]


def test_sets_of_categories():
    offsets, words = pack([np.array([3]), np.array([0, 63, 64, 130])])
    assert offsets.tolist() == [0, 1, 4]
    tree = forest([1, -1, -1], [2, -1, -1], category=np.array([1, -1, -1]), offsets=offsets, words=words)
    codes = [0, 1, 3, 63, 64, 65, 130, 131, 192, 1e9, -1, np.inf, np.nan]
    found = tree.predict(np.array(codes)[:, None]) == 1
    assert [code for code, left in zip(codes, found, strict=True) if left] == [0, 63, 64, 130]


def test_outputs_and_base():
    two = forest([1, -1, -1], [2, -1, -1], value=np.array([[9.0, 9], [1, 2], [3, 4]]), base=np.array([10.0, 20]))
    assert two.predict(np.array([[-1.0], [1.0]])).tolist() == [[11, 22], [13, 24]]


@st.composite
def shuffled_trees(draw):
    """Two trees whose nodes stand in any order, with one more node that nothing leads to."""
    left, right, roots = [-1], [-1], []
    for _ in range(2):
        roots.append(len(left))
        left.append(-1)
        right.append(-1)
        for _ in range(draw(st.integers(0, 8))):
            leaves = [i for i in range(roots[-1], len(left)) if left[i] < 0]
            leaf = draw(st.sampled_from(leaves))
            left[leaf], right[leaf] = len(left), len(left) + 1
            left += [-1, -1]
            right += [-1, -1]
    order = np.array(draw(st.permutations(range(len(left)))))
    place = np.argsort(order)
    turned = [np.where(np.array(side) < 0, -1, place[np.array(side)])[order] for side in (left, right)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return forest(*turned, roots=place[roots], threshold=rng.normal(size=len(left)))


@given(shuffled_trees())
def test_arranged_trees_are_the_same_trees_in_depth_first_order(trees):
    arranged = trees.arranged()
    rows = np.random.default_rng(0).normal(size=(50, 1))
    assert np.array_equal(arranged.predict(rows), trees.predict(rows))
    assert arranged.feature.size == trees.feature.size - 1
    inner = np.flatnonzero(arranged.left >= 0)
    assert np.array_equal(arranged.left[inner], inner + 1)
    ends = {}
    for node in reversed(range(arranged.feature.size)):
        ends[node] = node + 1 if arranged.left[node] < 0 else ends[int(arranged.right[node])]
        assert arranged.left[node] < 0 or ends[int(arranged.left[node])] == arranged.right[node]
    assert [ends[int(root)] for root in arranged.roots] == [*arranged.roots[1:].tolist(), arranged.feature.size]


@pytest.mark.parametrize("depth", [20_000])
def test_a_tree_may_be_of_any_depth(depth):
    """A chain, built from its end: node i asks whether x < i."""
    size = 2 * depth + 1
    left, right = np.full(size, -1), np.full(size, -1)
    inner = np.arange(depth)
    left[inner], right[inner] = depth + 1 + inner, np.append(inner[1:], depth)
    chain = forest(left, right, threshold=np.arange(size, dtype=float))
    rows = np.array([[-1.0], [0.5], [depth - 1.5], [depth + 5.0]])
    assert chain.predict(rows).tolist() == chain.arranged().predict(rows).tolist()
    assert chain.predict(rows).tolist() == [depth + 1, depth + 2, 2 * depth, depth]
