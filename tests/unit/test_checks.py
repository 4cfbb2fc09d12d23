"""The hard channel: what fails, what does not, and that the limits are the baseline's own."""

import pytest

from whydrift.monitors.checks import Limit, check, fit_limits, rows_seen, set_aside
from whydrift.monitors.summary import WindowSummary, count_set_aside, merge
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


def test_out_of_range_numbers_are_no_check(findings):
    """They are inputs that moved: the budgeted statistics' business."""
    assert findings(inputs=lambda d: d.assign(x1=d["x1"] + 100)) == []


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
