"""Gaps between groups: rates against fairlearn, intervals against the bootstrap, zeros, floors, and the streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from scipy import stats

from whydrift.monitors.binning import FeatureBins, fit_bins
from whydrift.monitors.fairness import (
    MIN_ROWS,
    MIN_WATCHED,
    OUTCOMES,
    SELECTION,
    fit_fairness,
    fit_usual_gaps,
    list_gaps,
    list_selection,
    read_gaps,
    tell_gaps,
)
from whydrift.monitors.summary import Layout, Outcomes, merge, summarise_outcomes

RATES = {"gap_tpr": true_positive_rate, "gap_fpr": false_positive_rate}
GROUPS = ("a", "b", "c")


def _rows(rng, n, *, weights=True):
    group = rng.choice(GROUPS, size=n, p=[0.5, 0.3, 0.2])
    p = np.clip(rng.beta(2, 4, n) + 0.1 * (group == "b"), 0, 1)
    label = (rng.random(n) < np.clip(p + 0.05 * (group == "c"), 0, 1)).astype(float)
    weight = rng.uniform(0.5, 3.0, n) if weights else np.ones(n)
    return pd.DataFrame({"group": group, "age": rng.uniform(18, 90, n)}), p, weight, label


def _layout(frame, *, threshold=0.4, columns=("group",), references=None):
    bins = tuple(fit_bins(name, frame[name]) for name in frame)
    layout = Layout("binary", "logit", 1.0, 1.0, bins, bins, ())
    return fit_fairness(frame, layout, columns, threshold, references or {})


def _outcomes(rows, layout):
    return summarise_outcomes(Outcomes(*rows), layout).frame()


@pytest.fixture(scope="module")
def rows():
    return _rows(np.random.default_rng(3), 4000)


def test_rates_are_those_of_fairlearn(rows):
    frame, p, weight, label = rows
    layout = _layout(frame)
    gaps = read_gaps(OUTCOMES, _outcomes(rows, layout), layout.fairness)
    weighted = {"sample_weight": weight}
    for at, kind in ((0, "gap_tpr"), (2, "gap_fpr")):
        theirs = MetricFrame(
            metrics=RATES[kind],
            y_true=label,
            y_pred=(p >= 0.4).astype(int),
            sensitive_features=frame["group"],
            sample_params=weighted,
        ).by_group
        np.testing.assert_allclose(gaps.rate[at : at + 2], theirs[["b", "c"]], rtol=1e-6)
        np.testing.assert_allclose(gaps.reference[at : at + 2], theirs["a"], rtol=1e-6)
        np.testing.assert_allclose(gaps.value[at : at + 2], np.log(theirs[["b", "c"]] / theirs["a"]), rtol=1e-5)
    for at, group in ((4, "b"), (5, "c")):
        own = frame["group"] == group
        assert gaps.rate[at] == pytest.approx((weight * label)[own].sum() / (weight * p)[own].sum(), rel=1e-6)


def test_selection_is_that_of_fairlearn_over_all_rows_of_a_window(make_world):
    world = make_world()
    world.layout = fit_fairness(world._inputs(0, 400), world.layout, ["carrier"], 0.3, {"carrier": "carrier=c"})
    explained, _ = world._rows(0, world.quiet)
    frame = world.summaries(0, world.quiet)[0].frame()
    gaps = read_gaps(SELECTION, frame, world.layout.fairness)
    chosen = (explained.prediction >= 0.3).astype(int)
    theirs = MetricFrame(
        metrics=selection_rate, y_true=chosen, y_pred=chosen, sensitive_features=explained.features["carrier"]
    ).by_group
    np.testing.assert_allclose(gaps.value, np.log(theirs[["a", "b"]] / theirs["c"]), rtol=1e-6)
    np.testing.assert_allclose(gaps.rows, np.minimum(*np.broadcast_arrays(*_sizes(explained))))


def _sizes(explained):
    counts = explained.features["carrier"].value_counts()
    return counts[["a", "b"]].to_numpy(), counts["c"]


def test_variances_are_those_of_the_bootstrap(rows):
    frame, p, weight, label = rows
    layout, rng = _layout(frame), np.random.default_rng(4)
    variance = read_gaps(OUTCOMES, _outcomes(rows, layout), layout.fairness).variance
    again = []
    for _ in range(200):
        take = rng.integers(len(p), size=len(p))
        drawn = (frame.iloc[take].reset_index(drop=True), p[take], weight[take], label[take])
        again.append(read_gaps(OUTCOMES, _outcomes(drawn, layout), layout.fairness).value)
    np.testing.assert_allclose(variance, np.var(again, axis=0), rtol=0.35)


def test_intervals_hold_what_is_true_in_nineteen_of_twenty_windows():
    """Windows with effects of the day on who is selected: the intervals have to count them."""
    layout, rng = _layout(_rows(np.random.default_rng(0), 500)[0]), np.random.default_rng(6)

    def day():
        frame, p, weight, label = _rows(rng, 1500, weights=False)
        p = np.clip(p + 0.06 * rng.standard_normal() * (frame["group"] == "b").to_numpy(), 0, 1)
        return _outcomes((frame, p, weight, label), layout)

    days = [day() for _ in range(200)]
    usual = fit_usual_gaps([], days[:60], layout)
    empty = days[0].iloc[:0]
    told = [[g for g in tell_gaps(empty, d, usual, layout) if g.metric == "true_positive_rate"] for d in days[60:]]
    truth = np.mean([[g.log_ratio for g in gaps] for gaps in told], axis=0)
    held = np.array([[g.interval[0] <= t <= g.interval[1] for g, t in zip(gs, truth, strict=True)] for gs in told])
    low, high = stats.binom.ppf([0.001, 0.999], len(told), 0.95) / len(told)
    assert ((held.mean(axis=0) >= low) & (held.mean(axis=0) <= high)).all(), held.mean(axis=0)
    assert usual.between[len(list_selection(layout))] > 0.01, "group b differs from day to day"


def test_a_count_of_zero_has_a_wide_interval_and_no_infinity():
    n = 40
    frame = pd.DataFrame({"group": np.repeat(["a", "b"], n)})
    p = np.where(np.arange(2 * n) < n, np.tile([0.2, 0.7], n), 0.2)
    label = np.tile([0.0, 0.0, 1.0, 1.0], n // 2)
    rows = (frame, p, np.ones(2 * n), label)
    layout = _layout(frame, threshold=0.5)
    gaps = read_gaps(OUTCOMES, _outcomes(rows, layout), layout.fairness)
    assert gaps.rate[0] == 0.0
    assert gaps.reference[0] == 0.5
    assert gaps.value[0] == pytest.approx(np.log((0.5 / 21) / (10.5 / 21)))
    assert gaps.variance[0] == pytest.approx((1 - 0.5 / 21) / (0.5 / 21) / 21 + (1 - 0.5) / 0.5 / 21)
    assert np.isfinite(gaps.value).all()
    nobody = (frame, p, np.ones(2 * n), np.where(frame["group"] == "b", 0.0, label))
    gaps = read_gaps(OUTCOMES, _outcomes(nobody, layout), layout.fairness)
    assert gaps.rows[0] == 0, "no true positive rate without positives"
    assert np.isnan(gaps.value[0])
    assert gaps.variance[2] > 2, "outcomes by predictions, of none"
    assert np.isfinite(gaps.value[2])


def test_a_group_of_a_few_rows_is_not_told():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"group": ["a"] * 300 + ["b"] * (MIN_ROWS - 1) + ["c"] * (MIN_WATCHED - 1)})
    rows = (frame, rng.random(len(frame)), np.ones(len(frame)), (rng.random(len(frame)) < 0.5).astype(float))
    layout = _layout(frame)
    outcomes = _outcomes(rows, layout)
    told = tell_gaps(outcomes.iloc[:0], outcomes, fit_usual_gaps([], [outcomes], layout), layout)
    calibration = {g.group: g for g in told if g.metric == "calibration"}
    assert calibration["group=b"].log_ratio is None
    assert calibration["group=b"].interval is None
    assert calibration["group=b"].baseline_log_ratio is None
    assert calibration["group=c"].interval is not None
    assert all(g.rate is None and g.rows == 0 for g in told if g.metric == "selection_rate")


def test_groups_are_values_and_ranges_and_the_largest_is_the_reference(rows):
    frame = rows[0]
    layout = _layout(frame, columns=("group", "age"))
    group, age = layout.fairness.columns
    assert (group.groups.categories, group.reference) == (GROUPS, 0)
    assert len(age.groups.edges) == 6
    assert [s.slice for s in list_selection(layout)][:2] == ["group=b", "group=c"]
    assert len(list_gaps(layout)) == 3 * (2 + 4)
    assert _layout(frame, references={"group": "group=c"}).fairness.columns[0].reference == 2


@pytest.mark.parametrize(
    ("frame", "references", "message"),
    [
        (pd.DataFrame({"group": ["a"] * 5}), {}, "group has fewer than two groups"),
        (
            pd.DataFrame({"group": ["a", "b"]}),
            {"group": "b"},
            "'b' is no group of group; its groups are group=a, group=b",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(frame, references, message):
    with pytest.raises(ValueError, match=message):
        _layout(frame, references=references)


def test_parts_add_up_to_the_same_bytes(rows):
    frame, p, weight, label = rows
    layout = _layout(frame, columns=("group", "age"))
    part = np.random.default_rng(9).integers(5, size=len(p))
    pieces = [
        summarise_outcomes(Outcomes(frame[part == k], p[part == k], weight[part == k], label[part == k]), layout)
        for k in range(5)
    ]
    whole = summarise_outcomes(Outcomes(*rows), layout)
    assert merge(reversed(pieces)).to_bytes() == whole.to_bytes()
    assert (whole.frame()["block"] == "confusion").any()


def test_rows_of_no_group_do_not_count(rows):
    frame, p, weight, label = rows
    layout = _layout(frame)
    strange = pd.concat([frame, frame.assign(group="z"), frame.assign(group=None)], ignore_index=True)
    more = tuple(np.tile(part, 3) for part in (p, weight, label))
    ours, theirs = (read_gaps(OUTCOMES, _outcomes(r, layout), layout.fairness) for r in (rows, (strange, *more)))
    np.testing.assert_array_equal(ours.value, theirs.value)


def test_nothing_is_watched_where_no_groups_are_configured(world):
    assert list_selection(world.layout) == list_gaps(world.layout) == ()
    layout = replace(world.layout, fairness=None)
    assert tell_gaps(pd.DataFrame(), None, fit_usual_gaps([], [], layout), layout) == ()


def test_the_cells_of_a_wide_column_are_kept_apart():
    """Two columns with different numbers of groups share one table."""
    rng = np.random.default_rng(10)
    frame = pd.DataFrame({"group": rng.choice(["a", "b"], 900), "kind": rng.choice(list("uvwxyz"), 900)})
    p, label = rng.random(900), (rng.random(900) < 0.5).astype(float)
    layout = _layout(frame, columns=("group", "kind"), threshold=0.5)
    gaps = read_gaps(("gap_calibration",), _outcomes((frame, p, np.ones(900), label), layout), layout.fairness)
    names = [s.slice for s in list_gaps(layout)][: gaps.value.size]
    for name, rate in zip(names, gaps.rate, strict=True):
        column, value = name.split("=")
        own = frame[column] == value
        assert rate == pytest.approx(label[own].sum() / p[own].sum(), rel=1e-6)
    assert isinstance(layout.fairness.columns[1].groups, FeatureBins)
