"""The contract that all explainers share, over one model of each family."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import FAMILIES, choose
from whydrift.pipelines.explainers.protocol import UnsuitedError

# The order of the attributions is not that of the training frame.
FEATURES = ["day", "carrier", "temp", "wind"]


def make_rows(count: int = 600, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "temp": rng.normal(size=count),
            "carrier": rng.choice(["AA", "B6", "UA"], count),
            "day": rng.integers(0, 7, count),
            "wind": rng.normal(size=count),
        }
    )
    value = rows["temp"] * rows["wind"] + (rows["carrier"] == "B6") + 0.2 * rows["day"]
    rows.loc[rng.random(count) < 0.1, "temp"] = np.nan
    rows.loc[rng.random(count) < 0.1, "carrier"] = None
    return rows, (value + 0.3 * rng.normal(size=count)).to_numpy()


ROWS, VALUE = make_rows()
LABEL = np.greater(VALUE, np.median(VALUE)).astype(int)


def encoder() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["temp", "wind"]),
            ("carrier", OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
        ],
        remainder="passthrough",
    )


def categorical(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(carrier=pd.Categorical(rows["carrier"]))


class PlainFunction:
    """A model that is no library's, with the probability as its prediction."""

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return 1 / (1 + np.exp(-rows["wind"] * rows["day"] - (rows["carrier"] == "AA")))


def xgb_classifier() -> Any:
    model = xgboost.XGBClassifier(n_estimators=30, max_depth=4, enable_categorical=True)
    return model.fit(categorical(ROWS), LABEL)


def xgb_regressor() -> Any:
    model = xgboost.XGBRegressor(n_estimators=30, max_depth=4, enable_categorical=True)
    return model.fit(categorical(ROWS), VALUE)


# model, task, the family that auto takes, link
MODELS = {
    "xgb classifier": (xgb_classifier, "binary", "xgboost:pred_contribs", "logit"),
    "xgb regressor": (xgb_regressor, "regression", "xgboost:pred_contribs", "identity"),
    "xgb booster": (lambda: xgb_classifier().get_booster(), "binary", "xgboost:pred_contribs", "logit"),
    "xgb pipeline": (
        lambda: make_pipeline(encoder(), xgboost.XGBClassifier(n_estimators=20)).fit(ROWS, LABEL),
        "binary",
        "xgboost:pred_contribs",
        "logit",
    ),
    "logistic pipeline": (
        lambda: make_pipeline(encoder(), LogisticRegression()).fit(ROWS, LABEL),
        "binary",
        "linear",
        "logit",
    ),
    "sgd search": (
        lambda: GridSearchCV(
            make_pipeline(encoder(), SGDClassifier(loss="log_loss")), {"sgdclassifier__alpha": [0.01]}, cv=2
        ).fit(ROWS, LABEL),
        "binary",
        "linear",
        "logit",
    ),
    "ridge pipeline": (lambda: make_pipeline(encoder(), Ridge()).fit(ROWS, VALUE), "regression", "linear", "identity"),
    "forest pipeline": (
        lambda: make_pipeline(encoder(), RandomForestClassifier(20, max_depth=5, n_jobs=2, random_state=0)).fit(
            ROWS, LABEL
        ),
        "binary",
        "trees:path_dependent",
        "identity",
    ),
    "boosting pipeline": (
        lambda: make_pipeline(encoder().set_params(sparse_threshold=0), HistGradientBoostingRegressor(max_iter=20)).fit(
            ROWS, VALUE
        ),
        "regression",
        "trees:path_dependent",
        "identity",
    ),
    "categorical boosting": (
        lambda: HistGradientBoostingClassifier(max_iter=10).fit(categorical(ROWS), LABEL),
        "binary",
        "trees:path_dependent",
        "logit",
    ),
    "pca pipeline": (
        lambda: make_pipeline(encoder().set_params(sparse_threshold=0), PCA(3), LogisticRegression()).fit(ROWS, LABEL),
        "binary",
        "permutation",
        "logit",
    ),
    "network": (
        lambda: make_pipeline(encoder(), MLPClassifier((8,), max_iter=2000, random_state=0)).fit(ROWS, LABEL),
        "binary",
        "permutation",
        "logit",
    ),
    "poisson": (
        lambda: make_pipeline(encoder(), PoissonRegressor()).fit(ROWS, np.exp(VALUE)),
        "regression",
        "permutation",
        "identity",
    ),
    "xgb poisson": (
        lambda: xgboost.XGBRegressor(n_estimators=10, objective="count:poisson", enable_categorical=True).fit(
            categorical(ROWS), np.exp(VALUE)
        ),
        "regression",
        "permutation",
        "identity",
    ),
    "plain function": (PlainFunction, "binary", "permutation", "logit"),
}


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    build, task, name, link = MODELS[request.param]
    model = build()
    explainer = choose(model, method="auto", task=task, background=ROWS[:12], features=FEATURES)
    return SimpleNamespace(model=model, task=task, name=name, link=link, explainer=explainer, rows=make_rows(24, 1)[0])


