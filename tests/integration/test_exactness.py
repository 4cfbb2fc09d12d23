"""The same rows give the same bytes: however they are cut into windows, in whatever order, however often."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whydrift.monitors.summary import merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window, split

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
DAYS = [FIRST + i * DAY for i in range(4)]


@pytest.fixture
def backfilled(finished, project):
    """The project after a backfill of DAYS, with the store's files as they were then."""
    for name in ("store", "outputs"):
        shutil.copytree(finished / name, project.folder / name)
    return project, project.tree()


def reports(project):
    folder = project.folder / "outputs" / "reports"
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def faulty(frame):
    """Every row-level fault there is, spread over the day."""
    rng = np.random.default_rng(7)
    frame = frame.copy()
    for column, value in (("load", np.inf), ("temp", np.nan), ("prediction", 2.0), ("site", "mars"), ("site", None)):
        frame.loc[rng.choice(len(frame), 12, replace=False), column] = value
    return frame.iloc[[*range(len(frame)), *rng.choice(len(frame), 20)]]


def test_hourly_summaries_merge_to_the_daily_one(project):
    project.edit_log(FIRST, faulty)
    config = configuration.load(project.config)
    daily = Job.open(config).summariser
    window = config.window.model_copy(update={"every": HOUR})
    hourly = replace(daily, log=replace(daily.log, config=config.model_copy(update={"window": window})))
    hours = list(split(FIRST, FIRST + DAY, HOUR))
    whole = Window(FIRST, FIRST + DAY)
    assert len(hours) == 24

    parts = [hourly.summarise(hourly.log.batches(hour)) for hour in hours]
    expected = daily.summarise(daily.log.batches(whole))
    assert merge(parts).to_bytes() == expected.to_bytes()
    assert merge(parts[::-1]).to_bytes() == expected.to_bytes()
    assert len({part.to_bytes() for part in parts}) == 24
    blocks = {"rows", "input", "slice", "missing", "attribution", "phi", "group", "total", "quality", "score", "digest"}
    assert blocks <= set(expected.frame()["block"])

    # All labels come within 40 hours, so that two days after its end an hour knows what the day knows.
    outcomes = [hourly.outcomes(hour) for hour in hours]
    expected = daily.outcomes(whole)
    assert expected.table.num_rows > 0
    assert merge(outcomes).to_bytes() == expected.to_bytes()


def test_backfill_rebuilds_a_deleted_store(backfilled):
    project, expected = backfilled
    pages = reports(project)
    assert sum(name.endswith("verdict.json") for name in expected) == len(DAYS)
    shutil.rmtree(project.store)
    assert project.window("backfill", FIRST, days=len(DAYS)).code == 0
    assert project.tree() == expected
    assert reports(project) == pages


def test_window_by_window_equals_backfill(backfilled):
    project, expected = backfilled
    pages = reports(project)
    shutil.rmtree(project.store)
    for day in DAYS:
        assert project.window("run", day).code == 0
    assert project.tree() == expected
    assert reports(project) == pages


def test_order_of_profiling_does_not_matter(backfilled):
    project, expected = backfilled
    shutil.rmtree(project.store)
    for day in (DAYS[2], DAYS[0], DAYS[3], DAYS[1]):
        assert project.window("profile", day).code == 0
    for day in reversed(DAYS):
        assert project.window("assess", day).code == 0
    assert project.tree() == expected


def test_later_windows_do_not_change_earlier_verdicts(backfilled):
    project, expected = backfilled
    project.edit_log(DAYS[-1], lambda f: f.assign(temp=np.nan))
    assert project.window("run", DAYS[-1]).code == 1
    last = f"{DAYS[-1]:%Y%m%d}T"
    changed = {name for name, data in project.tree().items() if expected.get(name) != data}
    assert changed
    assert all(f"/{last}" in name for name in changed)
    assert project.window("assess", FIRST).code == 0
    assert {k: v for k, v in project.tree().items() if f"/{last}" not in k} == {
        k: v for k, v in expected.items() if f"/{last}" not in k
    }


def test_rerun_replaces_files_and_mlflow_run(project):
    def names():
        return sorted(str(p.relative_to(project.folder)) for p in (project.folder / "outputs").rglob("*"))

    assert project.window("run", FIRST).code == 0
    expected, files = project.tree(), names()
    (before,) = project.active_runs(FIRST)
    assert project.window("run", FIRST).code == 0
    (after,) = project.active_runs(FIRST)
    assert project.tree() == expected
    assert names() == files
    assert after.info.run_id != before.info.run_id
    assert after.data.metrics == before.data.metrics
    assert after.info.status == "FINISHED"


def test_order_of_rows_and_files_does_not_matter(project):
    project.edit_log(FIRST, faulty)
    for label_day in (FIRST, FIRST + DAY):
        table = pq.read_table(project.label_file(label_day)).to_pandas()
        again = table.head(40).assign(label=1 - table["label"].head(40))  # a second answer at the same moment
        pq.write_table(pa.Table.from_pandas(pa_concat(table, again)), project.label_file(label_day))
    days = [FIRST, FIRST + DAY, FIRST + 2 * DAY]
    for day in days:
        assert project.window("profile", day).code == 0
    expected = project.tree()
    shutil.rmtree(project.store)
    for day in days:
        scatter(project.log_file(day))
        scatter(project.label_file(day))
    for day in days:
        assert project.window("profile", day).code == 0
    assert project.tree() == expected


def test_repeats_that_differ(project):
    """Of two records with one id and time the same one stays, whichever comes first."""
    project.edit_log(FIRST, lambda f: pa_concat(f, f.head(30).assign(load=1.0)))
    assert project.window("profile", FIRST).code == 0
    expected = project.tree()
    project.edit_log(FIRST, lambda f: f.iloc[::-1])
    assert project.window("profile", FIRST).code == 0
    assert project.tree() == expected


def pa_concat(*frames):
    return pa.concat_tables(pa.Table.from_pandas(f, preserve_index=False) for f in frames).to_pandas()


def scatter(path):
    """The file's rows, shuffled, over three files."""
    table = pq.read_table(path)
    order = np.random.default_rng(3).permutation(table.num_rows)
    path.unlink()
    for name, rows in zip(("z", "m", "a"), np.array_split(order, 3), strict=True):
        pq.write_table(table.take(rows), path.with_name(f"{name}.parquet"))
