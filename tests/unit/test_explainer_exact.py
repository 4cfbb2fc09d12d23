"""The attributions against other ways to them: shap, and Shapley's sum over all coalitions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose

with warnings.catch_warnings():
    # shap's plots, which come along, call what matplotlib is going to deprecate.
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

RNG = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RNG.normal(size=(500, 4)), columns=["a", "b", "c", "d"])
GAPS = NUMBERS.mask(RNG.random(NUMBERS.shape) < 0.15)
VALUE = (NUMBERS["a"] * NUMBERS["b"] + NUMBERS["c"] + 0.3 * NUMBERS["d"]).to_numpy()
LABEL = (VALUE > 0).astype(int)
MIXED = NUMBERS[["a", "b"]].assign(
    kind=RNG.choice(["x", "y", "z"], 500, p=[0.6, 0.37, 0.03]), place=RNG.choice(["n", "s"], 500)
)
MIXED.loc[::7, "a"] = np.nan
MIXED.loc[::11, "kind"] = None


def shapley(value: Callable[[tuple[int, ...]], np.ndarray], width: int) -> np.ndarray:
    """By definition, (n, p), from the value of a coalition of features, (n,)."""
    phi = np.zeros((len(value(())), width))
    for j in range(width):
        others = [k for k in range(width) if k != j]
        for size in range(width):
            weight = factorial(size) * factorial(width - size - 1) / factorial(width)
            for coalition in combinations(others, size):
                phi[:, j] += weight * (value(tuple(sorted((*coalition, j)))) - value(coalition))
    return phi


def interventional(predict, rows: pd.DataFrame, background: pd.DataFrame) -> np.ndarray:
    """Absent features take the background's values."""
    cache: dict[tuple[int, ...], np.ndarray] = {}

    def value(coalition):
        if coalition not in cache:
            mixed = background.loc[background.index.repeat(len(rows))].reset_index(drop=True)
            for j in coalition:
                name = rows.columns[j]
                mixed[name] = np.tile(rows[name].to_numpy(), len(background))
            cache[coalition] = predict(mixed).reshape(len(background), len(rows)).mean(axis=0)
        return cache[coalition]

    return shapley(value, rows.shape[1])


def log_odds(model):
    def answer(rows):
        p = model.predict_proba(rows)[:, 1]
        return np.log(p / (1 - p))

    return answer


def explain(model, method, task, frame, rows=40, background=30):
    explainer = choose(model, method=method, task=task, background=frame[:background], features=list(frame.columns))
    return explainer.explain(frame[100 : 100 + rows])


# XGBoost


