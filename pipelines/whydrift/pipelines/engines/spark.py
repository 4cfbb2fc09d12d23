"""Summarises the files of a window on a Spark cluster.

    files ──read→ checked rows ──by event id→ partitions ──reduce→ partial summaries ──sum→ the window's summary

All repeats of a row have its event id and so meet in one partition. Rows travel as Arrow's own bytes: neither their
names nor their values pass through Spark's types. Nothing is counted in accumulators, which a task that is run again
counts into again: counts are rows of the same flow.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from whydrift.monitors.hashing import hash64
from whydrift.monitors.summary import KEYS, SCHEMA, WindowSummary, count_set_aside, merge
from whydrift.pipelines import errors
from whydrift.pipelines.errors import ConfigError, EngineError, WhyDriftError
from whydrift.pipelines.window import Window

_TRAVELLING = pa.schema([("partition", pa.int32()), ("rows", pa.binary()), ("counts", pa.binary())])
_RAISED = re.compile(r"^(?:\w+\.)*\w+(?:Error|Exception): .*$", re.MULTILINE)
_OURS = re.compile(r"^whydrift\.pipelines\.errors\.(\w+): (.*)$", re.MULTILINE)


class Work(Protocol):
    """What is done with rows. It lives in a Python worker process of an executor."""

    @property
    def schema(self) -> pa.Schema:
        """Of checked rows; has `event_id`."""

    def read(self, path: str, window: Window) -> Iterable[tuple[pa.Table, Mapping[str, int]]]:
        """The window's checked rows in a file, batch after batch, and what was set aside of each."""

    def reduce(self, rows: pa.Table) -> WindowSummary:
        """The part of the summary that these rows make, all their repeats among them."""


Opener = Callable[[bytes], Work]

# What this Python worker has opened, by digest: Spark keeps workers for many tasks, and to load a model takes
# longer than most tasks do. It holds one, and no result depends on whether it was there.
_opened: dict[str, Work] = {}


@dataclass(frozen=True, slots=True)
class _Sent:
    """An order on its way: the broadcast `data` are its bytes."""

    opener: Opener
    data: Any
    digest: str

    def open(self) -> Work:
        if self.digest not in _opened:
            _opened.clear()
            _opened[self.digest] = self.opener(self.data.value)
        return _opened[self.digest]


@dataclass(frozen=True)
class Cluster:
    """The Spark application of this process: the one that runs already, else one as the environment configures it.

    `opener` is a module's function, by whose name executors find it; `order` are the bytes that they open with it.
    """

    opener: Opener
    order: bytes

    @cached_property
    def _session(self) -> Any:
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise ConfigError("engine: spark needs PySpark; install whydrift[spark], or set engine: local") from error
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else Spark takes the first python3 of the PATH
        with _reaching("start"):
            return SparkSession.builder.getOrCreate()

    @cached_property
    def _sent(self) -> _Sent:
        data = self._session.sparkContext.broadcast(self.order)
        return _Sent(self.opener, data, hashlib.sha256(self.order).hexdigest())

    def summarise(self, paths: Sequence[str], window: Window) -> WindowSummary:
        """The summary of the window's rows in these files.

        Raises:
            WhyDriftError: what a task raised, four times over as Spark does by default.
            EngineError: the cluster could not be had, or lost the job.
        """
        if not paths:
            return WindowSummary.zero()
        spark = self._session
        from pyspark.sql import functions as f

        with _reaching("summarise the window"):
            width = int(spark.conf.get("spark.sql.shuffle.partitions"))
            read = partial(_read, self._sent, list(paths), window, width)
            reduce = partial(_reduce, self._sent)
            spark.sparkContext.setJobDescription(f"whydrift: {window}")
            partial_sums = (
                spark.range(0, len(paths), 1, len(paths))
                .mapInArrow(read, "partition int, rows binary, counts binary")
                .repartitionById(width, "partition")
                .mapInArrow(reduce, "block string, slice string, name string, cell int, stat string, hi long, lo long")
            )
            sums = partial_sums.groupBy(*KEYS).agg(f.sum("hi").alias("hi"), f.sum("lo").alias("lo")).toArrow()
        return merge([WindowSummary(sums.select(SCHEMA.names).cast(SCHEMA))])


def _read(
    sent: _Sent, paths: Sequence[str], window: Window, width: int, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The first half of the job: numbers of files to rows by partition, and counts."""
    work = sent.open()
    for batch in batches:
        for number in batch.column(0).to_pylist():
            aside = Counter[str]()
            for rows, counts in work.read(paths[number], window):
                aside.update(counts)
                yield _batch([(to, piece, None) for to, piece in _cut(rows, width)])
            yield _batch([(0, None, piece) for piece in _to_bytes(count_set_aside(aside).table)])


def _reduce(sent: _Sent, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The second half: the rows of a partition to its part of the summary."""
    work, pieces = sent.open(), []
    for batch in batches:
        for rows, counts in zip(batch.column("rows"), batch.column("counts"), strict=True):
            if counts.is_valid:
                yield pa.ipc.read_record_batch(counts.as_buffer(), SCHEMA)
            else:
                pieces.append(pa.ipc.read_record_batch(rows.as_buffer(), work.schema))
    if pieces:
        yield from work.reduce(pa.Table.from_batches(pieces)).table.to_batches()


def _cut(rows: pa.Table, width: int) -> Iterator[tuple[int, bytes]]:
    """The rows by partition, which is a hash of the event id alone."""
    to = (hash64(rows["event_id"].to_pandas()) % np.uint64(width)).astype(np.int64)
    ends = np.bincount(to, minlength=width).cumsum()
    rows = rows.take(pa.array(np.argsort(to, kind="stable")))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        for piece in _to_bytes(rows.slice(start, end - start)):
            yield number, piece


def _to_bytes(table: pa.Table) -> list[bytes]:
    return [batch.serialize().to_pybytes() for batch in table.combine_chunks().to_batches() if batch.num_rows]


def _batch(rows: Sequence[tuple[int, bytes | None, bytes | None]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [(), (), ()]
    return pa.RecordBatch.from_arrays(
        [pa.array(c, t) for c, t in zip(columns, _TRAVELLING.types, strict=True)], schema=_TRAVELLING
    )


@contextmanager
def _reaching(action: str) -> Iterator[None]:
    """Say in our words what Spark could not do; an error of ours that a task raised is raised here."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, OSError, RuntimeError) as error:
        said = str(error)
        if ours := _OURS.findall(said):  # a traceback ends with what was raised
            name, message = ours[-1]
            raise _known(name)(message) from error
        first = _RAISED.search(said) or re.search(r"\S.*", said)
        reason = first[0] if first else type(error).__name__
        raise EngineError(f"Spark could not {action}: {reason}; see its log, and docs/spark.md") from error


def _known(name: str) -> type[WhyDriftError]:
    found = getattr(errors, name, WhyDriftError)
    return found if issubclass(found, WhyDriftError) else WhyDriftError
