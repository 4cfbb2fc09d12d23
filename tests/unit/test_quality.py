"""Measures of the explanations themselves, against definitions written out row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from soundness import walk
from whydrift.monitors.attribution import moments
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.quality import agree, between_backgrounds, in_window, known, relative_error, stability
from whydrift.monitors.summary import Explained, merge
from whydrift.monitors.verdict import FeatureSoundness, Soundness

RNG = np.random.default_rng(11)
MEASURED = Soundness(
    explainer="permutation",
    rows=100,
    backgrounds=5,
    noise=0.02,
    sensitivity=0.01,
    lipschitz=0.4,
    agreement=None,
    features=tuple(FeatureSoundness(feature=name, background=0.1) for name in ("x1", "x2", "x3", "carrier")),
)


def explained(rows, values, error=None, weight=None):
    frame = pd.DataFrame(RNG.standard_normal((rows, 3)), columns=["x1", "x2", "x3"])
    frame["carrier"] = RNG.choice(["a", "b", "c"], rows)
    output = values.sum(axis=1)
    weight = np.ones(rows) if weight is None else weight
    return Explained(frame, 1 / (1 + np.exp(-output)), weight, values, output, 0.0, error)


def test_agreement_is_krishnas_row_by_row():
    one, other = RNG.normal(size=(2, 40, 7))
    other[:20] = one[:20] + 0.3 * other[:20]
    found = agree(one, other, method="m", top=3)
    features, signs, ranks = [], [], []
    for a, b in zip(one, other, strict=True):
        tops = [set(np.argsort(-np.abs(v))[:3]) for v in (a, b)]
        both = tops[0] & tops[1]
        features.append(len(both) / 3)
        signs.append(sum(np.sign(a[j]) == np.sign(b[j]) for j in both) / 3)
        ranks.append(stats.spearmanr(np.abs(a), np.abs(b)).statistic)
    assert (found.rows, found.top, found.method) == (40, 3, "m")
    assert found.features == pytest.approx(np.mean(features))
    assert found.signs == pytest.approx(np.mean(signs))
    assert found.ranks == pytest.approx(np.mean(ranks))


def test_agreement_with_oneself_with_the_opposite_and_with_nothing():
    values = RNG.normal(size=(30, 4))
    same, opposite = (agree(values, v, method="m", top=9) for v in (values, -values))
    assert (same.top, same.features, same.signs, same.ranks) == (4, 1.0, 1.0, pytest.approx(1.0))
    assert (opposite.features, opposite.signs, opposite.ranks) == (1.0, 0.0, pytest.approx(1.0))
    nothing = agree(values, np.zeros_like(values), method="m", top=2)
    assert (nothing.features, nothing.signs, nothing.ranks) == (0.0, 0.0, None)


def test_between_backgrounds_is_the_deviation_that_was_put_in():
    values = 2.0 + RNG.normal(size=(400, 1, 3)) * [0.1, 0.5, 0.0] + np.zeros((1, 30, 1))
    np.testing.assert_allclose(between_backgrounds(values), [0.05, 0.25, 0.0], rtol=0.1, atol=1e-12)
    assert np.isnan(between_backgrounds(np.zeros((5, 8, 2)))).all()


def test_stability_of_a_linear_model_is_its_weights():
    weights = np.array([3.0, 4.0])
    x, noise = RNG.normal(size=(50, 2)), 0.02 * RNG.normal(size=(8, 50, 2))
    noise[:, :, 1] = 0.0
    found = stability(weights * x, weights * (x + noise), np.linalg.norm(noise, axis=2))
    assert found.lipschitz == pytest.approx(3.0)
    largest = np.abs(noise[:, :, 0]).max(axis=0) * 3
    assert found.sensitivity == pytest.approx(np.median(largest / np.linalg.norm(weights * x, axis=1)))
    assert found.features == pytest.approx([largest.mean() / np.abs(3 * x[:, 0]).mean(), 0.0])


def test_rows_that_cannot_be_moved_have_no_ratio():
    values = np.ones((4, 2))
    still = stability(values, np.stack([values, values]), np.zeros((2, 4)))
    assert np.isnan(still.lipschitz)
    assert still.sensitivity == 0.0
    dead = stability(np.zeros((4, 2)), np.zeros((3, 4, 2)), np.ones((3, 4)))
    assert np.isnan(dead.sensitivity)
    assert np.isnan(dead.features).all()


def test_the_error_of_sampled_attributions_is_summed_exactly(world):
    values = RNG.normal(size=(300, 4))
    error, weight = np.abs(RNG.normal(size=(300, 4))), RNG.uniform(0.5, 2, 300)
    batch = explained(300, values, error, weight)
    whole = summarise(batch, world.layout)
    expected = np.sqrt(np.average(error**2, axis=0, weights=weight)) / np.average(
        np.abs(values), axis=0, weights=weight
    )
    np.testing.assert_allclose(relative_error(whole.frame(), world.layout), expected, rtol=1e-6)

    def part(rows):
        return summarise(
            Explained(
                batch.features[rows],
                batch.prediction[rows],
                weight[rows],
                values[rows],
                batch.output[rows],
                0.0,
                error[rows],
            ),
            world.layout,
        )

    assert merge([part(slice(120)), part(slice(120, None))]).to_bytes() == whole.to_bytes()


def test_computed_attributions_have_no_error(world):
    frame = world.windows(1)[0].summary.frame()
    assert np.isnan(relative_error(frame, world.layout)).all()


def test_the_variance_over_rows_holds_the_sampling_error_already(world):
    """So a stream's sampling variance needs no addition: the spread of window means is what it says."""
    means, variances = [], []
    for _ in range(150):
        truth = RNG.normal(size=(200, 4))
        sampled = truth + RNG.normal(size=truth.shape)  # as much error as there is signal
        now = moments(summarise(explained(200, sampled, np.ones_like(truth)), world.layout).frame(), world.layout)
        means.append(now.value)
        variances.append(now.variance / now.rows)
    ratio = np.var(means, axis=0).mean() / np.mean(variances)
    assert 0.85 < ratio < 1.15, "0.67, were the error added once more"


def test_a_window_adds_what_it_knows_of_its_own_explanations(world):
    values = np.ones((100, 4))
    batch = explained(100, values, np.full((100, 4), 0.25))
    batch.output[:5] += 1.0
    frame = summarise(batch, world.layout).frame()
    found = in_window(MEASURED, frame, world.layout, relative_error(frame, world.layout))
    assert found.not_additive == 0.05
    assert [f.error for f in found.features] == [0.25] * 4
    assert replace(found, not_additive=None, features=MEASURED.features) == MEASURED
    walk(found)
    empty = merge([]).frame()
    nothing = in_window(MEASURED, empty, world.layout, relative_error(empty, world.layout))
    assert nothing == MEASURED


def test_verdicts_carry_it(world, reference):
    from whydrift.monitors.assessment import fold
    from whydrift.monitors.views import write_verdict

    assessed = next(iter(fold(reference, world.windows(1))))
    assert write_verdict(reference, assessed, {}).soundness is None
    verdict = write_verdict(reference, assessed, {}, MEASURED)
    assert verdict.soundness == replace(MEASURED, not_additive=0.0)
    assert verdict.peers
    walk(verdict)


def test_known_numbers():
    assert known(0.123456789) == 0.123457
    assert known(float("nan")) is known(float("inf")) is None
