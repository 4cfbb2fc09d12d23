"""Reason contracts: their numbers against rows, their errors by simulation, and what a breach comes to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from whydrift.monitors.binning import assign, fit_attribution_bins, fit_bins
from whydrift.monitors.contract_sums import MIN_IN_CELL, Sums, direction, monotone, pool, read_sums, share
from whydrift.monitors.expectations import (
    EXPECTATION,
    Direction,
    Expectation,
    Largest,
    Monotone,
    Share,
    check_expectations,
    measure,
    measure_all,
    summarise_contracts,
)
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import Explained, Group, Layout, merge

NAMES = ("x", "y", "z")
ROWS = 3000


def make_batch(rows=ROWS, seed=0, effect=lambda x: x):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=NAMES).assign(site=rng.choice(["a", "b"], rows))
    values = np.column_stack([effect(frame["x"].to_numpy()), -frame["y"], 0.1 * frame["z"], np.zeros(rows)])
    values[:, 0] += 0.3 * rng.normal(size=rows)
    weight = rng.integers(1, 4, rows).astype(float)
    return Explained(frame, np.full(rows, 0.5), weight, values, values.sum(axis=1), 0.0)


def make_layout(batch):
    return Layout(
        task="binary",
        link="identity",
        scale=2.0,
        loss_scale=1.0,
        features=tuple(fit_bins(name, batch.features[name]) for name in batch.features),
        attributions=tuple(map(fit_attribution_bins, batch.features, batch.values.T / 2)),
        slices=("site",),
        groups=(Group("pair", ("x", "y")),),
    )


BATCH = make_batch()
LAYOUT = make_layout(BATCH)
EVERY = tuple(
    Expectation(f"{kind} {where}", asserts, where)
    for where in (None, "site=b")
    for kind, asserts in {
        "share": Share(0.2, "at least", feature="x"),
        "group": Share(0.9, "at most", group="pair"),
        "largest": Largest(0.9),
        "direction": Direction("x", positive=True),
        "monotone": Monotone("x", rising=True, slack=0.05),
    }.items()
)


def cut(batch, rows):
    return Explained(
        batch.features.iloc[rows],
        batch.prediction[rows],
        batch.weight[rows],
        batch.values[rows],
        batch.output[rows],
        0.0,
    )


def summary(batch, expectations=EVERY):
    return merge([summarise(batch, LAYOUT), summarise_contracts(batch, LAYOUT, expectations)])


@pytest.fixture(scope="module")
def frame():
    return summary(BATCH).frame()


@pytest.mark.parametrize("where", [None, "site=b"])
def test_values_are_those_of_the_rows(frame, where):
    found = {
        name.split()[0]: m for name, m in measure_all(EVERY, frame, LAYOUT, 100).items() if name.endswith(str(where))
    }
    rows = np.ones(ROWS, dtype=bool) if where is None else (BATCH.features["site"] == "b").to_numpy()
    w, values, x = BATCH.weight[rows], BATCH.values[rows], BATCH.features["x"][rows]
    size = w @ np.abs(values)
    assert found["share"].value == pytest.approx(size[0] / size.sum(), rel=1e-6)
    assert found["group"].value == pytest.approx(w @ np.abs(values[:, 0] + values[:, 1]) / size.sum(), rel=1e-6)
    assert found["largest"].value == pytest.approx(size.max() / size.sum(), rel=1e-6)
    assert found["largest"].what == NAMES[int(size.argmax())]
    cells = assign(LAYOUT.features[0], x)
    mean = pd.Series(values[:, 0] * w).groupby(cells).sum() / pd.Series(w).groupby(cells).sum()
    repeat = w.astype(int)
    expected = spearmanr(np.repeat(cells, repeat), np.repeat(mean[cells].to_numpy(), repeat)).statistic
    assert found["direction"].value == pytest.approx(expected, abs=1e-6)
    part = pd.Series(w).groupby(cells).sum().to_numpy() / w.sum()
    nearest = IsotonicRegression().fit_transform(np.arange(mean.size), mean, sample_weight=part)
    distance = np.sqrt(part @ (mean.to_numpy() - nearest) ** 2) / np.ptp(mean)
    assert found["monotone"].value == pytest.approx(distance, abs=1e-6)


def test_a_slice_has_the_sums_that_its_rows_have_alone(frame):
    alone = read_sums(summary(cut(BATCH, (BATCH.features["site"] == "b").to_numpy())).frame(), LAYOUT)
    own = read_sums(frame, LAYOUT, "site=b")
    for name in ("weight", "weight2", "total", "total2"):
        assert getattr(own, name) == pytest.approx(getattr(alone, name), rel=1e-7)
    np.testing.assert_allclose(own.features, alone.features, rtol=1e-7)
    np.testing.assert_allclose(own.groups, alone.groups, rtol=1e-7)
    np.testing.assert_allclose(own.cells[:, 0], alone.cells[:, 0], atol=1e-7)


def test_any_split_of_the_rows_gives_the_same_bytes():
    order = np.random.default_rng(1).permutation(ROWS)
    parts = [summarise_contracts(cut(BATCH, rows), LAYOUT, EVERY) for rows in np.split(order, [10, 1200, 1201])]
    whole = summarise_contracts(BATCH, LAYOUT, EVERY)
    assert merge(parts).to_bytes() == whole.to_bytes()
    assert set(whole.frame()["slice"]) == {"site=b"}


def test_only_what_is_named_is_kept():
    one = Expectation("n", Share(0.1, "at least", feature="x"), "site=a")
    kept = summarise_contracts(BATCH, LAYOUT, [one]).frame()
    assert set(kept["block"]) == {"contract_total", "contract_attribution"}
    assert set(kept["name"]) == {"", "x"}
    assert len(kept) == 4 + 3
    assert summarise_contracts(BATCH, LAYOUT, [replace(one, slice=None)]).table.num_rows == 0


def test_pooled_windows_are_all_their_rows():
    halves = [read_sums(summary(cut(BATCH, rows)).frame(), LAYOUT) for rows in (slice(0, 900), slice(900, ROWS))]
    whole = read_sums(summary(BATCH).frame(), LAYOUT)
    for expectation in EVERY[:5]:
        together = measure(expectation, pool(halves), LAYOUT)
        assert together.value == pytest.approx(measure(expectation, whole, LAYOUT).value, rel=1e-6)


def sums_of_rows(batch):
    """The sums of a share, without rounding; weights are 1."""
    size = np.abs(batch.values)
    total = size.sum(axis=1)
    features = np.stack([size.sum(axis=0), (size**2).sum(axis=0), (size * total[:, None]).sum(axis=0)])
    return Sums(float(total.size), float(total.size), total.sum(), (total**2).sum(), features, None, None)


def test_the_error_of_a_share_is_that_of_repeated_windows():
    truth = np.abs(make_batch(400_000, 9).values).mean(axis=0)
    truth = truth[0] / truth.sum()
    pull = []
    for seed in range(1000):
        sums = sums_of_rows(make_batch(300, seed))
        found = share(sums, sums.features[:, 0])
        pull.append(3 * np.log(found.value / truth) / np.log(found.high / found.value))
    assert np.std(pull) == pytest.approx(1.0, abs=0.08)
    assert abs(np.mean(pull)) < 0.12


def sums_of_cells(mean, spread, rows, rng):
    """A window in which the feature x has these means and this spread in its cells, and so many rows in each."""
    found = mean + spread * rng.normal(size=mean.size) / np.sqrt(rows)
    cells = np.zeros((3, len(LAYOUT.features), len(LAYOUT.features[0].edges) + 4))
    at = np.arange(mean.size)
    cells[0, 0, at], cells[1, 0, at], cells[2, 0, at] = rows, rows * found, rows * (found**2 + spread**2)
    return Sums(float(rows * mean.size), float(rows * mean.size), 1.0, 1.0, np.zeros((3, 4)), np.zeros((3, 1)), cells)


STEPS = np.concatenate([np.zeros(7), np.ones(6), np.full(7, 2.0)])


@pytest.mark.parametrize("mean", [np.zeros(20), np.linspace(0, 0.02, 20)])
def test_no_effect_is_seldom_called_a_wrong_one(mean):
    rng = np.random.default_rng(3)
    found = [direction(sums_of_cells(mean, 1.0, 50, rng), LAYOUT, "x") for _ in range(3000)]
    assert np.mean([m.high < 0 for m in found]) < 1 / 741 + 3 * np.sqrt(1 / 741 / 3000)
    assert all(-1 <= m.low <= m.value <= m.high <= 1 for m in found)


@pytest.mark.parametrize("mean", [np.zeros(20), STEPS, np.linspace(0, 1, 20)])
def test_a_monotone_response_is_seldom_called_a_broken_one(mean):
    rng = np.random.default_rng(4)
    found = [monotone(sums_of_cells(mean, 1.0, 50, rng), LAYOUT, "x", rising=True) for _ in range(2000)]
    assert np.mean([m.low > 0 for m in found]) < 1 / 741 + 3 * np.sqrt(1 / 741 / 2000)


def test_what_is_wrong_is_found():
    rng = np.random.default_rng(5)
    falling = sums_of_cells(np.linspace(1, 0, 20), 1.0, 50, rng)
    assert direction(falling, LAYOUT, "x").high < -0.5
    assert monotone(falling, LAYOUT, "x", rising=True).low > 0.05
    assert monotone(falling, LAYOUT, "x", rising=False).low == 0
    hill = sums_of_cells(np.sin(np.linspace(0, np.pi, 20)), 0.5, 50, rng)
    assert monotone(hill, LAYOUT, "x", rising=True).low > 0.1


def test_no_effect_at_all_is_no_wrong_one():
    flat = sums_of_cells(np.zeros(20), 0.0, 50, np.random.default_rng(0))
    assert direction(flat, LAYOUT, "x").value == 0.0
    assert monotone(flat, LAYOUT, "x", rising=True).high == 0.0
    few = sums_of_cells(np.zeros(20), 1.0, MIN_IN_CELL - 1, np.random.default_rng(0))
    assert direction(few, LAYOUT, "x") is None
    assert monotone(few, LAYOUT, "x", rising=True) is None
    assert share(flat, np.array([0.0, 0.0, 0.0])).high == 0.0
    assert share(replace(flat, total=0.0), np.zeros(3)) is None


def check(*expectations, batch=BATCH, min_rows=100, usual=None):
    given = summary(batch, expectations).frame()
    return check_expectations(expectations, given, LAYOUT, min_rows, usual or {})


def test_a_breach_needs_the_whole_interval():
    (first,) = check(Expectation("n", Share(0.2, "at least", feature="x")))
    assert first.passed is True
    value, (low, high) = first.value, first.interval
    for asks, side in (("at least", 1), ("at most", -1)):
        near, far = value + side * 0.5 * (high - value), value + side * 2 * max(high - value, value - low)
        results = check(
            Expectation("near", Share(near, asks, feature="x")), Expectation("far", Share(far, asks, feature="x"))
        )
        assert [r.passed for r in results] == [True, False]
        assert results[0].bound == (high if asks == "at least" else low)
    (broken,) = check(Expectation("n", Share(0.9, "at least", feature="x"), "site=b"))
    said = f"n: x has {broken.value:.1%} of all absolute attribution where site=b; at least 90.0% is expected"
    assert broken.message == said


def test_what_cannot_be_judged_is_neither_kept_nor_broken(frame):
    expectation = Expectation("n", Share(0.9, "at least", feature="x"), "site=b")
    (few,) = check(expectation, min_rows=ROWS)
    assert few.passed is None
    assert few.value is None
    assert "effective rows, 3000 are needed" in few.message
    earlier = summarise(BATCH, LAYOUT).frame()
    (unseen,) = check_expectations([expectation], earlier, LAYOUT, 100, {})
    assert "profile the window again" in unseen.message
    (absent,) = check(expectation, batch=cut(BATCH, (BATCH.features["site"] == "a").to_numpy()))
    assert "0 effective rows, 100 are needed" in absent.message
    empty = Expectation("n", Direction("x", positive=True))
    (dead,) = check(empty, batch=cut(BATCH, slice(0, 0)), min_rows=0)
    assert dead.passed is None
    assert check_expectations([], frame, LAYOUT, 100, {}) == ()


def test_a_feature_that_turned_round_breaks_its_direction():
    wrong = make_batch(effect=lambda x: -x)
    expectations = (
        Expectation("rises", Direction("x", positive=True), "site=b"),
        Expectation("falls", Direction("x", positive=False)),
        Expectation("shape", Monotone("x", rising=True, slack=0.05), tier="ticket"),
    )
    usual = measure_all(expectations, summary(BATCH, expectations).frame(), LAYOUT, 100)
    rises, falls, shape = check(*expectations, batch=wrong, usual=usual)
    assert (rises.passed, falls.passed, shape.passed) == (False, True, False)
    assert rises.baseline == pytest.approx(-rises.value, abs=0.05)
    assert (
        rises.message == "rises: x has rank correlation -1.00 with its attribution where site=b; positive is expected"
    )
    assert "of its range from increasing; at most 5.0% is expected" in shape.message
    assert EXPECTATION == "expectation"
