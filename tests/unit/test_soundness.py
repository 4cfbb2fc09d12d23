"""What a baseline measures of its own explanations, on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression, Ridge

from soundness import walk
from whydrift.pipelines import config as configuration
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.registry import LoadedModel
from whydrift.pipelines.rows import make_explainer
from whydrift.pipelines.soundness import BACKGROUNDS, NOISE, ROWS, from_json, measure, to_json

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(RNG.normal(size=(2000, 3)) * [1.0, 2.0, 0.5], columns=["a", "b", "c"])
FRAME["kind"] = RNG.choice(["x", "y"], len(FRAME))
VALUE = (2 * FRAME["a"] + FRAME["b"] - FRAME["c"]).to_numpy()
BACKGROUND_ROWS = 40
USUAL = 1000  # rows of a window


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "m.yaml"
    path.write_text(
        "model: {name: m, task: regression}\nmlflow: {tracking_uri: 'sqlite:///mlflow.db'}\n"
        "inference_log: {path: logs}\nbaseline: {start: 2024-01-01, end: 2024-02-01}\nstore: s\noutputs: o\n"
        f"explainer: {{background_rows: {BACKGROUND_ROWS}}}\n"
    )
    return configuration.load(path)


def run(config, native, features, spare=None, method="auto"):
    config = config.model_copy(update={"explainer": config.explainer.model_copy(update={"method": method})})
    model = LoadedModel(native, {f: "string" if f == "kind" else "number" for f in features}, "d" * 64)
    explainer = make_explainer(config, model, FRAME[features][:BACKGROUND_ROWS], USUAL)
    spare = FRAME[features][600 : 600 + BACKGROUNDS * BACKGROUND_ROWS] if spare is None else spare
    return measure(config, model, explainer, FRAME[features][:BACKGROUND_ROWS], FRAME[features][:500], spare, USUAL)


NUMBERS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def ridge():
    return Ridge(alpha=1e-6).fit(FRAME[NUMBERS], VALUE)


@pytest.fixture(scope="module")
def trees():
    rows = FRAME.assign(kind=pd.Categorical(FRAME["kind"]))
    return xgboost.XGBRegressor(n_estimators=80, max_depth=3, enable_categorical=True).fit(rows, VALUE)


def test_a_linear_model_hangs_on_its_background_by_the_error_of_a_mean(config, ridge):
    found = run(config, ridge, NUMBERS)
    assert (found.explainer, found.rows, found.backgrounds, found.noise) == ("linear", ROWS, BACKGROUNDS, NOISE)
    spare = FRAME[NUMBERS][600 : 600 + BACKGROUNDS * BACKGROUND_ROWS]
    means = np.array([spare[i::BACKGROUNDS].mean() for i in range(BACKGROUNDS)])
    sizes = np.abs(FRAME[NUMBERS][:ROWS].to_numpy()[None] - means[:, None]).mean(axis=(0, 1))
    background = [f.background for f in found.features]
    np.testing.assert_allclose(background, means.std(axis=0, ddof=1) / sizes, rtol=1e-4)
    np.testing.assert_allclose(background, 1.25 / np.sqrt(BACKGROUND_ROWS), rtol=0.7)  # sd / mean |x - m|, by sqrt(b)


def test_the_stability_of_a_linear_model_is_that_of_its_weights(config, ridge):
    found = run(config, ridge, NUMBERS)
    weights = [2.0, 2.0, 0.5]  # by deviations of the inputs
    assert max(weights) * 0.9 < found.lipschitz <= max(weights) * 1.1
    assert 0 < found.sensitivity < 0.1
    # the largest of 8 normal variables is 1.85 deviations away, and the mean of one 0.8
    np.testing.assert_allclose([f.sensitivity for f in found.features], NOISE * 1.85 / 0.8, rtol=0.25)


def test_two_methods_that_are_both_exact_agree(config, ridge):
    agreement = run(config, ridge, NUMBERS).agreement
    assert (agreement.method, agreement.rows, agreement.top) == ("permutation", ROWS, 2)
    assert (agreement.features, agreement.signs) == (1.0, 1.0)
    assert agreement.ranks == pytest.approx(1.0)


def test_contributions_of_trees_have_no_background(config, trees):
    found = run(config, trees, ["kind", *NUMBERS])
    assert found.explainer == "xgboost:pred_contribs"
    assert found.backgrounds == 0
    assert {f.background for f in found.features} == {None}
    assert all(f.sensitivity > 0 for f in found.features if f.feature != "kind")
    assert found.agreement.signs > 0.8
    assert found.agreement.ranks > 0.8


@pytest.mark.parametrize("method", ["permutation", "kernel"])
def test_lime_is_the_second_opinion_on_sampled_shapley_values(config, ridge, method):
    found = run(config, ridge, NUMBERS, method=method)
    assert (found.agreement.method, found.agreement.rows) == ("lime", ROWS)
    assert found.agreement.ranks == pytest.approx(1.0)
    assert found.backgrounds == BACKGROUNDS


def test_it_is_a_function_of_the_rows_and_survives_json(config, trees):
    found = run(config, trees, ["kind", *NUMBERS])
    assert to_json(run(config, trees, ["kind", *NUMBERS])) == to_json(found)
    assert from_json(to_json(found)) == found
    walk(found)


def test_whole_numbers_stay_whole(config):
    seen = []

    class Counts:
        def predict(self, rows):
            seen.append(rows["n"].to_numpy())
            return rows["n"].to_numpy() + rows["a"].to_numpy()

    rows = FRAME[["a"]].assign(n=RNG.integers(0, 9, len(FRAME)))
    model = LoadedModel(Counts(), {"a": "number", "n": "number"}, "d" * 64)
    explainer = make_explainer(config, model, rows[:40], USUAL)
    found = measure(config, model, explainer, rows[:40], rows[:300], rows[:200], USUAL)
    assert all((n == np.round(n)).all() for n in seen)
    assert [f.sensitivity > 0 for f in found.features] == [True, False]


class Words:
    def predict(self, rows):
        return (rows["kind"] == "x").to_numpy(float)


def test_words_alone_cannot_be_moved_a_little(config):
    found = run(config, Words(), ["kind"])
    assert (found.sensitivity, found.lipschitz) == (None, None)
    assert found.features[0].sensitivity is None
    assert found.features[0].background > 0


def test_rows_with_holes_and_whole_numbers(config, trees):
    rows = FRAME[["kind", *NUMBERS]].copy()
    rows.loc[::3, "a"] = np.nan
    rows.loc[::5, "kind"] = None
    rows["b"] = rows["b"].round().astype("int64")
    model = LoadedModel(trees, {"kind": "string", "a": "number", "b": "number", "c": "number"}, "d" * 64)
    explainer = make_explainer(config, model, rows[:40], USUAL)
    walk(measure(config, model, explainer, rows[:40], rows[:200], rows[:200], USUAL))
    few = measure(config, model, explainer, rows[:40], rows[:1], rows[:3], USUAL)
    assert few.rows == 1
    walk(few)


def test_a_wide_model_is_asked_for_fewer_second_opinions(config):
    wide = pd.DataFrame(RNG.normal(size=(300, 120)), columns=[f"f{i}" for i in range(120)])
    native = Ridge().fit(wide, wide.sum(axis=1))
    model = LoadedModel(native, dict.fromkeys(wide, "number"), "d" * 64)
    explainer = make_explainer(config, model, wide[:40], USUAL)
    found = measure(config, model, explainer, wide[:40], wide[:200], wide[:200], USUAL)
    assert found.agreement.rows == 200_000 // (2 * 40 * 120)
    assert found.rows == ROWS


# The standard error of sampled attributions


def wiggly(rows):
    """Interactions of three, so that the order matters too."""
    return np.sin(rows["a"] * rows["b"]) * np.exp(0.3 * rows["c"]) + rows["a"]


class Wiggly:
    def predict(self, rows):
        return wiggly(rows).to_numpy()


def test_the_standard_error_is_the_deviation_between_independent_draws():
    row = FRAME[NUMBERS].iloc[[7, 21, 90]]
    made = []
    for seed in range(150):
        background = FRAME[NUMBERS].sample(25, random_state=seed)
        explainer = choose(Wiggly(), method="permutation", task="regression", background=background, features=NUMBERS)
        made.append(explainer.explain(row))
    actual = np.std([e.values for e in made], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([e.error**2 for e in made], axis=0))
    np.testing.assert_allclose(claimed, actual, rtol=0.25)


def test_it_falls_with_the_root_of_the_background():
    def error(count):
        background = FRAME[NUMBERS][:count]
        explainer = choose(Wiggly(), method="permutation", task="regression", background=background, features=NUMBERS)
        return explainer.explain(FRAME[NUMBERS][1000:1020]).error.mean()

    assert error(400) == pytest.approx(error(100) / 2, rel=0.2)


def test_one_draw_has_no_error_and_neither_has_a_closed_form():
    one = choose(Wiggly(), method="permutation", task="regression", background=FRAME[:1], features=NUMBERS)
    assert one.explain(FRAME[:3]).error is None
    label = np.greater(VALUE, 0)
    model = LogisticRegression().fit(FRAME[NUMBERS], label)
    exact = choose(model, method="auto", task="binary", background=FRAME[:50], features=NUMBERS)
    assert exact.explain(FRAME[:3]).error is None


def test_windows_are_summed_with_it(config):
    from whydrift.monitors.quality import relative_error
    from whydrift.pipelines.rows import LogReader, Summariser
    from whydrift.pipelines.sources.records import Records

    explainer = choose(Wiggly(), method="permutation", task="regression", background=FRAME[:20], features=NUMBERS)
    assert explainer.explain(FRAME[:0]).error.shape == (0, 3)
    from whydrift.monitors.binning import fit_attribution_bins, fit_bins
    from whydrift.monitors.summary import Layout

    rows = FRAME[:60]
    explanation = explainer.explain(rows)
    layout = Layout(
        task="regression",
        link="identity",
        scale=2.0,
        loss_scale=2.0,
        features=tuple(fit_bins(name, rows[name]) for name in NUMBERS),
        attributions=tuple(map(fit_attribution_bins, NUMBERS, explanation.values.T / 2.0)),
        slices=(),
    )
    frame = rows.assign(prediction=explanation.output, weight=1.0)
    summariser = Summariser(LogReader(config, None, dict.fromkeys(NUMBERS, "number")), explainer, layout, "d")
    found = relative_error(summariser.summarise([Records(frame, {})]).frame(), layout)
    expected = np.sqrt((explanation.error**2).mean(axis=0)) / np.abs(explanation.values).mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
