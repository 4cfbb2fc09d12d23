"""Performance without labels, from the score mesh alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from whydrift.monitors.binning import fit_bins
from whydrift.monitors.calibration import MESH, POINTS, split
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.performance import (
    SCORE_BINS,
    auroc,
    expect,
    most_moved,
    read_joint,
    realised,
    recalibrate,
    reweigh,
    score_bin,
    summarise_joint,
    usual_rates,
    x_cells,
)
from whydrift.monitors.streams import list_streams
from whydrift.monitors.summary import Explained, Layout, Outcomes, merge


def mesh(p, amount=1.0):
    low, upper = split(p)
    weight = np.broadcast_to(amount, p.shape)
    return np.bincount(low, weight * (1 - upper), MESH) + np.bincount(low + 1, weight * upper, MESH)


def draw(seed, rows, twist=lambda p: p):
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(-0.5, 2.0, rows))
    return p, (rng.random(rows) < twist(p)).astype(float)


def test_isotonic_regression_is_that_of_scikit_learn():
    p, y = draw(1, 3000)
    at = np.round(p * (MESH - 1)) / (MESH - 1)  # on the mesh, so that both see the same scores
    weight = np.random.default_rng(2).uniform(0.5, 3, p.size)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(at, y, sample_weight=weight).predict(POINTS)
    assert np.allclose(recalibrate(mesh(at, weight), mesh(at, weight * y)), oracle, atol=1e-9)
    assert recalibrate(np.zeros(MESH), np.zeros(MESH)) is None


@pytest.mark.parametrize("seed", range(3))
def test_what_is_realised_is_what_the_rows_say(seed):
    p, y = draw(seed, 4000)
    weight = np.random.default_rng(seed).uniform(0.5, 3, p.size)
    found = expect(mesh(p, weight), mesh(p, weight * y) / np.maximum(mesh(p, weight), 1e-300))
    assert found.auroc == pytest.approx(roc_auc_score(y, p, sample_weight=weight), abs=1e-3)
    assert found.brier == pytest.approx(brier_score_loss(y, p, sample_weight=weight), abs=1e-5)
    assert found.log_loss == pytest.approx(log_loss(y, p, sample_weight=weight), rel=5e-3)
    table = confusion_matrix(y, p >= 0.5, sample_weight=weight, normalize="all")
    parts = [[found.true_negative, found.false_positive], [found.false_negative, found.true_positive]]
    assert np.allclose(parts, table, atol=2e-3)
    assert found.accuracy == pytest.approx(table[0, 0] + table[1, 1], abs=2e-3)


def test_the_threshold_moves_the_table():
    p, y = draw(5, 4000)
    rate = mesh(p, y) / np.maximum(mesh(p), 1e-300)
    for threshold in (0.1, 0.3, 0.8):
        found = expect(mesh(p), rate, threshold)
        assert found.true_positive + found.false_positive == pytest.approx((p >= threshold).mean(), abs=4e-3)


def test_a_miscalibrated_model_is_estimated_where_its_scores_moved():
    twist = lambda p: expit(0.6 * logit(p) - 0.4)  # noqa: E731
    p, y = draw(1, 200_000, twist)
    rate = recalibrate(mesh(p), mesh(p, y))
    rng = np.random.default_rng(2)
    now = expit(rng.normal(0.8, 1.0, 200_000))
    label = rng.random(now.size) < twist(now)
    found, naive = expect(mesh(now), rate), expect(mesh(now), POINTS)
    truth = {
        "auroc": roc_auc_score(label, now),
        "accuracy": ((now >= 0.5) == label).mean(),
        "brier": brier_score_loss(label, now),
    }
    for metric, value in truth.items():
        assert getattr(found, metric) == pytest.approx(value, abs=5e-3)
        assert abs(getattr(naive, metric) - value) > 0.03


def test_a_changed_concept_is_not_seen():
    p, y = draw(1, 50_000)
    rate = recalibrate(mesh(p), mesh(p, y))
    again, label = draw(2, 50_000, lambda p: expit(0.3 * logit(p)))
    assert brier_score_loss(label, again) > 1.4 * brier_score_loss(y, p)
    assert expect(mesh(again), rate).brier == pytest.approx(brier_score_loss(y, p), rel=0.02)


def test_one_class_or_no_row_has_no_curve():
    one = np.eye(MESH)[7]
    assert expect(np.zeros(MESH), POINTS) is None
    assert expect(one, np.ones(MESH)).auroc is None
    assert auroc(one, one) == 0.5
    assert auroc(np.eye(MESH)[9], one) == 1.0


def layout_of(frame):
    bins = tuple(fit_bins(name, frame[name]) for name in frame)
    nothing = tuple(fit_bins(name, pd.Series([0.0])) for name in frame)
    return Layout("binary", "identity", 1.0, 1.0, bins, nothing, ())


def population(seed, rows, centre):
    """The score knows `x` only; `z`, which it does not, also decides."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(0, 1, rows), "z": rng.normal(centre, 1, rows)})
    frame.loc[rng.random(rows) < 0.02, "z"] = np.nan
    p = expit(frame["x"].to_numpy() - 0.5)
    truth = expit(frame["x"].to_numpy() - 0.5 + 0.8 * frame["z"].fillna(0.0).to_numpy())
    return frame, p, (rng.random(rows) < truth).astype(float)


