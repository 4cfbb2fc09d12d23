"""Calibration from the mesh against the same measures on the rows themselves."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm

from whydrift.monitors.calibration import (
    MESH,
    POINTS,
    ScoreMesh,
    brier,
    brier_variance,
    corp,
    cox,
    debiased_l2,
    reliability,
    smece,
    spiegelhalter,
    split,
)

EMPTY = ScoreMesh(np.zeros(MESH), np.zeros(MESH), 0.0, 0.0)


def mesh_of(p, y, weight=None):
    weight = np.ones_like(p) if weight is None else weight
    lower, part = split(p)

    def spread(values):
        total = np.zeros(MESH)
        np.add.at(total, lower, values * (1 - part))
        np.add.at(total, lower + 1, values * part)
        return total

    error = float(np.sum(weight * (y - p) ** 2))
    return ScoreMesh(spread(weight), spread(weight * y), error, float(weight.sum() ** 2 / np.sum(weight**2)))


def draw(n, *, shift=0.0, slope=1.0, shape=(2, 5), seed=0):
    """Scores and labels whose true rate is sigmoid(shift + slope * logit(score))."""
    rng = np.random.default_rng(seed)
    p = rng.beta(*shape, size=n)
    return p, (rng.random(n) < expit(shift + slope * logit(p))).astype(float)


WORLDS = {
    "calibrated": {},
    "shifted": {"shift": 0.5},
    "overconfident": {"slope": 0.6},
    "underconfident": {"slope": 1.5},
    "rare": {"shape": (1, 15), "shift": -0.4},
}


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


def test_split_keeps_each_score_as_a_mean():
    p = np.concatenate([np.linspace(0, 1, 1001), POINTS])
    lower, part = split(p)
    assert lower.min() == 0
    assert lower.max() == MESH - 2
    assert (part >= 0).all()
    assert (part <= 1).all()
    np.testing.assert_allclose(POINTS[lower] * (1 - part) + POINTS[lower + 1] * part, p, atol=1e-15)


@pytest.mark.parametrize("score", [np.nan, -1e-9, 1.0000001, np.inf])
def test_split_refuses_what_is_no_probability(score):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        split(np.array([0.5, score]))


@pytest.mark.parametrize("n", [200, 2_000, 20_000])
def test_smece_agrees_with_relplot(world, n):
    import relplot

    # relplot bisects the bandwidth to 1/1024 and cuts its kernel at +-0.5.
    p, y = draw(n, **world, seed=n)
    assert smece(mesh_of(p, y)) == pytest.approx(relplot.smECE(p, y), abs=1.2e-3)


def smece_by_definition(p, y):
    """Images of a Gaussian at 2k +- p, integrated on a fine grid, and the fixed point by bisection."""
    grid = np.linspace(0, 1, 1001)
    images = np.concatenate([2 * k + sign * p for k in (-1, 0, 1) for sign in (1, -1)])
    residual = np.tile((y - p) / p.size, 6)
    low, high = 0.003, 1.0
    while high - low > 1e-5:
        width = (low + high) / 2
        smooth = norm.pdf(grid[:, None], images, width) @ residual
        low, high = (low, width) if np.trapezoid(np.abs(smooth), grid) < width else (width, high)
    return high


@pytest.mark.parametrize(
    "world", [{}, {"shift": 0.5}, {"slope": 0.5, "shape": (0.3, 0.3)}, {"slope": -2, "shape": (2, 2)}]
)
def test_smece_agrees_with_its_definition(world):
    p, y = draw(400, **world)
    assert smece(mesh_of(p, y)) == pytest.approx(smece_by_definition(p, y), abs=1e-4)


def test_smece_at_its_ends():
    assert smece(mesh_of(np.zeros(50), np.ones(50))) == pytest.approx(1.0)
    assert smece(mesh_of(np.ones(50), np.zeros(50))) == pytest.approx(1.0)
    assert smece(mesh_of(np.zeros(50), np.zeros(50))) == 0.0
    assert smece(ScoreMesh(np.ones(MESH), POINTS.copy(), 0.0, 1e6)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n", [500, 20_000])
def test_cox_agrees_with_a_fit_to_the_rows(world, n):
    from sklearn.linear_model import LogisticRegression

    p, y = draw(n, **world)
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], y)
    fit = cox(mesh_of(p, y))
    assert fit is not None
    # Within a fifth of a standard error: the mesh blurs the log-odds of the lowest scores.
    assert fit.slope == pytest.approx(oracle.coef_[0, 0], abs=0.2 * fit.slope_variance**0.5)
    assert fit.intercept == pytest.approx(oracle.intercept_[0], abs=0.2 * fit.intercept_variance**0.5)


def test_cox_in_the_large_agrees_with_a_fit_to_the_rows(world):
    p, y = draw(5_000, **world)

    def loss(shift):
        return np.sum(np.logaddexp(0, shift + logit(p)) - y * (shift + logit(p)))

    shift = float(minimize(loss, 0.0).x[0])
    chance = expit(shift + logit(p))
    fit = cox(mesh_of(p, y))
    assert fit is not None
    assert fit.intercept_at_slope_one == pytest.approx(shift, abs=2e-3)
    assert fit.intercept_at_slope_one_variance == pytest.approx(1 / np.sum(chance * (1 - chance)), rel=1e-2)


def test_cox_variances_are_those_of_its_estimates():
    fits = [cox(mesh_of(*draw(1_000, slope=0.8, seed=seed))) for seed in range(300)]
    for name in ("intercept", "slope", "intercept_at_slope_one"):
        values = np.array([getattr(fit, name) for fit in fits])
        variances = np.array([getattr(fit, name + "_variance") for fit in fits])
        assert np.var(values) == pytest.approx(np.mean(variances), rel=0.3)


def test_cox_in_the_large_is_exact_for_scores_below_the_first_mesh_point():
    p = np.full(10_000, 0.001)
    y = (np.arange(10_000) < 20).astype(float)
    fit = cox(mesh_of(p, y))
    assert fit is not None
    assert fit.intercept_at_slope_one == pytest.approx(logit(0.002) - logit(0.001), abs=5e-3)


def test_cox_says_when_it_cannot_know():
    p, y = draw(1_000)
    assert cox(EMPTY) is None
    assert cox(mesh_of(p, np.zeros(1_000))) is None
    assert cox(mesh_of(p, np.ones(1_000))) is None
    assert cox(mesh_of(p[:9], np.arange(9) % 2.0)) is None
    assert cox(mesh_of(np.round(p), y)) is None  # scores of exactly 0 and 1 have no log-odds


def test_cox_stays_finite_when_scores_separate_the_labels_or_do_not_differ():
    separated = cox(mesh_of(np.repeat([0.4, 0.6], 50), np.repeat([0.0, 1.0], 50)))
    assert separated is not None
    assert 1 < separated.slope < 100
    constant = cox(mesh_of(np.full(100, POINTS[60]), np.arange(100) % 2.0))
    assert constant is not None
    assert constant.slope == pytest.approx(1.0)
    assert constant.slope_variance == pytest.approx(100.0)
    assert constant.intercept_at_slope_one == pytest.approx(-logit(POINTS[60]))


def test_brier_agrees_with_sklearn():
    from sklearn.metrics import brier_score_loss

    p, y = draw(1_000, shift=0.3)
    weight = np.random.default_rng(1).exponential(size=1_000)
    assert brier(mesh_of(p, y, weight)) == pytest.approx(brier_score_loss(y, p, sample_weight=weight), rel=1e-12)
    plain = np.var((y - p) ** 2, ddof=1) / 1_000
    assert brier_variance(mesh_of(p, y)) == pytest.approx(plain, rel=1e-3)


def test_spiegelhalter_agrees_with_the_rows(world):
    p, y = draw(2_000, **world)
    z = np.sum((y - p) * (1 - 2 * p)) / np.sqrt(np.sum((1 - 2 * p) ** 2 * p * (1 - p)))
    assert spiegelhalter(mesh_of(p, y)) == pytest.approx(z, rel=1e-3, abs=1e-6)


def test_spiegelhalter_of_scores_that_leave_no_doubt():
    certain = np.array([0.0, 1.0] * 50)
    assert spiegelhalter(mesh_of(certain, certain)) == pytest.approx(0.0, abs=1e-6)
    assert spiegelhalter(mesh_of(certain, 1 - certain)) > 1e6
    assert spiegelhalter(mesh_of(np.full(10_000, 0.5), np.ones(10_000))) == pytest.approx(0.0, abs=1e-6)


def test_debiased_l2_finds_the_true_error():
    p, y = draw(200_000, shift=0.5)
    truth = np.sqrt(np.mean((p - expit(0.5 + logit(p))) ** 2))
    assert debiased_l2(mesh_of(p, y)) == pytest.approx(truth, abs=0.005)


def test_debiased_l2_has_no_bias_where_the_plain_error_has():
    squares, plain = [], []
    for seed in range(200):
        p, y = draw(2_000, seed=seed)
        order = np.argsort(p)
        bins = np.array_split(order, 15)
        plain.append(np.mean([(p[b].mean() - y[b].mean()) ** 2 for b in bins]))
        squares.append(debiased_l2(mesh_of(p, y)) ** 2)
    assert np.sqrt(np.mean(plain)) > 0.03
    # Cut at 0, so only the upper half of the noise is left.
    assert np.sqrt(np.mean(squares)) < 0.018
    assert np.median(squares) < 1e-4


def test_debiased_l2_agrees_with_the_formula_on_the_rows():
    p, y = draw(3_000, slope=0.5)
    points, inverse, ties = np.unique(np.rint(p * (MESH - 1)), return_inverse=True, return_counts=True)
    p = POINTS[points.astype(int)][inverse]
    index = ((np.cumsum(ties) - ties / 2)[inverse] / p.size * 15).astype(int)
    total = 0.0
    for b in range(15):
        score, label = p[index == b], y[index == b]
        rate = label.mean()
        total += label.size / p.size * ((score.mean() - rate) ** 2 - rate * (1 - rate) / (label.size - 1))
    assert debiased_l2(mesh_of(p, y)) == pytest.approx(np.sqrt(total), rel=1e-9)


@pytest.mark.parametrize(("on_mesh", "tolerance"), [(True, 1e-12), (False, 1e-3)])
def test_corp_agrees_with_model_diagnostics(world, on_mesh, tolerance):
    from model_diagnostics.scoring import SquaredError, decompose

    p, y = draw(5_000, **world)
    weight = np.random.default_rng(1).exponential(size=p.size)
    if on_mesh:
        p = POINTS[np.rint(p * (MESH - 1)).astype(int)]
    oracle = decompose(y_obs=y, y_pred=p, weights=weight, scoring_function=SquaredError())
    names = ("miscalibration", "discrimination", "uncertainty")
    assert corp(mesh_of(p, y, weight)) == pytest.approx([oracle[name][0] for name in names], abs=tolerance)


def test_the_diagram_of_a_calibrated_model_stays_in_its_band():
    inside = []
    for seed in range(60):
        bins = reliability(mesh_of(*draw(3_000, seed=seed)), np.random.default_rng(seed))
        inside += [b.lower <= b.observed <= b.upper for b in bins]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)


def test_the_diagram_of_a_shifted_model_leaves_its_band():
    bins = reliability(mesh_of(*draw(5_000, shift=0.7)), np.random.default_rng(0))
    assert np.mean([b.observed > b.upper for b in bins]) > 0.9


def test_the_diagram_shows_every_row_and_the_true_rates():
    p, y = draw(50_000, slope=0.6)
    bins = reliability(mesh_of(p, y), np.random.default_rng(0))
    assert 15 <= len(bins) <= 20
    assert sum(b.rows for b in bins) == pytest.approx(50_000)
    predicted = np.array([b.predicted for b in bins])
    assert [b.observed for b in bins] == pytest.approx(expit(0.6 * logit(predicted)), abs=0.03)
    assert bins == reliability(mesh_of(p, y), np.random.default_rng(0))


def test_an_empty_mesh_shows_nothing():
    assert smece(EMPTY) == brier(EMPTY) == spiegelhalter(EMPTY) == debiased_l2(EMPTY) == 0.0
    assert corp(EMPTY) == (0.0, 0.0, 0.0)
    assert brier_variance(EMPTY) == 0.25
    assert reliability(EMPTY, np.random.default_rng(0)) == ()
