"""Which explainer of trees is taken, and that it is the same one for all windows of a baseline."""

from __future__ import annotations

import sys
import warnings

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from pydantic import ValidationError
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

from tree_models import NUMBERS, TARGETS
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.cost_table import SECONDS
from whydrift.pipelines.explainers.costs import seconds, sizes
from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees
from whydrift.pipelines.explainers.tree_blocks import MOST_BITS, lay_out
from whydrift.pipelines.explainers.tree_paths import longest_path
from whydrift.pipelines.explainers.trees import read_trees
from whydrift.pipelines.sections import Explainer

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

FULL = NUMBERS.fillna(0)


@pytest.fixture(scope="module")
def booster():
    return xgboost.XGBRegressor(n_estimators=200, max_depth=6).fit(NUMBERS, TARGETS["regression"])


def take(model, *, task="regression", rows=NUMBERS, background=60, usual=10_000, **more):
    given = {"method": "auto", **more}
    return choose(model, task=task, background=rows[:background], features=list(rows.columns), rows=usual, **given)


def test_sizes_of_a_tree():
    """One split, and below it on one side another: leaves at the depths 1, 2 and 2, for each of two outputs."""
    rows = np.array([[0.0], [1.0], [2.0]])
    model = RandomForestClassifier(1, bootstrap=False, random_state=0).fit(rows, [0, 1, 2])
    forest = read_trees(model, "multiclass").forest()
    assert np.count_nonzero(forest.value) == 3  # each leaf is sure of its class
    assert sizes(forest).tolist() == [1, 5 / 3, 3, 5, 9, 10]


def test_seconds_are_linear_in_rows_and_background():
    forest = np.array([1.0, 10, 100, 500, 3000, 5000])
    for name in SECONDS:
        few, more, most = (seconds(name, forest, rows, 50) for rows in (0, 100, 200))
        assert 0 <= few <= more <= most
        assert most - more == pytest.approx(more - few)
    few, many = (seconds("trees:interventional", forest, 10**6, size) for size in (1000, 50_000))
    assert many < 1.25 * few
    few, many = (seconds("shap:interventional", forest, 10**6, size) for size in (100, 1000))
    assert many > 5 * few


def test_a_few_rows_go_to_the_library_and_many_to_the_kernels(booster):
    names = [take(booster, usual=usual).name for usual in (1, 10, 10**5, 10**6)]
    assert names == ["xgboost:pred_contribs"] * 2 + ["trees:path_dependent"] * 2
    assert [take(booster, usual=usual, method="native").name for usual in (1, 10**6)] == names[:1] * 2
    assert [take(booster, usual=usual, method="tree").name for usual in (1, 10**6)] == names[-1:] * 2


def test_a_library_that_is_set_up_at_each_call_is_left_for_the_kernels_sooner():
    """It is set up twice before a window is explained, which takes CatBoost longer than loading the kernels does."""
    trees = {"depth": 6, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    many, few = (
        catboost.CatBoostRegressor(iterations=count, **trees).fit(NUMBERS, TARGETS["regression"]) for count in (500, 50)
    )
    own = np.asarray(many.get_feature_importance(catboost.Pool(NUMBERS), type="ShapValues"))
    explainer = take(many, usual=5000)
    found = explainer.explain(NUMBERS)
    assert explainer.name == "trees:path_dependent"
    assert np.abs(found.values - own[:, :-1]).max() < 1e-9 * np.abs(own).max()
    assert found.base == pytest.approx(own[0, -1])
    assert take(few, usual=5000).name == "catboost:ShapValues"


def test_the_choice_hangs_on_the_usual_rows_and_not_on_the_batch(booster):
    explainer = take(booster, usual=10**5)
    found = explainer.explain(NUMBERS)
    again = take(booster, usual=10**5)
    assert (again.name, dict(again.parameters)) == (explainer.name, dict(explainer.parameters))
    assert np.array_equal(again.explain(NUMBERS[:3]).values, found.values[:3])


def test_linear_models_come_first():
    model = LinearRegression().fit(FULL, TARGETS["regression"])
    assert take(model, rows=FULL, usual=1).name == "linear"


def test_interventional_takes_the_whole_background(booster):
    made = [take(booster, background=size, perturbation="interventional") for size in (30, 60)]
    assert {explainer.name for explainer in made} == {"trees:interventional"}
    assert made[0].parameters["background"] != made[1].parameters["background"]
    assert "background" not in take(booster).parameters
    mean = float(booster.predict(NUMBERS[:60]).astype(np.float64).mean())
    assert made[1].explain(NUMBERS[:1]).base == pytest.approx(mean, rel=1e-6)
    with pytest.raises(ModelError, match="contributions are path-dependent"):
        take(booster, method="native", perturbation="interventional")


def test_without_numba(monkeypatch, booster):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert take(booster, usual=10**6).name == "xgboost:pred_contribs"
    forest = RandomForestClassifier(5, max_depth=4).fit(NUMBERS, TARGETS["binary"])
    for model, task, perturbation in (
        (forest, "binary", "path_dependent"),
        (booster, "regression", "interventional"),
    ):
        with pytest.raises(ModelError, match="needs numba: pip install 'whydrift\\[fast\\]'"):
            take(model, task=task, perturbation=perturbation)
    assert take(forest, task="binary", method="permutation").name == "permutation"


@pytest.mark.parametrize("usual", [1000, 10**6])
def test_paths_through_many_features_are_the_kernels(usual):
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 40)), columns=[f"f{i}" for i in range(40)])
    target = wide.to_numpy() @ np.arange(40)
    model = ExtraTreesRegressor(2, max_features=1, random_state=0).fit(wide, target)
    forest = read_trees(model, "regression").forest()
    assert longest_path(lay_out(forest))[0] > MOST_BITS
    for size in (10, 300):
        made = take(model, rows=wide, background=size, perturbation="interventional", usual=usual)
        assert made.name == "trees:interventional"


