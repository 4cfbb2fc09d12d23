"""Window summaries and verdicts by key, on any filesystem that pyarrow knows.

    <root>/<model>/v<version>/<baseline>/<start>_<end>/summary.parquet    inputs, attributions, scores
                                                       outcomes.parquet   labels of an earlier, mature cohort
                                                       cells.parquet      the same labels by cells of slices
                                                       arrivals.parquet   labels of younger cohorts, known by its end
                                                       verdict.json
                                                       state.json         the fold up to here; may be deleted

A file appears whole or not at all, and its name and bytes derive from the key alone: to rerun, to correct or to
backfill a window is to write the same names again. Two runs of one window write the same bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from whydrift.monitors.summary import WindowSummary
from whydrift.monitors.verdict import Verdict, WindowKey
from whydrift.pipelines.errors import StoreError, without_password
from whydrift.pipelines.files import SCRATCH, write_atomically
from whydrift.pipelines.verdict_json import from_json, to_json

SUMMARY = "summary.parquet"
OUTCOMES = "outcomes.parquet"
CELLS = "cells.parquet"
ARRIVALS = "arrivals.parquet"
VERDICT = "verdict.json"
STATE = "state.json"
_TIME = "%Y%m%dT%H%M%SZ"
_BASELINE_LENGTH = 16  # hex digits of the baseline's digest that name its folder


def window_name(start: datetime, end: datetime) -> str:
    """The name of a window in every path.

    >>> window_name(datetime(2013, 5, 12, tzinfo=UTC), datetime(2013, 5, 13, tzinfo=UTC))
    '20130512T000000Z_20130513T000000Z'
    """
    return f"{start.astimezone(UTC):{_TIME}}_{end.astimezone(UTC):{_TIME}}"


class Store:
    """The summaries and verdicts under one root: a local folder or the URI of an object store's."""

    def __init__(self, root: str) -> None:
        try:
            self._fs, self._root = fs.FileSystem.from_uri(root if "://" in root else Path(root).resolve().as_uri())
        except (OSError, ValueError) as error:
            raise StoreError(f"store {without_password(root)}: cannot be opened: {error}") from error
        self._local = isinstance(self._fs, fs.LocalFileSystem)

    def write_summary(self, key: WindowKey, summary: WindowSummary, part: str = SUMMARY) -> None:
        self._write(f"{self._folder(key)}/{part}", summary.to_bytes())

    def read_summary(self, key: WindowKey, part: str = SUMMARY) -> WindowSummary | None:
        """None where the window has no such part yet."""
        path = f"{self._folder(key)}/{part}"
        data = self._read(path)
        try:
            return None if data is None else WindowSummary.from_bytes(data)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(
                f"store {path}: is not a window summary ({error}); delete it and run the window again"
            ) from error

    def has(self, key: WindowKey) -> bool:
        """Whether the window was profiled."""
        info: Any = self._fs.get_file_info(f"{self._folder(key)}/{SUMMARY}")
        return bool(info.type == fs.FileType.File)

    def read_part(self, key: WindowKey, part: str = SUMMARY) -> bytes | None:
        """A part's bytes as they are stored; None where the window has no such part yet."""
        return self._read(f"{self._folder(key)}/{part}")

    def write_state(self, key: WindowKey, state: bytes) -> None:
        self._write(f"{self._folder(key)}/{STATE}", state)

    def drop_state(self, key: WindowKey) -> None:
        """Remove a window's cached state if it has one."""
        path = f"{self._folder(key)}/{STATE}"
        try:
            self._fs.delete_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"store {path}: cannot be deleted: {error}") from error

    def write_verdict(self, verdict: Verdict) -> None:
        self._write(f"{self._folder(verdict.key)}/{VERDICT}", to_json(verdict))

    def read_verdict(self, key: WindowKey) -> Verdict | None:
        path = f"{self._folder(key)}/{VERDICT}"
        data = self._read(path)
        return None if data is None else from_json(data, path)

    def keys(self, model: str, model_version: str, baseline_id: str) -> list[WindowKey]:
        """The windows under one baseline, by time."""
        prefix = f"{self._root}/{_safe(model)}/v{_safe(model_version)}/{baseline_id[:_BASELINE_LENGTH]}"
        found = []
        for name in self._folders(prefix):
            start, _, end = name.partition("_")
            try:
                window = [datetime.strptime(t, _TIME).replace(tzinfo=UTC) for t in (start, end)]
            except ValueError:  # somebody else's folder
                continue
            found.append(
                WindowKey(
                    model=model, model_version=model_version, baseline_id=baseline_id, start=window[0], end=window[1]
                )
            )
        return sorted(found, key=lambda k: (k.start, k.end))

    def verdicts(self, model: str) -> list[Verdict]:
        """All verdicts of a model, over its versions and baselines, by window."""
        paths = [
            f"{self._root}/{_safe(model)}/{version}/{baseline}/{window}/{VERDICT}"
            for version in self._folders(f"{self._root}/{_safe(model)}")
            for baseline in self._folders(f"{self._root}/{_safe(model)}/{version}")
            for window in self._folders(f"{self._root}/{_safe(model)}/{version}/{baseline}")
        ]
        read = [from_json(data, path) for path in paths if (data := self._read(path)) is not None]
        return sorted(read, key=lambda v: (v.key.start, v.key.end))

    def latest(self, model: str) -> Verdict | None:
        """The verdict of the newest window; of one that two versions answered for, the later version's."""
        root = f"{self._root}/{_safe(model)}"
        windows = [
            ((window.split("_")[::-1], len(version), version), f"{root}/{version}/{baseline}/{window}/{VERDICT}")
            for version in self._folders(root)
            for baseline in self._folders(f"{root}/{version}")
            for window in self._folders(f"{root}/{version}/{baseline}")
        ]
        for _, path in sorted(windows, reverse=True):
            if (data := self._read(path)) is not None:
                return from_json(data, path)
        return None

    def _folder(self, key: WindowKey) -> str:
        return (
            f"{self._root}/{_safe(key.model)}/v{_safe(key.model_version)}/{key.baseline_id[:_BASELINE_LENGTH]}"
            f"/{window_name(key.start, key.end)}"
        )

    def _folders(self, path: str) -> list[str]:
        try:
            infos: list[Any] = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        except OSError as error:
            raise StoreError(f"store {path}: cannot be listed: {error}") from error
        return sorted(i.base_name for i in infos if i.type == fs.FileType.Directory and i.base_name != SCRATCH)

    def _write(self, path: str, data: bytes) -> None:
        try:
            if self._local:
                write_atomically(Path(path), data)
            else:
                with self._fs.open_output_stream(path) as stream:  # object stores show a file when it is closed
                    stream.write(data)
        except OSError as error:
            raise StoreError(f"store {path}: cannot be written: {error}") from error

    def _read(self, path: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"store {path}: cannot be read: {error}") from error


def _safe(name: str) -> str:
    """A name as one path component."""
    return quote(name, safe=" ")
