"""The attributions that LightGBM and CatBoost make themselves, by way of `choose`."""

from __future__ import annotations

import warnings

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from tree_models import CLASSES, NUMBERS, ROWS, TARGETS, TASKS, WEIGHT, categorical
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import answers

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

STRINGS = ROWS.assign(k=ROWS["k"].fillna("nan"))
QUIET = {"verbose": 0, "allow_writing_files": False, "iterations": 20, "depth": 5}
LEAVES = {"n_estimators": 20, "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1}
LINKS = {"binary": "logit", "multiclass": "softmax", "regression": "identity"}
NAMES = {"lightgbm": "lightgbm:pred_contrib", "catboost": "catboost:ShapValues"}


def explain(model, task, rows=ROWS, method="native", **more):
    """Made on the first rows; features are not in the order of training."""
    return choose(
        model, method=method, task=task, background=rows[:50], features=list(rows.columns)[::-1],
        classes=CLASSES if task == "multiclass" else (), **more,
    )  # fmt: skip


def fit(library, task, rows=None, **more):
    if library == "lightgbm":
        model = (lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier)(**{**LEAVES, **more})
        return model.fit(categorical(ROWS) if rows is None else rows, TARGETS[task], sample_weight=WEIGHT)
    kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
    model = kind(**{**QUIET, **({"cat_features": ["k"], "one_hot_max_size": 2} if rows is None else {}), **more})
    return model.fit(STRINGS if rows is None else rows, TARGETS[task], sample_weight=WEIGHT)


def predictions(model, rows):
    rows = categorical(rows) if "lightgbm" in type(model).__module__ else rows.assign(k=rows["k"].fillna("nan"))
    found = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)
    return found[:, 1] if found.ndim == 2 and found.shape[1] == 2 else found


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier with TreeExplainer")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("library", NAMES)
def test_own_attributions(library, task):
    """CatBoost's model has statistics of categories, which no array of numbers can say."""
    model = fit(library, task)
    explainer = explain(model, task)
    assert (explainer.name, explainer.link) == (NAMES[library], LINKS[task])
    whole = explainer.explain(ROWS)
    assert np.abs(whole.residual()).max() < 1e-12
    np.testing.assert_allclose(answers(whole.output, explainer.link), predictions(model, ROWS), rtol=1e-10)
    given = categorical(ROWS) if library == "lightgbm" else catboost.Pool(STRINGS, cat_features=["k"])
    oracle = np.asarray(shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(given))
    oracle = oracle.transpose(0, 2, 1) if oracle.ndim == 3 else oracle
    assert np.abs(whole.values[..., ::-1] - oracle).max() <= 1e-6 * np.abs(oracle).max()
    assert np.abs(oracle).max() > 0.1


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("library", NAMES)
def test_a_row_does_not_depend_on_its_batch(library, task):
    explainer = explain(fit(library, task), task)
    whole = explainer.explain(ROWS)
    for size in (1, 2, 7, 33, 128, 500):
        for start in (0, 3, 400):
            part = explainer.explain(ROWS[start : start + size])
            assert np.array_equal(part.values, whole.values[start : start + size])
            assert np.array_equal(part.output, whole.output[start : start + size])
            assert part.base == whole.base


@pytest.mark.parametrize("library", NAMES)
def test_categories_that_were_never_seen(library):
    model = fit(library, "regression")
    explainer = explain(model, "regression")
    rows = ROWS[1:20]
    unseen, missing = (explainer.explain(rows.assign(k=k)) for k in ("new", np.nan))
    new = pd.Series(["new"] * len(rows), index=rows.index)
    expected = {"lightgbm": categorical(rows.assign(k=new)), "catboost": rows.assign(k=new)}[library]
    np.testing.assert_allclose(unseen.output, model.predict(expected), rtol=1e-12)
    assert np.array_equal(unseen.values, missing.values) == (library == "lightgbm")  # of CatBoost it was a category
    assert not np.array_equal(unseen.values, explainer.explain(rows.assign(k="x")).values)


def test_lightgbm_models_of_all_kinds_of_columns():
    spaced = NUMBERS.rename(columns={"a": "air pressure"})
    model = lightgbm.LGBMRegressor(**LEAVES).fit(spaced, TARGETS["regression"])
    known = explain(model, "regression", spaced).explain(spaced[:20])
    booster = explain(model.booster_, "regression", spaced).explain(spaced[:20])
    nameless = lightgbm.LGBMRegressor(**LEAVES).fit(spaced.to_numpy(), TARGETS["regression"])
    plain = choose(
        nameless.booster_, method="native", task="regression", background=spaced[:50], features=list(spaced.columns)
    ).explain(spaced[:20])
    for other in (booster.values, plain.values[:, ::-1]):
        assert np.array_equal(other, known.values)
    np.testing.assert_allclose(known.output, model.predict(spaced[:20]), rtol=1e-12)


def test_lightgbm_knows_whole_numbers_as_categories():
    rows = NUMBERS.assign(n=pd.Categorical(NUMBERS["n"].astype(int), categories=[3, 1, 0, 2]))
    model = lightgbm.LGBMRegressor(**LEAVES).fit(rows, TARGETS["regression"])
    found = explain(model, "regression", NUMBERS).explain(NUMBERS[:50])
    np.testing.assert_allclose(found.output, model.predict(rows[:50]), rtol=1e-12)


def test_early_stopping_is_explained_as_it_predicts():
    train, check = (lightgbm.Dataset(NUMBERS[i::2], TARGETS["binary"][i::2]) for i in (0, 1))
    stop = lightgbm.early_stopping(3, verbose=False)
    model = lightgbm.train(
        {"objective": "binary", "verbose": -1},
        train,
        300,
        valid_sets=[check],
        callbacks=[stop],
        keep_training_booster=True,
    )
    assert 0 < model.best_iteration < model.num_trees()
    for method in ("native", "tree"):
        found = explain(model, "binary", NUMBERS, method).explain(NUMBERS[:20])
        np.testing.assert_allclose(found.output, model.predict(NUMBERS[:20], raw_score=True), rtol=1e-12)
        np.testing.assert_allclose(found.residual(), 0, atol=1e-12)


def test_a_booster_behind_an_encoder():
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(encoder, lightgbm.LGBMClassifier(**LEAVES)).fit(ROWS, TARGETS["binary"])
    found = explain(model, "binary")
    assert found.name == "lightgbm:pred_contrib"
    np.testing.assert_allclose(found.explain(ROWS[:30]).residual(), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (lambda: fit("lightgbm", "binary", objective="poisson"), "regression", "poisson for a regression task"),
        (lambda: fit("lightgbm", "binary", sigmoid=2.0), "binary", "binary sigmoid:2 for a binary task"),
        (lambda: fit("lightgbm", "multiclass", objective="multiclassova"), "multiclass", "multiclassova"),
        (lambda: fit("catboost", "multiclass", loss_function="MultiClassOneVsAll"), "multiclass", "OneVsAll"),
        (lambda: fit("catboost", "regression", NUMBERS, grow_policy="Lossguide"), "regression", "symmetric"),
        (lambda: fit("catboost", "regression", NUMBERS, loss_function="LogLinQuantile"), "regression", "LogLin"),
    ],
)
def test_what_has_no_link_of_ours_is_refused(model, task, message):
    rows = NUMBERS if message in {"symmetric", "LogLin"} else ROWS
    with pytest.raises(ModelError, match=message):
        explain(model(), task, rows)
