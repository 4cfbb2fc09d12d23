"""What a cluster does with a window's rows, done here one step after the other: any cut gives the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whydrift.monitors.summary import SCHEMA, WindowSummary, merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines.distributing import Local, OnSpark, open_order, pack
from whydrift.pipelines.engines.spark import _TRAVELLING, _cut, _read, _reduce
from whydrift.pipelines.errors import ConfigError, SchemaError
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
WINDOW = Window(FIRST, FIRST + DAY)


class Table:
    """Does a cluster's work in this process; the rows of a partition come in any order."""

    def __init__(self, order, width):
        self.order, self.width = order, width

    def open(self):
        return open_order(self.order)

    def summarise(self, paths, window):
        files = [pa.record_batch([pa.array([n])], ["id"]) for n in range(len(paths))]
        travelling = pa.Table.from_batches(_read(self, paths, window, self.width, files), _TRAVELLING)
        travelling = travelling.take(np.random.default_rng(1).permutation(travelling.num_rows))
        sums = []
        for number in range(self.width):
            inside = travelling.filter(pc.equal(travelling["partition"], number))
            sums += _reduce(self, inside.to_batches(max_chunksize=2))
        return merge([WindowSummary(pa.Table.from_batches(sums, SCHEMA))])


@pytest.fixture
def job(project):
    return Job.open(configuration.load(project.config))


@pytest.fixture
def order(job):
    return pack(job.summariser, job.registry, job.baseline)


def scatter(frame):
    """Rows that come twice, some of them with another value."""
    again = frame.head(60).assign(load=lambda f: np.where(np.arange(60) % 2, f["load"], 1.0))
    return pd.concat([frame, again]).sample(frac=1, random_state=2)


def test_any_number_of_partitions_gives_the_same_bytes(project, job, order):
    project.edit_log(FIRST, scatter)
    expected = Local(job.summariser).summarise(WINDOW)
    assert expected.frame().set_index("name")["value"]["duplicate"] == 60
    for width in (1, 2, 7):
        assert OnSpark(job.summariser, Table(order, width)).summarise(WINDOW).to_bytes() == expected.to_bytes()


def test_no_files_and_no_rows_give_the_same_bytes(project, job, order):
    project.edit_log(FIRST, lambda f: f.head(0))
    for day in (FIRST, FIRST + 400 * DAY):
        window = Window(day, day + DAY)
        expected = Local(job.summariser).summarise(window).to_bytes()
        assert OnSpark(job.summariser, Table(order, 2)).summarise(window).to_bytes() == expected


def test_a_log_without_a_column_that_records_need_is_refused_in_the_same_words(project, job, order):
    project.edit_log(FIRST, lambda f: f.drop(columns="prediction"))
    messages = []
    for engine in (Local(job.summariser), OnSpark(job.summariser, Table(order, 2))):
        with pytest.raises(SchemaError) as raised:
            engine.summarise(WINDOW)
        messages.append(str(raised.value))
    assert "'prediction'" in messages[0]
    assert messages[0] == messages[1]


@pytest.mark.parametrize(("part", "name"), [("libraries", "numpy"), ("digests", "model"), ("digests", "explainer")])
def test_another_environment_than_the_drivers_is_refused(order, part, name):
    assert open_order(order).summariser.golden is None
    with pytest.raises(ConfigError, match=rf"the executor on \S+ has {name} \S+, the driver has 0\.1"):
        open_order(tampered(order, part, name))


def tampered(order, part, name):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(order)) as old, zipfile.ZipFile(packed, "w") as new:
        for item in old.namelist():
            content = old.read(item)
            if item == "order.json":
                asked = json.loads(content)
                asked[part][name] = "0.1"
                content = json.dumps(asked)
            new.writestr(item, content)
    return packed.getvalue()


def test_what_travels_has_neither_the_address_of_mlflow_nor_the_baseline(job, order):
    with zipfile.ZipFile(io.BytesIO(order)) as archive:
        names = archive.namelist()
        assert json.loads(archive.read("order.json"))["config"]["mlflow"]["tracking_uri"] == ""
    assert {"order.json", "background.parquet", "model/MLmodel"} <= set(names)
    assert not [name for name in names if "whydrift" in name]


@given(ids=st.lists(st.text(max_size=3), max_size=40), width=st.integers(1, 9))
def test_rows_of_one_event_go_to_one_partition(ids, width):
    rows = pa.table({"event_id": pa.array(ids, pa.string()), "row": pa.array(range(len(ids)), pa.int64())})
    found, places = [], {}
    for number, piece in _cut(rows, width):
        assert 0 <= number < width
        batch = pa.ipc.read_record_batch(piece, rows.schema)
        found += batch.to_pylist()
        for event in batch["event_id"].to_pylist():
            assert places.setdefault(event, number) == number
    assert sorted(found, key=lambda row: row["row"]) == rows.to_pylist()
