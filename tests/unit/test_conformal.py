"""A regression's residuals among its baseline's: against row-level numpy and simulations where nothing changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whydrift.monitors.conformal import (
    CELLS,
    INTERVALS,
    fit_residual_edges,
    read_residuals,
    tell_regression,
    wilson,
)
from whydrift.monitors.outcome_streams import OUTCOME_STREAMS
from whydrift.monitors.reference import refer
from whydrift.monitors.regression_streams import list_regression, observe_regression
from whydrift.monitors.stream_input import StreamInput
from whydrift.monitors.streams import list_streams
from whydrift.monitors.summary import Outcomes, merge, summarise_outcomes
from whydrift.monitors.verdict import Status

COHORT = (datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 2, tzinfo=UTC))
DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}


@pytest.fixture(scope="module")
def rule(make_world):
    """A world of a regression whose baseline has learned its residuals, in units of 2."""
    world = make_world(task="regression", seed=3)
    batches = [world._rows(day, world.quiet)[1] for day in range(world.baseline_days)]
    residuals = np.concatenate([b.label - b.prediction for b in batches]) / world.layout.loss_scale
    world.layout = replace(world.layout, residual_edges=fit_residual_edges(residuals, np.ones(residuals.size)))
    return world


def outcomes(residual, weight=None, *, seed=0):
    """Labelled rows with these residuals."""
    rng = np.random.default_rng(seed)
    size = residual.size
    frame = pd.DataFrame(rng.normal(size=(size, 3)), columns=["x1", "x2", "x3"])
    frame["carrier"] = rng.choice(["a", "b", "c"], size)
    prediction = rng.normal(size=size)
    return Outcomes(frame, prediction, np.ones(size) if weight is None else weight, prediction + residual)


def test_edges_are_the_order_statistics_of_split_conformal_prediction():
    residuals = np.random.default_rng(0).standard_t(4, 1000)
    edges = np.array(fit_residual_edges(residuals, np.ones(1000)))
    ordered = np.sort(residuals)
    for nominal, (first, last) in INTERVALS.items():
        outside = (1 - nominal) / 2
        low, high = int(np.floor(1001 * outside + 1e-9)), int(np.ceil(1001 * (1 - outside) - 1e-9))
        assert edges[first - 1] == pytest.approx(ordered[low - 1], abs=1e-6)
        assert edges[last - 1] == pytest.approx(ordered[high - 1], abs=1e-6)
    assert len(edges) == CELLS - 1
    assert (np.diff(edges) > 0).all()


def test_weights_are_rows():
    rng = np.random.default_rng(1)
    residuals, weight = rng.normal(size=2000), rng.integers(1, 5, 2000)
    repeated = fit_residual_edges(np.repeat(residuals, weight), np.ones(weight.sum()))
    # Only what one more row adds differs: a row, or the mean of their weights.
    assert fit_residual_edges(residuals, weight.astype(float)) == pytest.approx(repeated, abs=0.02)


@pytest.mark.parametrize("rows", [0, 1, 399])
def test_few_residuals_fix_no_edges(rows):
    assert fit_residual_edges(np.arange(float(rows)), np.ones(rows)) == ()
    assert fit_residual_edges(np.arange(500.0), np.zeros(500)) == ()


def test_coverage_holds_for_new_rows_as_it_is_named():
    """Over baselines and new rows together: at least the nominal part, and at most 2 / (n + 1) above it."""
    rng = np.random.default_rng(2)
    hits = {nominal: [] for nominal in INTERVALS}
    for _ in range(400):
        edges = fit_residual_edges(rng.standard_gamma(2.0, 400), np.ones(400))
        new = rng.standard_gamma(2.0, 200)
        for nominal, (first, last) in INTERVALS.items():
            hits[nominal].append(((new >= edges[first - 1]) & (new <= edges[last - 1])).mean())
    for nominal, found in hits.items():
        error = np.std(found) / np.sqrt(len(found))
        assert nominal - 4 * error < np.mean(found) < nominal + 2 / 401 + 4 * error


def test_a_cohort_is_what_its_rows_say(rule):
    rng = np.random.default_rng(4)
    residual, weight = 0.4 + 1.3 * rng.normal(size=1500), rng.uniform(0.5, 2.0, 1500)
    batch = outcomes(residual, weight)
    residual = batch.label - batch.prediction
    found = read_residuals(summarise_outcomes(batch, rule.layout).frame())
    unit, edges = rule.layout.loss_scale, rule.layout.residual_edges
    told = tell_regression(found, None, edges, unit, COHORT, 1500)
    mean = np.average(residual, weights=weight)
    assert told.bias == pytest.approx(mean, abs=1e-6)
    effective = weight.sum() ** 2 / (weight**2).sum()
    error = np.sqrt(np.average((residual - mean) ** 2, weights=weight) / effective)
    assert told.bias_interval == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=1e-4)
    for interval in told.coverage:
        inside = (residual >= interval.low) & (residual <= interval.high)
        assert interval.observed == pytest.approx(np.average(inside, weights=weight), abs=1e-9)
        result = stats.binomtest(round(interval.observed * 1500), 1500).proportion_ci(method="wilson")
        assert wilson(round(interval.observed * 1500) / 1500, 1500) == pytest.approx((result.low, result.high))
    bounds = np.array([-np.inf, *edges[1::2], np.inf]) * unit
    expected = [np.average((residual > a) & (residual <= b), weights=weight) for a, b in pairwise(bounds)]
    assert told.pit == pytest.approx(expected, abs=1e-9)
    assert sum(told.pit) == pytest.approx(1.0)


def test_the_transform_is_uniform_where_nothing_changed(rule):
    rng = np.random.default_rng(5)
    baseline = rng.normal(size=50_000)
    layout = replace(rule.layout, residual_edges=fit_residual_edges(baseline / 2.0, np.ones(50_000)))
    p_values, outside = [], []
    for seed in range(60):
        found = read_residuals(summarise_outcomes(outcomes(rng.normal(size=1000), seed=seed), layout).frame())
        told = tell_regression(found, None, layout.residual_edges, 2.0, COHORT, 1000)
        p_values.append(stats.chisquare(np.array(told.pit) * 1000).pvalue)
        low, high = told.pit_band
        outside.append(np.mean([not low <= share <= high for share in told.pit]))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.06 < np.mean(outside) < 0.14


@pytest.mark.parametrize(
    ("change", "coverage", "tails"),
    [(lambda r: 2 * r, lambda c: c < 0.75, lambda p: min(p[0], p[-1]) > 0.1), (lambda r: r + 2, None, None)],
)
def test_larger_errors_and_a_lean_look_different(rule, change, coverage, tails):
    residual = change(np.random.default_rng(6).normal(size=3000))
    found = read_residuals(summarise_outcomes(outcomes(residual), rule.layout).frame())
    told = tell_regression(found, None, rule.layout.residual_edges, rule.layout.loss_scale, COHORT, 3000)
    if coverage is not None:
        assert coverage(found.coverage(0.9))
        assert tails(told.pit)
        assert told.bias_interval[0] < 0 < told.bias_interval[1]
    else:
        assert told.bias_interval[0] > 1.9
        assert told.pit[-1] > 0.3
        assert told.pit[0] < 0.01


def test_parts_of_a_cohort_add_up(rule):
    residual = np.random.default_rng(7).normal(size=700)
    batch = outcomes(residual)

    def part(rows):
        cut = Outcomes(batch.features[rows], batch.prediction[rows], batch.weight[rows], batch.label[rows])
        return summarise_outcomes(cut, rule.layout)

    parts = [part(rows) for rows in (slice(0, 13), slice(13, 600), slice(600, 700))]
    assert merge(parts).to_bytes() == summarise_outcomes(batch, rule.layout).to_bytes()


def test_the_streams_have_their_sampling_variance(rule):
    assert [s.kind for s in list_regression(rule.layout)] == ["bias", "coverage"]
    assert {"bias", "coverage"} <= {s.kind for s in list_streams(rule.layout, labels=True)} & OUTCOME_STREAMS
    values, variances = [], []
    for seed in range(150):
        residual = 0.2 + np.random.default_rng(seed).normal(size=300)
        late = summarise_outcomes(outcomes(residual, seed=seed), rule.layout).frame()
        found, noise = observe_regression(StreamInput(rule.start(40), late, None, late, None), rule.layout)
        values.append(found)
        variances.append(noise)
    assert np.mean(values, axis=0)[0] == pytest.approx(0.2 / rule.layout.loss_scale, abs=0.01)
    assert np.var(values, axis=0, ddof=1) == pytest.approx(np.mean(variances, axis=0), rel=0.4)


@pytest.mark.parametrize("rows", [0, 29])
def test_few_labels_are_not_looked_at(rule, rows):
    late = summarise_outcomes(outcomes(np.ones(rows)), rule.layout).frame()
    for some in (None, late):
        values, variances = observe_regression(StreamInput(rule.start(40), late, None, some, None), rule.layout)
        assert np.isnan(values).all()
        assert np.isnan(variances).all()


def test_a_lean_of_the_predictions_is_found_and_shown(rule):
    reference = refer(rule.baseline(), rule.layout, rule.settings, DIGESTS)
    lean = rule.change(label=lambda y: y + 1.5)
    quiet, *_, first, _, _, last = rule.verdicts(reference, rule.windows(8, dict.fromkeys(range(2, 8), lean)))
    assert quiet.regression is not None
    assert quiet.calibration is None
    assert [round(c.baseline, 2) for c in quiet.regression.coverage] == [0.5, 0.8, 0.9, 0.95]
    assert quiet.regression.baseline_bias == pytest.approx(0.0, abs=0.05)
    assert last.status is Status.PAGE
    assert last.regression.bias == pytest.approx(1.5, abs=0.3)
    (bias,) = [f for f in last.findings if f.stream == "bias"]
    assert bias.value == pytest.approx(last.regression.bias)
    assert "the mean of outcome - prediction is 1." in bias.message
    (coverage,) = [f for f in first.findings if f.stream == "coverage"]
    assert coverage.value == pytest.approx(next(c.observed for c in first.regression.coverage if c.nominal == 0.9))
    assert "% instead of" in coverage.message


def test_losses_are_in_squared_units_of_the_outcome(rule):
    """Wherever they are told: of slices, in findings, and in what retraining is asked for."""
    reference = refer(rule.baseline(), rule.layout, rule.settings, DIGESTS)
    worse = rule.change(label=lambda y: y + 1.5)
    *_, last = rule.verdicts(reference, rule.windows(8, dict.fromkeys(range(2, 8), worse)))
    found = {f.slice: f for f in last.findings if f.stream == "loss" and f.slice}
    of_slices = {s.slice: s.loss for s in last.slices}
    assert found
    for name, finding in found.items():
        assert finding.value == pytest.approx(of_slices[name])
    assert reference.usual_loss.mean == pytest.approx(reference.losses[""].mean * rule.layout.loss_scale**2, rel=0.1)


def test_a_classifier_has_none(world):
    assert list_regression(world.layout) == ()
    values, _ = observe_regression(StreamInput(world.start(40), None, None, None, None), world.layout)
    assert values.size == 0
    assert read_residuals(world.windows(1)[0].outcomes.frame()) is None
