"""Peers' statistics against scipy, scikit-learn, and what their authors print."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import ndcg_score

from whydrift.monitors import peers

RNG = np.random.default_rng(5)


def counts(cells=22, features=6, empty=0.2):
    drawn = RNG.gamma(0.7, 50, size=(features, cells))
    return np.where(RNG.random(drawn.shape) < empty, 0.0, drawn)


NOW, THEN = counts(), counts()
POSITIONS = np.sort(RNG.normal(size=NOW.shape), axis=1)


def shares(values):
    return values / values.sum(axis=-1, keepdims=True)


def test_jensen_shannon_is_scipys():
    for base in (2.0, np.e):
        oracle = jensenshannon(NOW, THEN, base=base, axis=1)
        np.testing.assert_allclose(np.sqrt(peers.jensen_shannon(NOW, THEN, base=base)), oracle, rtol=1e-9)


def test_wasserstein_is_scipys():
    oracle = [
        stats.wasserstein_distance(x, x, p, q) for x, p, q in zip(POSITIONS, shares(NOW), shares(THEN), strict=True)
    ]
    np.testing.assert_allclose(peers.wasserstein(NOW, THEN, POSITIONS), oracle, rtol=1e-9)


def test_kolmogorov_smirnov_of_binned_rows_is_scipys_and_a_lower_bound_of_theirs():
    then, now = RNG.normal(size=3000), RNG.normal(0.3, 1.2, size=2000)
    edges = np.quantile(then, np.linspace(0, 1, 21)[1:-1])
    cell, cell_then = np.searchsorted(edges, now), np.searchsorted(edges, then)
    binned = peers.kolmogorov_smirnov(np.bincount(cell, minlength=20) * 1.0, np.bincount(cell_then, minlength=20) * 1.0)
    assert binned == pytest.approx(stats.ks_2samp(cell, cell_then).statistic)
    exact = stats.ks_2samp(now, then).statistic
    assert exact - 1 / 20 < binned < exact


@pytest.mark.parametrize(("n", "m"), [(4000, 9000), (20000, 500)])
def test_kolmogorov_smirnov_rejects_beyond_its_limit(n, m):
    limit = peers.kolmogorov_smirnov_limit(n, m)
    assert stats.kstwobign.sf(limit / np.sqrt(1 / n + 1 / m)) == pytest.approx(0.05, rel=1e-3)


def test_hellinger_psi_and_the_largest_difference_by_definition():
    for now, then, h, psi, most in zip(
        NOW,
        THEN,
        peers.hellinger(NOW, THEN),
        peers.psi(NOW, THEN),
        peers.largest_difference(NOW, THEN),
        strict=True,
    ):
        p, q = shares(now), shares(then)
        assert h == pytest.approx(np.sqrt(sum((a**0.5 - b**0.5) ** 2 for a, b in zip(p, q, strict=True)) / 2))
        floored = [(max(a, 1e-4), max(b, 1e-4)) for a, b in zip(p, q, strict=True)]
        assert psi == pytest.approx(sum((a - b) * np.log(a / b) for a, b in floored))
        assert most == max(abs(a - b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(("n", "m", "cells"), [(400, 4000, 10), (1500, 1500, 22)])
def test_psi_is_its_null_mean_on_average_where_nothing_moved(n, m, cells):
    p = RNG.dirichlet(np.full(cells, 20.0))
    now, then = RNG.multinomial(n, p, size=3000) * 1.0, RNG.multinomial(m, p, size=3000) * 1.0
    excess = peers.psi(now, then) - peers.psi_null(now, then, n, m)
    null = peers.psi_null(now, then, n, m).mean()
    assert null == pytest.approx((cells - 1) * (1 / n + 1 / m))
    assert abs(excess.mean()) < 0.06 * null  # of second order in 1 / n


def test_nothing_is_far_from_itself():
    for distance in (peers.psi, peers.jensen_shannon, peers.hellinger, peers.kolmogorov_smirnov):
        np.testing.assert_allclose(distance(3 * NOW, NOW), 0, atol=1e-7)
    np.testing.assert_allclose(peers.wasserstein(3 * NOW, NOW, POSITIONS), 0, atol=1e-12)


def test_one_empty_side_gives_numbers():
    empty = np.zeros_like(NOW)
    for distance in (peers.psi, peers.jensen_shannon, peers.hellinger, peers.kolmogorov_smirnov):
        assert np.isfinite(distance(empty, THEN)).all()


def test_deviation_of_cells_at_their_positions():
    oracle = [np.sqrt(np.cov(x, aweights=w, ddof=0)) for x, w in zip(POSITIONS, NOW, strict=True)]
    np.testing.assert_allclose(peers.deviation(NOW, POSITIONS), oracle)


def test_ndcg_as_sagemaker_documents_it():
    then, now = np.array([0.70, 0.50, 0.05]), np.array([0.10, 0.20, 0.70])
    assert peers.ndcg(now, then) == pytest.approx(0.69, abs=0.005)
    assert peers.ndcg(then, then) == 1.0
    assert peers.ndcg(now, np.zeros(3)) is None


def test_ndcg_is_scikit_learns():
    for _ in range(50):
        then, now = RNG.random((2, RNG.integers(2, 30)))
        assert peers.ndcg(now, then) == pytest.approx(ndcg_score([then], [now]))


def test_what_ndcg_does_not_see():
    then = np.array([0.30, 0.25, 0.20, 0.15, 0.10])
    dead = np.array([0.0, 0.25, 0.20, 0.15, 0.10])
    assert peers.ndcg(dead, then) > 0.78
    assert peers.ndcg(then * [3, 1, 1, 1, 1], then) == 1.0, "the top feature tripled"
    equal = np.linspace(0.11, 0.09, 10)
    assert peers.ndcg(np.where(np.arange(10) == 0, 0, equal), equal) > 0.95, "the top feature died"


def test_kendall_and_cosine():
    then, now = RNG.random((2, 12))
    assert peers.kendall(now, then) == pytest.approx(stats.kendalltau(now, then).statistic)
    assert peers.kendall(np.ones(12), then) is None
    assert peers.cosine(now, then) == pytest.approx(now @ then / np.sqrt((now @ now) * (then @ then)))
    assert peers.cosine(np.zeros(12), then) is None


def test_direction_of_a_feature_that_is_answered_the_other_way():
    then = np.tile(np.linspace(-1, 1, 8), (4, 1))
    now = then + np.array([[0.0], [5.0], [0.0], [0.0]])  # a level is no direction
    now[2] = -then[2]
    now[3, :4] = np.nan
    weight = np.ones_like(then)
    assert peers.directions_changed(now, then, weight) == 0.25
    assert peers.directions_changed(now, np.zeros_like(then), weight) is None
    weight[2] = 0.0  # nothing is known of it
    assert peers.directions_changed(now, then, weight) == 0.0
