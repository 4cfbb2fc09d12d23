"""The regression against plain least squares, holidays, and many models side by side."""

from dataclasses import fields
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from simulated import DAY, START, THRESHOLDS, fold, observations, simulate, streams
from whydrift.monitors import residuals
from whydrift.monitors.calendar_terms import calendar
from whydrift.monitors.evidence import fit

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("width", [HOUR, DAY, 7 * DAY, 10 * DAY])
@pytest.mark.parametrize("days", [(), (3, 9, 40, 41)])
def test_predictions_are_those_of_the_normal_equations(width, days):
    rng = np.random.default_rng(1)
    holidays = {(START + day * DAY).date() for day in days}
    values, variances = rng.standard_normal((60, 5)), rng.uniform(0.1, 2, (60, 5))
    clock = [residuals.Window.at(START + i * width, width, holidays) for i in range(60)]
    design = np.array([when.design for when in clock])
    scale = residuals.fit_scale(values, variances, design, np.zeros(5, dtype=np.int64))
    history = residuals.no_history((5,), design.shape[1])
    for when, value, variance in zip(clock, values, variances, strict=True):
        history, _ = residuals.advance(scale, history, when, value, variance)
    value, leverage = residuals.predict(history, design[7])
    for j in range(5):
        np.testing.assert_allclose(value[j], design[7] @ np.linalg.solve(history.information[j], history.moment[j]))
        np.testing.assert_allclose(leverage[j], design[7] @ np.linalg.solve(history.information[j], design[7]))
    assert history.moment.shape == (5, 8 + bool(days) + 4 * (width == HOUR))


def test_models_side_by_side_are_each_as_it_is_alone():
    rng = np.random.default_rng(2)
    values = np.stack(
        [simulate(seed, 7, 50, ar=0.2 * seed) * np.exp(seed * rng.standard_normal(7)) for seed in range(3)], 1
    )
    variances = rng.uniform(0.01, 0.5, values.shape)
    values[20, 1, 2], variances[30:34, 2] = np.nan, np.nan
    group = np.array([0, 0, 0, 1, 1, 2, 1])
    clock = [residuals.Window.at(START + i * DAY, DAY) for i in range(50)]
    design = np.array([when.design for when in clock])

    def run(chosen):
        scale = residuals.fit_scale(values[:30][chosen], variances[:30][chosen], design[:30], group)
        history, found = residuals.no_history(scale.unit.shape, 8), None
        for when, value, variance in zip(clock, values[chosen], variances[chosen], strict=True):
            history, found = residuals.advance(scale, history, when, value, variance)
        return scale, history, found

    together = run(np.s_[:])
    for model in range(3):
        for side, alone in zip(together, run(np.s_[:, model]), strict=True):
            for field in fields(side):
                if field.name != "group":
                    one, own = getattr(side, field.name)[model], getattr(alone, field.name)
                    np.testing.assert_allclose(one, own, rtol=1e-9, atol=1e-12, err_msg=field.name)


def test_a_holiday_is_learned_once_for_all():
    """Every tenth day is 4 lower; the first of them teach the rest, where the calendar knows of them."""
    values = simulate(3, 20, 160)
    off = np.arange(5, 160, 10)
    values[off] -= 4
    windows = observations(values)
    holidays = {(START + int(day) * DAY).date() for day in off}
    detector = fit(streams(20), windows[:56], DAY, THRESHOLDS, holidays=holidays)
    told, untold = (fold(d, windows[56:]) for d in (detector, fit(streams(20), windows[:56], DAY, THRESHOLDS)))
    later = off[off >= 56] - 56
    assert np.abs([told[day].effect.mean() for day in later]).max() < 1.5
    assert np.mean([untold[day].effect.mean() for day in later]) < -2
    assert told[-1].pages == 0


def test_a_first_holiday_in_production_is_met_with_doubt():
    values = simulate(4, 20, 90)
    values[70] -= 3
    windows = observations(values)
    doubtful, sure = (
        fold(fit(streams(20), windows[:56], DAY, THRESHOLDS, holidays=holidays), windows[56:])[14]
        for holidays in ({(START + 70 * DAY).date()}, frozenset())
    )
    assert np.abs(doubtful.q).mean() < 0.6 * np.abs(sure.q).mean()
    assert np.all(doubtful.half_width > 2 * sure.half_width)


def test_holidays_of_windows_of_all_widths():
    christmas = {date(2026, 12, 25)}
    eve = datetime(2026, 12, 24, tzinfo=UTC)
    assert calendar(eve, DAY, christmas)[8:].tolist() == [0]
    assert calendar(eve + DAY, DAY, christmas)[8:].tolist() == [1]
    assert calendar(eve, 7 * DAY, christmas)[8:].tolist() == pytest.approx([1 / 7])
    assert [calendar(eve + hour * HOUR, HOUR, christmas)[8] for hour in (23, 24, 47, 48)] == [0, 1, 1, 0]
    np.testing.assert_array_equal(calendar(eve, HOUR, christmas)[9:], calendar(eve, HOUR)[8:])
