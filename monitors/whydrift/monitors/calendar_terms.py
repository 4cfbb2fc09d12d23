"""The regressors of a window: what is known of it before it begins, from the calendar alone."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

WEEKDAYS = slice(1, 8)  # of the regressors: one of them is 1, the others are 0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 of an aware time.

    >>> microseconds(datetime(1970, 1, 2, tzinfo=UTC))
    86400000000
    """
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(time: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time)


def calendar(start: datetime, width: timedelta, holidays: AbstractSet[date] = frozenset()) -> FloatArray:
    """The regressors of a window, (p,): 1, seven dummies for the weekday on which it starts, and

    - if there are `holidays` (days in UTC), the share of the window's days that are one;
    - if it is shorter than a day, two daily harmonics.

    The weekday on which a window of several days starts settles which weekdays it holds, so that it is enough.

    >>> calendar(datetime(2026, 11, 21, tzinfo=UTC), timedelta(days=1))
    array([1., 0., 0., 0., 0., 0., 1., 0.])
    >>> calendar(datetime(2026, 12, 24, tzinfo=UTC), timedelta(days=4), {date(2026, 12, 25)})
    array([1.  , 0.  , 0.  , 0.  , 1.  , 0.  , 0.  , 0.  , 0.25])
    >>> calendar(datetime(2026, 11, 21, 6, tzinfo=UTC), timedelta(hours=1))[8:].round(3)
    array([ 0.,  1., -1.,  0.])
    """
    weekday = np.zeros(7)
    weekday[start.weekday()] = 1.0
    parts = [np.ones(1), weekday]
    if holidays:
        days = max(width // _DAY, 1)
        parts.append(np.array([sum((start + day * _DAY).date() in holidays for day in range(days)) / days]))
    if width < _DAY:
        angle = 2 * np.pi * (start.hour + start.minute / 60 + start.second / 3600) / 24
        parts.append(np.array([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)]))
    return np.concatenate(parts)
