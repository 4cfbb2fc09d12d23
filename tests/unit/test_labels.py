"""Labels that are still on their way: how mature a cohort is, and what can be said of it before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.special import expit

from whydrift.monitors.arrivals import (
    Arrived,
    ages_watched,
    read_cohorts,
    read_delays,
    summarise_arrivals,
    summarise_delays,
)
from whydrift.monitors.labels import (
    estimate_cohort,
    find_bounds_broken,
    fit_delays,
    judge_maturity,
)
from whydrift.monitors.policy import UsualLoss
from whydrift.monitors.summary import WindowSummary, merge
from whydrift.monitors.verdict import Channel, Status

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def layout(world):
    return world.layout


def cohort(seed, rows=2000, *, speed=(0.45, 0.2), shift=0.0, never=0.0, spread=0.0):
    """A cohort with all its labels: each day a share `speed` of the missing negatives and positives arrives."""
    rng = np.random.default_rng([7, seed])
    output = rng.normal(-1.0, 1.2, rows)
    prediction, label = expit(output), (rng.random(rows) < expit(output + shift)).astype(float)
    chance = np.clip(np.array(speed) * np.exp(spread * rng.standard_normal(2)), 0.01, 0.99)
    age = rng.geometric(chance[label.astype(int)]) - 1
    label = np.where(rng.random(rows) < never, np.nan, label)
    return Arrived(prediction, np.ones(rows), label, np.minimum(age, 20))


def as_of(whole, age):
    """What is known of a cohort at an age."""
    return replace(whole, label=np.where(whole.age <= age, whole.label, np.nan))


def fitted(layout, **how):
    cohorts = {START - (40 - day) * DAY: cohort(day, **how) for day in range(30)}
    return fit_delays(summarise_delays(cohorts, layout).frame(), layout)


def estimated(whole, age, delays, layout):
    frame = summarise_arrivals({START: as_of(whole, age)}, layout).frame()
    return estimate_cohort(read_cohorts(frame)[0], age, DAY, delays)


def test_the_delay_triangle_is_that_of_the_rows_in_any_split(layout):
    whole = cohort(1, 3000, never=0.1)
    weight = np.random.default_rng(0).uniform(0.5, 3, 3000)
    whole = replace(whole, weight=weight)
    table = summarise_arrivals({START: whole, START + DAY: cohort(2)}, layout)
    parts = [
        summarise_arrivals(
            {START: Arrived(whole.prediction[i::3], weight[i::3], whole.label[i::3], whole.age[i::3])}, layout
        )
        for i in (1, 2, 0)
    ]
    assert merge([*parts, summarise_arrivals({START + DAY: cohort(2)}, layout)]).to_bytes() == table.to_bytes()

    later, first = read_cohorts(table.frame())
    assert (later.start, first.start) == (START + DAY, START)
    known, positive = ~np.isnan(whole.label), whole.label == 1
    assert first.rows == 3000
    assert first.weight == pytest.approx(weight.sum(), abs=1e-5)
    assert first.known_rows.tolist() == [(known & ~positive).sum(), positive.sum()]
    assert first.known_weight2[1] == pytest.approx((weight[positive] ** 2).sum(), abs=1e-5)
    assert first.known_mesh.sum(axis=1) == pytest.approx(first.known_weight, abs=1e-5)
    by_age, predictions = read_delays(table.frame(), layout)
    own = [weight[positive & (whole.age == age)].sum() for age in range(by_age.shape[2])]
    assert np.allclose(by_age[0, 1], own, atol=1e-5)
    assert predictions == pytest.approx([weight.sum(), 2000], abs=1e-5)


def test_a_baseline_keeps_delays_without_meshes(layout):
    cohorts = {START: cohort(1)}
    small, large = (f(cohorts, layout).frame() for f in (summarise_delays, summarise_arrivals))
    assert set(small["block"]) == {"arrival", "delay"}
    assert read_delays(small, layout)[0].tolist() == read_delays(large, layout)[0].tolist()


@pytest.mark.parametrize(("lag", "ages"), [(0, (0,)), (3, (0, 1, 2, 3))])
def test_every_age_is_watched_of_few(lag, ages):
    assert ages_watched(lag) == ages


def test_of_many_ages_some_are_watched():
    ages = ages_watched(168)
    assert len(ages) == 29
    assert (ages[0], ages[-1]) == (0, 168)
    assert set(np.diff(ages)) == {6}


def test_how_fast_labels_come_is_learned_by_class(layout):
    found = fitted(layout)
    for code, speed in enumerate((0.45, 0.2)):
        expected = 1 - (1 - speed) ** (np.arange(20) + 1)
        assert np.allclose(found.known[code, :20], expected, atol=0.015)
    assert found.known[:, -1].tolist() == [1.0, 1.0]
    assert found.labelled == 1.0
    assert found.cohorts == 30
    assert fitted(layout, never=0.2).labelled == pytest.approx(0.8, abs=0.01)


def test_cohorts_that_differ_are_less_certain(layout):
    calm, wild = fitted(layout), fitted(layout, spread=0.3)
    assert (wild.variance[:, 1:4] > 8 * calm.variance[:, 1:4]).all()


def test_too_few_complete_cohorts_teach_nothing(layout):
    few = {START + i * DAY: cohort(i) for i in range(4)}
    assert fit_delays(summarise_delays(few, layout).frame(), layout) is None
    assert fit_delays(WindowSummary.zero().frame(), layout) is None


@pytest.mark.parametrize(
    "how", [{}, {"never": 0.15}, {"spread": 0.2}, {"speed": (0.1, 0.5)}], ids=["plain", "never", "uneven", "reverse"]
)
def test_corrected_estimates_cover_the_truth_and_naive_ones_do_not(layout, how):
    delays, hits, naive, inside = fitted(layout, **how), [], [], []
    for seed in range(100, 180):
        whole, age = cohort(seed, shift=0.4, **how), 2
        found = estimated(whole, age, delays, layout)
        final = whole.label[~np.isnan(whole.label)]
        p = whole.prediction[~np.isnan(whole.label)]
        truths = {"base_rate": final.mean(), "loss": ((final - p) ** 2).mean()}
        for metric, truth in truths.items():
            low, high = getattr(found, f"{metric}_interval")
            hits.append(low - 1e-6 <= truth <= high + 1e-6)
            bounds = getattr(found, f"{metric}_bounds")
            inside.append(bounds[0] - 1e-5 <= truth <= bounds[1] + 1e-5)
            assert low - 1e-9 <= getattr(found, metric) <= high + 1e-9
        naive.append(found.seen_base_rate - truths["base_rate"])
        assert found.calibration == pytest.approx(found.base_rate - whole.prediction.mean(), abs=1e-5)
    assert np.mean(hits) >= 0.91
    assert all(inside)
    assert abs(np.mean(naive)) > 0.04
    assert abs(np.mean(naive)) > 5 * np.std(naive) / np.sqrt(len(naive))


def test_intervals_are_no_wider_than_they_need_be(layout):
    delays = fitted(layout)
    errors, halves = [], []
    for seed in range(300, 380):
        whole = cohort(seed)
        found = estimated(whole, 3, delays, layout)
        errors.append(found.base_rate - whole.label.mean())
        halves.append((found.base_rate_interval[1] - found.base_rate_interval[0]) / 2)
    assert abs(np.mean(errors)) < 0.003
    assert np.mean(halves) < 2.4 * np.std(errors)
    assert np.mean(halves) < 0.05


def test_negatives_that_only_time_confirms(layout):
    """No negative is known before maturity: what is not positive by then is negative."""
    slow = {START - (40 - day) * DAY: cohort(day, speed=(1.0, 0.3)) for day in range(30)}
    slow = {start: replace(c, age=np.where(c.label == 0, 10, c.age)) for start, c in slow.items()}
    delays = fit_delays(summarise_delays(slow, layout).frame(), layout)
    hits = []
    for seed in range(100, 160):
        whole = cohort(seed, speed=(1.0, 0.3))
        whole = replace(whole, age=np.where(whole.label == 0, 10, whole.age))
        found = estimated(whole, 3, delays, layout)
        assert found.seen_base_rate == 1.0
        loss = ((whole.label - whole.prediction) ** 2).mean()
        hits.append(found.base_rate_interval[0] <= whole.label.mean() <= found.base_rate_interval[1])
        hits.append(found.loss_interval[0] <= loss <= found.loss_interval[1])
    assert np.mean(hits) >= 0.9


def test_too_young_a_cohort_has_bounds_and_no_estimate(layout):
    delays, whole = fitted(layout, speed=(0.45, 0.1)), cohort(1, speed=(0.45, 0.1))
    found = estimated(whole, 0, delays, layout)  # a tenth of the positives
    assert found.base_rate is None
    assert found.loss_interval is None
    assert found.base_rate_bounds[0] < whole.label.mean() < found.base_rate_bounds[1]
    assert estimated(whole, 5, None, layout).base_rate is None


def test_a_cohort_without_any_label(layout):
    nothing = summarise_arrivals({START: as_of(cohort(1), -1)}, layout).frame()
    found = estimate_cohort(read_cohorts(nothing)[0], 3, DAY, fitted(layout))
    p = cohort(1).prediction
    assert found.base_rate is None
    assert (found.labelled, found.coverage, found.seen_loss) == (0, 0.0, None)
    assert found.base_rate_bounds == (0.0, 1.0)
    assert found.loss_bounds == pytest.approx(
        (np.minimum(p, 1 - p) ** 2).mean() * np.array([1, 0]) + (np.maximum(p, 1 - p) ** 2).mean() * np.array([0, 1]),
        abs=2e-5,
    )


def test_bounds_are_the_worst_and_the_best_that_missing_labels_can_be(layout):
    whole = cohort(3, 400)
    known = as_of(whole, 1)
    found = estimated(whole, 1, None, layout)
    missing = np.isnan(known.label)
    low, high = ([], [])
    for end, pick in ((low, np.minimum), (high, np.maximum)):
        p = whole.prediction
        end.append(np.where(missing, pick(p**2, (1 - p) ** 2), (np.nan_to_num(known.label) - p) ** 2).mean())
    assert found.loss_bounds == pytest.approx((low[0], high[0]), abs=2e-5)
    assert found.base_rate_bounds == pytest.approx(
        ((known.label == 1).mean(), (known.label == 1).mean() + missing.mean()), abs=1e-6
    )


def test_maturity_is_the_slower_class(layout):
    delays = fitted(layout)
    frame = summarise_arrivals({START: as_of(cohort(1), 4)}, layout).frame()
    found = judge_maturity(frame, START, DAY, 4, delays)
    assert found.negatives == pytest.approx(0.95, abs=0.02)
    assert found.positives == pytest.approx(0.67, abs=0.02)
    assert not found.mature
    assert found.coverage == pytest.approx((cohort(1).age <= 4).mean(), abs=1e-6)
    assert judge_maturity(frame, START, DAY, 12, delays).mature
    unknown = judge_maturity(frame, START, DAY, 4, None)
    assert (unknown.mature, unknown.positives, unknown.cohorts) == (None, None, 0)
    assert judge_maturity(frame, START - DAY, DAY, 4, delays) is None


def test_of_a_regression_all_labels_count_together(make_world):
    layout = make_world(task="regression").layout
    whole = cohort(1)
    frame = summarise_arrivals({START: as_of(whole, 1)}, layout).frame()
    learned = {START - i * DAY: cohort(i, speed=(0.3, 0.3)) for i in range(8)}
    delays = fit_delays(summarise_delays(learned, layout).frame(), layout)
    found = judge_maturity(frame, START, DAY, 1, delays)
    assert found.negatives == found.positives == pytest.approx(0.51, abs=0.02)
    assert found.coverage == pytest.approx((whole.age <= 1).mean(), abs=1e-6)


def test_only_bounds_that_lie_above_as_a_whole_say_anything(layout):
    usual = UsualLoss(mean=0.15, deviation=0.01, windows=30)
    good = estimated(cohort(1), 3, None, layout)
    wrong = replace(cohort(2), label=1 - cohort(2).label)
    bad = replace(estimated(wrong, 2, None, layout), cohort_start=START - DAY)
    assert good.loss_bounds[0] < 0.18 < bad.loss_bounds[0]
    found = find_bounds_broken((good, bad), usual, 100)
    assert (found.status, found.channel, found.onset) == (Status.TICKET, Channel.CHECK, START - DAY)
    assert found.threshold == pytest.approx(0.18)
    assert "whatever its missing labels" in found.message
    assert find_bounds_broken((good,), usual, 100) is None
    assert find_bounds_broken((bad,), usual, 100_000) is None
    assert find_bounds_broken((bad,), None, 100) is None