def predictions(case: SimpleNamespace) -> np.ndarray:
    """The model's own, by its own interface."""
    model, rows = case.model, case.rows
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(categorical(rows), enable_categorical=True))
    if type(model).__module__.startswith("xgboost") or isinstance(model, HistGradientBoostingClassifier):
        rows = categorical(rows)
    return model.predict_proba(rows)[:, 1] if hasattr(model, "predict_proba") else np.asarray(model.predict(rows))


def test_auto_takes_the_best_family(case):
    assert (case.explainer.name, case.explainer.link) == (case.name, case.link)
    assert all(isinstance(value, str) for value in case.explainer.parameters.values())
    assert case.explainer.parameters


def test_attributions_add_up_to_the_prediction(case):
    explanation = case.explainer.explain(case.rows)
    assert explanation.values.shape == (24, 4)
    assert explanation.values.dtype == explanation.output.dtype == np.float64
    # XGBoost is computed in float32.
    scale = np.abs(explanation.values).sum(axis=1) + abs(explanation.base)
    assert np.all(np.abs(explanation.residual()) <= 1e-6 * scale)
    predicted = explanation.output
    if case.link == "logit":
        predicted = 1 / (1 + np.exp(-predicted))
    np.testing.assert_allclose(predicted, predictions(case), rtol=1e-5, atol=2e-6)
    assert np.abs(explanation.values).mean() > 0.01


def test_a_row_is_explained_the_same_in_any_batch(case):
    whole = case.explainer.explain(case.rows)
    order = np.random.default_rng(2).permutation(24)
    parts = [order[:1], order[1:8], order[8:]]
    pieces = [case.explainer.explain(case.rows.iloc[part]) for part in parts]
    assert np.array_equal(np.concatenate([piece.values for piece in pieces]), whole.values[order])
    assert np.array_equal(np.concatenate([piece.output for piece in pieces]), whole.output[order])
    assert {piece.base for piece in pieces} == {whole.base}


def test_no_rows(case):
    empty = case.explainer.explain(case.rows[:0])
    assert empty.values.shape == (0, 4)
    assert empty.output.shape == (0,)
    assert empty.base == case.explainer.explain(case.rows[:1]).base


def test_the_form_of_the_columns_does_not_matter(case):
    other = case.rows[["wind", "day", "temp", "carrier"]].assign(unused=1)
    other["carrier"] = pd.Series([None if pd.isna(c) else c for c in other["carrier"]], dtype=object)
    other["day"] = other["day"].astype("Int64")
    whole, again = case.explainer.explain(case.rows), case.explainer.explain(other)
    assert np.array_equal(whole.values, again.values)


def test_columns_without_any_value(case):
    rows = case.rows[:3].assign(temp=pd.Series([None] * 3, dtype=object), carrier=np.nan)
    assert np.isfinite(case.explainer.explain(rows).values).all()


def test_explainer_is_made_the_same_twice(case):
    again = choose(case.model, method="auto", task=case.task, background=ROWS[:12], features=FEATURES)
    assert dict(again.parameters) == dict(case.explainer.parameters)
    assert np.array_equal(again.explain(case.rows[:5]).values, case.explainer.explain(case.rows[:5]).values)


@pytest.mark.parametrize("name", ["logistic pipeline", "plain function"])
def test_parameters_tell_another_background(name):
    build, task, *_ = MODELS[name]
    model = build()
    made = [
        choose(model, method="auto", task=task, background=background, features=FEATURES)
        for background in (ROWS[:20], ROWS[20:40])
    ]
    assert made[0].parameters != made[1].parameters


