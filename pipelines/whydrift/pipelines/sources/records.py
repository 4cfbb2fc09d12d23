"""What every source of inference logs and labels yields: checked records, and a count of what it set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.hashing import hash64, mix
from whydrift.pipelines.sections import LogColumns, Model
from whydrift.pipelines.window import Window

FeatureKind = Literal["number", "string"]
FloatArray = npt.NDArray[np.float64]

BATCH = 65_536  # rows read, checked and summed at once: bounds memory, and no result depends on it
_WIDE = 64  # columns; of wider rows a batch has fewer, so that it takes no more memory

_IDENTITY = ("event_time", "event_id")
_SUM_TOLERANCE = 1e-3  # of the probabilities of all classes, which may be rounded in the log


@dataclass(frozen=True, slots=True)
class Records:
    """`frame` has event_id, event_time, the features, prediction and weight; where gathered it is sorted.

    The predictions of a model of C classes are C columns, see `prediction_columns`.

    `set_aside` counts rows by reason; `unreadable_file` alone counts files, since their rows are unknown.
    """

    frame: pd.DataFrame
    set_aside: dict[str, int]


class Source(Protocol):
    """Where inference logs are read from."""

    def batches(self, window: Window, features: Mapping[str, FeatureKind]) -> Iterator[Records]:
        """The records with an event time in the window, in no order, a batch at once; one batch at least.

        No two of them, in whatever batch, have the same event id and time.
        """


class FileSource(Source, Protocol):
    """A source whose windows are files, each of which can be read apart from the others and on another machine."""

    def files(self, window: Window) -> list[str]:
        """Where the window's rows may be."""

    def read_file(self, path: str, window: Window, features: Mapping[str, FeatureKind]) -> Iterator[Records]:
        """The window's rows in a file, batch after batch and with their repeats; counts may hold notes for `settle`."""

    def settle(self, window: Window, counts: Mapping[str, int]) -> dict[str, int]:
        """What was set aside, from the counts of all files together; raises SchemaError."""


def gather(batches: Iterable[Records]) -> Records:
    """All batches as one, sorted; at least one is needed."""
    counts, frames = Counter[str](), []
    for batch in batches:
        counts.update(batch.set_aside)
        frames.append(batch.frame)
    frame = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    return Records(frame.sort_values([*_IDENTITY], kind="stable", ignore_index=True), dict(counts))


