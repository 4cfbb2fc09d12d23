"""The watched numbers: in the order of their list, and equal to what the rows say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from whydrift.monitors import evidence as ev
from whydrift.monitors import findings
from whydrift.monitors.attribution import moments
from whydrift.monitors.calibration import brier, smece
from whydrift.monitors.distances import counts, response, shape, standardise
from whydrift.monitors.outcome_streams import (
    MIN_LABELLED,
    OUTCOME_STREAMS,
    all_slices,
    losses,
    score_mesh,
    usual_calibration,
)
from whydrift.monitors.reference import refer
from whydrift.monitors.stream_input import StreamInput
from whydrift.monitors.streams import list_streams, observe
from whydrift.monitors.summary import Outcomes, WindowSummary, merge, summarise_outcomes

DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}
KINDS = {"share", "level", "shape", "response", "group_share", "group_level", "score_mean", "score_shape"}
KINDS |= {"effective_features", "residual", "calibration_intercept", "calibration_slope", "smece", "loss"}


def outcomes(rows, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["x1", "x2", "x3"])
    frame["carrier"] = rng.choice(["a", "b", "c"], rows)
    prediction = rng.uniform(0.05, 0.95, rows)
    label = (rng.random(rows) < expit(logit(prediction) + 0.3)).astype(float)
    return Outcomes(frame, prediction, np.ones(rows) if weight is None else weight, label)


def look(world, reference, now, late, *, frame=None, labels=True):
    """A window's values and variances by kind and name."""
    frame = WindowSummary.zero().frame() if frame is None else frame
    window = StreamInput(world.start(40), frame, now, late, reference.heads[0].streams)
    seen = observe([window], world.layout, labels=labels)
    keys = [(s.kind, s.feature or s.group or s.slice) for s in list_streams(world.layout, labels=labels)]
    return dict(zip(keys, zip(seen.values, seen.variances, strict=True), strict=True))


def test_the_list_of_streams(world):
    kinds = [
        (s.kind, s.feature or s.group or s.slice, s.one_sided)
        for s in list_streams(world.layout, labels=True)
        if s.kind in KINDS
    ]
    names = ["x1", "x2", "x3", "carrier"]
    assert kinds == [
        *[("share", n, False) for n in names],
        *[("level", n, False) for n in names],
        *[("shape", n, True) for n in names],
        *[("response", n, True) for n in names],
        ("group_share", "sensors", False),
        ("group_level", "sensors", False),
        ("score_mean", None, False),
        ("score_shape", None, True),
        ("effective_features", None, False),
        ("residual", None, True),
        ("calibration_intercept", None, False),
        ("calibration_slope", None, False),
        ("smece", None, True),
        ("loss", None, True),
        *[("loss", f"carrier={c}", True) for c in "abc"],
    ]
    regression = replace(world.layout, task="regression", link="identity")
    of_regression = {s.kind for s in list_streams(regression, labels=True)}
    assert {"share", "score_shape", "loss"} <= of_regression
    assert of_regression.isdisjoint({"calibration_intercept", "calibration_slope", "smece"})
    assert {s.kind for s in list_streams(world.layout, labels=False)}.isdisjoint(OUTCOME_STREAMS)
    assert all_slices(world.layout) == ["carrier=a", "carrier=b", "carrier=c"]


def test_every_stream_has_words_of_its_own(world, reference):
    """A finding can be written of each, in units that are numbers."""
    evidence = ev.step(reference.detector, reference.detector.start, quiet_observation(world, reference))[1]
    for stream in list_streams(world.layout, labels=True):
        assert stream.kind in findings._WORDS
        assert findings._subject(stream)
        for value in (-700.0, 0.0, 1.0):
            assert np.isfinite(findings._in_its_unit(reference, stream, value))
    assert evidence.observed.any()


