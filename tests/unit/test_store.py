"""The store: whole files or none, names from keys, and errors that name the file."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from whydrift.monitors.summary import WindowSummary, count_set_aside
from whydrift.monitors.verdict import WindowKey
from whydrift.pipelines.errors import StoreError
from whydrift.pipelines.files import write_atomically
from whydrift.pipelines.store import OUTCOMES, Store, window_name

DAY = timedelta(days=1)
START = datetime(2024, 2, 1, tzinfo=UTC)
KEY = WindowKey(model="meters", model_version="3", baseline_id="ab12" * 16, start=START, end=START + DAY)
FOLDER = "meters/v3/ab12ab12ab12ab12/20240201T000000Z_20240202T000000Z"


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def moved(days):
    return replace(KEY, start=KEY.start + days * DAY, end=KEY.end + days * DAY)


class TestWriteAtomically:
    def test_replaces(self, tmp_path):
        path = tmp_path / "a" / "b" / "file"
        write_atomically(path, b"one")
        write_atomically(path, b"two")
        assert path.read_bytes() == b"two"
        assert list((path.parent / ".writing").iterdir()) == []

    def test_sweeps_what_dead_writers_left(self, tmp_path):
        scratch = tmp_path / ".writing"
        scratch.mkdir()
        (scratch / "dead").write_bytes(b"half a fi")
        write_atomically(tmp_path / "file", b"whole")
        assert list(scratch.iterdir()) == []

    def test_spares_living_writers(self, tmp_path):
        scratch = tmp_path / ".writing"
        scratch.mkdir()
        with (scratch / "alive").open("wb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_atomically(tmp_path / "file", b"whole")
            assert [p.name for p in scratch.iterdir()] == ["alive"]
        write_atomically(tmp_path / "file", b"whole")
        assert list(scratch.iterdir()) == []

    def test_a_killed_writer_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        write_atomically(path, b"old")
        child = os.fork()
        if child == 0:
            while True:
                write_atomically(path, os.urandom(1) * 5_000_000)
        time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = path.read_bytes()
        assert len(left) == 5_000_000
        assert len(set(left)) == 1
        write_atomically(path, b"new")
        assert sorted(p.name for p in tmp_path.rglob("*")) == [".writing", "file"]

    def test_many_writers_of_one_file(self, tmp_path):
        path = tmp_path / "file"
        failures = []

        def write(letter):
            try:
                for _ in range(50):
                    write_atomically(path, letter * 10_000)
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if path.exists():
                data = path.read_bytes()
                assert len(data) == 10_000
                assert len(set(data)) == 1
        assert failures == []
        assert list((tmp_path / ".writing").iterdir()) == []


class TestSummaries:
    def test_come_back(self, store, tmp_path):
        summary = count_set_aside({"duplicate": 3})
        store.write_summary(KEY, summary)
        assert store.read_summary(KEY) == summary
        assert (tmp_path / "store" / FOLDER / "summary.parquet").exists()
        assert store.read_summary(KEY, OUTCOMES) is None

    def test_parts_are_apart(self, store):
        store.write_summary(KEY, count_set_aside({"duplicate": 3}))
        store.write_summary(KEY, WindowSummary.zero(), OUTCOMES)
        assert store.read_summary(KEY, OUTCOMES) == WindowSummary.zero()
        assert store.read_summary(KEY) == count_set_aside({"duplicate": 3})

    @pytest.mark.parametrize("other", ["model", "model_version", "baseline_id"])
    def test_another_key_is_another_place(self, store, other):
        store.write_summary(KEY, WindowSummary.zero())
        assert store.read_summary(replace(KEY, **{other: "9" * 64})) is None

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all"])
    def test_corrupt(self, store, tmp_path, data):
        store.write_summary(KEY, WindowSummary.zero())
        path = tmp_path / "store" / FOLDER / "summary.parquet"
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"summary\.parquet: is not a window summary .*; delete it and run"):
            store.read_summary(KEY)

    def test_impossible(self, store):
        """A count below zero, as a fault of a disk may leave it, comes from no rows."""
        table = count_set_aside({"duplicate": 3}).table
        store.write_summary(KEY, WindowSummary(table.set_column(5, "hi", pa.array([-3]))))
        with pytest.raises(StoreError, match=r"counts and weights below zero: rows\); delete it and run"):
            store.read_summary(KEY)

    def test_cannot_be_written(self, store, tmp_path):
        (tmp_path / "store").write_text("a file where the folder should be")
        with pytest.raises(StoreError, match=r"store .*summary\.parquet: cannot be written"):
            store.write_summary(KEY, WindowSummary.zero())


class TestKeys:
    def test_by_time(self, store):
        for days in (2, 0, 1):
            store.write_summary(moved(days), WindowSummary.zero())
        assert store.keys("meters", "3", KEY.baseline_id) == [KEY, moved(1), moved(2)]

    def test_none(self, store):
        assert store.keys("meters", "3", KEY.baseline_id) == []

    def test_foreign_folders_and_files_are_passed_over(self, store, tmp_path):
        store.write_summary(KEY, WindowSummary.zero())
        parent = (tmp_path / "store" / FOLDER).parent
        (parent / "lost+found").mkdir()
        (parent / "20240201T000000Z").mkdir()
        (parent / "notes.txt").write_text("x")
        assert store.keys("meters", "3", KEY.baseline_id) == [KEY]

    def test_names_with_odd_characters_stay_one_folder(self, store, tmp_path):
        key = replace(KEY, model="a/b ../c%")
        store.write_summary(key, WindowSummary.zero())
        assert store.keys(key.model, "3", KEY.baseline_id) == [key]
        assert len(list((tmp_path / "store").iterdir())) == 1


class TestVerdicts:
    def test_come_back(self, store, make_verdict):
        verdict = make_verdict()
        store.write_verdict(verdict)
        assert store.read_verdict(verdict.key) == verdict
        assert store.read_verdict(moved(0)) is None

    def test_over_versions_and_baselines_by_window(self, store, make_verdict):
        key = make_verdict().key
        keys = [
            replace(key, model_version="10", start=key.start + 2 * DAY, end=key.end + 2 * DAY),
            replace(key, baseline_id="ff" * 32, start=key.start + DAY, end=key.end + DAY),
            key,
        ]
        for one in keys:
            store.write_verdict(make_verdict(key=one))
        store.write_verdict(make_verdict(key=replace(key, model="another")))
        store.write_summary(replace(key, start=key.start + 9 * DAY, end=key.end + 9 * DAY), WindowSummary.zero())
        assert [v.key for v in store.verdicts(key.model)] == keys[::-1]
        assert store.verdicts("nobody") == []

    def test_latest(self, store, make_verdict):
        key = make_verdict().key
        assert store.latest(key.model) is None
        store.write_verdict(make_verdict())
        later = replace(key, start=key.start + DAY, end=key.end + DAY)
        for version in ("10", "9"):
            store.write_verdict(make_verdict(key=replace(later, model_version=version)))
        store.write_summary(moved(30), WindowSummary.zero())  # profiled and not yet assessed
        assert store.latest(key.model).key == replace(later, model_version="10")

    def test_corrupt(self, store, tmp_path, make_verdict):
        verdict = make_verdict()
        store.write_verdict(verdict)
        (path,) = (tmp_path / "store").rglob("verdict.json")
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(StoreError, match=r"verdict\.json is not a verdict of this version; delete it"):
            store.read_verdict(verdict.key)


def test_window_names_are_utc_and_sort_by_time():
    names = [window_name(START + i * DAY, START + (i + 1) * DAY) for i in range(400)]
    assert names[0] == "20240201T000000Z_20240202T000000Z"
    assert sorted(names) == names


def test_unknown_filesystem():
    with pytest.raises(StoreError, match="store nowhere://bucket: cannot be opened"):
        Store("nowhere://bucket")


def test_uri_of_a_local_folder(tmp_path):
    store = Store((tmp_path / "a folder").as_uri())
    store.write_summary(KEY, WindowSummary.zero())
    assert (tmp_path / "a folder" / FOLDER / "summary.parquet").exists()
