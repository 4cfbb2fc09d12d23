"""Shapley values of trees against Shapley's sum over all coalitions, shap and XGBoost."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestClassifier

from forests import (
    expected,
    interactions,
    join,
    long_path,
    predict,
    random_forest,
    random_rows,
    read_sklearn,
    read_xgboost,
    shapley,
    single_leaf_values,
)
from whydrift.pipelines.explainers import shapley_trees
from whydrift.pipelines.explainers.forest import Forest
from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype(np.float32)
X[RNG.random(X.shape) < 0.1] = np.nan
FILLED = np.nan_to_num(X).astype(np.float64)
Y = FILLED[:, 0] * FILLED[:, 1] + np.sin(FILLED[:, 2]) + FILLED[:, 3] * (FILLED[:, 4] > 0)
FORESTS = [(seed, heads) for seed in range(8) for heads in (1, 3)]


def mixed(forest: Forest, row: np.ndarray, background: np.ndarray, weight: np.ndarray):
    """The interventional value of a coalition."""

    def value(known: frozenset[int]) -> np.ndarray:
        mine = np.isin(np.arange(row.size), list(known))
        return np.average([predict(forest, np.where(mine, row, other)) for other in background], axis=0, weights=weight)

    return value


@pytest.mark.parametrize(("seed", "heads"), FORESTS)
@pytest.mark.parametrize("table_bytes", [0, 2000, 2**20])
def test_path_dependent_values_are_shapleys_sum(seed: int, heads: int, table_bytes: int) -> None:
    width = 4 + seed % 2  # the number of quadrature nodes hangs on even and odd
    forest, rows = random_forest(seed, width=width, heads=heads), random_rows(seed, 12, width)
    trees = ShapleyTrees.path_dependent(forest, table_bytes=table_bytes)
    assert (trees.tables is None) == (table_bytes < 2**20)
    values, output = trees.explain(rows)
    for row, mine, out in zip(rows, values, output, strict=True):
        np.testing.assert_allclose(
            mine, shapley(lambda known, row=row: expected(forest, row, known), width), rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(out, predict(forest, row), rtol=0, atol=1e-12)
        np.testing.assert_allclose(trees.base, expected(forest, row, frozenset()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("seed", "heads"), FORESTS)
@pytest.mark.parametrize("table_bytes", [0, 2**20])
def test_interventional_values_are_shapleys_sum(seed: int, heads: int, table_bytes: int) -> None:
    forest, rows = random_forest(seed, heads=heads), random_rows(seed, 4)
    background, weight = random_rows(seed + 100, 9), np.random.default_rng(seed).random(9)
    trees = ShapleyTrees.interventional(forest, background, weight, table_bytes=table_bytes)
    values, output = trees.explain(rows)
    for row, mine, out in zip(rows, values, output, strict=True):
        worth = mixed(forest, row, background, weight)
        np.testing.assert_allclose(mine, shapley(worth, 4), rtol=0, atol=1e-12)
        np.testing.assert_allclose(out, predict(forest, row), rtol=0, atol=1e-12)
        np.testing.assert_allclose(trees.base, worth(frozenset()), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("seed", "heads"), [(0, 1), (1, 1), (2, 3)])
def test_interactions_are_the_sum_over_coalitions(seed: int, heads: int) -> None:
    forest, rows = random_forest(seed, heads=heads), random_rows(seed, 5)
    found = ShapleyTrees.path_dependent(forest).interactions(rows).reshape(5, heads, 4, 4)
    for row, mine in zip(rows, found, strict=True):
        exact = interactions(lambda known, row=row: expected(forest, row, known), 4)
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 50),
    kind=st.sampled_from(["tables", "made at each call", "walked"]),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_a_rows_bits_do_not_depend_on_its_company(seed: int, kind: str, threads: int, data: st.DataObject) -> None:
    forest, rows = random_forest(seed, heads=1 + seed % 2), random_rows(seed, 5000)
    background = random_rows(seed + 1, 50)
    if kind == "walked":
        trees = ShapleyTrees.path_dependent(forest, threads, table_bytes=0)
    else:
        trees = ShapleyTrees.interventional(forest, background, None, threads, 0 if kind != "tables" else 2**20)
    picked = np.array(data.draw(st.lists(st.integers(0, 4999), min_size=1, max_size=40)))
    values, output = replace(trees, threads=1).explain(rows)
    some, outputs = trees.explain(rows[picked])
    assert some.tobytes() == values[picked].tobytes()
    assert outputs.tobytes() == output[picked].tobytes()
    again = trees.explain(rows)
    assert again[0].tobytes() == values.tobytes()


def test_threads_and_table_sizes_do_not_change_the_set_up() -> None:
    forest, background = random_forest(3, trees=20), random_rows(4, 9000)
    one, three = (ShapleyTrees.interventional(forest, background, None, threads) for threads in (1, 3))
    assert one.base.tobytes() == three.base.tobytes()
    rows = random_rows(5, 100)
    assert one.values(rows).tobytes() == three.values(rows).tobytes()


@pytest.mark.parametrize("kept", [0, 7, 15])
def test_of_a_background_what_fits_is_kept_to_the_same_bits(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(shapley_trees, "_GROUP_BYTES", 0)  # each block is a span
    forest, background, rows = random_forest(3, trees=6), random_rows(4, 9000), random_rows(5, 100)
    anew = ShapleyTrees.interventional(forest, background, None, 1, 0)
    assert anew.tables is not None
    each = [sum(part.nbytes for part in anew.tables.count(span)) for span in anew.tables.spans]
    assert len(each) == 15
    trees = ShapleyTrees.interventional(forest, background, None, 1, sum(each[:kept]))
    assert trees.tables is not None
    assert trees.made_at_each_call
    assert len(trees.tables.counted) == kept
    assert (not trees.tables.background) == (kept == 15)
    assert trees.base.tobytes() == anew.base.tobytes()
    for _ in range(2):
        assert trees.values(rows).tobytes() == anew.values(rows).tobytes()


@pytest.mark.parametrize("depth", [2, 6])
@pytest.mark.parametrize("classes", [1, 3])
def test_xgboost(depth: int, classes: int) -> None:
    objective = {"objective": "multi:softprob", "num_class": 3} if classes == 3 else {"objective": "reg:squarederror"}
    label = np.digitize(Y, [-0.5, 0.5]) if classes == 3 else Y
    booster = xgboost.train({"max_depth": depth, "nthread": 1, **objective}, xgboost.DMatrix(X, label), 20)
    data, forest = xgboost.DMatrix(X), read_xgboost(booster, classes)
    trees = ShapleyTrees.path_dependent(forest)
    native = booster.predict(data, pred_contribs=True).reshape(len(X), classes, -1)
    np.testing.assert_allclose(trees.explain(X)[0], native[..., :-1], rtol=0, atol=1e-5)
    pairs = booster.predict(xgboost.DMatrix(X[:50]), pred_interactions=True).reshape(50, classes, 7, 7)
    mine = trees.interactions(X[:50]).reshape(50, classes, 6, 6)
    np.testing.assert_allclose(mine, pairs[..., :-1, :-1], rtol=0, atol=1e-5)
    explainer = shap.TreeExplainer(booster, X[:80], feature_perturbation="interventional")
    theirs = np.asarray(explainer.shap_values(X[:100], check_additivity=False)).reshape(100, 6, classes)
    against = ShapleyTrees.interventional(forest, X[:80].astype(np.float64))
    np.testing.assert_allclose(against.explain(X[:100])[0], theirs.transpose(0, 2, 1), rtol=0, atol=1e-5)


def test_sklearn_boosting_and_interactions_by_shap() -> None:
    model = GradientBoostingRegressor(n_estimators=30, max_depth=4, random_state=0).fit(FILLED, Y)
    forest = read_sklearn(model.estimators_.ravel(), model.learning_rate, np.array([Y.mean()]))
    trees, explainer = ShapleyTrees.path_dependent(forest), shap.TreeExplainer(model)
    np.testing.assert_allclose(trees.values(FILLED), explainer.shap_values(FILLED), rtol=0, atol=1e-9)
    np.testing.assert_allclose(trees.output(FILLED)[:, 0], model.predict(FILLED), rtol=0, atol=1e-9)
    few = FILLED[:40]
    np.testing.assert_allclose(trees.interactions(few), explainer.shap_interaction_values(few), rtol=0, atol=1e-9)


def test_a_forest_of_classes_and_sample_weights() -> None:
    weight = RNG.random(len(Y))
    label = np.digitize(Y, [-0.5, 0.5])
    model = RandomForestClassifier(20, max_depth=7, random_state=0).fit(FILLED, label, sample_weight=weight)
    trees = ShapleyTrees.path_dependent(read_sklearn(model.estimators_, 1 / 20, np.zeros(3)))
    theirs = np.asarray(shap.TreeExplainer(model).shap_values(FILLED[:60])).transpose(0, 2, 1)
    np.testing.assert_allclose(trees.values(FILLED[:60]), theirs, rtol=0, atol=1e-9)


def test_trees_too_deep_for_tables_are_walked() -> None:
    wide = np.random.default_rng(1).normal(size=(3000, 30))
    target = wide @ np.random.default_rng(2).normal(size=30)
    model = ExtraTreesRegressor(2, random_state=0).fit(wide, target)
    forest = read_sklearn(model.estimators_, 0.5, np.zeros(1))
    trees = ShapleyTrees.path_dependent(forest)
    assert trees.tables is None
    theirs = shap.TreeExplainer(model).shap_values(wide[:20])
    np.testing.assert_allclose(trees.values(wide[:20]), theirs, rtol=0, atol=1e-9)


def test_tables_beyond_all_bounds_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(shapley_trees, "_MOST_BYTES", 2**30)
    deep = join([long_path(16) for _ in range(200)], np.zeros(1))
    with pytest.raises(ValueError, match="take 1 GiB of tables"):
        ShapleyTrees.interventional(deep, np.zeros((40_000, 16)))


def test_patterns_of_more_than_two_bytes() -> None:
    wide = np.random.default_rng(3).normal(size=(400, 18))
    chain = join([long_path(18)], np.zeros(1))
    explainer = ShapleyTrees.interventional(chain, wide[:7])
    walked, output = explainer.explain(wide[7:60])
    np.testing.assert_allclose(walked.sum(axis=2) + explainer.base, output, rtol=0, atol=1e-12)
    exact = single_leaf_values(wide[7:60] < 0.8, wide[:7] < 0.8)
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(walked[:, 0], exact, rtol=0, atol=1e-12)


def single_leaf() -> dict[str, np.ndarray]:
    none = np.array([-1])
    return {
        "feature": none, "threshold": np.zeros(1), "missing_left": np.zeros(1, bool), "category": none,
        "left": none, "right": none, "cover": np.ones(1), "value": np.array([[2.5]]),
    }  # fmt: skip


def test_a_leaf_alone_gives_nothing_to_any_feature() -> None:
    forest, rows = join([single_leaf(), single_leaf()], np.array([1.0])), random_rows(0, 3)
    for trees in (
        ShapleyTrees.path_dependent(forest),
        ShapleyTrees.path_dependent(forest, table_bytes=0),
        ShapleyTrees.interventional(forest, rows),
    ):
        assert trees.base.tolist() == [6.0]
        assert not trees.values(rows).any()
        assert trees.explain(rows)[1].ravel().tolist() == [6.0] * 3
        assert not trees.interactions(rows).any()


def test_no_rows() -> None:
    trees = ShapleyTrees.path_dependent(random_forest(0))
    assert trees.values(np.empty((0, 4))).shape == (0, 4)
    assert trees.output(np.empty((0, 4))).shape == (0, 1)


def test_bad_input_is_named() -> None:
    forest = random_forest(0)
    with pytest.raises(ValueError, match="columns"):
        ShapleyTrees.path_dependent(forest).values(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="0 background rows"):
        ShapleyTrees.interventional(forest, np.empty((0, 4)))
    with pytest.raises(ValueError, match="background rows, weights"):
        ShapleyTrees.interventional(forest, random_rows(0, 3), np.array([1.0, -1.0, 3.0]))
    with pytest.raises(ValueError, match="depth-first"):
        ShapleyTrees.path_dependent(replace(forest, roots=forest.roots[:1]))
    level_by_level = replace(
        forest,
        roots=np.array([0]),
        left=np.array([1, 3, 5, -1, -1, -1, -1]),
        right=np.array([2, 4, 6, -1, -1, -1, -1]),
        **{name: getattr(forest, name)[:7] for name in ("feature", "threshold", "missing_left", "category", "cover")},
    )
    with pytest.raises(ValueError, match="depth-first"):
        ShapleyTrees.path_dependent(level_by_level)
