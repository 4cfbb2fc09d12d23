"""Leaves without tables against leaves with tables, Shapley's sum, and shap."""

from __future__ import annotations

import warnings
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from forests import join, long_path, predict, random_forest, random_rows, shapley, single_leaf_values
from whydrift.pipelines.explainers import shapley_trees
from whydrift.pipelines.explainers.forest import Forest
from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees
from whydrift.pipelines.explainers.trees import read_trees

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap


def without_tables(monkeypatch: pytest.MonkeyPatch, most: int, *given, **named) -> ShapleyTrees:
    """Leaves whose paths ask more than `most` features count as long."""
    with monkeypatch.context() as patched:
        patched.setattr(shapley_trees, "MOST_BITS", most)
        made = ShapleyTrees.interventional(*given, **named)
    assert made.long_paths is not None
    return made


@pytest.mark.parametrize("most", [0, 2])
@pytest.mark.parametrize(("seed", "heads"), [(seed, heads) for seed in range(6) for heads in (1, 3)])
def test_values_are_shapleys_sum(monkeypatch, seed: int, heads: int, most: int) -> None:
    forest, rows, background = random_forest(seed, heads=heads), random_rows(seed, 4), random_rows(seed + 100, 9)
    weight = np.random.default_rng(seed).random(9)
    trees = without_tables(monkeypatch, most, forest, background, weight)
    values, output = trees.explain(rows)

    def worth(row: np.ndarray, known: frozenset[int]) -> np.ndarray:
        mine = np.isin(np.arange(4), list(known))
        return np.average([predict(forest, np.where(mine, row, other)) for other in background], axis=0, weights=weight)

    for row, mine, out in zip(rows, values, output, strict=True):
        exact = shapley(lambda known, row=row: worth(row, known), 4)
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-12)
        np.testing.assert_allclose(out, predict(forest, row), rtol=0, atol=1e-12)
        np.testing.assert_allclose(trees.base, worth(row, frozenset()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("table_bytes", [0, 2**27])
def test_values_are_those_of_tables(monkeypatch, table_bytes: int) -> None:
    """Also against more background rows than are read at once, and for more rows."""
    forest, background, rows = (
        random_forest(1, depth=9, width=9, trees=4),
        random_rows(2, 5000, 9),
        random_rows(3, 600, 9),
    )
    weight = np.random.default_rng(0).random(5000)
    tables = ShapleyTrees.interventional(forest, background, weight)
    assert tables.long_paths is None
    trees = without_tables(monkeypatch, 3, forest, background, weight, table_bytes=table_bytes)
    assert (trees.long_paths.kept is None) == (table_bytes == 0)
    for mine, theirs in zip(trees.explain(rows), tables.explain(rows), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trees.base, tables.base, rtol=0, atol=1e-12)


def test_a_row_against_itself_is_the_base(monkeypatch) -> None:
    forest, rows = random_forest(4), random_rows(5, 20)
    for row in rows:
        trees = without_tables(monkeypatch, 0, forest, row[None])
        values, output = trees.explain(row[None])
        assert not values.any()
        np.testing.assert_allclose(output[0], trees.base, rtol=0, atol=1e-12)


@pytest.mark.parametrize("table_bytes", [0, 2**27])
@pytest.mark.parametrize("heads", [1, 2])
def test_a_rows_bits_do_not_depend_on_its_company(monkeypatch, heads: int, table_bytes: int) -> None:
    forest, rows = random_forest(7, depth=8, width=8, heads=heads), random_rows(8, 5000, 8)
    background = random_rows(9, 300, 8)
    one, three = (
        without_tables(monkeypatch, 3, forest, background, threads=threads, table_bytes=table_bytes)
        for threads in (1, 3)
    )
    assert one.base.tobytes() == three.base.tobytes()
    values, output = one.explain(rows)
    rng = np.random.default_rng(0)
    for picked in (rng.permutation(5000), rng.integers(5000, size=70), np.array([4999])):
        for trees in (one, three):
            some, outputs = trees.explain(rows[picked])
            assert some.tobytes() == values[picked].tobytes()
            assert outputs.tobytes() == output[picked].tobytes()


@pytest.mark.parametrize("width", [21, 64])
def test_all_bits_of_a_word(width: int) -> None:
    rng = np.random.default_rng(0)
    met, other = rng.random((80, width)) < 0.9, rng.random((40, width)) < 0.9
    trees = ShapleyTrees.interventional(join([long_path(width)], np.zeros(1)), np.where(other, 0.0, 1.0))
    assert trees.long_paths is not None
    values, output = trees.explain(np.where(met, 0.0, 1.0))
    np.testing.assert_allclose(values.sum(axis=2) + trees.base, output, rtol=0, atol=1e-12)
    exact = single_leaf_values(met, other)
    assert np.abs(exact[:, -1]).max() > 0
    np.testing.assert_allclose(values[:, 0], exact, rtol=0, atol=1e-12)


def test_more_features_than_a_word_has_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 64 features, too many for interventional values"):
        ShapleyTrees.interventional(join([long_path(65)], np.zeros(1)), np.zeros((3, 65)))


@pytest.fixture(scope="module")
def leafwise() -> tuple[lightgbm.Booster, Forest, np.ndarray]:
    """A target with a long tail, on which trees that grow leaf by leaf go deep."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 40))
    rows[rng.random(rows.shape) < 0.05] = np.nan
    target = np.exp(np.nan_to_num(rows) @ rng.normal(size=40) / 2)
    target /= target.std()
    model = lightgbm.LGBMRegressor(n_estimators=4, num_leaves=255, min_child_samples=1, seed=0, n_jobs=1, verbose=-1)
    model.fit(rows, target)
    return model.booster_, read_trees(model, "regression").forest(), rows


def test_lightgbm_by_shap(leafwise) -> None:
    booster, forest, rows = leafwise
    background, few = rows[:40], rows[100:130]
    trees = ShapleyTrees.interventional(forest, background)
    assert trees.long_paths is not None
    assert np.diff(trees.long_paths.leaves.bit).max() > 20
    masker = shap.maskers.Independent(background, max_samples=len(background))
    theirs = shap.TreeExplainer(booster, masker, feature_perturbation="interventional")
    exact = theirs.shap_values(few, check_additivity=False)
    np.testing.assert_allclose(trees.values(few), exact, rtol=0, atol=1e-4)


def test_lightgbm_adds_up_on_every_row(leafwise) -> None:
    booster, forest, rows = leafwise
    trees = ShapleyTrees.interventional(forest, rows[:500])
    values, output = trees.explain(rows)
    np.testing.assert_allclose(values.sum(axis=2) + trees.base, output, rtol=0, atol=1e-11)
    np.testing.assert_allclose(output[:, 0], booster.predict(rows), rtol=0, atol=1e-9)
    again = replace(trees, threads=1).values(rows[::-1])
    assert again[::-1].tobytes() == values[:, 0].tobytes()


def test_leaves_go_without_tables_where_tables_would_be_made_at_each_call() -> None:
    rng = np.random.default_rng(1)
    forest = join([long_path(width) for width in (6, 12, 16)], np.zeros(1))
    background, rows = rng.normal(size=(30, 16)) / 2, rng.normal(size=(200, 16)) / 2
    kept = ShapleyTrees.interventional(forest, background)
    made = ShapleyTrees.interventional(forest, background, table_bytes=0)
    assert kept.long_paths is None
    assert made.tables.kept is None
    assert 6 <= np.diff(made.tables.blocks.bit).max() < np.diff(made.long_paths.leaves.bit).min() <= 16
    for mine, theirs in zip(made.explain(rows), kept.explain(rows), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(made.base, kept.base, rtol=0, atol=1e-12)