def test_reweighted_rates_follow_a_feature_that_the_score_ignores():
    before, p, y = population(1, 100_000, 0.0)
    layout = layout_of(before)
    joint = read_joint(summarise_joint(Outcomes(before, p, np.ones(p.size), y), layout).frame(), layout)
    rate = recalibrate(mesh(p), mesh(p, y))

    def cells(frame, score):
        rows = Explained(frame, score, np.ones(score.size), np.zeros((score.size, 2)), score, 0.0)
        return x_cells(summarise(rows, layout).frame(), layout)

    now, score, label = population(2, 100_000, 0.7)
    moved = most_moved(cells(now, score), cells(before, p))
    assert layout.names[moved] == "z"
    pape = expect(mesh(score), reweigh(rate, joint, moved, cells(now, score)[moved]))
    cbpe = expect(mesh(score), rate)
    truth = brier_score_loss(label, score)
    assert abs(cbpe.brier - truth) > 0.015
    assert abs(pape.brier - truth) < 0.3 * abs(cbpe.brier - truth)
    assert abs(pape.accuracy - ((score >= 0.5) == label).mean()) < 0.01
    same = reweigh(rate, joint, moved, cells(before, p)[moved])
    assert np.allclose(same, rate, atol=1e-6)


def test_joint_counts_are_those_of_the_rows_in_any_split():
    frame, p, y = population(3, 5000, 0.0)
    layout, weight = layout_of(frame), np.random.default_rng(4).uniform(0.5, 2, 5000)
    whole = summarise_joint(Outcomes(frame, p, weight, y), layout)
    parts = [summarise_joint(Outcomes(frame.iloc[i::3], p[i::3], weight[i::3], y[i::3]), layout) for i in (2, 0, 1)]
    assert merge(parts).to_bytes() == whole.to_bytes()
    joint = read_joint(whole.frame(), layout)
    edges = np.array(layout.features[1].edges)
    inside = (frame["z"] >= edges[3]) & (frame["z"] < edges[4]) & (score_bin(p) == 11)
    assert joint.labelled[1, 3, 11] == pytest.approx(weight[inside].sum(), abs=1e-5)
    assert joint.positive[1, 3, 11] == pytest.approx((weight * y)[inside].sum(), abs=1e-5)
    missing = frame["z"].isna().to_numpy()
    assert joint.labelled[1, -1].sum() == pytest.approx(weight[missing].sum(), abs=1e-5)
    assert joint.labelled.shape[2] == SCORE_BINS


def test_streams_ticket_when_the_scores_say_worse_and_never_page(world, reference):
    kinds = [s.kind for s in reference.detector.streams]
    at = [kinds.index(kind) for kind in ("estimated_loss", "estimated_error")]
    assert not reference.detector.weights[at].any()
    assert (reference.detector.concerns[at] > 0).all()
    outcomes = [w.outcomes.frame() for w in world.baseline()]
    rate = usual_rates(outcomes)
    assert np.allclose(rate, reference.heads[0].streams.recalibrated)
    usual = realised(outcomes, 0.5)
    assert usual.brier == pytest.approx(np.mean([o.values[at[0]] for o in reference.observations]), abs=0.003)
    assert 1 - usual.accuracy == pytest.approx(np.mean([o.values[at[1]] for o in reference.observations]), abs=0.004)
    # All scores drift to where the model is unsure: a loss that no label has confirmed.
    unsure = world.change(inputs=lambda frame: frame.assign(x1=frame["x1"] * 0.2 + 1.0))
    verdicts = world.verdicts(reference, world.windows(6, unsure))
    words = [f.message for v in verdicts for f in v.findings if f.stream.startswith("estimated")]
    assert words
    assert all("blind to a change of what a score means" in text for text in words)


def test_a_model_without_labels_and_a_regression_have_no_such_stream(world, make_world):
    regression = make_world(task="regression").layout
    for layout, labels in ((world.layout, False), (regression, True)):
        assert "estimated_loss" not in {s.kind for s in list_streams(layout, labels=labels)}
