"""Pairs whose joint effect moved, against rows whose interaction values have a closed form."""

from itertools import permutations

import numpy as np
import pytest

from whydrift.monitors.interactions import compare_interactions

NAMES = ["a", "b", "c", "d"]


def interactions(x):
    """Of f = 2 a b + c d + 3 d with independent standard features behind: E[f | S] drops every product with a gap.

    Shapley's interaction value of a product of two centred features is half the product to each of the two.
    """
    values = np.zeros((len(x), 4, 4))
    for i, j, effect in ((0, 1, 2 * x[:, 0] * x[:, 1]), (2, 3, x[:, 2] * x[:, 3])):
        values[:, i, j] = values[:, j, i] = effect / 2
    values[:, 3, 3] = 3 * x[:, 3]
    return values


def rows(count, seed, correlation=0.0):
    x = np.random.default_rng(seed).standard_normal((count, 4))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    return x


def test_a_correlation_that_appears_names_its_pair():
    found = compare_interactions(interactions(rows(2000, 1, 0.6)), interactions(rows(500, 2)), NAMES)
    top, others = found.pairs[0], found.pairs[1:]
    assert (top.first, top.second) == ("a", "b")
    assert top.mean - top.mean_before == pytest.approx(2 * 0.6, abs=4 * top.mean_error)  # E[2ab] = 2 rho
    assert all(abs(p.mean - p.mean_before) <= 4 * p.mean_error for p in others)
    assert {(p.first, p.second) for p in others if p.size == 0} == {("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}


def test_errors_are_those_of_sampling():
    draws = [
        compare_interactions(interactions(rows(300, 10 + s)), interactions(rows(200, 900 + s)), NAMES)
        for s in range(200)
    ]
    chosen = [next(p for p in d.pairs if (p.first, p.second) == ("a", "b")) for d in draws]
    for value, error in (("mean", "mean_error"), ("size", "size_error")):
        change = [getattr(p, value) - getattr(p, f"{value}_before") for p in chosen]
        assert np.std(change) == pytest.approx(np.mean([getattr(p, error) for p in chosen]), rel=0.15)


def test_share_and_order_do_not_depend_on_the_order_of_features():
    now, before = interactions(rows(300, 1, 0.5)), interactions(rows(300, 2))
    whole = compare_interactions(now, before, NAMES)
    x = rows(300, 1, 0.5)
    off = np.abs(2 * x[:, 0] * x[:, 1]).sum() + np.abs(x[:, 2] * x[:, 3]).sum()
    assert whole.share == pytest.approx(off / (off + np.abs(3 * x[:, 3]).sum()))
    for order in permutations(range(4)):
        again = compare_interactions(
            now[:, order][:, :, order], before[:, order][:, :, order], [NAMES[i] for i in order]
        )
        assert again.share == pytest.approx(whole.share)
        assert [{p.first, p.second} for p in again.pairs[:2]] == [{p.first, p.second} for p in whole.pairs[:2]]


def test_without_rows_of_any_effect_there_is_no_share():
    nothing = np.zeros((3, 2, 2))
    found = compare_interactions(nothing, nothing, ["a", "b"])
    assert found.share == found.share_before == 0.0
    assert found.pairs[0].change == 0.0
