"""Distances from the baseline: what chance makes of them is known, whatever the size of the window."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whydrift.monitors import distances as module
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.distances import (
    Counts,
    Distances,
    counts,
    fit_excess,
    multiple,
    recut,
    response,
    score_counts,
    shape,
    standardise,
)
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import Explained, Layout, WindowSummary, merge

NAMES = ("u", "v", "dead", "c")
ROWS = 40_000


def draw(seed, rows, centre=0.0, partner=0.0):
    """Rows with attributions: u's depends on a partner too, c's on c alone, and one feature has none."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"u": rng.normal(centre, 1, rows), "v": rng.normal(size=rows), "dead": 0.0, "c": rng.choice(["a", "b"], rows)}
    )
    u, v = frame["u"].to_numpy(), frame["v"].to_numpy()
    values = np.column_stack([u * (1 + 0.5 * (v + partner)), 0.5 * v, 0 * u, np.where(frame["c"] == "a", 0.1, -0.3)])
    return frame, values


def explained(frame, values, weight=None):
    weight = np.ones(len(frame)) if weight is None else weight
    output = values.sum(axis=1)
    return Explained(frame, output, weight, values, output, 0.0)


LAYOUT = Layout(
    task="regression",
    link="identity",
    scale=1.0,
    loss_scale=1.0,
    features=tuple(fit_bins(name, draw(0, ROWS)[0][name]) for name in NAMES),
    attributions=tuple(map(fit_attribution_bins, NAMES, draw(0, ROWS)[1].T)),
    slices=(),
    predictions=fit_bins("prediction", pd.Series(draw(0, ROWS)[1].sum(axis=1))),
)


def reduced(seed, rows, weight=None, **change):
    return counts(summarise(explained(*draw(seed, rows, **change), weight), LAYOUT).frame(), LAYOUT)


@pytest.fixture(scope="module")
def baseline():
    return reduced(0, ROWS)


def test_the_tables_of_small_cells_are_those_of_a_poisson_law():
    rng = np.random.default_rng(0)
    for expected in (0.05, 0.7, 3.0, 40.0):
        x = rng.poisson(expected, 400_000)
        spread = 4 * ((np.sqrt(x) - np.sqrt(expected)) ** 2).mean()
        assert module._by_expected(np.array([expected]), module._ROOT_SPREAD)[0] == pytest.approx(spread, rel=0.02)
        some = x[x > 0]
        mean = ((some + expected) / np.sqrt(some)).sum() / x.size / (2 * np.sqrt(expected))
        assert module._by_expected(np.array([expected]), module._MEAN_SPREAD)[0] == pytest.approx(mean, rel=0.02)
    for table in (module._ROOT_SPREAD, module._MEAN_SPREAD):
        assert module._by_expected(np.array([0.0, 1e9]), table).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_hellingers_distance_has_the_mean_and_spread_of_chance(rows):
    """Multinomial counts of 22 cells, of which two are all but empty; a chi-squared of 19 degrees of freedom."""
    rng = np.random.default_rng(1)
    q = np.array([*np.full(20, 0.0499), 0.001, 0.001])
    before = rng.multinomial(200_000, q)[None, :].astype(float)
    now = rng.multinomial(rows, q, size=3000).astype(float)
    found = shape(now, np.repeat(before, 3000, axis=0), rows, 200_000.0)
    assert found.size.mean() == pytest.approx(found.sampling.mean(), rel=0.03)
    x = standardise(found, np.zeros(1))
    assert x.mean() == pytest.approx(1.0, abs=0.02)
    assert x.std() == pytest.approx(((rng.chisquare(19, 4000) / 19) ** (1 / 6)).std(), rel=0.12)
    assert abs(stats.skew(x)) < 0.35


def test_hellingers_distance_by_hand():
    found = shape(np.array([[3.0, 1.0, 0.0]]), np.array([[2.0, 1.0, 1.0]]), 4.0, 4.0)
    p, q = np.array([0.75, 0.25, 0.0]), np.array([0.5, 0.25, 0.25])
    assert found.size == pytest.approx(4 * (2 - 2 * (np.sqrt(p * q)).sum()))


@pytest.mark.parametrize("rows", [200, 4000])
def test_the_response_of_windows_where_nothing_moved_is_that_of_chance(baseline, rows):
    found = [response(reduced(seed, rows), baseline) for seed in range(1, 121)]
    x = np.array([standardise(d, np.zeros(4)) for d in found])
    assert np.isnan(x[:, 2:]).all()  # one attribution in each cell: nothing that chance could move
    np.testing.assert_allclose(x[:, :2].mean(axis=0), 1.0, atol=0.03)
    assert (np.abs(stats.skew(x[:, :2])) < 0.7).all()


def test_a_response_by_hand():
    """Means 1 and 3 become 1 and 5 while half and half of the rows become one and three quarters."""
    before, now = (
        Counts(4.0, 4.0, np.array(cells), np.ones((1, 1)), np.ones(1), 4.0, 4.0)
        for cells in ([[[2.0, 2.0]], [[2.0, 6.0]], [[4.0, 20.0]]], [[[1.0, 3.0]], [[1.0, 15.0]], [[1.0, 75.0]]])
    )
    assert response(now, before).size.tolist() == [(2 * (0.5 + 0.75) / 2) ** 2]


