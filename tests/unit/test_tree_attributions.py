"""Shapley values from the trees' arrays, by way of `choose`: against the libraries' own, shap, and all coalitions."""

from __future__ import annotations

import warnings

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from tree_models import (
    CLASSES,
    NUMBERS,
    ROWS,
    TARGETS,
    TASKS,
    WEIGHT,
    categorical,
    interventional,
    path_dependent,
)
from whydrift.pipelines.explainers.case import Case
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.tree_families import shap as ask_shap
from whydrift.pipelines.explainers.trees import read_trees

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

STRINGS = ROWS.assign(k=ROWS["k"].fillna("nan"))
FULL = NUMBERS.fillna(0)
BY_TASK = {
    "xgboost": (xgboost.XGBRegressor, xgboost.XGBClassifier, {"n_estimators": 15, "enable_categorical": True}),
    "lightgbm": (lightgbm.LGBMRegressor, lightgbm.LGBMClassifier, {"n_estimators": 15, "verbose": -1}),
    "catboost": (
        catboost.CatBoostRegressor,
        catboost.CatBoostClassifier,
        {"iterations": 15, "verbose": 0, "allow_writing_files": False},
    ),
    "histogram": (HistGradientBoostingRegressor, HistGradientBoostingClassifier, {"max_iter": 15}),
    "boosting": (GradientBoostingRegressor, GradientBoostingClassifier, {"n_estimators": 8}),
    "forest": (RandomForestRegressor, RandomForestClassifier, {"n_estimators": 8, "max_depth": 7, "n_jobs": 2}),
    "extra": (ExtraTreesRegressor, ExtraTreesClassifier, {"n_estimators": 8, "max_depth": 7}),
}


def fit(name, task, rows, **more):
    regressor, classifier, parameters = BY_TASK[name]
    model = (regressor if task == "regression" else classifier)(**{**parameters, **more})
    return model.fit(rows, TARGETS[task], sample_weight=WEIGHT)


def explain(model, task, rows, count=60, background=40, **more):
    """Of the last rows, with features that are not in the order of training."""
    features = list(rows.columns)[::-1]
    explainer = choose(
        model, **{"method": "tree", **more}, task=task, background=rows[:background], features=features,
        classes=CLASSES if task == "multiclass" else (),
    )  # fmt: skip
    found = explainer.explain(rows[-count:])
    return explainer, found, np.ascontiguousarray(found.values[..., ::-1])


def close(found, expected):
    """To 1e-4 of the largest."""
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.01
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def by_class(values, task):
    """shap's (n, p, C) as ours, (n, C, p), or (n, p) of the class 1."""
    if values.ndim == 2:
        return values
    return values[:, :, 1] if task == "binary" else values.transpose(0, 2, 1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_path_dependent_is_what_the_library_gives(name, task):
    """With missing values, strings, and weights; CatBoost with one-hot categories."""
    more = {"cat_features": ["k"], "one_hot_max_size": 20} if name == "catboost" else {}
    model = fit(name, task, STRINGS if name == "catboost" else categorical(ROWS), **more)
    explainer, found, values = explain(model, task, ROWS)
    _, own, own_values = explain(model, task, ROWS, method="native")
    assert explainer.name == "trees:path_dependent"
    close(values, own_values)
    np.testing.assert_allclose(found.base, own.base, rtol=1e-5, atol=1e-6)
    assert np.array_equal(found.output, own.output)
    assert np.abs(found.residual()).max() < 1e-5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["histogram", "boosting", "forest", "extra"])
def test_path_dependent_is_what_shap_gives(name, task):
    rows = FULL if name == "boosting" else NUMBERS
    model = fit(name, task, rows)
    _, found, values = explain(model, task, rows)
    assert np.abs(found.residual()).max() < 1e-9
    if (name, task) == ("boosting", "multiclass"):  # which shap does not take
        trees = read_trees(model, task)
        expected = path_dependent(trees.forest(), trees.matrix(rows[-60:].to_numpy()))
    else:
        oracle = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
        expected = oracle.shap_values(rows[-60:].to_numpy(), check_additivity=False)
    close(values, by_class(expected, task))


