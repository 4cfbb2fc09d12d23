"""Trees of every library read into arrays add up to the library's own margins, also exactly where they decide."""

from __future__ import annotations

from types import SimpleNamespace

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from scipy.sparse import csr_matrix
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
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tree_models import CLASSES, NUMBERS, ROWS, TARGETS, TASKS, WEIGHT, at_thresholds, categorical
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.forests.xgboost import XGBoostTrees
from whydrift.pipelines.explainers.prediction import predictor
from whydrift.pipelines.explainers.trees import read_trees

STRINGS = ROWS.assign(k=ROWS["k"].fillna("nan"))  # as CatBoost wants them
SINGLE, DOUBLE = 1e-6, 1e-13  # relative, of sums of float32 and of float64


def xgb(**parameters):
    return lambda task: (xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier)(
        **{"n_estimators": 20, "max_depth": 5, "enable_categorical": True, **parameters}
    )


def lgbm(**parameters):
    return lambda task: (lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier)(
        **{"n_estimators": 20, "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1, **parameters}
    )


def cat(**parameters):
    kind = {"regression": catboost.CatBoostRegressor}
    return lambda task: kind.get(task, catboost.CatBoostClassifier)(
        **{"iterations": 20, "depth": 5, "verbose": 0, "allow_writing_files": False, **parameters}
    )


def by_task(regressor, classifier, **parameters):
    return lambda task: (regressor if task == "regression" else classifier)(**parameters)


def hist(**parameters):
    return by_task(HistGradientBoostingRegressor, HistGradientBoostingClassifier, max_iter=20, **parameters)


def forest(**parameters):
    return by_task(RandomForestRegressor, RandomForestClassifier, n_estimators=10, random_state=0, **parameters)


ONE_HOT = {"cat_features": ["k"], "one_hot_max_size": 20}
FULL = NUMBERS.fillna(0)
# what makes the model, the rows it is trained on, tolerance, whether it takes infinities, the tasks
CASES = {
    "xgboost partitions": (xgb(max_cat_to_onehot=1), categorical(ROWS), SINGLE, False, TASKS),
    "xgboost one-hot": (xgb(max_cat_to_onehot=9), categorical(ROWS), SINGLE, False, TASKS),
    "xgboost array": (xgb(), NUMBERS.to_numpy(), SINGLE, False, TASKS),
    "xgboost dart": (xgb(booster="dart", rate_drop=0.3), categorical(ROWS), SINGLE, False, TASKS),
    "xgboost forest": (xgb(num_parallel_tree=3, subsample=0.6), categorical(ROWS), SINGLE, False, TASKS),
    "xgboost leaf-wise": (xgb(grow_policy="lossguide", max_leaves=20), NUMBERS, SINGLE, False, TASKS),
    "xgboost stumps": (xgb(max_depth=1), NUMBERS, SINGLE, False, TASKS),
    "xgboost start": (xgb(base_score=0.3), NUMBERS, SINGLE, False, ("binary", "regression")),
    "xgboost quantile": (
        xgb(objective="reg:quantileerror", quantile_alpha=0.9), categorical(ROWS), SINGLE, False, ("regression",),
    ),
    "lightgbm": (lgbm(), categorical(ROWS), 0, True, TASKS),
    "lightgbm array": (lgbm(), NUMBERS.to_numpy(), 0, True, TASKS),
    "lightgbm zero": (lgbm(zero_as_missing=True), categorical(ROWS), 0, True, TASKS),
    "lightgbm none": (lgbm(use_missing=False), categorical(ROWS), 0, True, TASKS),
    "lightgbm dart": (lgbm(boosting_type="dart"), categorical(ROWS), DOUBLE, True, TASKS),
    "lightgbm forest": (
        lgbm(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7), categorical(ROWS), DOUBLE, True,
        ("binary", "regression"),
    ),
    "lightgbm quantile": (lgbm(objective="quantile", alpha=0.9), categorical(ROWS), 0, True, ("regression",)),
    "catboost": (cat(), NUMBERS, DOUBLE, True, TASKS),
    "catboost array": (cat(nan_mode="Max"), NUMBERS.to_numpy(), DOUBLE, True, TASKS),
    "catboost one-hot": (cat(**ONE_HOT), STRINGS, DOUBLE, True, TASKS),
    "catboost leaf-wise": (cat(grow_policy="Lossguide", **ONE_HOT), STRINGS, DOUBLE, True, TASKS),
    "catboost codes": (cat(cat_features=[3], one_hot_max_size=9), FULL.astype({"n": int}), DOUBLE, True, TASKS),
    "catboost quantile": (cat(loss_function="Quantile:alpha=0.9", **ONE_HOT), STRINGS, DOUBLE, True, ("regression",)),
    "histogram": (hist(), categorical(ROWS), 0, True, TASKS),
    "histogram array": (hist(categorical_features=[3]), NUMBERS.to_numpy(), 0, True, TASKS),
    "histogram none": (hist(), FULL, 0, True, TASKS),
    "histogram quantile": (hist(loss="quantile", quantile=0.9), categorical(ROWS), 0, True, ("regression",)),
    "boosting": (
        by_task(GradientBoostingRegressor, GradientBoostingClassifier, n_estimators=10), FULL, DOUBLE, False, TASKS,
    ),
    "boosting quantile": (
        by_task(GradientBoostingRegressor, None, n_estimators=10, loss="quantile", alpha=0.9), FULL, DOUBLE, False,
        ("regression",),
    ),
    "random forest": (forest(), NUMBERS, DOUBLE, False, TASKS),
    "best-first forest": (forest(max_leaf_nodes=20), NUMBERS.to_numpy(), DOUBLE, False, TASKS),
    "extra trees": (
        by_task(ExtraTreesRegressor, ExtraTreesClassifier, n_estimators=10), NUMBERS, DOUBLE, False, TASKS,
    ),
    "tree": (by_task(DecisionTreeRegressor, DecisionTreeClassifier), NUMBERS, DOUBLE, False, TASKS),
}  # fmt: skip


@pytest.fixture(scope="module", params=[(name, task) for name, case in CASES.items() for task in case[4]], ids="-".join)
def case(request):
    name, task = request.param
    make, rows, tolerance, infinite, _ = CASES[name]
    model = make(task).fit(rows, TARGETS[task], sample_weight=WEIGHT)
    frame = ROWS if rows.shape[1] == ROWS.shape[1] else FULL if np.array_equal(rows, FULL) else NUMBERS
    trees = read_trees(model, task)
    return SimpleNamespace(
        name=name, task=task, model=model, frame=frame, tolerance=tolerance, infinite=infinite, trees=trees,
        forest=trees.forest(),
    )  # fmt: skip


def encoded(case, frame):
    """As `choose` hands rows on: numbers as float64, in the container that the model knows."""
    if hasattr(case.model, "feature_names_in_") or (hasattr(case.model, "feature_names_") and "k" in frame):
        return frame
    return frame.to_numpy() if "k" not in frame else frame


def test_the_trees_add_up_to_the_library_s_margin(case):
    for frame in (case.frame, at_thresholds(case.frame, case.forest, infinite=case.infinite)):
        rows = frame.fillna(0) if "boosting" in case.name else frame
        if case.name == "histogram array":
            rows = rows.assign(n=rows["n"].where(rows["n"].isin([0, 1, 2, 3]), 7.0))
        given = encoded(case, rows)
        ours, own = case.forest.predict(case.trees.matrix(given)), case.trees.output(given)
        assert ours.shape == own.shape
        assert np.abs(ours - own).max() <= case.tolerance * np.abs(own).max()
        assert np.ptp(own, axis=0).min() > 0.1


def test_a_row_is_answered_alone_as_it_is_beside_others(case):
    """Which is why the walks of many rows may be one call to the model."""
    columns = Columns.of(case.frame, list(case.frame.columns))
    classes = CLASSES if case.task == "multiclass" else ()
    predict = predictor(case.model, case.task, columns, case.frame.head(20), classes)
    frame = columns.frame(case.frame)
    assert predict.apart
    together = predict(frame)
    alone = np.concatenate([predict(frame.iloc[i : i + 1]) for i in range(0, len(frame), 11)])
    assert alone.tobytes() == together[::11].tobytes()


def test_numbers_as_categories_of_lightgbm():
    """Codes that were never seen, below zero, and between whole numbers."""
    data = lightgbm.Dataset(NUMBERS, TARGETS["binary"], categorical_feature=["n"])
    parameters = {"objective": "binary", "verbose": -1, "min_data_per_group": 5, "cat_smooth": 1}
    trees = read_trees(lightgbm.train(parameters, data, 20), "binary")
    rows = at_thresholds(NUMBERS, trees.forest(), infinite=True)
    rows["n"] = np.resize([0, 1, 2, 3, 7, 500, -1, -0.5, -0.0, 2.7, np.nan], len(rows))
    assert (trees.forest().category >= 0).any()
    assert np.array_equal(trees.forest().predict(trees.matrix(rows)), trees.output(rows))


def test_a_mark_for_missing_values_of_xgboost():
    rows = NUMBERS.fillna(-999.0)
    trees = read_trees(xgb(missing=-999.0)("regression").fit(rows, TARGETS["regression"]), "regression")
    assert np.array_equal(np.isnan(trees.matrix(rows)), NUMBERS.isna())
    ours, own = trees.forest().predict(trees.matrix(rows)), trees.output(rows)
    np.testing.assert_allclose(ours, own, rtol=1e-5, atol=1e-6)


def test_infinity_where_histogram_boosting_parts_the_missing_from_all_else():
    rows = np.where(np.arange(200) % 2, np.nan, np.arange(200.0) % 3 // 3)[:, None]
    trees = read_trees(hist()("regression").fit(rows, np.isnan(rows[:, 0]) * 1.0), "regression")
    odd = np.array([[np.inf], [-np.inf], [np.nan], [0.0], [1e308]])
    assert np.isinf(trees.forest().threshold).any()
    assert np.array_equal(trees.forest().predict(trees.matrix(odd)), trees.output(odd))
    assert np.ptp(trees.output(odd)) > 0.5


def test_a_sparse_matrix_leaves_out_what_is_missing_to_xgboost_only():
    dense = np.where(np.random.default_rng(0).random((900, 3)) < 0.6, 0.0, ROWS[["a", "b", "c"]].fillna(1))
    sparse = csr_matrix(dense)
    for make, exact in ((xgb(), False), (lgbm(), True), (forest(), False)):
        trees = read_trees(make("regression").fit(sparse, TARGETS["regression"]), "regression")
        assert np.isnan(trees.matrix(sparse)).any() == isinstance(trees, XGBoostTrees)
        ours, own = trees.forest().predict(trees.matrix(sparse)), trees.output(sparse)
        np.testing.assert_allclose(ours, own, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
