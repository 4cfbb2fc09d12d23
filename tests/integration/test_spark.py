"""On Spark a window has the bytes that it has here, whatever its files hold."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)


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
    shutil.rmtree(project.store, ignore_errors=True)
    project.configure(engine=engine)
    assert project.window("profile", FIRST).code == 0
    return project.tree()


@pytest.mark.usefixtures("_session")
def test_spark_writes_the_bytes_that_this_process_writes(project):
    disturb(project)
    expected = profiled(project, "local")
    found = profiled(project, "spark")
    assert found.keys() == expected.keys()
    assert found == expected