def test_a_partner_that_moved_shows_in_the_response_and_an_own_shift_in_the_shape(baseline):
    joint, own = reduced(5, 3000, partner=0.5), reduced(6, 3000, centre=0.5)
    responses = [multiple(standardise(response(w, baseline), np.zeros(4))[0]) for w in (joint, own)]
    assert responses[0] > 3 > 1.5 > responses[1]
    shapes = standardise(shape(own.phi, baseline.phi, own.rows, baseline.rows), np.zeros(4))
    assert multiple(shapes[0]) > 3 > 1.5 > multiple(shapes[1])


def test_what_cannot_vary_is_not_observed(baseline):
    window = reduced(7, 500)
    found = shape(window.phi, baseline.phi, window.rows, baseline.rows)
    assert np.isnan(found.size).tolist() == [False, False, True, False]
    none = counts(WindowSummary.zero().frame(), LAYOUT)
    for empty in (shape(none.phi, baseline.phi, none.rows, baseline.rows), response(none, baseline)):
        assert np.isnan(empty.size).all()
    for unknown in (shape(window.phi, none.phi, window.rows, none.rows), response(window, none)):
        assert np.isnan(standardise(unknown, np.zeros(4))).all()


def test_one_row_and_huge_weights_are_numbers(baseline):
    for window in (
        reduced(8, 1),
        reduced(9, 300, weight=np.full(300, 1e8)),
        reduced(9, 300, weight=np.full(300, 1e-3)),
    ):
        for found in (shape(window.phi, baseline.phi, window.rows, baseline.rows), response(window, baseline)):
            assert np.isfinite(standardise(found, np.zeros(4))[:2]).all()
    assert reduced(9, 300, weight=np.full(300, 7.0)).rows == pytest.approx(300)


def test_unequal_weights_count_as_fewer_rows(baseline):
    """A tenth of the rows carry ten times the weight: distances grow, and what chance explains grows with them."""
    x = []
    for seed in range(60):
        weight = np.random.default_rng(seed).choice([1.0, 10.0], 1000, p=[0.9, 0.1])
        window = reduced(100 + seed, 1000, weight=weight)
        assert window.rows == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
        x.append(standardise(shape(window.phi, baseline.phi, window.rows, baseline.rows), np.zeros(4)))
    np.testing.assert_allclose(np.mean(x, axis=0)[:2], 1.0, atol=0.04)


def test_a_baseline_without_one_of_its_windows():
    batches = [explained(*draw(seed, 200, centre=seed / 2)) for seed in range(3)]
    parts = [summarise(batch, LAYOUT) for batch in batches]
    whole = counts(merge(parts).frame(), LAYOUT)
    rest, others = whole.without(counts(parts[2].frame(), LAYOUT)), counts(merge(parts[:2]).frame(), LAYOUT)
    for name in ("weight", "weight2", "cells", "phi", "score"):
        np.testing.assert_allclose(getattr(rest, name), getattr(others, name), atol=1e-6)
    assert ((rest.cells[0] > 0) == (others.cells[0] > 0)).all()
    nothing = whole.without(whole)
    assert (nothing.rows, nothing.cells.any(), nothing.phi.any()) == (0.0, False, False)


def test_the_excess_is_what_days_add():
    """Chi-squared of 10 degrees of freedom, times what sampling gives and 0.01 more."""
    rng = np.random.default_rng(2)
    rows = rng.lognormal(6, 1, 4000)
    chance = rng.chisquare(10, (4000, 2)) / 10
    windows = [
        Distances(np.array([(1 / n + 0.01) * a, b / n]), np.array([1 / n, 1 / n]))
        for n, (a, b) in zip(rows, chance, strict=True)
    ]
    found = fit_excess(windows, list(rows), 2)
    assert found == pytest.approx([0.01, 0.0], abs=5e-4)
    unknown = Distances(np.full(2, np.nan), np.full(2, np.nan))
    assert fit_excess([*windows, unknown], [*rows, 1e9], 2).tolist() == found.tolist()
    assert fit_excess([], [], 3).tolist() == [0.0, 0.0, 0.0]


def test_a_mesh_is_cut_into_cells_of_equal_mass():
    baseline = np.random.default_rng(3).gamma(0.5, 100, 200)
    cells = recut(baseline, baseline)
    assert cells.shape == (1, 20)
    np.testing.assert_allclose(cells, baseline.sum() / 20, atol=baseline.max())
    assert recut(np.ones(200), np.zeros(200)).sum() == 200


def test_scores_are_counted_by_task(world):
    frame = summarise(explained(*draw(3, 500)), LAYOUT).frame()
    cells = score_counts(frame, LAYOUT)
    assert cells.sum() == pytest.approx(500)
    assert score_counts(frame, replace(LAYOUT, predictions=None)).sum() == pytest.approx(500)
    window = world.summaries(40, world.quiet)[0].frame()
    assert score_counts(window, world.layout).shape == (200,)
    assert score_counts(window, world.layout).sum() == pytest.approx(400)
