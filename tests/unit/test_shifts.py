"""Shifts beyond what the baseline's windows show among themselves, in windows of any size and number."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors.attribution import cells
from whydrift.monitors.binning import BELOW, FAR, FeatureBins, fit_bins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.shifts import Sums, atoms, fit_null, interval, moved, pool, sums
from whydrift.monitors.summary import Explained, Layout, merge

WINDOWS, ROWS = 40, 500
BINS = (
    fit_bins("a", pd.Series(np.random.default_rng(1).normal(size=20_000))),
    fit_bins("b", pd.Series(np.random.default_rng(2).normal(size=20_000))),
    FeatureBins("flag", edges=(0.0, 0.5, 1.0)),
)
LAYOUT = Layout("binary", "logit", 1.0, 1.0, BINS, BINS, ())


def frame_of(rng, rows=ROWS, change=None, day=0.03):
    """A window of a model a + b + a b, whose days have means of their own; a flag that does nothing."""
    data = pd.DataFrame(rng.normal(size=(rows, 2)) + day * rng.normal(size=2), columns=["a", "b"])
    data = data.assign(flag=(rng.random(rows) < 0.3).astype(float))
    data = change(data, rng) if change else data
    a, b = data["a"].to_numpy(), data["b"].to_numpy()
    values = np.column_stack([a + a * b / 2, b + a * b / 2, np.zeros(rows)])
    one = np.ones(rows)
    return summarise(Explained(data, 0.5 * one, one, values, values.sum(axis=1), 0.0), LAYOUT)


def window(seed, **options):
    summary = frame_of(np.random.default_rng([seed, 7]), **options)
    frame = summary.frame()
    rows = frame.loc[(frame["block"] == "rows") & (frame["stat"] == "rows"), "value"].sum()
    return sums(cells(frame, LAYOUT), float(rows))


@pytest.fixture(scope="module")
def null():
    days = [frame_of(np.random.default_rng(seed)) for seed in range(WINDOWS)]
    return fit_null(merge(days).frame(), LAYOUT, [sums(cells(d.frame(), LAYOUT), ROWS) for d in days])


@pytest.mark.parametrize(("rows", "count"), [(100, 1), (500, 1), (500, 7), (5000, 1), (20_000, 3)])
def test_the_null_is_what_quiet_windows_come_to(null, rows, count):
    """Of any size and number, though the baseline had single windows of 500 rows."""
    found = [moved(null, pool([window(100 * i + k, rows=rows) for k in range(count)])) for i in range(12)]
    for name in ("composition", "response"):
        size = np.mean([getattr(f, name)[:2] for f in found], axis=0)
        expected = np.mean([getattr(f, f"{name}_null")[:2] for f in found], axis=0)
        np.testing.assert_allclose(size, expected, rtol=0.3)
        assert not np.any([getattr(f, f"{name}_excess") for f in found])


def shift(d, _):
    return d.assign(a=d["a"] + 0.5)


def turn(d, rng):
    return d.assign(b=0.6 * d["a"] + 0.8 * rng.normal(size=len(d)))


@pytest.mark.parametrize("rows", [300, 3000])
def test_inputs_that_move_are_composition(null, rows):
    found = moved(null, pool([window(i, rows=rows, change=shift) for i in range(3)]))
    assert found.composition_excess[0] > found.response_excess[1] > 0
    assert found.composition_excess[0] > 2 * found.composition_null[0]
    assert found.composition_excess[1] == found.composition_excess[2] == 0
    assert (found.windows, found.rows) == (3, 3 * rows)


@pytest.mark.parametrize("rows", [300, 3000])
def test_a_new_correlation_is_response(null, rows):
    found = moved(null, pool([window(i, rows=rows, change=turn) for i in range(3)]))
    assert (found.response_excess[:2] > 0).all()
    assert not found.composition_excess.any()


def test_windows_together_find_what_single_ones_do_not(null):
    def little(d, _):
        return d.assign(a=d["a"] + 0.12)

    windows = [window(i, change=little) for i in range(12)]
    assert not any(moved(null, w).composition_excess[0] for w in windows[:3])
    assert moved(null, pool(windows)).composition_excess[0] > 0


def test_pooling_is_adding_rows():
    rng = np.random.default_rng(5)
    parts = [frame_of(rng) for _ in range(3)]
    together = sums(cells(merge(parts).frame(), LAYOUT), 3 * ROWS)
    pooled = pool([sums(cells(p.frame(), LAYOUT), ROWS) for p in parts])
    np.testing.assert_allclose(pooled.weight, together.weight)
    np.testing.assert_allclose(pooled.value, together.value, atol=1e-9)
    assert (pooled.rows, pooled.windows) == (together.rows, 3)


def test_two_windows_are_needed(null):
    lone = fit_null(frame_of(np.random.default_rng(0)).frame(), LAYOUT, [window(0)])
    found = moved(lone, window(1, change=shift))
    assert not found.composition_excess.any()
    assert np.isfinite(found.composition_null).all()
    assert null.composition_spread.max() < 1


def test_a_window_without_rows_moved_nothing(null):
    empty = Sums(np.zeros_like(null.within), np.zeros_like(null.within), 1.0)
    found = moved(null, empty)
    assert np.isfinite(found.composition).all()
    assert np.isfinite(found.response_null).all()


def default(value, part=0.05):
    def change(d, rng):
        return d.assign(a=d["a"].where(rng.random(len(d)) >= part, value))

    return change


@pytest.mark.parametrize("value", [-5.0, -1.2, 0.0, 0.9, 3.0, 5.0, 5000.0])
def test_a_default_for_some_rows_is_found(null, value):
    found = atoms(null, pool([window(i, rows=2000, change=default(value)) for i in range(3)]), LAYOUT)
    assert list(found) == ["a"]
    assert found["a"].share == pytest.approx(found["a"].usual * 0.95 + 0.05, abs=0.01)
    if value == 5000.0:
        assert (found["a"].cell, found["a"].usual) == (FAR, 0.0)
    if value == -5.0:
        assert found["a"].cell == BELOW


@pytest.mark.parametrize(
    "change",
    [
        None,
        default(0.0, 0.01),
        shift,
        turn,
        lambda d, _: d.assign(a=d["a"] + 1.5),
        lambda d, _: d.assign(a=d["a"] * 1.5),
        lambda d, _: d.assign(a=d["a"] * 0.7),
        lambda d, rng: d.assign(a=d["a"] + (rng.random(len(d)) < 0.2)),
        lambda d, rng: d.assign(flag=(rng.random(len(d)) < 0.6).astype(float)),  # two values: any change is one cell's
        lambda d, _: d.assign(a=0.0),  # all rows, and no rest that could be as it was
    ],
)
def test_what_is_no_default_is_not_taken_for_one(null, change):
    for first in range(0, 30, 3):
        days = [window(first + i, rows=2000, change=change) for i in range(3)]
        assert atoms(null, pool(days), LAYOUT) == {}


def test_a_favoured_value_may_be_favoured_more(null):
    """Dry days: most of the rain column was 0 before."""
    rng = np.random.default_rng(3)
    rain = FeatureBins("a", edges=(0.0, *np.linspace(0.1, 5, 20)))
    layout = replace(LAYOUT, features=(rain, *BINS[1:]))

    def rainy(part, rows=2000):
        data = pd.DataFrame({"a": np.where(rng.random(rows) < part, 0.0, 5 * rng.random(rows))})
        data = data.assign(b=rng.normal(size=rows), flag=0.0)
        one = np.ones(rows)
        values = data.to_numpy() * [0.1, 0.0, 0.0]
        frame = summarise(Explained(data, 0.5 * one, one, values, values.sum(axis=1), 0.0), layout).frame()
        return sums(cells(frame, layout), rows), frame

    days = [rainy(0.8) for _ in range(10)]
    usual = fit_null(
        pd.concat([f for _, f in days]).groupby(["block", "slice", "name", "cell", "stat"], as_index=False).sum(),
        layout,
        [s for s, _ in days],
    )
    assert atoms(usual, rainy(0.95)[0], layout) == {}


@pytest.mark.parametrize(
    ("cell", "words"), [(0, "in [0, 1)"), (1, "in [1, 2]"), (-1, "missing"), (-2, "below 0"), (-5, "far out of range")]
)
def test_cells_in_words(cell, words):
    assert interval(FeatureBins("x", edges=(0.0, 1.0, 2.0)), cell) == words