def batch_rows(columns: int) -> int:
    """How many rows of so many columns make a batch."""
    return max(BATCH * _WIDE // max(columns, _WIDE), 1)


def cut(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The frame in batches."""
    size = batch_rows(frame.shape[1])
    for start in range(0, len(frame), size):
        yield frame.iloc[start : start + size]


def check_rows(
    raw: pd.DataFrame,
    window: Window,
    features: Mapping[str, FeatureKind],
    columns: LogColumns,
    *,
    model: Model,
    version: str,
) -> Records:
    """Keep the rows that fit the contract, under the contract's names, and count the others by their first fault.

    Rows of other windows are neither kept nor counted: they are their own window's. Repeats stay, see `drop_repeats`:
    what becomes of a row depends on the row alone.
    """
    time = to_time(raw[columns.event_time])
    raw, time = _in_window(raw, time, window)
    record: dict[str, pd.Series[Any]] = {"event_id": raw[columns.event_id].astype("string"), "event_time": time}
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
    names = prediction_columns(model.classes)
    predictions, wrong = _predictions(raw, columns, names)
    record.update({name: predictions[name] for name in names})
    value = predictions.to_numpy(np.float64)
    faults.append(("bad_prediction", wrong | ~np.isfinite(value).all(axis=1)))
    if model.task != "regression":
        outside = ((value < 0) | (value > 1)).any(axis=1)
        faults.append(("prediction_not_a_probability", _flags(outside, raw)))
    if model.classes:
        off = np.asarray(np.abs(value.sum(axis=1) - 1) > _SUM_TOLERANCE)
        faults.append(("predictions_do_not_sum_to_1", _flags(off, raw)))
    weight = (
        pd.Series(1.0, raw.index) if columns.weight is None else to_kind(raw[columns.weight], "number")[0].fillna(1.0)
    )
    record["weight"] = weight
    faults.append(("bad_weight", ~((weight > 0) & np.isfinite(weight))))
    return Records(*_set_aside(pd.DataFrame(record), faults))


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """What a record's predictions are called: one column, or one a class."""
    return [f"prediction:{number}" for number in range(len(classes))] or ["prediction"]


def read_predictions(frame: pd.DataFrame, classes: Sequence[str]) -> FloatArray:
    """The predictions of records, (n,), or (n, C) of C classes."""
    values = frame[prediction_columns(classes)].to_numpy(np.float64)
    return np.ascontiguousarray(values if classes else values[:, 0])


def with_predictions(frame: pd.DataFrame, values: FloatArray, classes: Sequence[str]) -> pd.DataFrame:
    """Records with other predictions, in the shape that `read_predictions` gives."""
    columns = np.atleast_2d(values.T)
    return frame.assign(**dict(zip(prediction_columns(classes), columns, strict=True)))


def _predictions(raw: pd.DataFrame, columns: LogColumns, names: Sequence[str]) -> tuple[pd.DataFrame, pd.Series[bool]]:
    """The predictions under their names, NaN where they could not be read, and which could not be converted."""
    if isinstance(columns.prediction, str) and len(names) > 1:
        return _lists(raw[columns.prediction], names), _flags(np.zeros(len(raw)), raw)
    logged = [columns.prediction] if isinstance(columns.prediction, str) else columns.prediction
    found = [to_kind(raw[column], "number") for column in logged]
    wrong = np.any([fault.to_numpy() for _, fault in found], axis=0)
    frame = pd.DataFrame({name: values for name, (values, _) in zip(names, found, strict=True)}, index=raw.index)
    return frame, _flags(wrong, raw)


def _flags(flags: Any, raw: pd.DataFrame) -> pd.Series[bool]:
    found: pd.Series[bool] = pd.Series(flags, index=raw.index, dtype="bool")
    return found


def _lists(column: pd.Series[Any], names: Sequence[str]) -> pd.DataFrame:
    """A column of lists as columns; NaN where one is not as long as it should be, or holds something else."""

    def numbers(value: object) -> FloatArray:
        nothing = np.full(len(names), np.nan)
        try:
            found = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            return nothing
        return found if found.shape == nothing.shape else nothing

    values = np.array([numbers(value) for value in column], dtype=np.float64).reshape(len(column), len(names))
    return pd.DataFrame(values, columns=list(names), index=column.index)


def to_class(column: pd.Series[Any], classes: Sequence[str]) -> pd.Series[float]:
    """The number of each value's class, NaN where it is none; whole numbers are classes by their digits.

    >>> to_class(pd.Series(["late", 1.0, None, "gone"], dtype=object), ["1", "late"]).tolist()
    [1.0, 0.0, nan, nan]
    """
    known = {name: float(number) for number, name in enumerate(classes)}

    def number(value: object) -> float:
        if isinstance(value, float | np.floating) and float(value).is_integer():
            value = int(value)
        return known.get(str(value), np.nan)

    return pd.Series([number(value) for value in column], index=column.index, dtype=np.float64)


def to_time(column: pd.Series[Any]) -> pd.Series[Any]:
    """UTC timestamps in microseconds; what cannot be read becomes missing. Without a zone it is UTC."""
    known = _is_time(column)
    return pd.to_datetime(
        column, utc=True, errors="coerce", format=None if known else "ISO8601", cache=not known
    ).astype("datetime64[us, UTC]")


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


def _set_aside(record: pd.DataFrame, faults: list[tuple[str, pd.Series[bool]]]) -> tuple[pd.DataFrame, dict[str, int]]:
    good = np.ones(len(record), dtype=bool)
    counts: dict[str, int] = {}
    for reason, fault in faults:
        first = fault.to_numpy(dtype=bool, na_value=True)
        if first.any() and (first := good & first).any():
            counts[reason] = counts.get(reason, 0) + int(first.sum())
            good &= ~first
    return (record if good.all() else record[good]), counts


def drop_repeats(checked: Records) -> Records:
    """Sort checked rows, and keep one of each (event id, event time): at-least-once delivery repeats records.

    The time belongs to the identity so that windows stay additive: a day drops what its hours drop.
    """
    record = checked.frame
    # Repeats that differ are ordered by all they hold, so that the one that stays does not depend on their order.
    order = [*_IDENTITY, *record.columns.drop([*_IDENTITY])]
    record = record.sort_values(order, kind="stable", ignore_index=True)
    again = record.duplicated([*_IDENTITY])
    counts = dict(checked.set_aside)
    if again.any():
        counts["duplicate"] = int(again.sum())
    return Records(record[~again].reset_index(drop=True), counts)


def identity(event_id: pd.Series[Any], time: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """A hash of (event id, event time), (n,): equal ones have the same, and others hardly ever."""
    return mix(hash64(event_id, seed=1) + time.to_numpy("datetime64[us]").astype(np.uint64))
