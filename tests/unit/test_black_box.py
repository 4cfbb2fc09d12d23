"""Kernel SHAP and LIME on models of which nothing is known but their predictions."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brute_force import shapley
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.kernel import Coalitions, KernelExplainer
from whydrift.pipelines.explainers.least_squares import solve
from whydrift.pipelines.explainers.prediction import predictor

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

NUMBERS = list("abcdefg")
RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(300, 7)), columns=NUMBERS)
MIXED = ROWS[["a", "b"]].assign(kind=RNG.choice(["x", "y", "z"], 300), c=ROWS["c"].mask(RNG.random(300) < 0.2))
MIXED.loc[::9, "kind"] = None
FEW = ROWS[100:110].reset_index(drop=True)


class Curved:
    """All features interact."""

    def predict(self, rows):
        return (np.sin(rows.to_numpy() @ np.arange(1, 8) / 3) * (1 + rows["a"] * rows["b"])).to_numpy()


class Pairs:
    def predict(self, rows):
        return (rows["a"] * rows["b"] + rows["c"] ** 2 - rows["d"] * rows["e"] + rows["g"]).to_numpy()


class Line:
    def predict(self, rows):
        return rows.to_numpy() @ np.arange(7.0)


class MixedLine:
    def predict(self, rows):
        return (2 * rows["a"] - rows["b"] + 3.0 * (rows["kind"] == "x") + 4.0 * rows["c"].isna()).to_numpy()


class Chances:
    """Three classes; the probability of the last alone where two are asked for."""

    def __init__(self, classes):
        self.classes = classes

    def predict_proba(self, rows):
        scores = np.column_stack([rows["a"] * rows["b"], rows["c"], 2 * np.tanh(rows["d"] + rows["e"])])
        chance = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return chance if self.classes == 3 else np.column_stack([1 - chance[:, 2], chance[:, 2]])


def explainer(model, method, task="regression", background=ROWS[:25], classes=()):
    features = list(background.columns)
    return choose(model, method=method, task=task, background=background, features=features, classes=classes)


def log_odds(rows):
    p = Chances(2).predict_proba(rows)[:, 1]
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize(("model", "score"), [(Curved(), Curved().predict), (Chances(2), log_odds)])
def test_with_all_coalitions_it_is_the_shapley_value(model, score):
    task = "binary" if hasattr(model, "predict_proba") else "regression"
    found = explainer(model, "kernel", task).explain(FEW)
    np.testing.assert_allclose(found.values, shapley(score, FEW, ROWS[:25]), atol=1e-9)
    np.testing.assert_allclose(found.residual(), 0, atol=1e-12)
    np.testing.assert_allclose(found.output, score(FEW), atol=1e-12)


def test_against_shap():
    background = ROWS[:25].to_numpy()
    peer = shap.KernelExplainer(lambda x: Curved().predict(pd.DataFrame(x, columns=NUMBERS)), background)
    expected = peer.shap_values(FEW.to_numpy(), nsamples=2**7, silent=True)
    np.testing.assert_allclose(explainer(Curved(), "kernel").explain(FEW).values, expected, atol=1e-6)


def test_classes_one_by_one():
    names = ("r", "s", "t")
    made = explainer(Chances(3), "kernel", "multiclass", classes=names)
    found = made.explain(FEW)
    assert made.link == "softmax"
    assert found.values.shape == (10, 3, 7)
    for c in range(3):
        expected = shapley(lambda rows, c=c: np.log(Chances(3).predict_proba(rows)[:, c]), FEW, ROWS[:25])
        np.testing.assert_allclose(found.values[:, c], expected, atol=1e-9)


def kernel(model, pairs, background=ROWS[:25]):
    columns = Columns.of(background, list(background.columns))
    predict = predictor(model, "regression", columns, background)
    return KernelExplainer.of(predict, columns, "identity", background, pairs)


def test_drawn_coalitions_are_exact_for_pairs():
    found = kernel(Pairs(), 20).explain(FEW)
    np.testing.assert_allclose(found.values, shapley(Pairs().predict, FEW, ROWS[:25]), atol=1e-9)


def test_the_error_is_what_drawing_adds():
    """Against all coalitions; a single background row adds no error of its own."""
    rows, background = ROWS[200:240], ROWS[:1]
    exact = kernel(Curved(), 100, background).explain(rows)
    drawn = kernel(Curved(), 30, background)
    assert 0 < drawn.coalitions.drawn < 30
    found = drawn.explain(rows)
    np.testing.assert_allclose(found.residual(), 0, atol=1e-12)
    off = found.values - exact.values
    assert 0.7 < np.sqrt((off**2).mean() / (found.error**2).mean()) < 1.4
    assert (np.abs(off) < 3 * found.error).mean() > 0.95
    assert exact.error is None


def test_the_error_of_the_background_is_that_of_a_mean():
    found = explainer(Line(), "kernel").explain(FEW)
    np.testing.assert_allclose(found.error[0], np.arange(7) * ROWS[:25].std(ddof=1) / 5, atol=1e-9)
    assert explainer(Line(), "kernel", background=ROWS[:1]).explain(FEW).error is None


@pytest.mark.parametrize("width", [1, 2, 3, 4, 11])
def test_few_features_are_taken_whole(width):
    coalitions = Coalitions.draw(width, width + 1024, np.random.default_rng(0))
    assert coalitions.drawn == 0
    assert len(np.unique(coalitions.members, axis=0)) == len(coalitions.members) == 2**width - 2


@settings(max_examples=30, deadline=None)
@given(width=st.integers(2, 40), pairs=st.integers(60, 300))
def test_coalitions_have_the_weight_that_the_kernel_gives_their_size(width, pairs):
    coalitions = Coalitions.draw(width, pairs, np.random.default_rng(1))
    half = len(coalitions.members) // 2
    np.testing.assert_array_equal(coalitions.members[:half], ~coalitions.members[half:])
    assert half == min(pairs, 2 ** (width - 1) - 1)
    sizes = np.arange(1, width)
    kernel_mass = (width - 1) / (sizes * (width - sizes))
    assert coalitions.weight.sum() == pytest.approx(kernel_mass.sum())
    gains, whole = coalitions.fit()
    np.testing.assert_allclose(gains.sum(axis=0), 0, atol=1e-9)  # efficiency
    assert whole.sum() == pytest.approx(1)
    line = coalitions.members @ np.arange(width)  # of a sum of features the fit gives the features
    np.testing.assert_allclose(gains @ line + whole * np.arange(width).sum(), np.arange(width), atol=1e-8)


def test_equations_against_numpy():
    a = RNG.normal(size=(9, 4))
    right = RNG.normal(size=(4, 3))
    np.testing.assert_allclose(solve(a.T @ a, right), np.linalg.solve(a.T @ a, right), rtol=1e-9)
    with pytest.raises(ValueError, match="no single solution"):
        solve(np.ones((2, 2)), right[:2])


@pytest.mark.parametrize("method", ["kernel", "lime"])
@pytest.mark.parametrize(
    ("model", "task", "rows", "classes"),
    [
        (Curved(), "regression", ROWS, ()),
        (Chances(3), "multiclass", ROWS, ("r", "s", "t")),
        (MixedLine(), "regression", MIXED, ()),
    ],
)
def test_a_row_has_the_same_bits_in_any_batch(method, model, task, rows, classes):
    made = explainer(model, method, task, rows[:25], classes)
    few = rows[50:58]
    whole = made.explain(few)
    order = np.array([3, 0, 6, 1, 5, 2, 4, 7])
    pieces = [made.explain(few.iloc[part]) for part in (order[:1], order[1:4], order[4:])]
    for field in ("values", "output", "error"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in pieces]), getattr(whole, field)[order])
    again = explainer(model, method, task, rows[:25], classes)
    np.testing.assert_array_equal(again.explain(few).values, whole.values)
    assert dict(again.parameters) == dict(made.parameters)
    assert dict(explainer(model, method, task, rows[1:26], classes).parameters) != dict(made.parameters)
    assert made.explain(few[:0]).values.shape == (0, *whole.values.shape[1:])


def test_lime_of_a_line_is_its_shapley_value():
    found = explainer(Line(), "lime").explain(FEW)
    np.testing.assert_allclose(found.values, np.arange(7) * (FEW - ROWS[:25].mean()), atol=1e-5)
    np.testing.assert_allclose(found.residual(), 0, atol=1e-5)
    assert found.error.max() < 1e-5


def test_lime_of_text_and_missing_values_is_what_they_add_to_the_average():
    background, rows = MIXED[:40], MIXED[40:80]
    found = explainer(MixedLine(), "lime", background=background).explain(rows)
    expected = shapley(MixedLine().predict, rows, background)
    x = (rows["kind"] == "x").to_numpy()  # for other rows some differences count, and some do not
    np.testing.assert_allclose(found.values[x], expected[x], atol=1e-5)
    np.testing.assert_allclose(found.residual()[x], 0, atol=1e-5)
    assert 0 < rows["c"].isna()[x].sum() < x.sum()


def test_the_error_of_lime_is_what_other_neighbours_would_change():
    """Rows that are as good as equal have neighbours of their own."""
    rows = ROWS.iloc[[200] * 80].reset_index(drop=True)
    rows["a"] += np.arange(80) * 1e-12
    found = explainer(Curved(), "lime").explain(rows)
    np.testing.assert_allclose(found.values.std(axis=0), np.sqrt((found.error**2).mean(axis=0)), rtol=0.4)
    assert np.abs(found.residual()).min() > 0.01  # what is no line


def test_rows_that_the_model_refuses():
    class Picky(Line):
        def predict(self, rows):
            if rows["a"].max() > 50:
                raise ValueError("too large")
            return super().predict(rows)

    for method in ("kernel", "lime"):
        with pytest.raises(ModelError, match=r"refuses row 1 of the batch.*too large"):
            explainer(Picky(), method).explain(FEW.assign(a=[0, 99, *[0] * 8]))


def test_lime_is_not_monitored_by():
    from whydrift.pipelines.sections import Explainer

    assert Explainer(method="kernel").method == "kernel"
    with pytest.raises(ValueError, match="Input should be"):
        Explainer(method="lime")
