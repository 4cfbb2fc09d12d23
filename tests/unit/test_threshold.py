"""The calibrated threshold: what it simulates is what the detector does, and its noise is the baseline's."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from scipy import special, stats

from simulated import DAY, START, fold, observations, simulate, streams
from whydrift.monitors import threshold
from whydrift.monitors.evidence import Observation, Stream, Thresholds, fit, learn
from whydrift.monitors.residuals import MOST_CORRELATED, Window
from whydrift.monitors.threshold import calibrate

QUARTER = timedelta(days=90)
D = 56


def rng(seed=0):
    return np.random.default_rng(seed)


def fitted(values, asked=None, days=D, after=90):
    """The noise of a baseline, and its clock."""
    windows = observations(values[:days])
    clock = [Window.at(START + i * DAY, DAY) for i in range(days + after)]
    return threshold._fit_noise(asked or streams(values.shape[1]), windows, clock, DAY, frozenset()), clock


def test_the_same_generator_gives_the_same_threshold_and_another_nearly_the_same():
    windows = observations(simulate(1, 8, D))
    first, again, other = (calibrate(streams(8), windows, DAY, 1, QUARTER, rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first.threshold == pytest.approx(other.threshold, rel=0.5)
    assert 90 / 16 <= first.threshold <= 90
    assert 0.3 <= first.false_pages <= first.interval[1] <= 1
    assert first.interval[0] < first.false_pages < first.interval[1]
    assert first.runs == 400


def test_a_simulated_run_pages_where_the_detector_would():
    """The same numbers through `fit` and `step`: whether a run pages at all, at every threshold."""
    asked = [Stream(f"kind{i % 2}", one_sided=i == 3, weight=1 + i) for i in range(5)]
    noise, clock = fitted(simulate(2, 5, D, ar=0.3), asked)
    thresholds, runs = np.array([4.0, 12.0, 40.0]), 6
    pages = threshold._pages(asked, noise, clock, 90, thresholds, runs, rng(3))
    draw, noisy, seen = rng(3), None, []
    lag = np.clip(noise.lag + noise.lag_error * draw.standard_normal((runs, 1)), 0.0, MOST_CORRELATED)
    for window in range(len(clock)):
        noisy = threshold._draw(noise, noisy, lag, draw)
        seen.append(threshold._observe(noise, window, noisy, draw))
    for run in range(runs):
        windows = [Observation(START + i * DAY, v[run], s[run]) for i, (v, s) in enumerate(seen)]
        for index, page in enumerate(thresholds):
            detector = fit(asked, windows[:D], DAY, Thresholds(page, 2))
            assert any(e.page for e in fold(detector, windows[D:])) == bool(pages[index, run])
    assert pages[1].sum() > 0
    assert np.all(np.diff(pages.sum(axis=1)) < 0)


@pytest.mark.parametrize(("ar", "df"), [(0.0, np.inf), (0.4, 5.0)])
def test_the_budget_holds_at_the_calibrated_threshold(ar, df):
    """Six streams, seeds 100 to 129: nearer to the one page that is allowed than the guarantee comes.

    Of the second quarter, since evidence begins at nothing. One page a run, over 30 runs, has a standard error of 0.18.
    """
    found = calibrate(streams(6), observations(simulate(4, 6, D, ar=ar, df=df)), DAY, 1, QUARTER, rng())
    pages = []
    for seed in range(100, 130):
        windows = observations(simulate(seed, 6, D + 180, ar=ar, df=df))
        run = fold(fit(streams(6), windows[:D], DAY, Thresholds(found.threshold, 7)), windows[D:])
        pages.append(run[-1].pages - run[89].pages)
    assert 0.2 < np.mean(pages) <= 1 + 2 * 0.18


def test_more_allowed_pages_are_a_lower_threshold():
    windows = observations(simulate(5, 6, D))
    some, many = (calibrate(streams(6), windows, DAY, allowed, QUARTER, rng()) for allowed in (0.5, 2))
    assert many.threshold < some.threshold
    assert many.interval[1] <= 2
    assert some.threshold <= 180


def test_streams_that_cannot_page_play_no_part():
    values = simulate(6, 8, D)
    asked = [replace(s, tier="ticket") if i >= 6 else s for i, s in enumerate(streams(8))]
    with_tickets = calibrate(asked, observations(values), DAY, 1, QUARTER, rng())
    assert with_tickets == calibrate(asked[:6], observations(values[:, :6]), DAY, 1, QUARTER, rng())


def test_the_noise_has_the_correlation_of_the_baseline():
    alike, _ = fitted(simulate(7, 40, 300), days=300)
    assert np.mean((alike.loadings.T @ alike.loadings)[~np.eye(40, dtype=bool)]) == pytest.approx(0.3, abs=0.06)
    np.testing.assert_allclose((alike.loadings**2).sum(axis=0) + alike.own, 1)
    apart, _ = fitted(rng(1).standard_normal((60, 40)), days=60)
    off = (apart.loadings.T @ apart.loadings)[~np.eye(40, dtype=bool)]
    assert np.sqrt((off**2).mean()) < 0.07  # so few windows alone make it 0.15
    drawn = np.concatenate([threshold._draw(alike, None, np.zeros((200, 1)), rng(2)) for _ in range(5)])
    assert np.mean(np.corrcoef(drawn.T)[~np.eye(40, dtype=bool)]) == pytest.approx(0.3, abs=0.08)


def test_the_noise_has_the_tails_and_the_skew_of_its_kind():
    generator = rng(8)
    heavy, skewed = generator.standard_t(4, (400, 10)), generator.gamma(2, size=(400, 10))
    values = np.concatenate([heavy, skewed, generator.standard_normal((400, 10))], axis=1)
    asked = [Stream(kind) for kind in ("heavy", "skewed", "normal") for _ in range(10)]
    noise, _ = fitted(values, asked, days=400)
    drawn = threshold._draw(noise, None, np.zeros((4000, 1)), rng(9)).reshape(4000, 3, 10)
    kurtosis = stats.kurtosis(drawn, axis=(0, 2))
    skew = stats.skew(drawn, axis=(0, 2))
    assert kurtosis[0] > 1.5
    assert skew[1] == pytest.approx(2 / np.sqrt(2), abs=0.5)
    assert (abs(kurtosis[2]), abs(skew[2])) < (0.3, 0.2)
    assert np.abs(drawn[:, 0]).max() > np.abs(drawn[:, 2]).max()


def test_the_noise_has_the_autocorrelation_and_the_units():
    values = simulate(10, 30, 400, ar=0.5) * 100 + 7
    noise, _ = fitted(values, days=400)
    assert noise.lag == pytest.approx(0.5, abs=0.06)
    assert 0 < noise.lag_error < 0.05
    np.testing.assert_allclose(noise.unit, 100, rtol=0.3)
    assert noise.usual.shape == (490, 30)
    weekdays = np.array([values[day:399:7].mean(axis=0) for day in range(7)])
    off = noise.unit * noise.usual[:7] - (weekdays - weekdays.mean(axis=0))
    assert np.sqrt((off**2).mean()) < 5


def test_windows_keep_their_sizes_and_gaps_and_labels_come_late():
    values = simulate(11, 4, D)
    values[::4, 1] = np.nan
    values[:, 3] = np.nan
    noise, _ = fitted(values)
    noisy = threshold._draw(noise, None, np.zeros((400, 1)), rng())
    early, late = (np.isnan(threshold._observe(noise, window, noisy, rng(1))[0]).mean(axis=0) for window in (0, D))
    assert early.tolist() == pytest.approx([0, 0.25, 0, 1], abs=0.08)
    assert late.tolist() == pytest.approx([0, 0.25, 0, 0], abs=0.08)
    assert 0 < calibrate(streams(4), observations(values), DAY, 1, QUARTER, rng()).false_pages < 1


def test_a_table_of_quantiles_is_the_identity_of_normal_residuals():
    scale, _, judged = learn(streams(40), observations(simulate(12, 40, 400)), DAY, frozenset())
    q, heard = (np.array([getattr(window, name) for window in judged]) for name in ("q", "heard"))
    (table,) = threshold._quantiles(q, heard, scale.group)
    middle = np.abs(threshold._NORMAL) < 3
    np.testing.assert_allclose(table[middle], threshold._NORMAL[middle], atol=0.25)
    assert np.all(np.diff(table) >= 0)
    exact = special.stdtrit(5.0, special.ndtr(np.array([-3.0, 0.5])))
    np.testing.assert_allclose(threshold._t_quantile(np.array([-3.0, 0.5]), 5.0), exact)


def test_what_cannot_be_calibrated_is_refused():
    windows = observations(simulate(13, 3, 27))
    with pytest.raises(ValueError, match="28 baseline windows, got 27"):
        calibrate(streams(3), windows, DAY, 1, QUARTER, rng())
    with pytest.raises(ValueError, match="may page"):
        calibrate(streams(3, tier="ticket"), [*windows, windows[0]], DAY, 1, QUARTER, rng())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("odd", "variance"), [(1.0, 0.0), (np.inf, 0.1), (-1e300, 1e300), (np.nan, np.inf), (9e99, 1e-300)]
)
def test_absurd_baselines_are_calibrated_without_a_warning(count, odd, variance):
    values = np.ones((30, count))
    values[12], values[:, -1] = odd, odd
    found = calibrate(streams(count), observations(values, variance), DAY, 1, timedelta(days=20), rng())
    assert 0 < found.threshold <= 20
    assert found.interval[0] <= found.false_pages <= found.interval[1]


def test_wide_windows_have_few_thresholds_to_choose_from():
    week = 7 * DAY
    windows = observations(simulate(14, 4, 30), width=week)
    found = calibrate(streams(4), windows, week, 20, QUARTER, rng())
    assert found.threshold == pytest.approx(13 / 20)
