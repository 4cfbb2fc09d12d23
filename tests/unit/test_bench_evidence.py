"""The benchmarks' own tools: simulated windows are what they are said to be, and a killed study goes on."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cache import Cache, digest, generator
from null import CALIBRATED_CELLS, GUARANTEED_CELLS, Cell, interval, study, table
from peers import begins, tuned
from rules import CUSUM_ALLOWANCE, benjamini_hochberg, cusum, largest, standardise, tune
from scipy import stats
from streams import NULLS, Null, simulate

BY_NAME = {null.name: null for null in NULLS}


def moments(null, windows=4000, streams=12, seed=1):
    """Variance, correlation of streams and lag-1 autocorrelation, each a mean over streams, in the streams' units."""
    found = simulate(null, streams, windows, np.random.default_rng(seed))
    z = found.values / found.unit
    means = np.array([z[found.day % 7 == day].mean(axis=0) for day in range(7)])
    z = z - means[found.day % 7]
    variance = z.var(axis=0)
    z = z / np.sqrt(variance)
    correlation = np.corrcoef(z.T)[np.triu_indices(streams, 1)].mean()
    return variance.mean(), correlation, (z[1:] * z[:-1]).mean(), means.std(axis=0, ddof=1).mean(), z


@pytest.mark.parametrize("name", ["iid", "day effects", "weekday", "AR .3", "AR .5", "AR .7", "t4", "correlated .8"])
def test_nulls_have_the_stated_moments(name):
    null = BY_NAME[name]
    variance, correlation, autocorrelation, weekday, z = moments(null)
    assert variance == pytest.approx(1.0, abs=0.15 if null.tails else 0.07)
    assert correlation == pytest.approx(null.correlation, abs=0.03)
    assert autocorrelation == pytest.approx(null.autocorrelation * (1 - null.sampling), abs=0.03)
    assert weekday == pytest.approx(null.weekday, abs=0.3)
    assert (stats.kurtosis(z, axis=None) > 1.5) == (null.tails is not None)


def test_window_sizes_jump_and_days_are_missing():
    null = BY_NAME["sizes x10"]
    found = simulate(null, 5, 4000, np.random.default_rng(2))
    size = null.sampling / (found.variances / found.unit**2)[:, 0]
    assert np.log(size).std() == pytest.approx(np.sqrt(np.log1p(null.spread**2) + 0.2 * np.log(10) ** 2), rel=0.05)
    assert size.max() / np.median(size) > 10
    assert np.all(np.diff(found.day) > 0)
    assert np.any(np.diff(found.day) > 1)
    large = size > np.quantile(size, 0.9)
    z = found.values / found.unit
    assert z[large].var() == pytest.approx(0.5 + 0.5 * (1 / size[large]).mean(), rel=0.1)
    assert z[~large].var() == pytest.approx(0.5 + 0.5 * (1 / size[~large]).mean(), rel=0.1)


def test_a_shift_is_in_units_of_the_window():
    still = simulate(Null("x"), 3, 60, np.random.default_rng(3))
    moved = still.moved(np.array([0.0, 2.0, 0.0]), 40)
    np.testing.assert_allclose((moved.values - still.values)[:, 1], np.repeat([0.0, 2 * still.unit[1]], [40, 20]))
    np.testing.assert_array_equal(moved.values[:, ::2], still.values[:, ::2])


def test_the_cells_are_the_protocol():
    assert len({cell.name for cell in GUARANTEED_CELLS}) == len(NULLS) * 3 * 2
    assert all(cell.calibrated for cell in CALIBRATED_CELLS)


def test_a_run_depends_on_its_cell_and_seed_alone():
    cell = Cell(BY_NAME["iid"], 10, 28)
    assert cell.run(3) == cell.run(3)
    assert cell.run(3)["peak"] != cell.run(4)["peak"] != replace(cell, null=Null("other")).run(4)["peak"]
    np.testing.assert_array_equal(generator("a", 1).random(3), generator("a", 1).random(3))