def test_paths_through_too_many_features_are_left_to_shap(monkeypatch):
    """A chain: each split takes one row away."""
    wide = pd.DataFrame(np.eye(71), columns=[f"f{i}" for i in range(71)])
    model = DecisionTreeRegressor(random_state=0).fit(wide, np.arange(71.0))
    assert take(model, rows=wide, background=10, perturbation="interventional", usual=10**6).name == "shap:tree"
    assert take(model, rows=wide, usual=10**6).name == "trees:path_dependent"
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ModelError, match=r"shap is not installed.*more than 64 features"):
        take(model, rows=wide, background=10, perturbation="interventional", method="tree")


def test_linear_trees_are_left_to_sampling():
    model = lightgbm.LGBMRegressor(n_estimators=3, linear_tree=True, verbose=-1).fit(FULL, TARGETS["regression"])
    assert take(model, rows=FULL).name == "permutation"
    with pytest.raises(ModelError, match=r"linear_tree has a linear model in each leaf.*To add a family of trees"):
        take(model, rows=FULL, method="tree")


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"background_rows": 1000}, True),
        ({"background_rows": 50_000, "perturbation": "interventional"}, True),
        ({"background_rows": 50_000, "perturbation": "interventional", "method": "tree"}, True),
        ({"background_rows": 1001}, False),
        ({"background_rows": 50_001, "perturbation": "interventional"}, False),
        ({"background_rows": 1001, "perturbation": "interventional", "method": "permutation"}, False),
    ],
)
def test_large_backgrounds_are_for_interventional_trees(given, right):
    if right:
        assert Explainer(**given).background_rows == given["background_rows"]
    else:
        with pytest.raises(ValidationError, match="background_rows"):
            Explainer(**given)


class Shifted(ExtraTreesRegressor):
    """Predicts something else than its trees."""

    def predict(self, rows):
        return super().predict(rows) + 1


@pytest.fixture
def backgrounds(monkeypatch):
    """The sizes of the backgrounds that tables are made for; none are kept."""
    sizes_, make = [], ShapleyTrees.interventional

    def none_kept(forest, background):
        sizes_.append(len(background))
        return make(forest, background, table_bytes=0)

    monkeypatch.setattr(ShapleyTrees, "interventional", none_kept)
    return sizes_


def test_tables_that_are_made_at_each_call_are_tried_against_few_background_rows(backgrounds):
    model = ExtraTreesRegressor(20, max_depth=6, random_state=0).fit(FULL, TARGETS["regression"])
    asked = {"method": "tree", "rows": FULL, "background": 300, "perturbation": "interventional"}
    found = take(model, **asked).explain(FULL[:50])
    assert backgrounds == [300, 100]
    expected = shap.TreeExplainer(model, shap.maskers.Independent(FULL[:300], max_samples=300))(FULL[:50])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-7)
    assert found.base == pytest.approx(model.predict(FULL[:300]).mean())


def test_such_a_trial_still_finds_out_that_the_model_predicts_something_else(backgrounds):
    model = Shifted(5, max_depth=4, random_state=0).fit(FULL, TARGETS["regression"])
    with pytest.raises(ModelError, match="trees:interventional miss the model's output by up to 1"):
        take(model, method="tree", rows=FULL, background=300, perturbation="interventional")
    assert backgrounds[:2] == [300, 100]
