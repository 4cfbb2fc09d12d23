"""Loss attributions: against brute force over all subsets, and what the sums and the verdict make of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

from whydrift.monitors.binning import fit_bins
from whydrift.monitors.loss_attribution import fit_usual_losses, loss_grounds, tell_losses
from whydrift.monitors.loss_sampling import LossSampling, drawn
from whydrift.monitors.summary import Layout, Outcomes, WindowSummary, merge
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.loss_attribution import BACKGROUND, LossExplainer, explain_losses, fit_sampling
from whydrift.pipelines.explainers.losses import Loss, brier, find_loss
from whydrift.pipelines.explainers.prediction import Predictor, predictor
from whydrift.pipelines.loss_section import LossAttribution

NAMES = ["a", "b", "c", "d"]
COHORT = (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))


def make_rows(count, seed):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(count, len(NAMES))), columns=NAMES)
    margin = 1.5 * rows["a"] + rows["b"] * rows["c"] + 0.8 * rows["d"]
    return rows, margin.to_numpy(), rng


def binary(count, seed):
    rows, margin, rng = make_rows(count, seed)
    return rows, (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(float)


def multiclass(count, seed):
    rows, margin, rng = make_rows(count, seed)
    return rows, np.digitize(margin + rng.normal(size=count), [-0.7, 0.7]).astype(float)


def regression(count, seed):
    rows, margin, rng = make_rows(count, seed)
    return rows, margin + rng.normal(size=count)


MADE = {"binary": binary, "multiclass": multiclass, "regression": regression}


def fit(task):
    rows, label = MADE[task](600, 0)
    kind = GradientBoostingRegressor if task == "regression" else GradientBoostingClassifier
    return kind(n_estimators=20, max_depth=3, random_state=0).fit(rows, label)


MODELS = {task: fit(task) for task in MADE}


def explainer_of(task, loss="auto", background=6, **section):
    rows, _ = MADE[task](background, 1)
    columns = Columns.of(rows, NAMES)
    classes = ("0.0", "1.0", "2.0") if task == "multiclass" else ()
    predict = predictor(MODELS[task], task, columns, rows, classes)
    return LossExplainer.of(predict, find_loss(LossAttribution(loss=loss, **section), task), columns, rows), rows


def shapley(explainer, background, row, label):
    """By the definition: all subsets, all background rows."""
    count, worth = len(NAMES), {}
    for known in itertools.product([False, True], repeat=count):
        mixed = background.copy()
        for j, name in enumerate(NAMES):
            if known[j]:
                mixed[name] = row[name]
        worth[known] = explainer.loss(np.full(len(mixed), label), explainer.predict(mixed)).mean()
    values = np.zeros(count)
    for j, known in itertools.product(range(count), worth):
        if not known[j]:
            size = sum(known)
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            values[j] += weight * (worth[(*known[:j], True, *known[j + 1 :])] - worth[known])
    return values


KINDS = [
    ("binary", "auto", {}),
    ("binary", "log_loss", {}),
    ("multiclass", "auto", {}),
    ("multiclass", "log_loss", {}),
    ("regression", "auto", {}),
    ("regression", "absolute_error", {}),
    ("regression", "pinball", {"quantile": 0.9}),
    ("binary", "user_losses:cost", {}),
]


@pytest.mark.parametrize(("task", "loss", "section"), KINDS)
def test_adds_up_and_estimates_the_shapley_value_of_the_loss(task, loss, section):
    """Of one row in the mean over walks of many; a single row's attribution is an estimate with a known error."""
    explainer, background = explainer_of(task, loss, **section)
    rows, label = MADE[task](12, 2)
    found = explainer.explain(rows, label, np.ones(len(rows)))
    value = found.changes.mean(axis=2)
    answer = explainer.predict(rows)
    np.testing.assert_allclose(found.loss, explainer.loss(label, answer), rtol=1e-9, atol=1e-12)
    expected = [explainer.loss(np.full(len(background), y), explainer.start).mean() for y in label]
    np.testing.assert_allclose(found.base, expected, rtol=1e-12)
    np.testing.assert_allclose(value.sum(axis=1), found.loss - found.base, atol=1e-12)

    exact = np.array([shapley(explainer, background, rows.iloc[i], label[i]) for i in range(len(rows))])
    many = np.mean([other_orders(explainer, background, seed, rows, label) for seed in range(40)], axis=0)
    off = np.abs(many - exact).max() / np.abs(exact).max()
    assert off < 0.04
    assert np.abs(exact).max() > 0.05