@pytest.mark.parametrize("name", ["xgb classifier", "forest pipeline", "ridge pipeline"])
def test_permutation_can_be_asked_for(name):
    build, task, *_ = MODELS[name]
    explainer = choose(build(), method="permutation", task=task, background=ROWS[:10], features=FEATURES)
    explanation = explainer.explain(ROWS[:5])
    assert explainer.name == "permutation"
    np.testing.assert_allclose(explanation.residual(), 0, atol=1e-12)


class Classes:
    def predict(self, rows):
        return (rows["wind"] > 0).astype(int)


class Multiclass:
    def predict_proba(self, rows):
        return np.full((len(rows), 3), 1 / 3)


@pytest.mark.parametrize(
    ("model", "method", "task", "message"),
    [
        (object(), "auto", "binary", "neither predict_proba nor predict"),
        (Classes(), "auto", "binary", "predicts classes"),
        (Multiclass(), "auto", "binary", r"shape \(20, 3\)"),
        (PlainFunction(), "tree", "binary", "no tree model that is known here.*To add a family"),
        (PlainFunction(), "linear", "binary", "no linear explainer for this PlainFunction"),
        (PlainFunction(), "native", "binary", "no native explainer"),
    ],
)
def test_refusals(model, method, task, message):
    with pytest.raises(ModelError, match=message):
        choose(model, method=method, task=task, background=ROWS[:20], features=FEATURES)


def test_a_wrong_explainer_is_refused_by_what_it_gets_wrong():
    class Sharpened(RandomForestClassifier):
        def predict_proba(self, rows):
            chance = super().predict_proba(rows) ** 2
            return chance / chance.sum(axis=1, keepdims=True)

    numbers = ROWS[["day", "wind"]]
    model = Sharpened(5, max_depth=3).fit(numbers, LABEL)
    with pytest.raises(ModelError, match="miss the model's output by up to"):
        choose(model, method="tree", task="binary", background=numbers[:20], features=["day", "wind"])


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_waits_until_an_explainer_is_made(monkeypatch, collects):
    seen = []

    def refuse(_: Any) -> Any:
        seen.append(gc.isenabled())
        raise UnsuitedError("none")

    monkeypatch.setitem(FAMILIES, "native", refuse)
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        model = xgboost.XGBRegressor(n_estimators=2).fit(ROWS[["day", "wind"]], VALUE)
        with pytest.raises(ModelError, match="none"):
            choose(model, method="native", task="regression", background=ROWS, features=["day", "wind"])
        assert (seen, gc.isenabled()) == ([False], collects)
    finally:
        (gc.enable if before else gc.disable)()


def test_classes_of_a_margin_classifier_are_no_probabilities():
    model = make_pipeline(encoder(), LinearSVC()).fit(ROWS, LABEL)
    with pytest.raises(ModelError, match="predicts classes"):
        choose(model, method="auto", task="binary", background=ROWS[:20], features=FEATURES)


def test_regression_values_are_no_probabilities():
    model = make_pipeline(encoder(), Ridge()).fit(ROWS, 10 * VALUE)
    with pytest.raises(ModelError, match="no probabilities"):
        choose(model, method="auto", task="binary", background=ROWS[:20], features=FEATURES)


def test_absent_features_and_text_for_numbers():
    with pytest.raises(ModelError, match="needs the features humidity"):
        choose(PlainFunction(), method="auto", task="binary", background=ROWS[:20], features=[*FEATURES, "humidity"])
    explainer = choose(PlainFunction(), method="auto", task="binary", background=ROWS[:20], features=FEATURES)
    with pytest.raises(ModelError, match="needs the features wind"):
        explainer.explain(ROWS.drop(columns="wind"))
    with pytest.raises(ModelError, match="'wind' is numeric in the background"):
        explainer.explain(ROWS[:2].assign(wind=["strong", "weak"]))
    with pytest.raises(ModelError, match="background has no rows"):
        choose(PlainFunction(), method="auto", task="binary", background=ROWS[:0], features=FEATURES)


def test_rows_that_the_model_refuses():
    model = Ridge().fit(ROWS[["wind", "day"]], VALUE)
    explainer = choose(model, method="auto", task="regression", background=ROWS[:20], features=["wind", "day"])
    bad = ROWS[:3].assign(wind=np.nan)
    with pytest.raises(ModelError, match="refuses"):
        explainer.explain(bad)
    sampled = choose(model, method="permutation", task="regression", background=ROWS[:20], features=["wind", "day"])
    with pytest.raises(ModelError, match="row 0 of the batch"):
        sampled.explain(bad)
