"""The search for slices: exact sums, a planted slice, what was known before, and false discoveries counted."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from whydrift.monitors.binning import FeatureBins
from whydrift.monitors.cell_sums import (
    STATS,
    WindowCells,
    fit_usual,
    lay_out,
    pool,
    read_cells,
    read_usual,
    summarise_cells,
)
from whydrift.monitors.grid import SliceCell, cell_codes, coarsen, size
from whydrift.monitors.slices import (
    MOST_SHOWN,
    Searched,
    SearchRules,
    _discover,
    describe,
    promote,
    search,
    search_columns,
)
from whydrift.monitors.summary import Layout, Outcomes, merge, summarise_outcomes


def _layout(columns: int, cells: int = 10, **changes) -> Layout:
    bins = tuple(FeatureBins(f"c{j}", edges=tuple(np.linspace(0, 1, cells + 1))) for j in range(columns))
    layout = Layout("binary", "logit", 1.0, 1.0, bins, bins, (), searched=bins)
    return replace(layout, **changes)


def _window(rng, layout, rows, error) -> WindowCells:
    """Losses of 0 and 1; `error` gives each row's probability of 1, (n,), from the columns (n, c)."""
    x = rng.random((rows, len(layout.searched)))
    wrong = (rng.random(rows) < error(x)).astype(float)
    frame = pd.DataFrame(x, columns=[b.name for b in layout.searched])
    return read_cells(summarise_cells(Outcomes(frame, np.zeros(rows), np.ones(rows), wrong), layout), layout)


def _quick(rng, layout, rows, error) -> WindowCells:
    """The same, counted here: equal weights, and losses that are their own squares."""
    grid, x = lay_out(layout), rng.random((rows, len(layout.searched)))
    wrong = (rng.random(rows) < error(x)).astype(float)
    codes = (x * (grid.sizes[0] - 2)).astype(int)
    counts, losses = np.zeros(grid.length), np.zeros(grid.length)
    for some, start in zip(grid.columns, grid.starts, strict=True):
        combined = start + (
            codes[:, some[0]] if len(some) == 1 else codes[:, some[0]] * grid.sizes[1] + codes[:, some[1]]
        )
        counts += np.bincount(combined, minlength=grid.length)
        losses += np.bincount(combined, weights=wrong, minlength=grid.length)
    none = np.zeros(grid.length)
    whole = [rows, rows, rows, wrong.sum(), wrong.sum(), 0.0, wrong.sum()]
    return WindowCells(np.array([counts, counts, counts, losses, losses, none, losses]), np.array(whole))


def _usual(windows, layout):
    return read_usual(fit_usual(windows, layout), layout)


@pytest.fixture(scope="module")
def mixed():
    """Rows with numbers, categories, missing and strange values, weights, and their layout."""
    rng = np.random.default_rng(5)
    n = 3000
    frame = pd.DataFrame(
        {
            "x": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "z": rng.normal(size=n),
            "kind": rng.choice(["a", "b", "c", "z"], size=n),
        }
    )
    bins = (
        FeatureBins("x", edges=(-1.0, 0.0, 1.0)),
        FeatureBins("z", edges=(-9.0, 0.0, 9.0)),
        FeatureBins("kind", categories=("a", "b", "c")),
    )
    layout = Layout("binary", "logit", 1.0, 1.0, bins, bins, ("kind",), searched=bins)
    label = (rng.random(n) < 0.3).astype(float)
    return Outcomes(frame, rng.random(n), rng.uniform(0.5, 3.0, n), label), layout


def _cut(batch, rows):
    return Outcomes(batch.features[rows], batch.prediction[rows], batch.weight[rows], batch.label[rows])


def test_sums_of_every_cell_are_those_of_pandas(mixed):
    batch, layout = mixed
    w, p, y = batch.weight, batch.prediction, batch.label
    rows = pd.DataFrame(
        {
            "rows": 1.0,
            "weight": w,
            "weight2": w**2,
            "loss": w * (y - p) ** 2,
            "loss2": w * (y - p) ** 4,
            "p": w * p,
            "y": w * y,
        }
    )
    for bins in layout.searched:
        rows[bins.name] = cell_codes(bins, batch.features[bins.name])
    found, grid = read_cells(summarise_cells(batch, layout), layout), lay_out(layout)
    np.testing.assert_allclose(found.whole, rows[list(STATS)].sum(), rtol=1e-7)
    names = [b.name for b in layout.searched]
    seen = 0
    for some in [*((n,) for n in names), *combinations(names, 2)]:
        at = grid.columns.index(tuple(names.index(n) for n in some))
        for key, expected in rows.groupby(list(some))[list(STATS)].sum().iterrows():
            code = key if len(some) == 1 else key[0] * size(layout.searched[names.index(some[1])]) + key[1]
            code = code[0] if isinstance(code, tuple) else code
            np.testing.assert_allclose(found.stats[:, grid.starts[at] + code], expected, rtol=1e-7)
            seen += 1
    assert seen == np.count_nonzero(found.of("rows"))


