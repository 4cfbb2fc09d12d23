"""Slow drift against the baseline as it was approved."""

from dataclasses import replace

import numpy as np
import pytest

from simulated import DAY, START, THRESHOLDS, fold, observations, simulate, streams
from whydrift.monitors.evidence import Observation, fit
from whydrift.monitors.frozen import WINDOWS, drifted, remember

D = 56
HEARD = np.zeros(20, dtype=bool)


def check(values, deaf=HEARD, variances=0.01, **changes):
    """What is found after the last window, the first 56 being the baseline."""
    windows = observations(values, variances)
    detector = fit(streams(values.shape[1], **changes), windows[:D], DAY, THRESHOLDS)
    recent: tuple[Observation, ...] = ()
    for window in windows[D:]:
        recent = remember(recent, window)
    return drifted(detector, recent, deaf)


def ramped(seed, *, index=4, to=2.5, windows=170):
    values = simulate(seed, 20, D + windows)
    values[D:, index] += to * np.minimum(np.arange(windows) / (windows - WINDOWS), 1)
    return values


def test_a_drift_too_slow_to_page_is_a_ticket():
    values = ramped(1)
    (found,) = check(values)
    newest = values[-WINDOWS:, 4].mean()
    assert found.stream == 4
    assert found.since == START + (len(values) - WINDOWS) * DAY
    assert found.mean == pytest.approx(newest, abs=1e-6)
    assert found.expected == pytest.approx(values[:D, 4].mean(), abs=0.05)
    assert found.effect == pytest.approx(2.5, abs=0.8)
    assert found.interval[0] - found.expected > found.tolerance == pytest.approx(1, abs=0.35)
    assert found.interval[0] < found.mean < found.interval[1]


@pytest.mark.parametrize("ar", [0.0, 0.5])
def test_nothing_is_found_where_nothing_drifts(ar):
    found = [check(simulate(seed, 20, D + WINDOWS, ar=ar)) for seed in range(15)]
    assert sum(map(len, found)) == 0


def test_a_shift_as_large_as_the_tolerance_is_hardly_ever_found():
    """20 streams at the edge: at most 5 % of the checks may name one."""
    named = 0
    for seed in range(30):
        values = simulate(seed, 20, D + WINDOWS, ar=0.3)
        values[D:] += 0.5
        named += bool(check(values, tolerance=0.5))
    assert named <= 5


def test_the_interval_covers_what_was_put_in():
    """Bonferroni over 20 streams: all of them are covered in at least 95 % of the checks, less three errors."""
    missed = 0
    for seed in range(40):
        values = simulate(seed, 20, D + WINDOWS, ar=0.3)
        values[D:] += 4
        found = check(values)
        assert len(found) == 20
        missed += any(not f.interval[0] <= f.expected + 4 <= f.interval[1] for f in found)
    assert missed <= 6


def test_the_tolerance_of_a_kind_is_in_its_units():
    values = ramped(2, to=3) * 100
    assert [f.stream for f in check(values, variances=100.0)] == [4]
    assert check(values, variances=100.0, tolerance=350.0) == ()
    (found,) = check(values, variances=100.0, tolerance=50.0)
    assert found.tolerance == pytest.approx(50)


def test_a_single_absurd_window_is_no_drift():
    values = simulate(3, 20, D + WINDOWS)
    values[-5, 4] = 1e9
    assert check(values) == ()


def test_a_one_sided_stream_drifts_upwards_only():
    assert check(ramped(4, to=-3), one_sided=True) == ()
    assert [f.stream for f in check(ramped(4, to=3), one_sided=True)] == [4]


def test_deaf_streams_and_rare_ones_are_left_out():
    values = ramped(5)
    deaf = HEARD.copy()
    deaf[4] = True
    assert check(values, deaf) == ()
    values[-WINDOWS:-13, 4] = np.nan
    assert check(values) == ()


def test_a_month_is_28_windows_that_carried_something():
    windows = observations(simulate(6, 20, D + 40))
    nothing = replace(windows[0], values=np.full(20, np.nan))
    recent: tuple[Observation, ...] = ()
    for count, window in enumerate(windows[D:], start=1):
        recent = remember(remember(recent, window), nothing)
        assert len(recent) == min(count, WINDOWS)
    assert recent[-1] is windows[-1]
    detector = fit(streams(20), windows[:D], DAY, THRESHOLDS)
    assert drifted(detector, recent[1:], HEARD) == ()


def test_a_baseline_that_is_too_short_checks_nothing():
    values = simulate(7, 20, 27 + WINDOWS)
    values[27:] += 50
    windows = observations(values)
    assert drifted(fit(streams(20), windows[:27], DAY, THRESHOLDS), tuple(windows[27:]), HEARD) == ()


def test_what_pages_is_not_what_drifts():
    """The e-detector learns a ramp of 2.5 sd over 142 windows in part; the frozen baseline does not."""
    values = ramped(1)
    windows = observations(values)
    found = fold(fit(streams(20), windows[:D], DAY, THRESHOLDS), windows[D:])
    assert abs(found[-1].expected[4]) > 0.5
