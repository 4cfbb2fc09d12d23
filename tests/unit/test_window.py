from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.window import EPOCH, Window, parse_duration, parse_time, split

DAY = timedelta(days=1)
START = datetime(2024, 2, 1, tzinfo=UTC)


def test_end_must_come_after_start():
    for end in (START, START - DAY):
        with pytest.raises(ConfigError, match="is not after its start 2024-02-01T00:00:00Z"):
            Window(START, end)


def test_times_need_a_zone():
    with pytest.raises(ConfigError, match="need a time zone"):
        Window(START.replace(tzinfo=None), START + DAY)


def test_shifted_is_its_own_inverse():
    window = Window(START, START + DAY)
    assert window.shifted(-3) == Window(START - 3 * DAY, START - 2 * DAY)
    assert window.shifted(-3).shifted(3) == window


def test_windows_sort_by_time():
    windows = list(split(START, START + 5 * DAY, DAY))
    assert sorted([*windows[2:], *windows[:2]]) == windows


@pytest.mark.parametrize("width", [timedelta(minutes=15), timedelta(hours=1), timedelta(hours=6), DAY])
def test_split_tiles_the_period(width):
    windows = list(split(START, START + 2 * DAY, width))
    assert windows[0].start == START
    assert windows[-1].end == START + 2 * DAY
    assert all(a.end == b.start for a, b in pairwise(windows))
    assert {w.width for w in windows} == {width}
    assert all(not (w.start - EPOCH) % width for w in windows)


@pytest.mark.parametrize(("start", "end"), [(START + timedelta(minutes=1), START + DAY), (START, START + 1.5 * DAY)])
def test_split_refuses_what_is_off_the_grid(start, end):
    with pytest.raises(ConfigError, match="does not lie on a boundary of the windows of 1 day"):
        list(split(start, end, DAY))


def test_weeks_start_where_the_epoch_does():
    thursday = datetime(2024, 2, 1, tzinfo=UTC)
    assert thursday.isoweekday() == EPOCH.isoweekday() == 4
    assert len(list(split(thursday, thursday + timedelta(weeks=2), timedelta(weeks=1)))) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-01", START),
        ("2024-02-01T00:00", START),
        ("2024-02-01T00:00:00Z", START),
        ("2024-02-01T02:00+02:00", START),
        ("2024-01-31 19:00-05:00", START),
    ],
)
def test_parse_time(text, expected):
    time = parse_time(text)
    assert time == expected
    assert time.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["", "yesterday", "01/02/2024", "2024-02-30"])
def test_parse_time_refuses(text):
    with pytest.raises(ConfigError, match="is not an ISO 8601 time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("15m", timedelta(minutes=15)), ("6 h", timedelta(hours=6)), (" 1d ", DAY), ("2w", timedelta(weeks=2))],
)
def test_parse_duration(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "1", "0h", "-1d", "1.5h", "1s", "1d6h", "day"])
def test_parse_duration_refuses(text):
    with pytest.raises(ValueError, match="is not a duration such as"):
        parse_duration(text)


def test_window_says_what_it_is_in_utc():
    assert str(Window(START, START + DAY)) == "[2024-02-01T00:00:00Z, 2024-02-02T00:00:00Z)"


def test_equal_instants_are_equal_windows():
    tokyo = timezone(timedelta(hours=9))
    assert Window(START.astimezone(tokyo), (START + DAY).astimezone(tokyo)) == Window(START, START + DAY)