def test_the_count_of_these_tests_is_that_of_the_summary():
    layout = _layout(3, 4)
    ours, theirs = (of(np.random.default_rng(0), layout, 500, lambda x: x[:, 0]) for of in (_quick, _window))
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    np.testing.assert_array_equal(ours.whole, theirs.whole)


@pytest.mark.parametrize("parts", [2, 7])
def test_parts_in_any_order_add_up_to_the_same_bytes(mixed, parts):
    batch, layout = mixed
    part = np.random.default_rng(parts).integers(parts, size=len(batch.features))
    pieces = [summarise_cells(_cut(batch, part == k), layout) for k in range(parts)]
    assert merge(reversed(pieces)).to_bytes() == summarise_cells(batch, layout).to_bytes()


def test_found_slices_have_their_loss_in_the_outcomes(mixed):
    """The sums of a promoted slice's stream are those of its cell, bit for bit."""
    batch, layout = mixed
    grid, cells = lay_out(layout), read_cells(summarise_cells(batch, layout), layout)
    at = grid.starts[grid.columns.index((0, 2))] + 1 * size(layout.searched[2]) + 2
    cell = describe(grid, layout, at)
    assert cell == SliceCell("x=[0, 1] & kind=c", ("x", "kind"), (1, 2))
    frame = summarise_outcomes(batch, replace(layout, promoted=(cell,))).frame()
    own = frame[(frame["block"] == "loss") & (frame["slice"] == cell.name)].set_index("stat")["value"]
    for stat in ("rows", "weight", "weight2", "loss", "loss2"):
        assert own[stat] == cells.of(stat)[at]
    plain = summarise_outcomes(batch, layout).frame()
    pd.testing.assert_frame_equal(frame[frame["slice"] != cell.name].reset_index(drop=True), plain)


def test_coarse_numbers_are_joined_neighbours_of_about_equal_weight():
    rng = np.random.default_rng(0)
    edges, weight = np.sort(rng.normal(size=21)), rng.integers(50, 100, 20).astype(float)
    bins = coarsen(FeatureBins("x", edges=tuple(edges)), weight)
    assert len(bins.edges) - 1 == 10
    assert set(bins.edges) <= set(edges)
    assert (bins.edges[0], bins.edges[-1]) == (edges[0], edges[-1])
    mass = np.histogram(edges[:-1], bins=bins.edges, weights=weight)[0] / weight.sum()
    assert np.abs(mass - 0.1).max() < 0.06
    lumpy = coarsen(FeatureBins("x", edges=tuple(edges)), np.where(np.arange(20) == 7, 1e6, 1.0))
    assert 1 <= len(lumpy.edges) - 1 <= 10


def test_columns_are_the_configured_slices_and_then_the_most_important(world):
    whole = merge(w.summary for w in world.baseline()).frame()
    share = np.array([0.1, 0.4, 0.3, 0.2])
    found = search_columns(whole, world.layout, share, "auto", 3)
    assert [b.name for b in found.searched] == ["carrier", "x2", "x3"]
    assert [len(b.edges) - 1 for b in found.searched[1:]] == [10, 10]
    assert [b.name for b in search_columns(whole, world.layout, share, ("x1",), 12).searched] == ["x1"]
    assert search_columns(whole, world.layout, share, "auto", 0).searched == ()


def test_a_planted_slice_is_found_among_6720_and_nothing_else():
    layout, rng = _layout(12), np.random.default_rng(1)

    def usual(x):
        return np.full(len(x), 0.15)

    def planted(x):
        return np.where((x[:, 3] < 0.1) & (x[:, 7] >= 0.9), 0.20, 0.15)

    baseline = [_quick(rng, layout, 20_000, usual) for _ in range(28)]
    now = [_window(rng, layout, 7_143, planted) for _ in range(28)]
    result = search(Searched(pool(now), _usual(baseline, layout)), layout, SearchRules())
    assert result.tested == 6720
    [found] = result.found
    assert (found.slice, found.question) == ("c3=[0, 0.1) & c7=[0.9, 1]", "diagnosis")
    assert found.baseline_ratio == pytest.approx(1.0, abs=0.1)
    assert found.ratio == pytest.approx(0.20 / 0.15, abs=0.1)
    assert found.interval[0] < 0.20 / 0.15 < found.interval[1]
    assert found.interval[0] > 1


def test_a_slice_that_was_always_worse_is_knowledge_and_is_watched():
    layout, rng = _layout(4, 6), np.random.default_rng(2)

    def hard(x):
        return np.where(x[:, 0] < 1 / 6, 0.3, 0.15)

    windows = [_window(rng, layout, 1500, hard) for _ in range(56)]
    usual = _usual(windows[:28], layout)
    result = search(Searched(pool(windows[28:]), usual), layout, SearchRules())
    [found] = result.found
    assert (found.slice, found.question) == ("c0=[0, 0.166667)", "knowledge")
    assert found.baseline_ratio == pytest.approx(2.0, rel=0.1)
    assert found.change == pytest.approx(1.0, abs=0.1)
    assert [cell.name for cell in promote(usual, layout, SearchRules(), 10).promoted] == ["c0=[0, 0.166667)"]
    assert promote(usual, layout, SearchRules(), 0).promoted == ()
    assert promote(usual, replace(layout, slices=("c0",)), SearchRules(), 10).promoted == (), "it is one already"


