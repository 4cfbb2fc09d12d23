"""Explainable boosting machines against interpret itself."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import answers

# The order of the attributions is not that of the training frame.
FEATURES = ["day", "carrier", "temp", "wind"]
CLASSES = ("calm", "high", "low")


def make_rows(count=500, seed=0):
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
    return rows, (value + 0.1 * rng.normal(size=count)).to_numpy()


ROWS, VALUE = make_rows()
FEW = make_rows(40, 1)[0]
LABEL = np.greater(VALUE, 0.5).astype(int)
SMALL = {"outer_bags": 2, "max_rounds": 100, "n_jobs": 1, "random_state": 0}


def fit(model, rows, target):
    with warnings.catch_warnings():  # of its own charts
        warnings.filterwarnings("ignore", "Missing values detected|For multiclass we cannot", UserWarning)
        return model.fit(rows, target)


def classifier():
    return fit(ExplainableBoostingClassifier(interactions=3, **SMALL), ROWS, LABEL)


def regressor():
    return fit(ExplainableBoostingRegressor(interactions=3, **SMALL), ROWS, VALUE)


def multiclass():
    target = np.array(CLASSES)[np.digitize(VALUE, [0.0, 1.0])]
    return fit(ExplainableBoostingClassifier(**SMALL), ROWS, target)


MODELS = {
    "binary": (classifier, "logit"),
    "regression": (regressor, "identity"),
    "multiclass": (multiclass, "softmax"),
}


def explainer(model, task, features=FEATURES, rows=ROWS, method="auto"):
    classes = CLASSES if task == "multiclass" else ()
    return choose(model, method=method, task=task, background=rows[:30], features=features, classes=classes)


@pytest.mark.parametrize("task", MODELS)
def test_attributions_are_the_terms_of_the_model(task):
    build, link = MODELS[task]
    model = build()
    made = explainer(model, task)
    found = made.explain(FEW)
    assert (made.name, made.link) == ("interpret:terms", link)
    terms = model.eval_terms(FEW)
    for j, name in enumerate(FEATURES):
        expected = sum(
            terms[:, number] / len(members)
            for number, members in enumerate(model.term_features_)
            if model.feature_names_in_.index(name) in members
        )
        np.testing.assert_allclose(found.values[..., j], expected, atol=1e-12)
    assert np.abs(found.residual()).max() < 1e-12
    predicted = model.predict(FEW) if task == "regression" else model.predict_proba(FEW)
    np.testing.assert_allclose(
        answers(found.output, link), predicted[:, 1] if task == "binary" else predicted, atol=1e-12
    )
    assert any(len(members) == 2 for members in model.term_features_)
    assert found.error is None


def test_against_what_interpret_shows_of_a_row():
    model = fit(ExplainableBoostingRegressor(interactions=0, **SMALL), ROWS.dropna(), VALUE[ROWS.notna().all(axis=1)])
    rows = ROWS.dropna()[:5]
    found = explainer(model, "regression", rows=ROWS.dropna()).explain(rows)
    local = model.explain_local(rows)
    for i in range(5):
        shown = local.data(i)
        by_name = dict(zip(shown["names"], shown["scores"], strict=True))
        np.testing.assert_allclose(found.values[i], [by_name[name] for name in FEATURES], atol=1e-12)
        assert found.base == pytest.approx(shown["extra"]["scores"][0])


def test_the_base_is_the_mean_output_of_the_training_data():
    model = regressor()
    found = explainer(model, "regression").explain(ROWS)
    np.testing.assert_allclose(found.values.mean(axis=0), 0, atol=1e-10)
    assert found.base == pytest.approx(found.output.mean())


@pytest.mark.parametrize("task", MODELS)
def test_a_row_has_the_same_bits_in_any_batch(task):
    made = explainer(MODELS[task][0](), task)
    whole = made.explain(FEW)
    order = np.random.default_rng(2).permutation(len(FEW))
    pieces = [made.explain(FEW.iloc[part]) for part in (order[:1], order[1:9], order[9:])]
    for field in ("values", "output"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in pieces]), getattr(whole, field)[order])
    gaps = FEW[:3].assign(temp=None, carrier=None)
    assert np.isfinite(made.explain(gaps).values).all()
    unseen = made.explain(FEW[:3].assign(carrier="ZZ"))
    assert np.isfinite(unseen.values).all()


def test_trained_on_an_array_and_behind_an_encoding():
    numbers = ROWS[["temp", "wind", "day"]].fillna(0)
    bare = fit(ExplainableBoostingRegressor(interactions=1, **SMALL), numbers.to_numpy(), VALUE)
    found = explainer(bare, "regression", list(numbers.columns), numbers).explain(numbers[:20])
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, bare.predict(numbers.to_numpy()[:20]), atol=1e-12)
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]),
        (StandardScaler(), ["temp", "wind"]),
    )
    model = make_pipeline(encode, ExplainableBoostingRegressor(interactions=0, **SMALL))
    features = ["wind", "carrier", "temp"]
    fit(model, ROWS[features], VALUE)
    made = explainer(model, "regression", features)
    found = made.explain(FEW)
    assert made.name == "interpret:terms"
    terms = model[-1].eval_terms(encode.transform(FEW[features]))  # four of the carriers and None, then temp and wind
    np.testing.assert_allclose(found.values[:, 1], terms[:, :-2].sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.values[:, [2, 0]], terms[:, -2:], atol=1e-12)


def test_other_links_are_sampled():
    model = fit(ExplainableBoostingRegressor(objective="poisson_deviance", **SMALL), ROWS, np.exp(VALUE))
    assert explainer(model, "regression").name == "permutation"
    with pytest.raises(ModelError, match="with link 'log' for a regression task"):
        explainer(model, "regression", method="additive")
