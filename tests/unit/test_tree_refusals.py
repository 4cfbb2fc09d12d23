"""Tree models that are not explained exactly, or not by all who could, and what is said of it; custom objectives."""

from __future__ import annotations

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression

from tree_models import NUMBERS, ROWS, TARGETS, categorical
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import UnsuitedError
from whydrift.pipelines.explainers.trees import read_trees

FULL = NUMBERS.fillna(0)
STRINGS = ROWS.assign(k=ROWS["k"].fillna("nan"))
VALUE, LABEL = TARGETS["regression"], TARGETS["binary"]
COUNT = np.exp(VALUE)
QUIET = {"iterations": 10, "verbose": 0, "allow_writing_files": False}


def take(model, rows, task="regression", method="tree", usual=10_000):
    return choose(model, method=method, task=task, background=rows[:50], features=list(rows.columns), rows=usual)


@pytest.mark.parametrize(
    ("model", "rows", "task", "message"),
    [
        (lambda: xgboost.XGBRegressor(n_estimators=3, objective="count:poisson").fit(FULL, COUNT), FULL, "regression",
         "objective count:poisson for a regression task"),
        (lambda: xgboost.XGBRegressor(n_estimators=3, booster="gblinear").fit(FULL, VALUE), FULL, "regression",
         "gblinear"),
        (lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, objective="tweedie").fit(FULL, COUNT), FULL,
         "regression", "LightGBM objective tweedie"),
        (lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, reg_sqrt=True).fit(FULL, COUNT), FULL,
         "regression", "regression sqrt"),
        (lambda: catboost.CatBoostRegressor(**QUIET, loss_function="Poisson").fit(FULL, COUNT), FULL, "regression",
         "CatBoost loss Poisson"),
        (lambda: catboost.CatBoostRegressor(**QUIET, cat_features=["k"], one_hot_max_size=2).fit(STRINGS, VALUE),
         ROWS, "regression", "splits of type OnlineCtr"),
        (lambda: GradientBoostingRegressor(n_estimators=3, init=LinearRegression()).fit(FULL, VALUE), FULL,
         "regression", "starts from a LinearRegression"),
        (lambda: GradientBoostingClassifier(n_estimators=3, loss="exponential").fit(FULL, LABEL), FULL, "binary",
         "loss exponential has a link of its own"),
        (lambda: HistGradientBoostingRegressor(max_iter=3, loss="poisson").fit(FULL, COUNT), FULL, "regression",
         "loss poisson has a link of its own"),
        (lambda: IsolationForest(n_estimators=3).fit(FULL), FULL, "regression", "no tree model that is known here"),
    ],
)  # fmt: skip
def test_refused_with_the_reason_and_what_is_supported(model, rows, task, message):
    with pytest.raises(ModelError, match=message) as caught:
        take(model(), rows, task)
    for supported in ("XGBoost, LightGBM and CatBoost", "HistGradientBoosting", "To add a family of trees"):
        assert supported in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, "one quantile_alpha a model"),
        ({"multi_strategy": "multi_output_tree"}, "several numbers a leaf"),
    ],
)
def test_xgboost_of_several_outputs(parameters, message):
    target = np.column_stack([VALUE, VALUE**2]) if "multi_strategy" in parameters else VALUE
    trees = read_trees(xgboost.XGBRegressor(n_estimators=3, **parameters).fit(FULL, target), "regression")
    with pytest.raises(UnsuitedError, match="2 outputs"):
        trees.link()
    if "multi_strategy" in parameters:
        with pytest.raises(UnsuitedError, match=message):
            trees.forest()


def test_a_forest_of_several_targets():
    model = RandomForestRegressor(3, max_depth=3).fit(FULL, np.column_stack([VALUE, VALUE]))
    with pytest.raises(UnsuitedError, match="has 2 outputs"):
        read_trees(model, "regression").link()


def test_what_no_array_of_numbers_can_say_is_left_to_the_library():
    model = catboost.CatBoostRegressor(**QUIET, cat_features=["k"], one_hot_max_size=2).fit(STRINGS, VALUE)
    assert take(model, ROWS, method="auto", usual=10**6).name == "catboost:ShapValues"


def test_a_start_that_is_a_number_is_none_of_its_own():
    for init in (None, "zero"):
        model = GradientBoostingRegressor(n_estimators=5, init=init).fit(FULL, VALUE)
        found = take(model, FULL).explain(FULL[:20])
        np.testing.assert_allclose(found.residual(), 0, atol=1e-12)


def asymmetric(label, prediction):
    """Twice the loss where the prediction is too low."""
    weight = np.where(label > prediction, 2.0, 1.0)
    return weight * (prediction - label), weight


@pytest.mark.parametrize(
    "model",
    [
        lambda: xgboost.XGBRegressor(n_estimators=10, objective=asymmetric, enable_categorical=True),
        lambda: lightgbm.LGBMRegressor(n_estimators=10, objective=asymmetric, verbose=-1),
    ],
)
@pytest.mark.parametrize("method", ["native", "tree"])
def test_custom_objectives_are_explained_in_margins(model, method):
    fitted = model().fit(categorical(ROWS), VALUE)
    explainer = take(fitted, ROWS, method=method)
    found = explainer.explain(ROWS[:40])
    assert explainer.link == "identity"
    np.testing.assert_allclose(found.output, fitted.predict(categorical(ROWS)[:40]), rtol=1e-5)
    assert np.abs(found.residual()).max() < 1e-5


class Picky:
    """Raises what LightGBM raises, which is neither a TypeError nor a ValueError."""

    def predict(self, frame):
        if frame[NUMBERS.columns[0]].max() > 1e6:
            raise lightgbm.basic.LightGBMError("too large")
        return frame[NUMBERS.columns[0]].to_numpy(float)


@pytest.mark.parametrize("method", ["permutation", "kernel", "lime"])
def test_rows_that_a_library_refuses_in_its_own_way_are_refused_in_ours(method):
    made = take(Picky(), FULL, method=method)
    rows = FULL.head(2).copy()
    rows.iloc[1, 0] = 1e7
    with pytest.raises(ModelError, match=r"row 1 of the batch.*Picky cannot predict: too large"):
        made.explain(rows)
