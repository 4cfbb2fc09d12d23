"""What every source of inference logs and labels yields: checked records, and a count of what it set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from whydrift.pipelines.sections import LogColumns
from whydrift.pipelines.window import Window

FeatureKind = Literal["number", "string"]


@dataclass(frozen=True, slots=True)
class Records:
    """`frame` has event_id, event_time, the features, prediction and weight, sorted by time and id.

    `set_aside` counts rows by reason; `unreadable_file` alone counts files, since their rows are unknown.
    """

    frame: pd.DataFrame
    set_aside: dict[str, int]


class Source(Protocol):
    """Where inference logs are read from."""

    def read(self, window: Window, features: Mapping[str, FeatureKind]) -> Records:
        """The records with an event time in the window."""


def check_records(
    raw: pd.DataFrame,
    window: Window,
    features: Mapping[str, FeatureKind],
    columns: LogColumns,
    *,
    task: str,
    version: str,
) -> Records:
    """Keep the rows that fit the contract, under the contract's names, and count the others by their first fault.

    Rows of other windows are neither kept nor counted: they are their own window's.
    """
    time = to_time(raw[columns.event_time])
    raw, time = _in_window(raw, time, window)
    record = pd.DataFrame({"event_id": raw[columns.event_id].astype("string"), "event_time": time})
    faults: list[tuple[str, pd.Series[bool]]] = [
        ("bad_event_time", time.isna()),
        ("event_id_missing", record["event_id"].isna()),
    ]
    if columns.model_version is not None:
        faults.append(("other_model_version", raw[columns.model_version].astype("string").fillna("") != version))
    for name, kind in features.items():
        record[name], wrong = to_kind(raw[name], kind)
        faults.append((f"wrong_type:{name}", wrong))
        if kind == "number":
            faults.append((f"infinite:{name}", pd.Series(np.isinf(record[name].to_numpy()), index=raw.index)))
    record["prediction"], wrong = to_kind(raw[columns.prediction], "number")
    value = record["prediction"]
    faults.append(("bad_prediction", wrong | value.isna() | ~np.isfinite(value)))
    if task == "binary":
        faults.append(("prediction_not_a_probability", (value < 0) | (value > 1)))
    record["weight"] = 1.0 if columns.weight is None else to_kind(raw[columns.weight], "number")[0].fillna(1.0)
    faults.append(("bad_weight", ~((record["weight"] > 0) & np.isfinite(record["weight"]))))
    return _drop_duplicates(*_set_aside(record, faults))


def to_time(column: pd.Series[Any]) -> pd.Series[Any]:
    """UTC timestamps in microseconds; what cannot be read becomes missing. Without a zone it is UTC."""
    return pd.to_datetime(column, utc=True, errors="coerce", format=None if _is_time(column) else "ISO8601").astype(
        "datetime64[us, UTC]"
    )


def to_kind(column: pd.Series[Any], kind: FeatureKind) -> tuple[pd.Series[Any], pd.Series[bool]]:
    """The column as float64 or string, and which values could not be converted."""
    if kind == "string":
        return column.astype("string"), _is_not_text(column) & column.notna()
    converted = pd.to_numeric(column, errors="coerce").astype(np.float64)
    return converted, converted.isna() & column.notna()


def _is_not_text(column: pd.Series[Any]) -> pd.Series[bool]:
    if column.dtype == object:  # mixed, as JSON allows
        return column.map(lambda value: not isinstance(value, str | bytes | bool)).astype(bool)
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return pd.Series(number, index=column.index)


def _is_time(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column)


def _in_window(raw: pd.DataFrame, time: pd.Series[Any], window: Window) -> tuple[pd.DataFrame, pd.Series[Any]]:
    inside = time.isna() | ((time >= window.start) & (time < window.end))
    return raw[inside], time[inside]


def _set_aside(record: pd.DataFrame, faults: list[tuple[str, pd.Series[bool]]]) -> tuple[pd.DataFrame, Counter[str]]:
    good = np.ones(len(record), dtype=bool)
    counts: Counter[str] = Counter()
    for reason, fault in faults:
        first = good & fault.to_numpy(dtype=bool, na_value=True)
        if first.any():
            counts[reason] = int(first.sum())
        good &= ~first
    return record[good], counts


def _drop_duplicates(record: pd.DataFrame, counts: Counter[str]) -> Records:
    """At-least-once delivery repeats records: one of each (event id, event time) stays.

    The time belongs to the identity so that windows stay additive: a day drops what its hours drop.
    """
    identity = ["event_time", "event_id"]
    twins = record.duplicated(identity).any()
    # Repeats that differ are ordered by all they hold, so that the one that stays does not depend on their order.
    order = [*identity, *record.columns.drop(identity)] if twins else identity
    record = record.sort_values(order, kind="stable", ignore_index=True)
    again = record.duplicated(identity)
    if again.any():
        counts["duplicate"] = int(again.sum())
    return Records(record[~again].reset_index(drop=True), dict(counts))