@pytest.mark.parametrize("task", TASKS)
def test_histogram_boosting_with_categories_by_definition(task):
    model = fit("histogram", task, categorical(ROWS), max_leaf_nodes=12)
    explainer, found, values = explain(model, task, ROWS, count=12)
    trees = read_trees(model, task)
    expected = path_dependent(trees.forest(), trees.matrix(ROWS[-12:]))
    close(values, expected.transpose(0, 2, 1) if task == "multiclass" else expected[:, :, 0])
    assert explainer.name == "trees:path_dependent"
    assert np.abs(found.residual()).max() < 1e-9


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier with TreeExplainer")
@pytest.mark.parametrize("task", ["binary", "regression"])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "forest"])
def test_interventional_is_what_shap_gives(name, task):
    model = fit(name, task, NUMBERS)
    explainer, found, values = explain(model, task, NUMBERS, perturbation="interventional")
    oracle = shap.TreeExplainer(model, NUMBERS[:40].to_numpy(), feature_perturbation="interventional")
    close(values, by_class(oracle.shap_values(NUMBERS[-60:].to_numpy(), check_additivity=False), task))
    assert explainer.name == "trees:interventional"
    assert np.abs(found.residual()).max() < 1e-5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost", "histogram"])
def test_interventional_with_categories_by_definition(name, task):
    more = {"cat_features": ["k"], "one_hot_max_size": 20} if name == "catboost" else {}
    model = fit(name, task, STRINGS if name == "catboost" else categorical(ROWS), **more)
    _, found, values = explain(model, task, ROWS, count=8, perturbation="interventional")
    trees = read_trees(model, task)
    expected = interventional(trees.forest(), trees.matrix(ROWS[-8:]), trees.matrix(ROWS[:40]))
    close(values, expected.transpose(0, 2, 1) if task == "multiclass" else expected[:, :, 0])
    assert np.abs(found.residual()).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("xgboost", {"objective": "reg:quantileerror", "quantile_alpha": 0.9}),
        ("lightgbm", {"objective": "quantile", "alpha": 0.9}),
        ("catboost", {"loss_function": "Quantile:alpha=0.9"}),
        ("histogram", {"loss": "quantile", "quantile": 0.9}),
        ("boosting", {"loss": "quantile", "alpha": 0.9}),
    ],
)
def test_quantiles(name, parameters):
    rows = FULL if name == "boosting" else NUMBERS
    model = fit(name, "regression", rows, **parameters)
    for perturbation in ("path_dependent", "interventional"):
        explainer, found, _ = explain(model, "regression", rows, perturbation=perturbation)
        assert (explainer.name, explainer.link) == (f"trees:{perturbation}", "identity")
        assert np.abs(found.residual()).max() < 1e-5
    assert (found.output > TARGETS["regression"][-60:]).mean() > 0.7


@pytest.mark.parametrize("perturbation", ["path_dependent", "interventional"])
@pytest.mark.parametrize("name", ["lightgbm", "histogram", "forest"])
def test_a_row_does_not_depend_on_its_batch(name, perturbation):
    model = fit(name, "multiclass", NUMBERS)
    explainer, whole, _ = explain(model, "multiclass", NUMBERS, count=500, perturbation=perturbation)
    order = np.random.default_rng(0).permutation(500)
    rows = NUMBERS[-500:]
    for part in (order[:1], order[1:8], order[8:200], order[200:]):
        found = explainer.explain(rows.iloc[part])
        assert np.array_equal(found.values, whole.values[part])
        assert np.array_equal(found.output, whole.output[part])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("perturbation", ["path_dependent", "interventional"])
def test_shap_where_the_kernels_cannot_run(task, perturbation):
    model = fit("forest", task, NUMBERS)
    _, ours, _ = explain(model, task, NUMBERS, perturbation=perturbation)
    columns = Columns.of(NUMBERS, list(NUMBERS.columns)[::-1])
    case = Case(model, task, columns, NUMBERS[:40], perturbation, 1000)
    candidate = ask_shap(case)
    found = candidate.make().explain(case.encoding.encode(columns.frame(NUMBERS[-60:])))
    assert (candidate.name, candidate.uses_background) == ("shap:tree", perturbation == "interventional")
    close(case.encoding.decode(found, 4).values, ours.values)
    np.testing.assert_allclose(found.base, ours.base)
