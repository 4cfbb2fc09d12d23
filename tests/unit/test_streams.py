"""The watched numbers: in the order of their list, and equal to what the rows say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from whydrift.monitors.attribution import moments
from whydrift.monitors.calibration import brier
from whydrift.monitors.streams import (
    MIN_LABELLED,
    OUTCOME_STREAMS,
    all_slices,
    list_streams,
    losses,
    observe,
    score_mesh,
    usual_calibration,
)
from whydrift.monitors.summary import Outcomes, WindowSummary, merge, summarise_outcomes


def outcomes(rows, seed=0, weight=None):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["x1", "x2", "x3"])
    frame["carrier"] = rng.choice(["a", "b", "c"], rows)
    prediction = rng.uniform(0.05, 0.95, rows)
    label = (rng.random(rows) < expit(logit(prediction) + 0.3)).astype(float)
    return Outcomes(frame, prediction, np.ones(rows) if weight is None else weight, label)


def test_the_list_of_streams(world):
    kinds = [(s.kind, s.feature or s.slice, s.one_sided) for s in list_streams(world.layout, labels=True)]
    names = ["x1", "x2", "x3", "carrier"]
    assert kinds == [
        *[("share", n, False) for n in names],
        *[("level", n, False) for n in names],
        ("calibration_intercept", None, False),
        ("smece", None, True),
        ("loss", None, True),
        *[("loss", f"carrier={c}", True) for c in "abc"],
    ]
    regression = replace(world.layout, task="regression", link="identity")
    assert {s.kind for s in list_streams(regression, labels=True)} == {"share", "level", "loss"}
    assert {s.kind for s in list_streams(world.layout, labels=False)}.isdisjoint(OUTCOME_STREAMS)
    assert all_slices(world.layout) == ["carrier=a", "carrier=b", "carrier=c"]


def test_values_stand_in_the_order_of_the_list(world, reference):
    batch = outcomes(600)
    frame = summarise_outcomes(batch, world.layout).frame()
    now = moments(world.windows(1)[0].summary.frame(), world.layout)
    seen = observe(world.start(40), now, frame, world.layout, reference.deviation, labels=True)
    value = {(s.kind, s.feature or s.slice): v for s, v in zip(reference.detector.streams, seen.values, strict=True)}
    assert value["share", "x2"] == pytest.approx(np.log(now.share[1]))
    assert value["level", "x3"] == pytest.approx(now.value[2] / reference.deviation[2])
    assert value["loss", None] == pytest.approx(brier_score_loss(batch.label, batch.prediction))
    chosen = (batch.features["carrier"] == "b").to_numpy()
    assert value["loss", "carrier=b"] == pytest.approx(brier_score_loss(batch.label[chosen], batch.prediction[chosen]))
    shift = brentq(lambda a: (expit(logit(batch.prediction) + a) - batch.label).sum(), -5, 5)
    assert value["calibration_intercept", None] == pytest.approx(shift, abs=2e-3)
    assert (seen.variances >= 0).all()
    assert np.isfinite(seen.values).all()


def test_what_is_not_there_is_not_observed(world, reference):
    nothing = observe(world.start(40), None, None, world.layout, reference.deviation, labels=True)
    assert np.isnan(nothing.values).all()
    assert nothing.values.size == nothing.variances.size == len(reference.detector.streams)
    empty = WindowSummary.zero().frame()
    assert np.isnan(observe(world.start(40), None, empty, world.layout, reference.deviation, labels=True).values).all()
    without = observe(world.start(40), None, None, world.layout, reference.deviation, labels=False)
    assert without.values.size == 8


def test_small_slices_are_not_observed(world, reference):
    rows = MIN_LABELLED + 5
    batch = outcomes(rows)
    frame = summarise_outcomes(batch, world.layout).frame()
    seen = observe(world.start(40), None, frame, world.layout, reference.deviation, labels=True)
    assert np.isfinite(seen.values[8:11]).all()
    assert np.isnan(seen.values[11:]).all()


def test_labels_of_one_kind_have_a_loss_and_no_calibration(world, reference):
    batch = outcomes(500)
    frame = summarise_outcomes(replace(batch, label=np.zeros(500)), world.layout).frame()
    seen = observe(world.start(40), None, frame, world.layout, reference.deviation, labels=True)
    assert np.isnan(seen.values[8:10]).all()
    assert seen.values[10] == pytest.approx((batch.prediction**2).mean())


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