def categorical(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(kind=pd.Categorical(rows["kind"]), place=pd.Categorical(rows["place"]))


@pytest.fixture(scope="module")
def xgb_mixed():
    return xgboost.XGBClassifier(n_estimators=60, max_depth=5, enable_categorical=True).fit(categorical(MIXED), LABEL)


def test_xgboost_equals_shap(xgb_mixed):
    oracle = shap.TreeExplainer(xgb_mixed, feature_perturbation="tree_path_dependent")
    ours = explain(xgb_mixed, "native", "binary", MIXED)
    assert np.array_equal(ours.values, oracle.shap_values(categorical(MIXED)[100:140]).astype(np.float64))


@pytest.mark.parametrize("suffix", ["ubj", "json"])
@pytest.mark.parametrize("loaded", [xgboost.XGBClassifier, xgboost.Booster])
def test_xgboost_keeps_its_categories_when_saved(xgb_mixed, tmp_path, suffix, loaded):
    xgb_mixed.save_model(tmp_path / f"model.{suffix}")
    again = loaded()
    again.load_model(tmp_path / f"model.{suffix}")
    before, after = (explain(model, "native", "binary", MIXED) for model in (xgb_mixed, again))
    assert np.array_equal(before.values, after.values)


@pytest.mark.slow
def test_xgboost_by_way_of_mlflow(xgb_mixed, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.xgboost

        mlflow.xgboost.save_model(xgb_mixed, str(tmp_path / "model"))
        again = mlflow.xgboost.load_model(str(tmp_path / "model"))
    before, after = (explain(model, "native", "binary", MIXED) for model in (xgb_mixed, again))
    assert np.array_equal(before.values, after.values)


def test_a_category_that_xgboost_never_saw_counts_as_missing(xgb_mixed):
    explainer = choose(xgb_mixed, method="auto", task="binary", background=MIXED[:10], features=list(MIXED.columns))
    rows = MIXED[1:6]
    unseen, missing = (explainer.explain(rows.assign(kind=kind)) for kind in ("new", None))
    assert np.array_equal(unseen.values, missing.values)
    assert not np.array_equal(unseen.values, explainer.explain(rows.assign(kind="y")).values)


def test_xgboost_with_early_stopping_is_explained_as_it_predicts():
    model = xgboost.XGBClassifier(n_estimators=300, max_depth=6, early_stopping_rounds=3)
    model.fit(GAPS[:250], LABEL[:250], eval_set=[(GAPS[250:], LABEL[250:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    ours = explain(model, "native", "binary", GAPS)
    margin = model.predict(GAPS[100:140], output_margin=True)
    np.testing.assert_allclose(ours.values.sum(axis=1) + ours.base, margin, rtol=1e-5, atol=1e-5)
    # The bare booster predicts, and is explained, with all of its trees.
    bare = explain(model.get_booster(), "native", "binary", GAPS)
    assert np.abs(bare.output - ours.output).max() > 0.01


def test_xgboost_trained_on_an_array_with_its_own_mark_for_missing():
    model = xgboost.XGBRegressor(n_estimators=20, missing=-999.0).fit(GAPS.fillna(-999.0).to_numpy(), VALUE)
    frame = GAPS.fillna(-999.0)
    ours = explain(model, "auto", "regression", frame)
    np.testing.assert_allclose(ours.output, model.predict(frame[100:140].to_numpy()), rtol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "task", "message"),
    [
        ({"objective": "count:poisson"}, "regression", "objective count:poisson"),
        ({"objective": "multi:softprob", "num_class": 3}, "regression", r"shape \(10, 3\)"),
        ({"objective": "binary:logistic"}, "regression", "binary:logistic for a regression task"),
        ({"objective": "binary:hinge"}, "binary", "predicts classes"),
        ({"objective": "binary:logitraw"}, "binary", "no probabilities"),
        ({"objective": "reg:squarederror", "booster": "gblinear"}, "regression", "gblinear"),
    ],
)
def test_xgboost_objectives_that_are_not_supported(parameters, task, message):
    data = xgboost.DMatrix(NUMBERS, LABEL)
    model = xgboost.train({"verbosity": 0, **parameters}, data, num_boost_round=3)
    with pytest.raises(ModelError, match=message):
        choose(model, method="native", task=task, background=NUMBERS[:10], features=list("abcd"))


# Linear models


def test_linear_equals_shap():
    model = LogisticRegression().fit(NUMBERS, LABEL)
    oracle = shap.LinearExplainer(model, shap.maskers.Independent(NUMBERS[:30], max_samples=30))
    ours = explain(model, "auto", "binary", NUMBERS)
    np.testing.assert_allclose(ours.values, oracle.shap_values(NUMBERS[100:140]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ours.base, oracle.expected_value, rtol=1e-10)


LOGS = FunctionTransformer(np.expm1, feature_names_out="one-to-one")
ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot, drop, rare": OneHotEncoder(
        drop="first", min_frequency=40, handle_unknown="infrequent_if_exist", sparse_output=False
    ),
    "ordinal": OrdinalEncoder(encoded_missing_value=-1),
    "imputed": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(drop="if_binary")),
}


@pytest.mark.parametrize("name", list(ENCODERS))
@pytest.mark.parametrize("pandas_output", [False, True])
def test_linear_behind_an_encoding_has_the_exact_shapley_values_of_the_features(name, pandas_output):
    encoding = ColumnTransformer(
        [
            ("strings", ENCODERS[name], [2, 3]),
            ("gone", "drop", slice(0, 0)),
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), LOGS, StandardScaler()), ["a", "b"]),
            ("again", "passthrough", np.array([False, True, False, False])),
        ]
    )
    if pandas_output and "sparse_output=False" not in str(ENCODERS[name]) and name != "ordinal":
        encoding.set_params(sparse_threshold=0)
    elif pandas_output:
        encoding.set_output(transform="pandas")
    model = make_pipeline(encoding, SelectKBest(k=5), LogisticRegression()).fit(MIXED, LABEL)
    ours = explain(model, "linear", "binary", MIXED)
    oracle = interventional(log_odds(model), MIXED[100:140], MIXED[:30])
    np.testing.assert_allclose(ours.values, oracle, rtol=1e-8, atol=1e-10)


