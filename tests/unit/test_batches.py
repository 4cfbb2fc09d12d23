"""A log is read batch by batch, and comes out as if it had been read whole."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whydrift.pipelines.errors import StoreError
from whydrift.pipelines.sections import InferenceLog, Model
from whydrift.pipelines.sources import records, table
from whydrift.pipelines.sources.records import gather
from whydrift.pipelines.sources.table import TableSource
from whydrift.pipelines.window import Window

START = datetime(2024, 2, 1, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(days=1))
FEATURES = {"load": "number", "site": "string"}
SUFFIX = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl"}


def rows(count=60):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "event_id": [f"{i:03d}" for i in range(count)],
            "event_time": [(START + i * timedelta(minutes=9)).isoformat() for i in range(count)],
            "load": rng.normal(size=count).round(6),
            "site": rng.choice(["a", "b"], count),
            "prediction": rng.random(count).round(6),
        }
    )


def write(frame, path):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, row_group_size=10)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)


def source(path, form="parquet"):
    return TableSource(InferenceLog(path=str(path), format=form), model=Model(name="m"), version="1")


def faulty():
    """Rows that repeat near and far, alike and not, and rows with faults, some of which repeat as well."""
    frame = rows()
    wrong = frame.iloc[10:14].assign(prediction=2.0)
    other = frame.iloc[20:25].assign(load=0.5)
    later = frame.iloc[30:33].assign(event_time=(START + timedelta(hours=23)).isoformat())
    outside = frame.iloc[40:42].assign(event_time=(START + timedelta(days=2)).isoformat())
    return pd.concat([frame, frame[5:9], wrong, other, frame[::12], later, outside, outside])


@pytest.fixture(params=SUFFIX)
def log(request, tmp_path):
    """A log of three files, and the reader of it."""
    frame = faulty().sample(frac=1, random_state=3)
    for name, part in (("b", frame[:30]), ("a", frame[30:31]), ("c", frame[31:])):
        write(part, tmp_path / "log" / f"{name}{SUFFIX[request.param]}")
    return source(tmp_path / "log", request.param)


def test_batches_are_the_whole(log, monkeypatch):
    whole = gather(log.batches(WINDOW, FEATURES))
    assert whole.set_aside == {"prediction_not_a_probability": 4, "duplicate": 14}
    assert len(whole.frame) == 60 + 3
    assert not whole.frame.duplicated(["event_id", "event_time"]).any()
    monkeypatch.setattr(records, "BATCH", 7)
    batches = list(log.batches(WINDOW, FEATURES))
    assert max(len(batch.frame) for batch in batches) <= 7
    assert len(batches) > 9
    found = gather(batches)
    pd.testing.assert_frame_equal(found.frame, whole.frame)
    assert found.set_aside == whole.set_aside


def test_wide_rows_come_in_smaller_batches(tmp_path, monkeypatch):
    """A batch of four times as many columns has a quarter of the rows, and takes as much memory."""
    monkeypatch.setattr(records, "BATCH", 20)
    assert [records.batch_rows(columns) for columns in (1, 64, 256, 10_000)] == [20, 20, 5, 1]
    wide = pd.DataFrame(np.zeros((12, 256)))
    assert [len(part) for part in records.cut(wide)] == [5, 5, 2]
    names = [f"wide{j}" for j in range(251)]
    frame = pd.concat([rows(), pd.DataFrame(1.0, index=range(60), columns=names)], axis=1)
    write(frame, tmp_path / "log" / "a.parquet")
    batches = source(tmp_path / "log").batches(WINDOW, FEATURES | dict.fromkeys(names, "number"))
    sizes = [len(batch.frame) for batch in batches]
    assert max(sizes) == 5
    assert sum(sizes) == 60


def test_keys_that_collide_are_told_apart(log, monkeypatch):
    expected = gather(log.batches(WINDOW, FEATURES))
    monkeypatch.setattr(table, "identity", lambda ids, _: np.zeros(len(ids), np.uint64))
    found = gather(log.batches(WINDOW, FEATURES))
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    assert found.set_aside == expected.set_aside


def test_rows_that_do_not_repeat_are_not_held(tmp_path, monkeypatch):
    """Each leaves with its own batch: when the last file comes, those of the first are gone."""
    monkeypatch.setattr(records, "BATCH", 20)
    write(rows(), tmp_path / "log" / "a.parquet")
    sizes = [len(batch.frame) for batch in source(tmp_path / "log").batches(WINDOW, FEATURES)]
    assert sizes == [20, 20, 20, 0, 0]


def test_a_file_that_breaks_off_gives_what_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BATCH", 20)
    write(rows(), path := tmp_path / "log" / "a.parquet")
    column = pq.ParquetFile(path).metadata.row_group(4).column(2)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = gather(source(tmp_path / "log").batches(WINDOW, FEATURES))
    assert found.set_aside == {"unreadable_file": 1}
    assert found.frame["event_id"].tolist() == [f"{i:03d}" for i in range(40)]


def test_a_file_that_cannot_be_fetched_is_no_broken_file(tmp_path):
    write(rows(), tmp_path / "log" / "a.parquet")
    reading = source(tmp_path / "log").read_file(str(tmp_path / "log" / "gone.parquet"), WINDOW, FEATURES)
    with pytest.raises(StoreError, match=r"gone\.parquet cannot be read"):
        next(reading)
