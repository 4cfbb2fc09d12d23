"""Half-open windows of event time, always UTC and aligned to the Unix epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from whydrift.pipelines.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(\d+)\s*(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """`start <= event time < end`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ConfigError(f"window times need a time zone, got {self.start} and {self.end}")
        if self.end <= self.start:
            raise ConfigError(f"window end {self.end:%FT%TZ} is not after its start {self.start:%FT%TZ}")

    @property
    def width(self) -> timedelta:
        return self.end - self.start

    def shifted(self, steps: int) -> Window:
        """The window `steps` widths later (negative: earlier)."""
        return Window(self.start + steps * self.width, self.end + steps * self.width)

    def __str__(self) -> str:
        return f"[{self.start:%FT%TZ}, {self.end:%FT%TZ})"


def parse_time(text: str) -> datetime:
    """Read ISO 8601; without an offset it is UTC.

    >>> parse_time("2013-05-12")
    datetime.datetime(2013, 5, 12, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not an ISO 8601 time, e.g. 2013-05-12 or 2013-05-12T06:00Z") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parse_duration(text: str) -> timedelta:
    """Read `15m`, `6h`, `1d` or `2w`.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[1] == "0":
        raise ValueError(f"{text!r} is not a duration such as 15m, 6h, 1d or 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def split(start: datetime, end: datetime, width: timedelta) -> Iterator[Window]:
    """The aligned windows of `width` that tile `[start, end)`."""
    for time in (start, end):
        if (time - EPOCH) % width:
            raise ConfigError(f"{time:%FT%TZ} does not lie on a boundary of the windows of {width}")
    while start < end:
        yield Window(start, start + width)
        start += width