def other_orders(explainer, background, seed, rows, label):
    walks = type(explainer.walks).draw(background, np.random.default_rng(seed))
    other = replace(explainer, walks=walks)
    return other.explain(rows, label, np.ones(len(rows))).changes.mean(axis=2)


def test_exact_where_the_loss_has_pairs_only():
    """The squared error of a linear model: one walk and its reverse are enough."""
    background, _ = make_rows(5, 1)[:2]
    columns = Columns.of(background, NAMES)
    explainer = LossExplainer.of(
        Predictor(lambda frame: frame.to_numpy() @ np.array([1.0, -2.0, 0.5, 0.0]), apart=False),
        find_loss(LossAttribution(), "regression"),
        columns,
        background,
    )
    rows, label = regression(8, 3)
    found = explainer.explain(rows, label, np.ones(8)).changes.mean(axis=2)
    exact = [shapley(explainer, background, rows.iloc[i], label[i]) for i in range(8)]
    np.testing.assert_allclose(found, exact, atol=1e-12)
    np.testing.assert_array_equal(found[:, 3], 0.0)


def test_a_row_does_not_hang_on_its_batch():
    explainer, _ = explainer_of("multiclass")
    rows, label = multiclass(9, 4)
    whole = explainer.explain(rows, label, np.ones(9)).changes
    for i in (0, 4, 8):
        own = explainer.explain(rows.iloc[[i]], label[[i]], np.ones(1)).changes
        assert own.tobytes() == whole[[i]].tobytes()


def test_rows_that_are_asked_together_fail_alone():
    explainer, _ = explainer_of("regression")
    rows, label = regression(5, 8)
    assert explainer.predict.apart

    def refusing(frame):
        if frame["a"].isna().any():
            raise ModelError("no a")
        return explainer.predict(frame)

    asked = replace(explainer, predict=Predictor(refusing, apart=True))
    found = asked.explain(rows.assign(a=rows["a"].where(rows.index != 2)), label, np.ones(5))
    expected = explainer.explain(rows, label, np.ones(5))
    assert np.isnan(found.loss).tolist() == [False, False, True, False, False]
    kept = [0, 1, 3, 4]
    assert found.changes[kept].tobytes() == expected.changes[kept].tobytes()


def layout_for(task, explainer, rate=1.0):
    rows, label = MADE[task](400, 5)
    return Layout(
        task=task,
        link="identity",
        scale=1.0,
        loss_scale=1.0,
        features=tuple(fit_bins(name, rows[name]) for name in NAMES),
        attributions=(),
        slices=(),
        loss_attribution=replace(fit_sampling(explainer, [outcomes_of(task, rows, label, explainer)], None), rate=rate),
    )


def outcomes_of(task, rows, label, explainer, *, weight=None, served=None):
    ids = np.array([f"{task}:{i}:{label[i]}" for i in range(len(rows))], dtype=object)
    prediction = explainer.predict(rows if served is None else served)
    return Outcomes(rows, prediction, np.ones(len(rows)) if weight is None else weight, label, ids)


def cut(batch, rows):
    return Outcomes(
        batch.features.iloc[rows], batch.prediction[rows], batch.weight[rows], batch.label[rows], batch.event_id[rows]
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=40), st.randoms(use_true_random=False))
def test_any_split_gives_the_same_bytes(parts, shuffle):
    explainer, _ = explainer_of("binary", "log_loss")
    rows, label = binary(40, 6)
    layout = layout_for("binary", explainer, rate=0.6)
    batch = outcomes_of("binary", rows, label, explainer, weight=np.random.default_rng(0).uniform(0.2, 3.0, 40))
    whole = explain_losses(explainer, batch, layout)
    order = list(range(40))
    shuffle.shuffle(order)
    pieces = [[i for i in order if parts[i] == part] for part in range(4)]
    split = merge([explain_losses(explainer, cut(batch, piece), layout) for piece in pieces])
    assert split.to_bytes() == whole.to_bytes()
    assert 0 < whole.frame().query("name == '' and stat == 'rows'")["value"].sum() < 40


