"""The evidence and the multiple tests against online-fdr, an implementation of its own."""

import numpy as np
import pytest
from online_fdr.e_values import MixtureLikelihoodRatioEProcess, e_bh, gaussian_likelihood_ratio_e_value
from online_fdr.p_values import BatchBH

from simulated import DAY, fold, observations, simulate
from whydrift.monitors.evidence import Stream, Thresholds, fit
from whydrift.monitors.mixture import CLIP, LAMBDA, SIGNS, confirmed, log_mgf
from whydrift.monitors.slices import SearchRules, _discover


@pytest.mark.parametrize("streams", [1, 2, 7, 60, 400])
def test_confirmed_streams_are_those_of_e_bh(streams):
    """Of m e-values m w_j M_j at the level 1 / A: k e_(k) >= m A is k w_j M_(k) >= A."""
    rng = np.random.default_rng(streams)
    sizes = set()
    for scale in rng.uniform(0.1, 60, 200):
        weighted = rng.exponential(scale, streams) ** rng.choice([1, 2]) / streams
        rejected = e_bh(streams * weighted, 1 / 90.0)
        assert confirmed(weighted, 90.0) == frozenset(np.flatnonzero(rejected).tolist())
        sizes.add(sum(rejected))
    assert len(sizes) > 1


def test_ties_and_what_just_suffices_are_as_in_e_bh():
    rng = np.random.default_rng(0)
    for _ in range(500):
        weighted = 2.0 ** rng.integers(0, 7, 8)  # so that products and quotients are exact
        assert confirmed(weighted, 64.0) == frozenset(np.flatnonzero(e_bh(8 * weighted, 1 / 64)).tolist())


def test_evidence_is_the_sum_of_e_processes_begun_at_every_window():
    """Shiryaev-Roberts (Shin, Ramdas & Rinaldo 2024): of mixtures over streams, signs and lambdas."""
    streams = [Stream("share", feature="a", weight=3.0), Stream("share", feature="b", one_sided=True)]
    streams += [Stream("level", feature="c"), Stream("level", feature="d", tier="ticket")]
    values = simulate(3, 4, 90)
    values[60:, :2] += 1.2
    windows = observations(values)
    detector = fit(streams, windows[:50], DAY, Thresholds(page=1e12, ticket=7))
    prior = {(0, s): 0.6 / 8 for s in SIGNS} | {(1, 1.0): 0.2 / 4} | {(2, s): 0.2 / 8 for s in SIGNS}
    parts = [(j, sign, k) for j, sign in prior for k in range(LAMBDA.size)]

    def ratio(j, sign, k):
        return lambda q: LAMBDA[k] * sign * np.clip(q[j], -CLIP, CLIP) - detector.psi[k]

    processes, expected = [], []
    found = fold(detector, windows[50:])
    for now in found:
        processes.append(
            MixtureLikelihoodRatioEProcess([ratio(*part) for part in parts], [prior[j, s] for j, s, _ in parts])
        )
        expected.append(sum(process.update(now.q) for process in processes))
    np.testing.assert_allclose([now.model for now in found], expected, rtol=1e-9)
    assert max(expected) > 90


def test_a_factor_is_a_likelihood_ratio_where_the_baseline_shows_no_tails():
    for q in np.linspace(-CLIP, CLIP, 15):
        theirs = [gaussian_likelihood_ratio_e_value(q, shift) for shift in LAMBDA]
        np.testing.assert_allclose(np.exp(LAMBDA * q - log_mgf(np.empty(0))), theirs, rtol=1e-12)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_the_slice_search_discovers_what_benjamini_and_hochberg_do(level):
    rng = np.random.default_rng(4)
    online = BatchBH(level)
    first = level / online.seq.calc_gamma(1)  # so that the first batch of the stream is tested at the level
    sizes = set()
    for _ in range(100):
        cells = int(rng.integers(1, 300))
        p = rng.uniform(size=cells) ** rng.choice([1.0, 3.0], cells)
        tested, weight = rng.uniform(size=cells) < 0.8, rng.uniform(0.5, 1.5, cells)
        ones = np.ones(cells)
        found = _discover(ones, ones, p, 9 * ones, tested, SearchRules(min_effect=1.0, false_discoveries=level), weight)
        rejected = BatchBH(first).test_batch(np.minimum(p / weight, 1.0)[tested].tolist())
        expected = np.flatnonzero(tested)[rejected]
        assert found.order.tolist() == sorted(expected.tolist(), key=lambda at: p[at])
        sizes.add(len(expected))
    assert len(sizes) > 5
