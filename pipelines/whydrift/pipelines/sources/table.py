"""Inference logs and labels as files of rows: Parquet, CSV or JSON lines, plain or in folders by time.

A file that is still being written, or was cut off, does not stop the others: what can be read is kept, what
cannot is counted.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow import fs

from whydrift.pipelines.errors import NoDataError, SchemaError, StoreError
from whydrift.pipelines.sections import InferenceLog, Labels, Model
from whydrift.pipelines.sources.records import (
    FeatureKind,
    Records,
    batch_rows,
    check_rows,
    cut,
    drop_repeats,
    identity,
    to_class,
    to_kind,
    to_time,
)
from whydrift.pipelines.window import Window

UIntArray = npt.NDArray[np.uint64]
ReadLabels = Callable[[datetime, datetime], Records]  # of an interval of label times

_BUFFER = 2**18  # bytes of each column that are read at once: a row group may be larger than memory
_SUFFIXES = {"parquet": (".parquet", ".pq"), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}

_WHOLE, _LACKS = "batch_with_all_columns", "batch_without_column:"  # notes of batches with rows, for `settle`


class TableSource:
    """The `table` kind of inference log."""

    def __init__(self, log: InferenceLog, *, model: Model, version: str) -> None:
        self._log, self._model, self._version = log, model, version

    def batches(self, window: Window, features: Mapping[str, FeatureKind]) -> Iterator[Records]:
        """The records of a window, batch after batch; what was set aside comes with the last.

        The files are read twice, first for what repeats; only rows that may be repeats are held.

        Raises NoDataError where the folder is absent, and SchemaError where no file of the window has the columns
        that every record needs.
        """
        files, counts, held = self.files(window), Counter[str](), [self._nothing(window, features)]
        repeated = _repeated(self._keys(files, window))
        for batch in (batch for path in files for batch in self.read_file(path, window, features)):
            counts.update(batch.set_aside)
            again = np.isin(identity(batch.frame["event_id"], batch.frame["event_time"]), repeated)
            if again.any():
                held.append(batch.frame[again])
            yield Records(batch.frame[~again] if again.any() else batch.frame, {})
        kept = drop_repeats(Records(pd.concat(held[1:] or held, ignore_index=True), self.settle(window, counts)))
        yield from (Records(frame, {}) for frame in cut(kept.frame))
        yield Records(kept.frame[:0], kept.set_aside)

    def files(self, window: Window) -> list[str]:
        """The window's files by name; raises NoDataError where the folder is absent."""
        return _files(self._log, window)

    def read_file(self, path: str, window: Window, features: Mapping[str, FeatureKind]) -> Iterator[Records]:
        """The window's rows in one file, batch after batch and with their repeats; counts hold notes for `settle`.

        Raises StoreError where the file cannot be fetched.
        """
        log, counts = self._log, Counter[str]()
        strings = {log.columns.event_id, *(n for n, kind in features.items() if kind == "string")}
        needed = [*_named(log.columns.model_dump()), *features]
        for frame in _read_files([path], log.format, needed, strings, counts):
            absent = [c for c in needed if c not in frame]
            if not absent:
                checked = self._check(frame, window, features)
                yield Records(checked.frame, {**checked.set_aside, _WHOLE: 1})
                continue
            counts[f"column_missing:{absent[0]}"] += _count_inside(frame, log.columns.event_time, window)
            counts.update(_LACKS + column for column in absent)
        yield Records(self._nothing(window, features), dict(counts))

    def settle(self, window: Window, counts: Mapping[str, int]) -> dict[str, int]:
        """What was set aside; raises SchemaError where files had rows and none had the columns that records need."""
        columns = self._log.columns
        lacking = {reason.removeprefix(_LACKS) for reason in counts if reason.startswith(_LACKS)}
        keys = lacking & {columns.event_id, columns.event_time, *_each(columns.prediction)}
        if keys and _WHOLE not in counts:
            raise SchemaError(
                f"{self._log.path}: no file of {window} has the column {min(keys)!r}; if the log calls it something"
                " else, say so in inference_log.columns"
            )
        return {reason: n for reason, n in counts.items() if reason != _WHOLE and not reason.startswith(_LACKS)}

    def _check(self, raw: pd.DataFrame, window: Window, features: Mapping[str, FeatureKind]) -> Records:
        return check_rows(raw, window, features, self._log.columns, model=self._model, version=self._version)

    def _nothing(self, window: Window, features: Mapping[str, FeatureKind]) -> pd.DataFrame:
        """Records of no rows."""
        needed = [*_named(self._log.columns.model_dump()), *features]
        return self._check(pd.DataFrame(columns=needed), window, features).frame

    def _keys(self, files: Sequence[str], window: Window) -> Iterator[UIntArray]:
        """The identities of the window's rows, file after file."""
        names = self._log.columns.event_id, self._log.columns.event_time
        for frame in _read_files(files, self._log.format, [*names], {names[0]}, Counter()):
            if set(names) <= set(frame):
                time = to_time(frame[names[1]])
                inside = ((time >= window.start) & (time < window.end)).to_numpy()
                yield identity(frame.loc[inside, names[0]].astype("string"), time[inside])