def test_an_encoding_across_columns_is_left_to_sampling():
    model = make_pipeline(KNNImputer(), Ridge()).fit(GAPS, VALUE)
    with pytest.raises(ModelError, match="KNNImputer is not known to work column by column"):
        choose(model, method="linear", task="regression", background=GAPS[:20], features=list("abcd"))
    ours = explain(model, "auto", "regression", GAPS, rows=5)
    np.testing.assert_allclose(ours.output, model.predict(GAPS[100:105]))


# Trees


def path_dependent(trees, answer, rows: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Lundberg et al. 2020 for every coalition: where a feature is absent, both branches by cover."""

    def walk(tree, node, row, coalition):
        if tree.children_left[node] < 0:
            return answer(tree, node)
        left, right = tree.children_left[node], tree.children_right[node]
        feature, cover = tree.feature[node], tree.weighted_n_node_samples
        if feature in coalition:
            if np.isnan(row[feature]):
                return walk(tree, left if tree.missing_go_to_left[node] else right, row, coalition)
            return walk(tree, left if np.float32(row[feature]) <= tree.threshold[node] else right, row, coalition)
        parts = (cover[child] * walk(tree, child, row, coalition) for child in (left, right))
        return sum(parts) / cover[node]

    def value(coalition):
        return np.array([np.mean([walk(tree, 0, row, coalition) for tree in trees]) for row in rows])

    return shapley(value, rows.shape[1])


def test_forest_by_the_definition_of_path_dependence():
    model = RandomForestClassifier(5, max_depth=4, random_state=0).fit(GAPS, LABEL)
    ours = explain(model, "tree", "binary", GAPS, rows=10)
    oracle = path_dependent(
        [tree.tree_ for tree in model.estimators_],
        lambda tree, node: tree.value[node, 0, 1] / tree.value[node, 0].sum(),
        GAPS[100:110].to_numpy(),
    )
    np.testing.assert_allclose(ours.values, oracle, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.output, model.predict_proba(GAPS[100:110])[:, 1])


def test_tree_behind_scaling_and_selection_is_explained_on_the_features():
    tree = DecisionTreeRegressor(max_depth=4, random_state=0)
    kept = NUMBERS[["c", "a", "b"]]
    plain = clone(tree).fit(kept, VALUE)
    model = make_pipeline(ColumnTransformer([("kept", StandardScaler(), list(kept.columns))]), tree)
    model.fit(NUMBERS, VALUE)
    ours = explain(model, "auto", "regression", NUMBERS, rows=10)
    oracle = path_dependent([plain.tree_], lambda tree, node: tree.value[node, 0, 0], kept[100:110].to_numpy())
    np.testing.assert_allclose(ours.values[:, [2, 0, 1]], oracle, rtol=1e-9, atol=1e-12)
    assert np.array_equal(ours.values[:, 3], np.zeros(10))


@pytest.mark.parametrize(
    ("model", "task", "link"),
    [
        (HistGradientBoostingClassifier(max_iter=20), "binary", "logit"),
        (GradientBoostingClassifier(n_estimators=20), "binary", "logit"),
        (ExtraTreesRegressor(n_estimators=10, max_depth=5), "regression", "identity"),
    ],
)
def test_trees_add_up_exactly(model, task, link):
    model.fit(NUMBERS, LABEL if task == "binary" else VALUE)
    explainer = choose(model, method="tree", task=task, background=NUMBERS[:20], features=list("dcba"))
    ours = explainer.explain(NUMBERS[100:200])
    assert (explainer.name, explainer.link) == ("trees:path_dependent", link)
    np.testing.assert_allclose(ours.residual(), 0, atol=1e-10)


def test_exponential_loss_is_no_logit_and_is_left_to_sampling():
    model = GradientBoostingClassifier(n_estimators=10, loss="exponential").fit(NUMBERS, LABEL)
    explainer = choose(model, method="auto", task="binary", background=NUMBERS[:20], features=list("abcd"))
    assert explainer.name == "permutation"


# Sampling


class Function:
    """A regression by formula, or a classifier of these log-odds."""

    def __init__(self, formula, probability=False):
        self.formula, self.probability = formula, probability

    def predict(self, rows):
        value = self.formula(rows).to_numpy()
        return 1 / (1 + np.exp(-value)) if self.probability else value


def test_sampling_has_no_error_for_interactions_of_pairs():
    model = Function(
        lambda r: r["a"].fillna(0) * (r["kind"] == "x") + np.sin(r["b"]) * (r["place"] == "s") - r["a"].isna() * r["b"],
        probability=True,
    )
    ours = explain(model, "auto", "binary", MIXED)
    oracle = interventional(lambda rows: model.formula(rows).to_numpy(), MIXED[100:140], MIXED[:30])
    np.testing.assert_allclose(ours.values, oracle, atol=1e-9)


def test_sampling_errs_little_for_interactions_of_four():
    model = Function(lambda r: r["a"] * r["b"] * (1 + r["c"] * np.sign(r["d"])) + np.maximum(r["a"], r["c"]))
    ours = explain(model, "auto", "regression", NUMBERS, background=100)
    oracle = interventional(lambda rows: model.formula(rows).to_numpy(), NUMBERS[100:140], NUMBERS[:100])
    # 16 % when this was written; shap's sampler needs five times as many predictions for the same.
    assert np.abs(ours.values - oracle).mean() < 0.25 * np.abs(oracle).mean()
    assert np.abs(ours.values - oracle).max() > 1e-6
    np.testing.assert_allclose(ours.residual(), 0, atol=1e-12)


@pytest.mark.slow
def test_sampling_agrees_with_shap():
    model = RandomForestClassifier(20, max_depth=5, random_state=0).fit(NUMBERS, LABEL)
    ours = explain(model, "permutation", "binary", NUMBERS, rows=10)

    def clipped(rows):
        p = np.clip(model.predict_proba(pd.DataFrame(rows, columns=list("abcd")))[:, 1], 1e-6, 1 - 1e-6)
        return np.log(p / (1 - p))

    oracle = shap.ExactExplainer(clipped, shap.maskers.Independent(NUMBERS[:30].to_numpy(), max_samples=30))
    exact = oracle(NUMBERS[100:110].to_numpy())
    np.testing.assert_allclose(ours.base, exact.base_values[0], rtol=1e-9)
    assert np.abs(ours.values - exact.values).mean() < 0.1 * np.abs(exact.values).mean()


def test_sampling_of_a_single_feature():
    ours = explain(Function(lambda r: r["a"] ** 2), "auto", "regression", NUMBERS[["a"]])
    np.testing.assert_allclose(ours.values[:, 0], ours.output - ours.base, atol=1e-12)


def test_certainty_is_clipped():
    ours = explain(Function(lambda r: 1e2 * r["a"] + 1e-3, probability=True), "auto", "binary", NUMBERS[["a", "b"]])
    assert np.abs(ours.output).max() == pytest.approx(np.log(1e6 - 1), abs=1e-9)
    assert np.isfinite(ours.values).all()
