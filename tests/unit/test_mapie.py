"""A regression's residuals and a classifier's calibration against MAPIE, an implementation of its own."""

import numpy as np
import pandas as pd
import pytest
from mapie.conformity_scores import AbsoluteConformityScore
from mapie.metrics.calibration import spiegelhalter_statistic
from mapie.metrics.regression import regression_coverage_score
from mapie.regression import SplitConformalRegressor
from sklearn.dummy import DummyRegressor

from whydrift.monitors.binning import GRAIN, fit_bins
from whydrift.monitors.calibration import MESH, POINTS, ScoreMesh, spiegelhalter
from whydrift.monitors.conformal import INTERVALS, fit_residual_edges, read_residuals
from whydrift.monitors.summary import Layout, Outcomes, summarise_outcomes


def intervals(residuals):
    """MAPIE's split conformal intervals of a model that always answers 0, (2, 4): a two-sided one has two quantiles."""
    nothing = DummyRegressor(strategy="constant", constant=0.0).fit([[0.0]], [0.0])
    score = AbsoluteConformityScore(sym=False)
    model = SplitConformalRegressor(nothing, confidence_level=list(INTERVALS), conformity_score=score, prefit=True)
    model.conformalize(np.zeros((residuals.size, 1)), residuals)
    return model.predict_interval(np.zeros((1, 1)))[1][0]


def own(residuals):
    edges = np.array(fit_residual_edges(residuals, np.ones(residuals.size)))
    return np.array([(edges[first - 1], edges[last - 1]) for first, last in INTERVALS.values()]).T


@pytest.mark.parametrize("rows", [400, 401, 437, 1000, 2718])
def test_intervals_are_those_of_split_conformal_prediction(rows):
    """To half a grain, by which ours are wider so that rounding carries no residual over them."""
    residuals = np.random.default_rng(rows).standard_t(3, rows) ** 3
    wider = np.array([[-1], [1]]) * GRAIN / 2
    np.testing.assert_allclose(own(residuals) - wider, intervals(residuals), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [439, 999, 1039])
def test_a_level_that_rows_meet_exactly_is_not_overshot(rows):
    """There MAPIE's 1 - (1 - .9) rounds up to the next residual on either side: ours lie within its intervals."""
    residuals = np.sort(np.random.default_rng(rows).normal(size=rows))
    rank = np.searchsorted(residuals, own(residuals) + np.array([[1], [-1]]) * GRAIN)
    theirs = np.searchsorted(residuals, intervals(residuals))
    assert set((rank[0] - 1 - theirs[0]).tolist()) <= {0, 1}
    assert set((theirs[1] - rank[1]).tolist()) <= {0, 1}
    np.testing.assert_allclose(rank[1] + 1 - rank[0], np.array(list(INTERVALS)) * (rows + 1))


def test_coverage_of_new_rows_is_what_the_sums_say():
    rng = np.random.default_rng(1)
    baseline, new = rng.normal(size=1000), 0.3 + 1.4 * rng.normal(size=4000)
    theirs = regression_coverage_score(new, np.repeat(intervals(baseline)[None], new.size, axis=0))
    layout = Layout(
        task="regression",
        link="identity",
        scale=1.0,
        loss_scale=2.0,
        features=(fit_bins("x", pd.Series([0.0, 1.0])),),
        attributions=(fit_bins("x", pd.Series([0.0])),),
        slices=(),
        residual_edges=fit_residual_edges(baseline / 2.0, np.ones(baseline.size)),
    )
    prediction = rng.normal(size=new.size)
    batch = Outcomes(pd.DataFrame({"x": np.zeros(new.size)}), prediction, np.ones(new.size), prediction + new)
    found = read_residuals(summarise_outcomes(batch, layout).frame())
    np.testing.assert_allclose([found.coverage(nominal) for nominal in INTERVALS], theirs, rtol=1e-12)


@pytest.mark.parametrize("bias", [0.0, 0.1, -0.2])
def test_spiegelhalters_z_is_mapies(bias):
    rng = np.random.default_rng(2)
    score = rng.integers(0, MESH, 5000)
    label = (rng.random(score.size) < np.clip(POINTS[score] + bias, 0, 1)).astype(float)
    mesh = ScoreMesh(
        labelled=np.bincount(score, minlength=MESH).astype(float),
        positive=np.bincount(score, weights=label, minlength=MESH),
        squared_error=float(((label - POINTS[score]) ** 2).sum()),
        rows=float(score.size),
    )
    assert spiegelhalter(mesh) == pytest.approx(spiegelhalter_statistic(label, POINTS[score]), rel=1e-9)