def test_sums_are_those_of_the_rows():
    explainer, background = explainer_of("regression")
    rows, label = regression(50, 7)
    layout = layout_for("regression", explainer)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 50)
    summary = explain_losses(explainer, outcomes_of("regression", rows, label, explainer, weight=weight), layout)
    told = tell_losses(WindowSummary.from_bytes(summary.to_bytes()).frame(), None, layout, COHORT)
    found = explainer.explain(rows, label, weight)
    value = found.changes.mean(axis=2)
    mean = np.average(value, axis=0, weights=weight)
    by_name = {f.feature: f for f in told.features}
    for j, name in enumerate(NAMES):
        assert by_name[name].value == pytest.approx(mean[j], abs=1e-8)
        own = np.average((value[:, j] - mean[j]) ** 2, weights=weight) * (weight**2).sum() / weight.sum() ** 2
        draws = np.average(found.changes[:, j], axis=0, weights=weight)
        assert by_name[name].error == pytest.approx(np.sqrt(own + draws.var() / (len(background) - 1)), rel=1e-6)
    assert told.mean == pytest.approx(np.average(explainer.loss(label, explainer.predict(rows)), weights=weight))
    assert sum(f.value for f in told.features) == pytest.approx(told.mean - told.expected, abs=1e-8)
    assert [f.value for f in told.features] == sorted((f.value for f in told.features), reverse=True)
    assert (told.rows, told.left_out, told.background_rows, told.loss) == (50, 0, 6, "squared_error")


def test_the_sample_is_a_function_of_the_id_and_weighs_what_it_stands_for():
    ids = [f"event-{i}" for i in range(20_000)]
    half, tenth = drawn(ids, 0.5), drawn(ids, 0.1)
    assert drawn(ids, 1.0).all()
    assert not drawn(ids, 0.0).any()
    assert (half | ~tenth).all()
    assert half.mean() == pytest.approx(0.5, abs=0.015)
    assert drawn(ids[::-1], 0.1)[::-1].tolist() == tenth.tolist()

    explainer, _ = explainer_of("binary")
    rows, label = binary(300, 8)
    layout = layout_for("binary", explainer, rate=0.25)
    frame = explain_losses(explainer, outcomes_of("binary", rows, label, explainer), layout).frame()
    own = frame[frame["name"] == ""].set_index("stat")["value"]
    assert 40 < own["rows"] < 110
    assert own["weight"] == pytest.approx(4 * own["rows"])


def days(explainer, layout, seeds, change=lambda rows, label, rng: (rows, label)):
    frames = []
    for seed in seeds:
        rows, label = binary(200, seed)
        rows, label = change(rows, label, np.random.default_rng(seed))
        frames.append(explain_losses(explainer, outcomes_of("binary", rows, label, explainer), layout).frame())
    return frames


@pytest.fixture(scope="module")
def fitted():
    explainer, _ = explainer_of("binary", background=BACKGROUND)
    layout = layout_for("binary", explainer)
    return explainer, layout, fit_usual_losses(days(explainer, layout, range(100, 112)), layout)


def test_a_feed_that_breaks_is_blamed_and_no_other(fitted):
    explainer, layout, usual = fitted

    def shuffle(rows, label, rng):
        return rows.assign(a=rng.permutation(rows["a"])), label

    (quiet,), (broken,) = days(explainer, layout, [201]), days(explainer, layout, [201], shuffle)
    before, after = tell_losses(quiet, usual, layout, COHORT), tell_losses(broken, usual, layout, COHORT)
    assert after.features[0].feature == "a"
    assert after.features[0].effect > 3.5
    assert after.features[0].value > 0 > after.features[0].baseline
    assert all(abs(f.effect) < 2 for f in after.features[1:])
    assert all(abs(f.effect) < 3 for f in before.features)
    grounds = loss_grounds(after)
    assert len(grounds) == 1
    assert grounds[0].startswith("the loss attribution of a rose by 0.")
    assert "no feature's loss attribution rose" in loss_grounds(before)[0]
    assert after.mean - after.baseline_mean == pytest.approx(
        sum(f.change for f in after.features) + after.expected - after.baseline_expected, abs=1e-8
    )