def test_rows_that_the_baseline_never_had_are_held_against_the_rest():
    layout, rng = _layout(2, 4), np.random.default_rng(3)
    baseline = [_window(rng, layout, 1000, lambda x: np.full(len(x), 0.15)) for _ in range(28)]
    x = pd.DataFrame(rng.random((20_000, 2)), columns=["c0", "c1"])
    x.loc[:800, "c0"] = np.nan
    wrong = (rng.random(20_000) < np.where(x["c0"].isna(), 0.4, 0.15)).astype(float)
    batch = Outcomes(x, np.zeros(20_000), np.ones(20_000), wrong)
    now = pool([read_cells(summarise_cells(batch, layout), layout)])
    found = search(Searched(now, _usual(baseline, layout)), layout, SearchRules()).found
    assert (found[0].slice, found[0].question) == ("c0=(missing)", "diagnosis")
    assert found[0].baseline_ratio is None
    assert found[0].change is None
    assert len({s.slice for s in found if "(missing)" in s.slice}) == 1, "its parts say nothing more"


def test_small_cells_are_not_told_whatever_is_asked_for():
    layout, rng = _layout(2, 4), np.random.default_rng(4)
    baseline = [_window(rng, layout, 300, lambda x: np.full(len(x), 0.15)) for _ in range(28)]
    x = pd.DataFrame(rng.random((3000, 2)), columns=["c0", "c1"])
    x.loc[:8, "c0"] = np.nan
    batch = Outcomes(x, np.zeros(3000), np.ones(3000), np.where(x["c0"].isna(), 1.0, rng.random(3000) < 0.1))
    now = pool([read_cells(summarise_cells(batch, layout), layout)])
    result = search(Searched(now, _usual(baseline, layout)), layout, SearchRules(min_rows=1))
    assert not [s for s in result.found if "(missing)" in s.slice]
    assert result.tested < result.cells


def test_at_most_twenty_are_told():
    layout, rng = _layout(6), np.random.default_rng(6)
    baseline = [_window(rng, layout, 2000, lambda x: np.full(len(x), 0.1)) for _ in range(20)]
    now = [_window(rng, layout, 2000, lambda x: 0.1 + 0.8 * ((x * 10).astype(int) % 2 == 0).mean(axis=1) ** 2)]
    result = search(Searched(pool(now * 10), _usual(baseline, layout)), layout, SearchRules(min_effect=1.0))
    assert len(result.found) == MOST_SHOWN


def test_discoveries_are_those_of_the_definition():
    """Benjamini and Hochberg 1995: the largest k with p_(k) <= k q / m."""
    rng = np.random.default_rng(7)
    z = np.where(np.arange(400) < 30, 3.5, 0.0) + rng.normal(size=400)
    p, tested = stats.norm.sf(z), rng.random(400) < 0.8
    found = _discover(z, np.ones(400), p, np.full(400, 1e6), tested, SearchRules(min_effect=1.0))
    ordered = np.sort(p[tested])
    below = np.flatnonzero(ordered <= 0.05 * np.arange(1, ordered.size + 1) / ordered.size)
    expected = np.flatnonzero(tested & (p <= ordered[below[-1]]))
    assert 10 < expected.size < 40
    np.testing.assert_array_equal(np.sort(found.order), expected)
    strong = _discover(z, np.ones(400), p, np.full(400, 1e6), tested, SearchRules(min_effect=np.exp(3.0)))
    np.testing.assert_array_equal(np.sort(strong.order), expected[z[expected] >= 3.0])


@pytest.mark.parametrize("day", [0.0, 0.4])
def test_false_discoveries_are_rare_where_nothing_changed(day):
    """Effects of the day on cells of three columns, and all slices alike in the long run."""
    layout, trials, wrong = _layout(5, 5), 40, 0
    rng = np.random.default_rng(8)

    def quiet(x):
        effects = day * rng.standard_normal((3, 5))
        at = np.minimum((x[:, :3] * 5).astype(int), 4)
        return 1 / (1 + np.exp(1.7 - effects[np.arange(3), at].sum(axis=1)))

    for _ in range(trials):
        windows = [_quick(rng, layout, 800, quiet) for _ in range(56)]
        usual = _usual(windows[:28], layout)
        assert (usual.correlation > 0.003) == (day > 0)
        wrong += bool(search(Searched(pool(windows[28:]), usual), layout, SearchRules(min_effect=1.0)).found)
    assert wrong <= stats.binom.ppf(0.99, trials, 0.05), wrong
