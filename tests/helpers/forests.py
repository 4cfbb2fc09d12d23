"""Forests for tests: random ones with everything that a tree may hold, readers of two libraries, and Shapley's sum."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import chain, combinations
from math import factorial
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.forest import Forest

_FIELDS = ("feature", "threshold", "missing_left", "category", "left", "right", "cover", "value")


def join(trees: Iterable[dict[str, np.ndarray]], base: np.ndarray, sets: list[np.ndarray] | None = None) -> Forest:
    """One forest of trees whose children count from their own root."""
    trees, sets = list(trees), sets or []
    sizes = [tree["feature"].size for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    for tree, root in zip(trees, roots, strict=True):
        for side in ("left", "right"):
            tree[side] = np.where(tree[side] >= 0, tree[side] + root, -1)
    columns = {name: np.concatenate([tree[name] for tree in trees]) for name in _FIELDS}
    offsets = np.cumsum([0, *(len(words) for words in sets)])
    words = np.concatenate([np.zeros(0, np.uint64), *sets]).astype(np.uint64)
    return Forest(roots=roots, base=np.asarray(base, dtype=np.float64), offsets=offsets, words=words, **columns)


def random_forest(seed: int, *, trees: int = 3, depth: int = 5, width: int = 4, heads: int = 1) -> Forest:
    """Uneven trees that ask features again, share conditions, take sets and missing values, and have empty nodes."""
    rng = np.random.default_rng(seed)
    sets = [rng.integers(0, 2**63, size=rng.integers(1, 3)).astype(np.uint64) for _ in range(3)]

    def grow(level: int, cover: float, nodes: list[list[Any]]) -> int:
        here = len(nodes)
        leaf = level == depth or rng.random() < 0.2
        value = rng.normal(size=heads) * (rng.random(heads) < 0.8) if leaf else np.zeros(heads)
        nodes.append([-1, 0.0, False, -1, -1, -1, cover, value])
        if not leaf:
            share = rng.choice([0.0, 0.3, rng.random()])
            category = int(rng.integers(3)) if rng.random() < 0.2 else -1
            asked = [int(rng.integers(width)), float(rng.choice([-1.0, 0.0, 0.5])), bool(rng.random() < 0.5), category]
            left = grow(level + 1, cover * share, nodes)
            nodes[here][:6] = [*asked, left, grow(level + 1, cover * (1 - share), nodes)]
        return here

    def tree() -> dict[str, np.ndarray]:
        nodes: list[list[Any]] = []
        grow(0, 100.0, nodes)
        return {name: np.array([node[i] for node in nodes]) for i, name in enumerate(_FIELDS)}

    return join([tree() for _ in range(trees)], rng.normal(size=heads), sets)


def random_rows(seed: int, count: int, width: int = 4) -> np.ndarray:
    """Values on both sides of the thresholds, on them, codes in and out of the sets, and missing ones."""
    choice = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 62.0, 70.0, 500.0, np.inf, -np.inf, np.nan])
    return np.random.default_rng(seed).choice(choice, size=(count, width))


def goes_left(forest: Forest, node: int, x: float) -> bool:
    if np.isnan(x):
        return bool(forest.missing_left[node])
    k = forest.category[node]
    if k < 0:
        return bool(x < forest.threshold[node])
    words = forest.words[forest.offsets[k] : forest.offsets[k + 1]]
    return 0 <= x < 64 * len(words) and bool(int(words[int(x) // 64]) >> (int(x) % 64) & 1)


def expected(forest: Forest, row: np.ndarray, known: frozenset[int], node: int | None = None) -> np.ndarray:
    """The path-dependent value of a coalition of features, (C,)."""
    if node is None:
        return forest.base + sum(expected(forest, row, known, root) for root in forest.roots)
    if forest.left[node] < 0:
        return forest.value[node]
    sides = forest.left[node], forest.right[node]
    feature = forest.feature[node]
    if feature in known:
        return expected(forest, row, known, sides[0 if goes_left(forest, node, row[feature]) else 1])
    cover = forest.cover[node]
    shares = [forest.cover[side] / cover if cover > 0 else 0.5 for side in sides]
    return sum(share * expected(forest, row, known, side) for share, side in zip(shares, sides, strict=True))


def predict(forest: Forest, row: np.ndarray) -> np.ndarray:
    return expected(forest, row, frozenset(range(row.size)))


def shapley(value: Callable[[frozenset[int]], np.ndarray], width: int) -> np.ndarray:
    """By definition, (C, width)."""
    subsets = chain.from_iterable(combinations(range(width), size) for size in range(width + 1))
    worth = {frozenset(subset): value(frozenset(subset)) for subset in subsets}
    phi = np.zeros((*np.shape(worth[frozenset()]), width))
    for known, without in worth.items():
        for j in set(range(width)) - known:
            weight = factorial(len(known)) * factorial(width - len(known) - 1) / factorial(width)
            phi[..., j] += weight * (worth[known | {j}] - without)
    return phi


def long_path(width: int) -> dict[str, np.ndarray]:
    """1 where all features are under 0.8, else 0."""
    inner = np.arange(width)
    last = np.full(width + 1, -1)
    return {
        "feature": np.append(inner, last),
        "threshold": np.full(2 * width + 1, 0.8),
        "missing_left": np.zeros(2 * width + 1, bool),
        "category": np.full(2 * width + 1, -1),
        "left": np.append(inner + 1, last),
        "right": np.append(2 * width - inner, last),
        "cover": np.ones(2 * width + 1),
        "value": (np.arange(2 * width + 1) == width)[:, None] * 1.0,
    }


def single_leaf_values(met: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of a leaf of value 1 for rows that meet its conditions or not (n, d), against background rows (m, d)."""
    exact = np.zeros(met.shape)
    for i, row in enumerate(met):
        for against in other[np.all(other | row, axis=1)]:
            mine, theirs = row & ~against, against & ~row
            x, y = int(mine.sum()), int(theirs.sum())
            if x:
                exact[i] += mine * factorial(x - 1) * factorial(y) / factorial(x + y) / len(other)
            if y:
                exact[i] -= theirs * factorial(x) * factorial(y - 1) / factorial(x + y) / len(other)
    return exact


