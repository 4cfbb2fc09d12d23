"""The hard channel: what fails, what does not, and that the limits are the baseline's own."""

from math import exp

import numpy as np
import pytest

from whydrift.monitors.checks import Limit, check, check_labels, fit_limits, rows_seen, set_aside
from whydrift.monitors.summary import WindowSummary, count_golden, count_set_aside, merge
from whydrift.monitors.verdict import Channel, Status


@pytest.fixture
def findings(world, reference):
    """The failed checks of the first production day, changed."""

    def run(min_rows=100, **change):
        window = world.windows(1, {0: world.change(**change)})[0]
        return check(window.summary.frame(), world.layout, reference.limits, min_rows)

    return run


def missing(share):
    return lambda d: d.assign(x2=d["x2"].where(d.index >= share * len(d)))


def test_a_day_like_the_baseline_fails_nothing(findings):
    assert findings() == []


@pytest.mark.parametrize(("share", "fails"), [(0.02, False), (0.2, True), (1.0, True)])
def test_missing_rate(findings, share, fails):
    found = findings(inputs=missing(share))
    assert [f.stream for f in found] == ["missing_rate"] * fails
    if fails:
        (finding,) = found
        assert (finding.channel, finding.status, finding.feature) == (Channel.CHECK, Status.PAGE, "x2")
        assert finding.value == pytest.approx(share)
        assert finding.baseline == 0.0
        assert finding.effect == pytest.approx(share)
        assert finding.value > finding.threshold
        assert f"{share:.1%}" in finding.message


def test_unseen_categories(findings):
    (finding,) = findings(inputs=lambda d: d.assign(carrier=d["carrier"].where(d.index > 60, "new")))
    assert (finding.stream, finding.feature) == ("unseen_rate", "carrier")
    assert finding.value == pytest.approx(61 / 400)


def test_numbers_just_out_of_range_are_no_check(findings):
    """They are inputs that moved: the budgeted statistics' business."""
    assert findings(inputs=lambda d: d.assign(x1=d["x1"] + 4)) == []


@pytest.mark.parametrize(("share", "fails"), [(0.02, False), (0.15, True)])
def test_a_wrong_unit(findings, share, fails):
    found = findings(inputs=lambda d: d.assign(x1=d["x1"].where(d.index >= share * len(d), d["x1"] * 1000)))
    assert [(f.stream, f.feature) for f in found] == [("out_of_range_rate", "x1")] * fails
    if fails:
        assert found[0].value == pytest.approx(share, abs=0.01)


def test_golden_rows(world, reference):
    def golden(*counts):
        frame = merge([world.windows(1)[0].summary, count_golden(*counts)]).frame()
        return check(frame, world.layout, reference.limits, 100)

    assert golden(500, 0, 0, {"x1": 0, "x2": 0}) == []
    (explained,) = golden(500, 0, 37, {"x1": 3, "x2": 37, "x3": 0})
    assert (explained.stream, explained.status, explained.value) == ("golden_attribution", Status.PAGE, 37 / 500)
    assert explained.message == "37 of 500 golden rows are explained differently; most of all x2 in 37, x1 in 3"
    answered = golden(500, 1, 0, {})[0]
    assert (answered.stream, answered.value) == ("golden_output", 1 / 500)


def test_golden_rows_are_judged_without_any_others(world, reference):
    frame = count_golden(500, 500, 500, {"x1": 500}).frame()
    found = check(frame, world.layout, reference.limits, 100)
    assert [f.stream for f in found] == ["golden_output", "golden_attribution"]


def test_hours_of_golden_rows_add_up(world, reference):
    hours = [count_golden(500, i % 2, 0, {"x1": 0}) for i in range(24)]
    (finding,) = check(merge(hours).frame(), world.layout, reference.limits, 100)
    assert finding.message.startswith("12 of 12,000 golden rows")


@pytest.fixture
def labels(world, reference):
    """The failed checks of a cohort's labels."""

    def run(label, rows=400, min_rows=100, limits=reference.limits):
        outcomes = world.windows(3, {0: world.change(label=label)})[2].outcomes.frame()
        return check_labels(outcomes, world.layout, limits, rows, min_rows)

    return run


def test_labels_like_the_baselines_fail_nothing(labels):
    assert labels(lambda y: y) == []
    assert labels(lambda y: 1 - y) == []  # both classes are there: the statistics' business


@pytest.mark.parametrize(("label", "text"), [(0, "all 400 labels are 0"), (1, "all 400 labels are 1")])
def test_one_class_only(labels, label, text):
    (finding,) = labels(lambda y: np.full_like(y, label))
    assert (finding.stream, finding.status) == ("label_class", Status.PAGE)
    assert finding.message.startswith(text)
    assert finding.baseline < exp(-20)


@pytest.mark.parametrize(("rows", "fails"), [(390, True), (400, False), (415, False), (480, True), (None, False)])
def test_label_coverage(labels, rows, fails):
    """400 rows have labels; all had in the baseline's windows, so more labels than rows are too many."""
    found = labels(lambda y: y, rows=rows)
    assert [f.stream for f in found] == ["label_coverage"] * fails
    if fails:
        assert found[0].value == pytest.approx(400 / rows)
        assert f"{400 / rows:.1%} of the records have a label" in found[0].message


