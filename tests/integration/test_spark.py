"""On Spark a window has the bytes that it has here, whatever its files hold."""

from __future__ import annotations

import json
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spark_cluster
from whydrift.monitors.summary import WindowSummary
from whydrift.pipelines import config as configuration
from whydrift.pipelines.engines.spark import Cluster
from whydrift.pipelines.errors import ConfigError, EngineError, StoreError
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window

SCRIPT = Path(sys.executable).with_name("whydrift-spark.py")
DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
PERIOD = ("--start", f"{FIRST:%F}", "--end", f"{FIRST + DAY:%F}")
PATIENCE = 400  # seconds on a machine that does much else; a quiet one needs a tenth


@pytest.fixture(scope="module")
def _session():
    """Two threads of one JVM, and Python workers of their own."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "3").getOrCreate()
        yield session
        session.stop()
        gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)


def disturb(project):
    """Rows over several files, with repeats, that differ too, in others; every fault of rows and of files."""
    rng = np.random.default_rng(7)
    path = project.log_file(FIRST)
    frame = pq.read_table(path).to_pandas()
    for column, value in (("load", np.inf), ("temp", np.nan), ("prediction", 2.0), ("site", "mars"), ("site", None)):
        frame.loc[rng.choice(len(frame), 12, replace=False), column] = value
    frame["event_time"] += pd.to_timedelta(np.where(rng.random(len(frame)) < 0.05, 1, 0), unit="D")
    again = frame.head(40).assign(load=lambda f: np.where(np.arange(40) % 2, f["load"], 1.0))
    path.unlink()
    for name, part in zip("zmak", np.array_split(rng.permutation(len(frame)), 4), strict=True):
        rows = pd.concat([frame.iloc[part], again.iloc[rng.permutation(40)[:25]]])
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path.with_name(f"{name}.parquet"))
    pq.write_table(pa.Table.from_pandas(frame.head(9).drop(columns="load")), path.with_name("lacks.parquet"))
    path.with_name("torn.parquet").write_bytes(b"PAR1 and no more")
    path.with_name("_hidden.parquet").write_bytes(b"somebody's work in progress")


def profiled(project, engine):
    """What `profile` leaves in the store, which is empty before and after."""
    project.configure(engine=engine)
    assert project.window("profile", FIRST).code == 0
    return taken(project)


def taken(project):
    left = project.tree()
    shutil.rmtree(project.store)
    return left


@pytest.mark.usefixtures("_session")
def test_spark_writes_the_bytes_that_this_process_writes(project):
    disturb(project)
    expected = profiled(project, "local")
    found = profiled(project, "spark")
    assert found.keys() == expected.keys()
    assert found == expected


@pytest.mark.usefixtures("_session")
def test_what_an_executor_says_is_what_the_command_says(project):
    """Under its own name, and so with its own exit code, though it comes through two stack traces."""
    project.configure(engine="spark")
    job = Job.open(configuration.load(project.config))
    with pytest.raises(StoreError, match=r"^/nowhere/a\.parquet cannot be read: "):
        job.engine.cluster.summarise(["/nowhere/a.parquet"], Window(FIRST, FIRST + DAY))


@pytest.mark.usefixtures("_session")
def test_a_failure_that_is_not_ours_names_its_reason():
    window = Window(FIRST, FIRST + DAY)
    with pytest.raises(
        EngineError,
        match=r"could not summarise the window: json.decoder.JSONDecodeError: Expecting value.*; see its log",
    ):
        Cluster(json.loads, b"").summarise(["a"], window)
    with pytest.raises(EngineError, match=r"ModuleNotFoundError: No module named 'spark_cluster'"):
        Cluster(spark_cluster.wait_for, b"").summarise(["a"], window)
    assert Cluster(json.loads, b"").summarise([], window) == WindowSummary.zero()


def test_without_pyspark_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ConfigError, match=r"install whydrift\[spark\]"):
        Cluster(lambda _: None, b"").summarise(["a"], Window(FIRST, FIRST + DAY))


@pytest.fixture
def cluster(tmp_path_factory):
    with spark_cluster.start(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_standalone_cluster_of_the_environment_writes_them_too(project, cluster):
    disturb(project)
    expected = profiled(project, "local")
    project.configure(engine="spark")
    submitted = cluster.run(SCRIPT.with_name("whydrift"), "profile", "--config", project.config, *PERIOD)
    assert submitted.process.wait(PATIENCE) == 0, submitted.said()
    assert taken(project) == expected
    logs = cluster.folder.glob("work*/app-*/*/stderr")
    assert sum("Finished task" in log.read_text() for log in logs) == len(cluster.workers)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_in_the_middle_changes_nothing(project, cluster):
    """One of two, while tasks of the second half run: what it has read and reduced is lost, and done again."""
    disturb(project)
    multiply(project)
    project.configure(explainer={"method": "permutation"})  # which takes its time
    expected = profiled(project, "local")
    project.configure(engine="spark")
    submitted = cluster.submit(SCRIPT, "profile", "--config", str(project.config), *PERIOD)
    spark_cluster.wait_for(lambda: in_the_middle(cluster.active_stages()) or submitted.ended(), PATIENCE)
    assert not submitted.ended()
    cluster.kill(cluster.workers[0])
    assert submitted.process.wait(PATIENCE) == 0, submitted.said()
    assert "Lost executor" in submitted.said()
    # In which words hangs on whether the lost rows are missed by a running task, a finished one, or a finished stage.
    assert re.search("FetchFailed|Resubmitted|Resubmitting", submitted.said())
    assert taken(project) == expected


def in_the_middle(stages):
    """Whether the rows are there, and some of them reduced."""
    return any(s["shuffleReadBytes"] > 0 and s["numCompleteTasks"] > 0 and s["numActiveTasks"] > 1 for s in stages)


def multiply(project, times=8):
    """More rows under other ids."""
    for path in sorted(project.log_file(FIRST).parent.glob("[zmak].parquet")):
        rows = pq.read_table(path).to_pandas()
        copies = [rows.assign(event_id=rows["event_id"] + f"/{n}") for n in range(times)]
        pq.write_table(pa.Table.from_pandas(pd.concat(copies), preserve_index=False), path)