def _repeated(keys: Iterable[UIntArray]) -> UIntArray:
    """The identities that there are more than one of, sorted."""
    every = np.concatenate([np.empty(0, np.uint64), *keys])
    every.sort()
    return np.unique(every[1:][every[1:] == every[:-1]])


def read_labels(labels: Labels, start: datetime, end: datetime, classes: Sequence[str] = ()) -> Records:
    """Labels whose label time lies in `[start, end)`: event_id, label, label_time, the first for each event.

    Of a multiclass model a label is the number of its class; one that is none of its `classes` is set aside.
    Where an audit is configured `chance` is the one with which the row was drawn, NaN where it was not.
    """
    return _first_within(_check_labels(labels, Window(start, end), classes), start, end)


def hold_labels(labels: Labels, period: Window, classes: Sequence[str] = ()) -> ReadLabels:
    """What reads labels of many intervals of a period: `read_labels`, but from memory where that reads all files.

    Files in folders by time are read for each interval, which are few.
    """
    if labels.partition is not None:
        return partial(read_labels, labels, classes=classes)
    return partial(_first_within, _check_labels(labels, period, classes))


def _check_labels(labels: Labels, window: Window, classes: Sequence[str]) -> Records:
    """All labels that came in the window; the column `set_aside` says why, where one is to be."""
    columns = labels.columns
    counts = Counter[str]()
    needed = _named(columns.model_dump())
    files = _files(labels, window)
    parts = [frame for frame in _read_files(files, labels.format, needed, {columns.event_id}, counts) if len(frame)]
    for frame in parts:
        absent = [c for c in needed if c not in frame]
        if absent:
            raise SchemaError(f"{labels.path}: a label file has no column {absent[0]!r}; see labels.columns")
    raw = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=needed)
    time = to_time(raw[columns.label_time])
    inside = (time >= window.start) & (time < window.end)
    raw, time = raw[inside], time[inside]
    raw_label = raw[columns.label]
    label, wrong = (to_class(raw_label, classes), False) if classes else to_kind(raw_label, "number")
    frame = pd.DataFrame({"event_id": raw[columns.event_id].astype("string"), "label": label, "label_time": time})
    bad_class = label.isna() & raw_label.notna() & bool(classes)
    bad = wrong | (label.isna() & ~bad_class)
    if columns.audit is not None:
        chance, wrong = to_kind(raw[columns.audit], "number")
        bad |= wrong | ~(chance.isna() | ((chance > 0) & (chance <= 1)))
        frame["chance"] = chance
    frame["set_aside"] = np.select([bad, bad_class], ["bad_label", "label_of_no_class"], "")
    return Records(frame, dict(counts))


def _first_within(labels: Records, start: datetime, end: datetime) -> Records:
    time = labels.frame["label_time"]
    frame = labels.frame[(time >= start) & (time < end)]
    counts = Counter(labels.set_aside)
    counts.update(frame.loc[frame["set_aside"] != "", "set_aside"])
    frame = frame[frame["set_aside"] == ""].drop(columns="set_aside")
    frame = frame.sort_values(["label_time", "event_id", "label"], kind="stable")
    return Records(frame.drop_duplicates("event_id", ignore_index=True), dict(counts))


def _named(columns: Mapping[str, str | Sequence[str] | None]) -> list[str]:
    return [name for names in columns.values() if names is not None for name in _each(names)]