def test_coverage_is_judged_by_the_baselines_own(world, labels):
    frames = [world.windows(1)[0].summary.frame()] * 5
    patchy = [
        w.outcomes.frame()
        for w in world.windows(7, {i: world.change(rows=r) for i, r in enumerate((240, 260, 250, 255, 245))})
    ]
    limits = fit_limits(frames, world.layout, {}, patchy[2:])
    assert labels(lambda y: y, rows=570, limits=limits) == []
    assert [f.stream for f in labels(lambda y: y, rows=1000, limits=limits)] == ["label_coverage"]


def test_few_labels_are_not_judged(labels):
    assert labels(np.zeros_like, rows=40, min_rows=401) == []


@pytest.mark.parametrize("kind", ["model", "explainer"])
def test_digests(findings, kind):
    digests = {"model": "a" * 64, "explainer": "b" * 64, kind: "f" * 64}
    (finding,) = findings(digests=digests)
    assert finding.stream == f"{kind}_digest"
    assert finding.value is None
    assert "ffffffffffff" in finding.message


def test_a_window_in_which_the_model_changed_half_way(world, reference):
    changed = world.change(digests={"model": "f" * 64, "explainer": "b" * 64})
    parts = [world.windows(1)[0].summary, world.windows(1, {0: changed})[0].summary]
    found = check(merge(parts).frame(), world.layout, reference.limits, 100)
    assert [f.stream for f in found] == ["model_digest"]


def test_logged_predictions_of_another_model(findings):
    (finding,) = findings(prediction=lambda p: p * 0.9)
    assert finding.stream == "prediction_differs"
    assert finding.value == 1.0
    assert findings(prediction=lambda p: p.astype("float32").astype(float)) == []


def test_explanations_that_do_not_add_up(findings):
    (finding,) = findings(values=lambda v: v * 1.05)
    assert finding.stream == "additivity"
    assert findings(values=lambda v: v + 1e-5) == []


def test_rows_set_aside(findings):
    (finding,) = findings(set_aside={"infinite:x1": 150, "bad_time": 10, "duplicate": 5000})
    assert finding.stream == "set_aside"
    assert finding.value == pytest.approx(160 / 5560)


@pytest.mark.parametrize("reason", ["duplicate", "other_model_version", "label_without_record", "bad_label"])
def test_harmless_reasons(findings, reason):
    assert findings(set_aside={reason: 10_000}) == []


def test_the_commonest_reason_is_named(findings):
    (finding,) = findings(set_aside={"infinite:x1": 150, "bad_time": 40, "duplicate": 400})
    assert finding.value == pytest.approx(190 / 990)
    assert "infinite:x1 (150 rows)" in finding.message


def test_an_unreadable_file_is_a_ticket(findings):
    (finding,) = findings(set_aside={"unreadable_file": 2})
    assert (finding.stream, finding.status, finding.value) == ("unreadable_file", Status.TICKET, 2)


def test_too_few_rows_are_not_judged(findings):
    assert findings(min_rows=401, inputs=missing(1.0), prediction=lambda p: 1 - p, values=lambda v: v + 9) == []


def test_a_window_without_rows(world, reference):
    assert check(WindowSummary.zero().frame(), world.layout, reference.limits, 1) == []


def test_row_accounting():
    frame = count_set_aside({"duplicate": 3, "bad_time": 4, "unreadable_file": 1, "bad_label": 9}).frame()
    assert rows_seen(frame) == 7
    assert set_aside(frame) == {"duplicate": 3, "bad_time": 4, "unreadable_file": 1, "bad_label": 9}


def test_a_patchy_feed_is_judged_by_its_own_patchiness(world):
    patchy = [world.change(inputs=missing(share)) for share in (0.1, 0.3, 0.5, 0.2, 0.4)]
    frames = [w.summary.frame() for w in world.windows(5, dict(enumerate(patchy)))]
    limits = fit_limits(frames, world.layout, {"model": "a" * 64, "explainer": "b" * 64})
    assert limits.missing[1].largest == pytest.approx(0.5, abs=0.01)
    usual = world.windows(1, {0: world.change(inputs=missing(0.45))})[0]
    assert check(usual.summary.frame(), world.layout, limits, 100) == []
    assert limits.missing[0].at(400) < 0.06
    steady = fit_limits(frames[:1] * 5, world.layout, limits.digests)
    assert [f.stream for f in check(usual.summary.frame(), world.layout, steady, 100)] == ["missing_rate"]


def test_limits_shrink_with_rows_and_stay_rates():
    limit = Limit(largest=0.01, deviation=0.005)
    assert limit.at(100) > limit.at(10_000) > 0.01 + 3 * 0.005 + 0.02
    assert limit.at(10**9) == pytest.approx(0.01 + 0.015 + 0.02, abs=1e-4)
    assert Limit(1.0, 0.5).at(1) == 1.0