def interactions(value: Callable[[frozenset[int]], np.ndarray], width: int) -> np.ndarray:
    """SHAP's interaction values by definition, (C, width, width)."""
    phi = shapley(value, width)
    found = np.zeros((*phi.shape, width))
    for i, j in combinations(range(width), 2):
        others = [k for k in range(width) if k not in {i, j}]
        for size in range(width - 1):
            weight = factorial(size) * factorial(width - size - 2) / (2 * factorial(width - 1))
            for subset in map(frozenset, combinations(others, size)):
                joint = value(subset | {i, j}) - value(subset | {i}) - value(subset | {j}) + value(subset)
                found[..., i, j] += weight * joint
                found[..., j, i] += weight * joint
    for i in range(width):
        found[..., i, i] = phi[..., i] - found[..., i, :].sum(axis=-1)
    return found


def read_sklearn(estimators: Iterable[Any], scale: float, base: np.ndarray) -> Forest:
    """Trees of scikit-learn, which asks x <= threshold."""
    trees = []
    for estimator in estimators:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        trees.append({
            "feature": np.where(leaf, -1, tree.feature),
            "threshold": np.nextafter(tree.threshold, np.inf),
            "missing_left": tree.missing_go_to_left.astype(bool),
            "category": np.full(leaf.size, -1),
            "left": tree.children_left,
            "right": tree.children_right,
            "cover": tree.weighted_n_node_samples,
            "value": tree.value.reshape(leaf.size, -1) * scale * leaf[:, None],
        })  # fmt: skip
    return join(trees, base)


def read_xgboost(booster: Any, heads: int = 1) -> Forest:
    """Numeric trees of XGBoost, without the base score."""
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]
    trees = []
    for tree, head in zip(model["trees"], model["tree_info"], strict=True):
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        order, stack = [], [0]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += [right[node], left[node]] if left[node] >= 0 else []
        place = np.argsort(order)
        leaf = left[order] < 0
        split = np.array(tree["split_conditions"], dtype=np.float32)[order].astype(np.float64)
        value = np.zeros((leaf.size, heads))
        value[leaf, head] = split[leaf]
        trees.append({
            "feature": np.where(leaf, -1, np.array(tree["split_indices"])[order]),
            "threshold": split,
            "missing_left": np.array(tree["default_left"])[order].astype(bool),
            "category": np.full(leaf.size, -1),
            "left": np.where(leaf, -1, place[left[order]]),
            "right": np.where(leaf, -1, place[right[order]]),
            "cover": np.array(tree["sum_hessian"])[order],
            "value": value,
        })  # fmt: skip
    return join(trees, np.zeros(heads))
