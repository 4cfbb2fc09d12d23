"""Linear models behind scalers, which are taken up into the coefficients: beside shap behind the scalers themselves."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.scaling import Scaling

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

RNG = np.random.default_rng(0)
SPREAD = np.array([1.0, 100.0, 0.01])
ROWS = pd.DataFrame(RNG.normal(size=(400, 3)) * SPREAD + [3.0, -40.0, 0.5], columns=["a", "b", "c"])
LABEL = (ROWS["a"] + ROWS["b"] / 100 + RNG.normal(size=400) > 2).astype(int)
BEHIND, FEW = ROWS.head(100), ROWS.tail(50)


def _twice(scaler, rows):
    return 2 * StandardScaler.transform(scaler, rows)


# Of the same name as scikit-learn's own, by which a step is known to work column by column.
Doubled = type("StandardScaler", (StandardScaler,), {"transform": _twice, "__module__": __name__})

TAKEN_UP = {
    "standard": [StandardScaler()],
    "without mean": [StandardScaler(with_mean=False)],
    "without sd": [StandardScaler(with_std=False)],
    "robust": [RobustScaler()],
    "robust, centred alone": [RobustScaler(with_scaling=False)],
    "robust, scaled alone": [RobustScaler(with_centering=False)],
    "range": [MinMaxScaler((-1, 3))],
    "largest": [MaxAbsScaler()],
    "a chain": [RobustScaler(), MinMaxScaler((2, 5)), StandardScaler()],
}
OTHERS = {
    "nothing": ["passthrough"],
    "clipped": [MinMaxScaler(clip=True)],
    "somebody's own": [Doubled()],
    "one of two": [StandardScaler(), Doubled()],
}


@pytest.mark.parametrize("name", [*TAKEN_UP, *OTHERS])
def test_attributions_are_those_of_shap_behind_the_scalers(name):
    model = make_pipeline(*{**TAKEN_UP, **OTHERS}[name], LogisticRegression()).fit(ROWS, LABEL)
    explainer = choose(model, method="linear", task="binary", background=BEHIND, features=list("abc"))
    assert (explainer.encoding.steps is None) == (name in TAKEN_UP)
    scaled = shap.maskers.Independent(model[:-1].transform(BEHIND), max_samples=len(BEHIND))
    oracle = shap.LinearExplainer(model[-1], scaled)
    ours = explainer.explain(FEW)
    np.testing.assert_allclose(ours.values, oracle.shap_values(model[:-1].transform(FEW)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.output, model.decision_function(FEW), rtol=1e-9)
    np.testing.assert_allclose(ours.base, oracle.expected_value, rtol=1e-9)


@pytest.mark.parametrize("name", TAKEN_UP)
def test_a_scaling_is_what_the_scalers_do(name):
    steps = make_pipeline(*TAKEN_UP[name]).fit(ROWS)
    np.testing.assert_allclose(Scaling.of(steps).apply(ROWS.to_numpy()), steps.transform(ROWS), rtol=1e-9, atol=1e-12)


def test_columns_far_from_zero_lose_nothing():
    far = ROWS.assign(a=ROWS["a"] + 1e9)
    model = make_pipeline(StandardScaler(), Ridge()).fit(far, ROWS["a"])
    explainer = choose(model, method="linear", task="regression", background=far.head(100), features=list("abc"))
    np.testing.assert_allclose(explainer.explain(far).output, model.predict(far), atol=1e-6)
    model = make_pipeline(StandardScaler(), Ridge()).fit(ROWS, ROWS["a"])
    near = choose(model, method="linear", task="regression", background=BEHIND, features=list("abc"))
    np.testing.assert_allclose(explainer.explain(far).values, near.explain(ROWS).values, atol=1e-6)


def test_the_models_own_columns_in_its_own_order():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS[["c", "a"]], LABEL)
    explainer = choose(model, method="linear", task="binary", background=BEHIND, features=list("abc"))
    direct = (FEW - BEHIND.mean())[["c", "a"]].to_numpy() * model[-1].coef_ / model[0].scale_
    np.testing.assert_allclose(explainer.explain(FEW).values, np.c_[direct[:, 1], np.zeros(50), direct[:, 0]])


def test_a_missing_value_is_refused_as_by_the_model():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABEL)
    explainer = choose(model, method="linear", task="binary", background=BEHIND, features=list("abc"))
    with pytest.raises(ModelError, match="takes no missing"):
        explainer.explain(FEW.mask(FEW["a"] > 3))


def test_rows_that_are_not_copied_stay_as_they_are():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABEL)
    explainer = choose(model, method="linear", task="binary", background=BEHIND, features=list("abc"))
    assert not explainer.copy
    rows = FEW.copy()
    values = explainer.explain(rows).values
    values[:] = 0
    pd.testing.assert_frame_equal(rows, FEW)