def quiet_observation(world, reference):
    window = world.windows(1)[0]
    frame = window.summary.frame()
    now = moments(frame, world.layout)
    seen = StreamInput(world.start(40), frame, now, window.outcomes.frame(), reference.heads[0].streams)
    return observe([seen], world.layout, labels=True)


def test_values_stand_in_the_order_of_the_list(world, reference):
    batch = outcomes(600)
    frame = world.windows(1)[0].summary.frame()
    now = moments(frame, world.layout)
    value = look(world, reference, now, summarise_outcomes(batch, world.layout).frame(), frame=frame)
    fixed = reference.heads[0].streams
    assert value["share", "x2"][0] == pytest.approx(np.log(now.share[1]), abs=2e-3)
    assert value["level", "x3"] == pytest.approx((now.value[2] / fixed.deviation[2], 1 / now.rows))
    assert value["group_share", "sensors"][0] == pytest.approx(np.log(now.groups.share[0]), abs=2e-3)
    assert value["group_level", "sensors"][0] == pytest.approx(now.groups.value[0] / fixed.group_deviation[0])
    assert value["score_mean", None] == pytest.approx((now.output, (now.output2 - now.output**2) / now.rows))
    assert np.exp(value["effective_features", None][0]) == pytest.approx(np.exp(-(now.share @ np.log(now.share))))
    mine = counts(frame, world.layout)
    expected = standardise(shape(mine.phi, fixed.counts.phi, now.rows, fixed.counts.rows), fixed.shape_excess)
    assert value["shape", "x3"] == (expected[2], 0.0)
    assert value["response", "x1"] == (standardise(response(mine, fixed.counts), fixed.response_excess)[0], 0.0)
    assert value["loss", None][0] == pytest.approx(brier_score_loss(batch.label, batch.prediction))
    chosen = (batch.features["carrier"] == "b").to_numpy()
    expected = brier_score_loss(batch.label[chosen], batch.prediction[chosen])
    assert value["loss", "carrier=b"][0] == pytest.approx(expected)
    shift = brentq(lambda a: (expit(logit(batch.prediction) + a) - batch.label).sum(), -5, 5)
    assert value["calibration_intercept", None][0] == pytest.approx(shift, abs=2e-3)
    constant = {("response", "carrier"), ("residual", None)}  # one attribution per category; and it adds up
    for key, (number, variance) in value.items():
        assert np.isnan(number) == (key in constant), key
        assert key in constant or (np.isfinite(number) and variance >= 0), key


def test_the_calibration_slope_and_its_error_are_those_of_a_logistic_regression(world, reference):
    batch = outcomes(3000, seed=4)
    design = np.column_stack([np.ones(3000), logit(batch.prediction)])
    theta = minimize(lambda t: np.logaddexp(0, design @ t).sum() - batch.label @ (design @ t), [0.0, 1.0]).x
    chance = expit(design @ theta)
    covariance = np.linalg.inv(design.T @ (design * (chance * (1 - chance))[:, None]))
    slope = look(world, reference, None, summarise_outcomes(batch, world.layout).frame())["calibration_slope", None]
    assert slope[0] == pytest.approx(theta[1], rel=0.01)
    assert slope[1] == pytest.approx(covariance[1, 1], rel=0.02)


def test_the_residual_is_a_stream_where_explanations_do_not_add_up(world):
    """Sampled explanations miss something of every output; how much is watched, in logarithms."""
    rng = np.random.default_rng(0)
    noise = 1e-4 * rng.standard_normal((400, 4))
    sampled = world.change(values=lambda v: v + noise)
    reference = refer(world.baseline(changes=dict.fromkeys(range(35), sampled)), world.layout, world.settings, DIGESTS)
    frame = world.summaries(40, sampled)[0].frame()
    value, variance = look(world, reference, moments(frame, world.layout), None, frame=frame)["residual", None]
    assert np.exp(value) == pytest.approx(np.abs(noise.sum(axis=1)).mean(), rel=1e-4)
    assert variance == pytest.approx(np.abs(noise.sum(axis=1)).var() / np.exp(value) ** 2 / 400, rel=1e-3)


