"""Attributions of a classifier in probability space: they add up to the prediction itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose

NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(500, 3)), columns=NAMES)
MARGIN = 2 * ROWS["a"] + ROWS["b"] * ROWS["c"]
LABEL = (RNG.random(500) < 1 / (1 + np.exp(-MARGIN))).astype(int)
THREE = np.digitize(MARGIN + RNG.normal(size=500), [-1, 1])
BACKGROUND, NEW = ROWS[:30], ROWS[100:112]


def fit(kind, label=LABEL, **options):
    return kind(**options).fit(ROWS, label)


SAMPLED = {
    "xgboost": lambda label: fit(xgboost.XGBClassifier, label, n_estimators=20, max_depth=3),
    "boosting": lambda label: fit(GradientBoostingClassifier, label, n_estimators=20),
    "histogram": lambda label: fit(HistGradientBoostingClassifier, label, max_iter=20),
    "logistic": lambda label: fit(LogisticRegression, label),
}
FORESTS = {
    "forest": lambda label: fit(RandomForestClassifier, label, n_estimators=20, random_state=0),
    "extra": lambda label: fit(ExtraTreesClassifier, label, n_estimators=20, random_state=0),
}
TASKS = {"binary": (LABEL, ()), "multiclass": (THREE, ("0", "1", "2"))}


def explain(model, task, method="auto", space="probability"):
    explainer = choose(
        model,
        method=method,
        task=task,
        background=BACKGROUND,
        features=NAMES,
        classes=TASKS[task][1],
        space=space,
    )
    return explainer, explainer.explain(NEW)


def probability(model, task, rows):
    predicted = np.asarray(model.predict_proba(rows), dtype=float)
    return predicted[:, 1] if task == "binary" else predicted


def shapley(model, task, row):
    """Of the probability against the background, by all subsets: (p,) or (C, p)."""
    worth = {}
    for known in itertools.product([False, True], repeat=3):
        mixed = BACKGROUND.assign(**{name: row[name] for name, k in zip(NAMES, known, strict=True) if k})
        worth[known] = probability(model, task, mixed).mean(axis=0)
    values = np.zeros((3, *np.shape(worth[False, False, False])))
    for j, known in itertools.product(range(3), worth):
        if not known[j]:
            weight = math.factorial(sum(known)) * math.factorial(2 - sum(known)) / math.factorial(3)
            values[j] += weight * (worth[(*known[:j], True, *known[j + 1 :])] - worth[known])
    return np.moveaxis(values, 0, -1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", [*SAMPLED, *FORESTS])
def test_adds_up_to_the_probability(task, family):
    model = (SAMPLED | FORESTS)[family](TASKS[task][0])
    explainer, found = explain(model, task)
    assert explainer.link == "identity"
    assert explainer.name == ("permutation" if family in SAMPLED else "trees:path_dependent")
    np.testing.assert_allclose(found.output, probability(model, task, NEW), rtol=1e-6)
    np.testing.assert_allclose(found.residual(), 0.0, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", SAMPLED)
def test_is_the_shapley_value_of_the_probability(task, family):
    model = SAMPLED[family](TASKS[task][0])
    _, found = explain(model, task)
    exact = np.stack([shapley(model, task, NEW.iloc[i]) for i in range(len(NEW))])
    # Interactions of three features are what the walks sample; most of the values here are exact.
    assert np.abs(found.values - exact).mean() < 0.06 * np.abs(exact).mean()


def test_margin_is_the_default_and_another_explainer():
    explainer, found = explain(SAMPLED["xgboost"](LABEL), "binary", space="margin")
    assert (explainer.name, explainer.link) == ("xgboost:pred_contribs", "logit")
    assert np.abs(found.output).max() > 1


@pytest.mark.parametrize(
    ("family", "method"), [("xgboost", "native"), ("boosting", "tree"), ("histogram", "tree"), ("logistic", "linear")]
)
def test_a_method_that_adds_up_in_the_margin_only_is_refused(family, method):
    with pytest.raises(ModelError, match=f"no {method} explainer .* adds up in the margin, and explainer.space asks"):
        explain(SAMPLED[family](LABEL), "binary", method=method)