def _each(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _count_inside(frame: pd.DataFrame, time_column: str, window: Window) -> int:
    if time_column not in frame:
        return len(frame)
    time = to_time(frame[time_column])
    return int(((time >= window.start) & (time < window.end)).sum())


def _files(log: InferenceLog | Labels, window: Window) -> list[str]:
    if log.partition is None:
        return _list(log.path, log.format)
    step = timedelta(hours=1) if "%H" in log.partition else timedelta(days=1)
    time = window.start.replace(minute=0, second=0, microsecond=0)
    if step == timedelta(days=1):
        time = time.replace(hour=0)
    folders = []
    while time < window.end:
        folders.append(time.strftime(log.partition))
        time += step
    _list(log.path, log.format, recursive=False)  # an absent log is an error, an absent partition an empty one
    return [f for folder in dict.fromkeys(folders) for f in _list(f"{log.path}/{folder}", log.format, missing_ok=True)]


def _filesystem(path: str) -> tuple[fs.FileSystem, str]:
    system, inner = fs.FileSystem.from_uri(path if "://" in path else Path(path).resolve().as_uri())
    return system, str(inner)


def _list(path: str, kind: str, *, missing_ok: bool = False, recursive: bool = True) -> list[str]:
    """The log's files by name; hidden files and folders are somebody's work in progress."""
    try:
        system, root = _filesystem(path)
        infos = system.get_file_info(fs.FileSelector(root, recursive=recursive, allow_not_found=missing_ok))
    except FileNotFoundError as error:
        raise NoDataError(f"{path} does not exist; see inference_log.path and labels.path") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be listed: {error}") from error
    scheme = path.partition("://")[0] + "://" if "://" in path else ""
    visible = [
        i.path
        for i in infos
        if i.type == fs.FileType.File
        and not any(p.startswith((".", "_")) for p in i.path.removeprefix(root).split("/"))
    ]
    found = sorted(scheme + p for p in visible if p.endswith(_SUFFIXES[kind]))
    if visible and not found:
        endings = " or ".join(_SUFFIXES[kind])
        raise NoDataError(f"{path} has files, but none that ends in {endings}; see inference_log.format, labels.format")
    return found


class _Watched:
    """A file that is opened for reading, whose own errors are told from those of what it holds."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._reading():
            system, inner = _filesystem(path)
            self._file = system.open_input_file(inner)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._reading():
            return int(self._file.seek(offset, whence))

    def read(self, size: int | None = None) -> bytes:
        with self._reading():
            return bytes(self._file.read(size))


def _read_files(
    paths: Iterable[str], kind: str, columns: list[str], strings: set[str], counts: Counter[str]
) -> Iterator[pd.DataFrame]:
    """Batches with those of the columns that there are, and none without rows."""
    for path in paths:
        with closing(_Watched(path)) as file:
            try:
                for frame in _READERS[kind](file, columns, strings, counts):
                    yield from cut(frame)
            except (pa.ArrowException, OSError):  # Arrow says "this file is broken" with an OSError too
                counts["unreadable_file"] += 1


def _read_parquet(file: _Watched, columns: list[str], _: set[str], __: Counter[str]) -> Iterator[pd.DataFrame]:
    # Fetching ahead keeps all that was read of a file until its end; over a network, small reads would cost far more.
    parquet = pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer="://" in file.path)
    present = [c for c in columns if c in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(batch_rows(len(present)), columns=present):
        # Integers with nulls stay integers: the id 7 must not become "7.0".
        yield batch.to_pandas(integer_object_nulls=True)


def _read_csv(file: _Watched, columns: list[str], strings: set[str], counts: Counter[str]) -> Iterator[pd.DataFrame]:
    data = file.read()
    if data and not data.endswith(b"\n"):  # cut off in the middle of a row, whose last number cannot be trusted
        data = data[: data.rfind(b"\n") + 1]
        counts["truncated_line"] += 1

    def skip(_: pa_csv.InvalidRow) -> str:
        counts["malformed_line"] += 1
        return "skip"

    table = pa_csv.read_csv(
        io.BytesIO(data),
        parse_options=pa_csv.ParseOptions(invalid_row_handler=skip),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(strings, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    yield table.select([c for c in columns if c in table.column_names]).to_pandas()


def _read_jsonl(file: _Watched, columns: list[str], _: set[str], counts: Counter[str]) -> Iterator[pd.DataFrame]:
    rows = []
    for line in (
        file.read().decode("utf-8", errors="replace").split("\n")
    ):  # JSON strings may hold other line separators
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append({c: row.get(c) for c in columns if c in row})
        elif line.strip():
            counts["malformed_line"] += 1
    yield pd.DataFrame(rows, dtype=object)


_READERS = {"parquet": _read_parquet, "csv": _read_csv, "jsonl": _read_jsonl}