def test_what_is_not_there_is_not_observed(world, reference):
    nothing = look(world, reference, None, None)
    assert len(nothing) == len(reference.detector.streams)
    assert np.isnan(list(nothing.values())).all()
    assert np.isnan(list(look(world, reference, None, WindowSummary.zero().frame()).values())).all()
    assert OUTCOME_STREAMS.isdisjoint(kind for kind, _ in look(world, reference, None, None, labels=False))


def test_small_slices_are_not_observed(world, reference):
    seen = look(world, reference, None, summarise_outcomes(outcomes(MIN_LABELLED + 5), world.layout).frame())
    assert np.isfinite([seen[k] for k in (("calibration_intercept", None), ("smece", None), ("loss", None))]).all()
    assert np.isnan([seen["loss", f"carrier={c}"] for c in "abc"]).all()


def test_labels_of_one_kind_have_a_loss_and_a_smooth_error_and_no_fit(world, reference):
    batch = replace(outcomes(500), label=np.zeros(500))
    frame = summarise_outcomes(batch, world.layout).frame()
    seen = look(world, reference, None, frame)
    assert np.isnan([seen[k, None] for k in ("calibration_intercept", "calibration_slope")]).all()
    assert seen["smece", None][0] == pytest.approx(smece(score_mesh(frame)))
    assert seen["smece", None][0] >= 0.99 * batch.prediction.mean()  # it is at least the gap of the means
    assert seen["loss", None][0] == pytest.approx((batch.prediction**2).mean())


def test_the_variance_of_a_loss_is_that_of_a_weighted_mean(world):
    rng = np.random.default_rng(3)
    batch = outcomes(800, weight=rng.choice([1.0, 3.0], 800))
    found = losses(summarise_outcomes(batch, world.layout).frame())[""]
    loss = (batch.label - batch.prediction) ** 2
    assert found.mean == pytest.approx(np.average(loss, weights=batch.weight))
    assert found.rows == 800
    assert found.positives == batch.label.sum()
    picks = rng.integers(0, 800, (4000, 800))
    w = batch.weight[picks]
    boot = ((w * loss[picks]).sum(axis=1) / w.sum(axis=1)).var()
    assert found.variance == pytest.approx(boot, rel=0.15)


def test_the_mesh_is_that_of_the_labelled_rows(world):
    batch = outcomes(300)
    mesh = score_mesh(summarise_outcomes(batch, world.layout).frame())
    assert mesh.labelled.sum() == pytest.approx(300)
    assert mesh.positive.sum() == pytest.approx(batch.label.sum())
    assert mesh.rows == pytest.approx(300)
    assert brier(mesh) == pytest.approx(brier_score_loss(batch.label, batch.prediction))
    assert score_mesh(WindowSummary.zero().frame()) is None


def test_the_usual_calibration_is_the_mean_over_windows(world):
    frames = [summarise_outcomes(outcomes(300, seed), world.layout).frame() for seed in range(5)]
    usual = usual_calibration([*frames, WindowSummary.zero().frame()])
    assert usual.brier == pytest.approx(np.mean([brier(score_mesh(f)) for f in frames]))
    assert usual.intercept == pytest.approx(0.3, abs=0.2)
    none = usual_calibration([])
    assert (none.intercept, none.smece, none.brier) == (None, None, None)


def test_losses_of_windows_add_up(world):
    parts = [summarise_outcomes(outcomes(300, seed), world.layout) for seed in range(3)]
    stacked = pd.concat([p.frame() for p in parts], ignore_index=True)
    whole, together = losses(merge(parts).frame()), losses(stacked)
    assert whole.keys() == together.keys()
    for name, loss in whole.items():
        assert together[name].rows == loss.rows
        assert together[name].mean == pytest.approx(loss.mean)
