"""Where a window's rows are read and explained: in this process, or on a cluster's executors.

What an executor needs travels as one archive of plain files: the configuration, the layout, the background and the
model's own files. It opens them with the code of its own installation of whydrift, and refuses to work if that, or
what it makes of them, is not what the driver has.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from whydrift.monitors.summary import Layout, WindowSummary, count_set_aside, merge
from whydrift.pipelines.baseline import Baseline
from whydrift.pipelines.config import Config
from whydrift.pipelines.engines.spark import Cluster
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.registry import ModelVersion, Registry, open_folder
from whydrift.pipelines.rows import LogReader, Summariser, explainer_digest, make_explainer
from whydrift.pipelines.sections import MLflow
from whydrift.pipelines.sources.records import Records, drop_repeats, prediction_columns
from whydrift.pipelines.window import Window

_LAYOUT = TypeAdapter(Layout)
_ORDER, _BACKGROUND, _MODEL = "order.json", "background.parquet", "model"
_LIBRARIES = ("whydrift", "numpy", "pandas", "pyarrow", "scipy")


class Engine(Protocol):
    """Where the row work is done."""

    def summarise(self, window: Window) -> WindowSummary:
        """Read, check, explain and reduce the window's rows."""


@dataclass(frozen=True)
class Local:
    """The process that runs the stage."""

    summariser: Summariser

    def summarise(self, window: Window) -> WindowSummary:
        return self.summariser.summarise(self.summariser.log.batches(window))


@dataclass(frozen=True)
class OnSpark:
    """The executors of a Spark application."""

    summariser: Summariser
    cluster: Cluster

    def summarise(self, window: Window) -> WindowSummary:
        source = self.summariser.log.source
        found = self.cluster.summarise(source.files(window), window).table
        noted = pc.equal(found["block"], "set_aside")
        counts = found.filter(noted)
        settled = source.settle(window, dict(zip(counts["name"].to_pylist(), counts["hi"].to_pylist(), strict=True)))
        return merge([WindowSummary(found.filter(pc.invert(noted))), count_set_aside(settled)])


def _local(summariser: Summariser, _: Registry, __: Baseline) -> Engine:
    return Local(summariser)


def _on_spark(summariser: Summariser, registry: Registry, baseline: Baseline) -> Engine:
    return OnSpark(summariser, Cluster(open_order, pack(summariser, registry, baseline)))


ENGINES: dict[str, Callable[[Summariser, Registry, Baseline], Engine]] = {"local": _local, "spark": _on_spark}


def pack(summariser: Summariser, registry: Registry, baseline: Baseline) -> bytes:
    """What `open_order` makes the same summariser of; the address of MLflow, which may hold a password, stays here."""
    log = summariser.log
    order = {
        "config": log.config.model_copy(update={"mlflow": MLflow(tracking_uri="")}).model_dump(mode="json"),
        "version": asdict(log.version),
        "usual_rows": baseline.usual_rows,
        "layout": _LAYOUT.dump_python(summariser.layout, mode="json"),
        "libraries": _libraries(),
        "digests": _digests(summariser),
    }
    table = pa.Table.from_pandas(baseline.background, preserve_index=False)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as folder:
        archive.writestr(_ORDER, json.dumps(order))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        archive.writestr(_BACKGROUND, sink.getvalue().to_pybytes())
        model = registry.fetch_model(log.version, Path(folder))
        for file in sorted(p for p in model.rglob("*") if p.is_file()):
            name = file.relative_to(model).as_posix()
            if not name.startswith("whydrift/"):  # the baseline, which lies among the model's files
                archive.write(file, f"{_MODEL}/{name}")
    return packed.getvalue()


def open_order(data: bytes) -> RowWork:
    """On an executor: the driver's summariser.

    Raises:
        ConfigError: this installation is another than the driver's, or makes another explainer of the same files.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive, tempfile.TemporaryDirectory() as folder:
        order = json.loads(archive.read(_ORDER))
        _compare(order["libraries"], _libraries())  # before anything of them is trusted
        archive.extractall(folder)
        config, version = Config.model_validate(order["config"]), ModelVersion(**order["version"])
        model = open_folder(Path(folder) / _MODEL, version.uri)
        background = pq.read_table(Path(folder) / _BACKGROUND).to_pandas()
    explainer = make_explainer(config, model, background, order["usual_rows"])
    log = LogReader(config, version, model.features)
    made = Summariser(log, explainer, _LAYOUT.validate_python(order["layout"]), model.digest)
    _compare(order["digests"], _digests(made))
    return RowWork(made)


@dataclass(frozen=True)
class RowWork:
    """A part of a summariser's rows; see `engines.spark.Work`."""

    summariser: Summariser

    @cached_property
    def schema(self) -> pa.Schema:
        log = self.summariser.log
        kinds = {"number": pa.float64(), "string": pa.string()}
        return pa.schema(
            [
                ("event_id", pa.string()),
                ("event_time", pa.timestamp("us", "UTC")),
                *((name, kinds[kind]) for name, kind in log.features.items()),
                *((name, pa.float64()) for name in prediction_columns(self.summariser.classes)),
                ("weight", pa.float64()),
            ]
        )

    def read(self, path: str, window: Window) -> Iterator[tuple[pa.Table, Mapping[str, int]]]:
        log = self.summariser.log
        for batch in log.source.read_file(path, window, log.features):
            yield pa.Table.from_pandas(batch.frame, self.schema, preserve_index=False), batch.set_aside

    def reduce(self, rows: pa.Table) -> WindowSummary:
        strings = {field.name: "string" for field in self.schema if field.type == pa.string()}
        frame = rows.to_pandas().astype(strings)
        again = frame.duplicated(["event_id", "event_time"], keep=False)
        return self.summariser.summarise([Records(frame[~again], {}), drop_repeats(Records(frame[again], {}))])


def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _digests(summariser: Summariser) -> dict[str, str]:
    """Of all that gives a row its attributions; the explainer's covers its background and its own libraries."""
    return {"model": summariser.model_digest, "explainer": explainer_digest(summariser.explainer)}


def _compare(driver: Mapping[str, str], here: Mapping[str, str]) -> None:
    for name, wanted in driver.items():
        if here[name] != wanted:
            raise ConfigError(
                f"engine: spark: the executor on {socket.gethostname()} has {name} {here[name]}, the driver has"
                f" {wanted}; give both the same environment, see docs/spark.md"
            )