def test_a_killed_study_goes_on_where_it_was(tmp_path, monkeypatch):
    cells, path, made = [Cell(BY_NAME["iid"], 10, 28)], tmp_path / "c" / "null.jsonl", []
    monkeypatch.setattr(Cell, "run", lambda _, seed: made.append(seed) or _row(seed))
    study(Cache(path, "one"), 3, cells)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-9], encoding="utf-8")  # killed while it wrote the third
    study(Cache(path, "one"), 5, cells)
    assert made == [0, 1, 2, 2, 3, 4]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["key"].rsplit("|")[-1] for line in lines] == ["0", "1", "2", "3", "4"]
    assert table(Cache(path, "one"), 5, cells).loc[0, ["runs", "pages"]].tolist() == [5, 2.0]
    study(Cache(path, "two"), 1, cells)  # another detector
    assert made[-1] == 0
    assert table(Cache(path, "two"), 5, cells).loc[0, "runs"] == 1


def _row(seed):
    return {"pages": seed, "tickets": 0, "peak": 1.0, "threshold": 90.0}


def test_only_what_code_does_changes_its_digest(tmp_path):
    def write(text):
        path = tmp_path / "code.py"
        path.write_text(text, encoding="utf-8")
        module = ModuleType("code")
        module.__file__ = str(path)
        return digest([module])

    plain = write("def f(x):\n    return x + 1\n")
    assert write('"""Says."""\n\n\ndef f(x):\n    """Adds."""\n    return x + 1  # one\n') == plain
    assert write("def f(x):\n    return x + 2\n") != plain


def test_the_interval_of_a_mean_of_counts():
    low, high = interval(np.zeros(1000))
    assert (low, high) == (0.0, pytest.approx(3.689 / 1000, rel=1e-3))
    low, high = interval(np.repeat([0, 1], [900, 100]))
    assert low < 0.1 < high
    clustered = interval(np.repeat([0, 10], [990, 10]))
    assert clustered[1] - clustered[0] > 2 * (high - low)


def test_rules_against_loops():
    z = np.random.default_rng(4).standard_normal((2, 30, 5)) * 1.3
    alarms, leads = cusum(z, 3.0)
    for run in range(2):
        sums = np.zeros((5, 2))
        for t in range(30):
            for j in range(5):
                for side, sign in enumerate((1, -1)):
                    sums[j, side] = max(0.0, sums[j, side] + sign * z[run, t, j] - CUSUM_ALLOWANCE)
            assert alarms[run, t] == (sums.max() > 3.0)
            assert leads[run, t] == sums.max(axis=1).argmax()
            if alarms[run, t]:
                sums[:] = 0.0
    assert alarms.any()
    np.testing.assert_array_equal(largest(z, 2.5)[0], (np.abs(z) > 2.5).any(axis=-1))
    expected = [
        [(stats.false_discovery_control(2 * stats.norm.sf(np.abs(day))) < 0.05).any() for day in run] for run in z
    ]
    np.testing.assert_array_equal(benjamini_hochberg(z, -np.log(0.05))[0], expected)


def test_tuned_limits_keep_the_budget():
    quiet = np.random.default_rng(5).standard_normal((20, 90))
    limit = tuned(quiet, accumulates=False)
    assert (quiet >= limit).sum() == 20
    assert np.all(tuned(np.zeros((20, 90)), accumulates=False) > 0)
    walk = np.cumsum(quiet, axis=1)
    limit = tuned(walk, accumulates=True)
    assert begins(walk, limit).sum() <= 20 < (walk >= limit).sum()
    assert tune(lambda limit: 10 - limit, 0.0, 20.0) == pytest.approx(9.0, abs=0.01)


def test_frozen_residuals():
    values = np.random.default_rng(6).standard_normal((40, 3)) * [1, 2, 3] + 5
    expected = (values[30:] - values[:30].mean(axis=0)) / values[:30].std(axis=0, ddof=1)
    np.testing.assert_allclose(standardise(values, 30), expected)


def test_the_page_is_written_by_the_tables():
    """The committed README is what the committed tables say."""
    folder = Path(__file__).parents[2] / "benchmarks"
    import tables

    committed = (folder / "README.md").read_text(encoding="utf-8")
    assert tables.page() == committed, "benchmarks/README.md is out of date: python benchmarks/evidence/tables.py"
