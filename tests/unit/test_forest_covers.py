"""What trees' arrays say of the training rows: path-dependent values by definition are the libraries' own."""

from __future__ import annotations

import warnings

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from tree_models import NUMBERS, ROWS, TARGETS, TASKS, WEIGHT, categorical, path_dependent
from whydrift.pipelines.explainers.trees import read_library, read_trees

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

FEW = ROWS[:25]
STRINGS = ROWS.assign(k=ROWS["k"].fillna("nan"))
QUIET = {"verbose": 0, "allow_writing_files": False, "cat_features": ["k"], "one_hot_max_size": 20}
BOOSTED = {
    "xgboost": (
        categorical(ROWS),
        lambda task: (xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier)(
            n_estimators=8, max_depth=4, enable_categorical=True
        ),
    ),
    "lightgbm": (
        categorical(ROWS),
        lambda task: (lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier)(
            n_estimators=8, num_leaves=12, verbose=-1, min_data_per_group=5, cat_smooth=1
        ),
    ),
    "catboost": (
        STRINGS,
        lambda task: (catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier)(
            iterations=8, depth=4, **QUIET
        ),
    ),
}


def close(found, expected):
    """To 1e-6 of the largest; XGBoost's are float32."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", BOOSTED)
def test_of_a_boosting_library(name, task, weighted):
    rows, make = BOOSTED[name]
    model = make(task).fit(rows, TARGETS[task], sample_weight=WEIGHT if weighted else None)
    own = read_library(model, task)
    expected = own.explain(FEW)
    found = path_dependent(own.forest(), own.matrix(FEW))
    close(found.transpose(0, 2, 1) if task == "multiclass" else found[:, :, 0], expected.values)
    assert np.abs(expected.residual()).max() < 1e-5


@pytest.mark.parametrize(
    ("model", "task", "gaps"),
    [
        (HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=10), "binary", True),
        (HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=10), "multiclass", True),
        (GradientBoostingClassifier(n_estimators=5, max_depth=3), "binary", False),
        (RandomForestClassifier(5, max_depth=4, random_state=0), "multiclass", True),
        (RandomForestClassifier(5, max_depth=4, random_state=0), "binary", True),
        (ExtraTreesRegressor(5, max_depth=4, random_state=0), "regression", False),
        (DecisionTreeClassifier(max_depth=5, random_state=0), "binary", True),
    ],
)
def test_of_scikit_learn(model, task, gaps):
    rows = (NUMBERS if gaps else NUMBERS.fillna(0)).to_numpy()
    trees = read_trees(model.fit(rows, TARGETS[task], sample_weight=WEIGHT), task)
    expected = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(
        rows[:25], check_additivity=False
    )
    if task == "binary" and expected.ndim == 3:
        expected = expected[:, :, 1]
    close(path_dependent(trees.forest(), trees.matrix(rows[:25])).squeeze(), expected)
