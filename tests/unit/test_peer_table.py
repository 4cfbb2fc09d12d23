"""The table of what other tools would say: what is in it, and that it alerts where they would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from soundness import walk
from whydrift.monitors.attribution import moments
from whydrift.monitors.binning import FeatureBins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.peer_table import MOST_MOVED, Side, peer_table
from whydrift.monitors.summary import Explained, WindowSummary


@pytest.fixture(scope="module")
def then(world, reference):
    return Side(reference.frame, reference.heads[0].moments)


def side(world, change):
    frame = world.windows(1, change)[0].summary.frame()
    return Side(frame, moments(frame, world.layout))


def find(table, statistic, of="model", feature=None, limit=None):
    found = [
        p for p in table if (p.statistic, p.of, p.feature) == (statistic, of, feature) and limit in (None, p.threshold)
    ]
    assert len(found) == 1, (statistic, of, feature, limit, len(found))
    return found[0]


def test_a_quiet_window(world, reference, then):
    table = peer_table(side(world, world.quiet), then, world.layout)
    assert find(table, "ndcg").value > 0.97
    assert find(table, "ndcg").alerts is False
    assert find(table, "cosine").value > 0.99
    assert find(table, "directions_changed").value == 0.0
    for of in ("input", "attribution"):
        assert find(table, "psi", of, "x1", 0.2).alerts is False
        excess, psi = (find(table, s, of, "x1", limit).value for s, limit in (("psi_excess", None), ("psi", 0.2)))
        assert 0 < psi - excess < psi + 0.06
    walk(table)


def test_what_a_shift_of_one_feature_crosses(world, then):
    def move(frame):
        return frame.assign(x2=frame["x2"] + 1.0)

    table = peer_table(side(world, world.change(inputs=move)), then, world.layout)
    features = list(dict.fromkeys(p.feature for p in table if p.feature))
    assert features[0] == "x2"
    for statistic, limit in (("psi", 0.2), ("wasserstein_deviations", 0.1), ("kolmogorov_smirnov", None)):
        for of in ("input", "attribution"):
            assert find(table, statistic, of, "x2", limit).alerts is True
    assert find(table, "wasserstein_deviations", "input", "x2").value == pytest.approx(1.0, abs=0.3)
    assert find(table, "ndcg").alerts is False, "the ranking hardly moves"


def test_a_sign_flip_is_a_change_of_direction_and_of_nothing_else(world, then):
    def flip(values):
        return values * [1, -1, 1, 1]

    table = peer_table(side(world, world.change(values=flip)), then, world.layout)
    assert find(table, "directions_changed").value == 0.25
    assert find(table, "ndcg").alerts is False
    assert find(table, "cosine").value > 0.99


def test_categories_have_no_order(world, then):
    table = peer_table(side(world, world.quiet), then, world.layout)
    statistics = {p.statistic for p in table if p.of == "input" and p.feature == "carrier"}
    assert "largest_difference" in statistics
    assert not statistics & {"kolmogorov_smirnov", "wasserstein_deviations", "jensen_shannon_divergence"}
    assert find(table, "jensen_shannon_distance", "input", "carrier").tool == "Evidently"
    assert find(table, "kolmogorov_smirnov", "attribution", "carrier").tool == "KS test at 5 %"


def test_a_unit_error_lies_far_above(world, then):
    def thousand(frame):
        return frame.assign(x1=frame["x1"].abs() * 1000)

    table = peer_table(side(world, world.change(inputs=thousand)), then, world.layout)
    assert find(table, "kolmogorov_smirnov", "input", "x1").value > 0.9
    assert find(table, "wasserstein_deviations", "input", "x1").alerts is True


def test_a_small_baseline_has_no_thresholds_of_evidentlys(world):
    few = side(world, world.quiet)
    table = peer_table(few, few, world.layout)
    assert "Evidently" not in {p.tool for p in table}
    assert all(p.value == pytest.approx(0, abs=1e-6) for p in table if p.statistic == "hellinger")


def test_many_features_are_cut_to_those_that_moved_most(world):
    rng = np.random.default_rng(0)
    names = [f"f{i}" for i in range(12)]
    bins = tuple(FeatureBins(name, edges=tuple(np.linspace(-3, 3, 21))) for name in names)
    layout = replace(world.layout, features=bins, attributions=bins, slices=(), groups=())

    def rows(shift):
        values = rng.standard_normal((2000, 12)) + shift
        frame = pd.DataFrame(values, columns=names)
        one = np.ones(2000)
        summary = summarise(Explained(frame, one / 2, one, values, values.sum(axis=1), 0.0), layout).frame()
        return Side(summary, moments(summary, layout))

    then, now = rows(0.0), rows(np.arange(12) / 12)
    table = peer_table(now, then, layout)
    assert list(dict.fromkeys(p.feature for p in table if p.feature)) == ["f11", "f10", "f9", "f8", "f7"]
    assert MOST_MOVED == 5
    # a normal shift of d deviations is as far as W1 says
    assert find(table, "wasserstein_deviations", "attribution", "f11").value == pytest.approx(11 / 12, abs=0.1)
    normal = 2 * stats.norm.cdf(11 / 24) - 1
    assert find(table, "kolmogorov_smirnov", "attribution", "f11").value == pytest.approx(normal, abs=0.05)


def test_a_range_as_wide_as_numbers_are(world, then):
    wide = FeatureBins("x1", edges=(-1.7e308, 0.0, 1.7e308))
    layout = replace(world.layout, features=(wide, *world.layout.features[1:]))
    table = peer_table(side(world, world.quiet), then, layout)
    walk(table)
    assert "wasserstein_deviations" not in {p.statistic for p in table if (p.of, p.feature) == ("input", "x1")}


def test_no_features(world, then):
    layout = replace(world.layout, features=(), attributions=(), slices=(), groups=())
    assert peer_table(then, Side(WindowSummary.zero().frame(), then.moments), layout) == ()
