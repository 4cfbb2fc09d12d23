"""Attributions of every class, against shap, and in the space where they add up to the model's outputs."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.special import softmax
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import answers

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

FEATURES = ["wind", "day", "temp"]
CLASSES = ("calm", "busy", "storm")


def make_rows(count=500, seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(count, 3)), columns=["day", "temp", "wind"])
    weight = np.exp(np.column_stack([np.zeros(count), rows["day"] * rows["temp"], 1.5 * rows["wind"]]))
    chance = (weight / weight.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return rows[FEATURES], (rng.random(count)[:, None] > chance).sum(axis=1)


ROWS, LABEL = make_rows()
BACKGROUND, FEW = ROWS.head(60), ROWS.tail(40).reset_index(drop=True)


def explainer(model, method="auto", *, classes=CLASSES):
    return choose(model, method=method, task="multiclass", background=BACKGROUND, features=FEATURES, classes=classes)


MODELS = {
    "xgboost": (xgboost.XGBClassifier(n_estimators=25, max_depth=4), "xgboost:pred_contribs", "softmax"),
    "linear": (LogisticRegression(), "linear", "softmax"),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), "linear", "softmax"),
    "histogram": (HistGradientBoostingClassifier(max_iter=15), "trees:path_dependent", "softmax"),
    "forest": (RandomForestClassifier(20, random_state=0), "trees:path_dependent", "identity"),
    "extra": (ExtraTreesClassifier(20, random_state=0), "trees:path_dependent", "identity"),
    "boosting": (GradientBoostingClassifier(n_estimators=5), "trees:path_dependent", "softmax"),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    model, name, link = MODELS[request.param]
    fitted = model.fit(ROWS, LABEL)
    made = explainer(fitted)
    return SimpleNamespace(model=fitted, name=name, link=link, explainer=made, explanation=made.explain(FEW))


def test_every_class_adds_up_to_its_output(case):
    found = case.explanation
    assert (case.explainer.name, case.explainer.link) == (case.name, case.link)
    assert found.values.shape == (40, 3, 3)
    assert len(found.base) == 3
    assert np.abs(found.residual()).max() < 1e-5
    predicted = case.model.predict_proba(FEW)
    np.testing.assert_allclose(answers(found.output, case.link), predicted, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch(case):
    again = case.explainer.explain(FEW.iloc[5:6])
    np.testing.assert_array_equal(again.values[0], case.explanation.values[5])
    np.testing.assert_array_equal(again.output[0], case.explanation.output[5])
    empty = case.explainer.explain(FEW.head(0))
    assert (empty.values.shape, empty.output.shape) == ((0, 3, 3), (0, 3))


def close(found, expected):
    """To 1e-4 of the largest; shap's are (n, p, C)."""
    expected = np.asarray(expected).transpose(0, 2, 1)
    assert np.abs(found.values - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["xgboost", "histogram", "forest", "extra"])
def test_trees_agree_with_shap(name):
    model = MODELS[name][0].fit(ROWS, LABEL)
    trees = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    close(explainer(model).explain(FEW), trees.shap_values(FEW, check_additivity=False))


def test_linear_agrees_with_shap():
    model = LogisticRegression().fit(ROWS, LABEL)
    masker = shap.maskers.Independent(BACKGROUND, max_samples=len(BACKGROUND))
    close(explainer(model).explain(FEW), shap.LinearExplainer(model, masker).shap_values(FEW))


def test_a_softmax_of_three_exact_shapley_values():
    """Sampling against all orders of the features, for one row and the whole background."""
    model = LogisticRegression().fit(ROWS, LABEL)
    sampled = explainer(model, "permutation")
    found = sampled.explain(FEW.head(3))
    exact = shap.ExactExplainer(
        lambda x: np.log(model.predict_proba(pd.DataFrame(x, columns=FEATURES))),
        shap.maskers.Independent(BACKGROUND, max_samples=len(BACKGROUND)),
    )(FEW.head(3).to_numpy())
    off = np.abs(found.values - exact.values.transpose(0, 2, 1))
    assert off.max() < 0.03 * np.abs(exact.values).max()
    assert found.error.shape == found.values.shape


def test_behind_an_encoder_the_columns_of_a_feature_are_summed():
    rows = ROWS.assign(day=np.where(ROWS["day"] > 0, "late", "early"))
    encode = ColumnTransformer([("day", OneHotEncoder(), ["day"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression()).fit(rows, LABEL)
    made = choose(model, method="linear", task="multiclass", background=rows, features=FEATURES, classes=CLASSES)
    found = made.explain(rows.head(20))
    np.testing.assert_allclose(softmax(found.output, axis=1), model.predict_proba(rows.head(20)), atol=1e-12)
    constant = found.values[:, :, FEATURES.index("day")]
    late = (rows["day"].head(20) == "late").to_numpy()
    assert np.ptp(constant[late], axis=0).max() < 1e-12
    assert np.abs(constant[late][0] - constant[~late][0]).max() > 0.01


def test_what_does_not_fit_is_refused():
    numbers = xgboost.XGBClassifier(n_estimators=3, objective="multi:softmax").fit(ROWS, LABEL)
    with pytest.raises(ModelError, match="multi:softprob"):
        explainer(numbers)
    with pytest.raises(ModelError, match="4 probabilities"):
        explainer(LogisticRegression().fit(ROWS, LABEL), classes=("a", "b", "c", "d"))
    named = LogisticRegression().fit(ROWS, np.array(CLASSES)[LABEL])
    with pytest.raises(ModelError, match="in the order of the model's outputs"):
        explainer(named)
    assert explainer(named, classes=tuple(sorted(CLASSES))).name == "linear"
    with pytest.raises(ModelError, match="probabilities"):
        explainer(RidgeClassifier().fit(ROWS, LABEL))
    with pytest.raises(ModelError, match="no native explainer"):
        explainer(named, "native", classes=tuple(sorted(CLASSES)))