def test_a_concept_that_turns_in_one_feature(fitted):
    explainer, layout, usual = fitted

    def flip(rows, label, rng):
        margin = 1.5 * rows["a"] + rows["b"] * rows["c"] - 0.8 * rows["d"]
        return rows, (rng.random(len(rows)) < 1 / (1 + np.exp(-margin))).astype(float)

    told = tell_losses(merge_frames(days(explainer, layout, [301, 302], flip)), usual, layout, COHORT)
    assert told.features[0].feature == "d"
    assert told.features[0].effect > 4
    assert told.features[0].effect > 2 * max(f.effect for f in told.features[1:])


def merge_frames(frames):
    return pd.concat(frames, ignore_index=True)


class TestAbsent:
    def test_without_sampling_there_is_nothing(self, fitted):
        explainer, layout, _ = fitted
        rows, label = binary(60, 9)
        batch = outcomes_of("binary", rows, label, explainer)
        nothing = replace(layout, loss_attribution=None)
        assert explain_losses(explainer, batch, nothing) == WindowSummary.zero()
        frame = explain_losses(explainer, batch, layout).frame()
        assert tell_losses(frame, None, nothing, COHORT) is None
        assert tell_losses(None, None, layout, COHORT) is None
        assert loss_grounds(None) == ()

    def test_of_few_rows_nothing_is_said(self, fitted):
        explainer, layout, usual = fitted
        rows, label = binary(29, 9)
        frame = explain_losses(explainer, outcomes_of("binary", rows, label, explainer), layout).frame()
        assert tell_losses(frame, usual, layout, COHORT) is None

    def test_of_a_short_baseline_there_is_no_change(self, fitted):
        explainer, layout, _ = fitted
        assert fit_usual_losses(days(explainer, layout, range(4)), layout) is None
        (frame,) = days(explainer, layout, [5])
        told = tell_losses(frame, None, layout, COHORT)
        assert told.baseline_mean is None
        assert {f.change for f in told.features} == {None}
        assert loss_grounds(told) == ()

    def test_rows_that_cannot_be_explained_are_counted(self, fitted):
        """The model refuses mixtures with the first row, and answers those of the third with no number."""
        explainer, layout, usual = fitted
        rows, label = binary(60, 10)
        rows.loc[0, "a"], label[1], rows.loc[2, "a"] = 1e9, np.nan, 1e7

        def refuse(frame):
            if frame["a"].max() > 1e8:
                raise ModelError("too large")
            return np.where((frame["a"] > 1e6) & (frame["b"] != rows["b"][2]), np.nan, explainer.predict(frame))

        picky = replace(explainer, predict=Predictor(refuse, apart=True))
        batch = outcomes_of("binary", rows, label, explainer)
        told = tell_losses(explain_losses(picky, batch, layout).frame(), usual, layout, COHORT)
        assert (told.rows, told.left_out) == (57, 3)


def test_sampling_is_fitted_to_the_windows():
    explainer, _ = explainer_of("regression")
    rows, label = regression(500, 11)
    batches = [outcomes_of("regression", rows, label, explainer) for _ in range(3)]
    fitted = fit_sampling(explainer, batches, 100)
    spread = explainer.loss(label, explainer.predict(rows)).std()
    assert fitted == LossSampling("squared_error", 2.0 ** np.round(np.log2(spread)), 0.2, 6)
    assert fit_sampling(explainer, batches, None).rate == 200 / 500
    assert fit_sampling(explainer, [], None) == LossSampling("squared_error", 1.0, 1.0, 6)


def test_wide_models_have_fewer_rows_explained():
    wide = pd.DataFrame(np.zeros((BACKGROUND, 400)), columns=[f"f{i}" for i in range(400)])
    columns = Columns.of(wide, list(wide.columns))
    explainer = LossExplainer.of(
        Predictor(lambda frame: np.zeros(len(frame)), apart=True), Loss("brier", brier), columns, wide
    )
    assert explainer.rows(None) == 400_000 // (2 * 20 * 399)
    assert explainer.rows(1000) == 1000
