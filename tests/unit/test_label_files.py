"""Labels by the time at which they came, read anew or held in memory."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from log_files import write
from whydrift.pipelines.errors import SchemaError
from whydrift.pipelines.sections import Labels
from whydrift.pipelines.sources.table import hold_labels, read_labels
from whydrift.pipelines.window import Window

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2024, 2, 1, tzinfo=UTC)
FORMATS = ["parquet", "csv", "jsonl"]


def labels_in(tmp_path, rows, form="parquet", **changes):
    write(rows, tmp_path / "labels" / f"a.{form}", form)
    return Labels(path=str(tmp_path / "labels"), format=form, **changes)


def answers():
    time = pd.to_datetime([START + i * HOUR for i in range(6)]).astype("datetime64[us, UTC]")
    return pd.DataFrame({"event_id": list("abcdef"), "label": [1.0, 0.0] * 3, "label_time": time})


@pytest.mark.parametrize("form", FORMATS)
def test_by_label_time(tmp_path, form):
    found = read_labels(labels_in(tmp_path, answers(), form), START + HOUR, START + 4 * HOUR)
    assert list(found.frame["event_id"]) == ["b", "c", "d"]
    assert list(found.frame["label"]) == [0.0, 1.0, 0.0]
    assert found.set_aside == {}


def test_the_first_answer_counts(tmp_path):
    frame = answers().assign(event_id="a")
    found = read_labels(labels_in(tmp_path, frame.iloc[::-1]), START, START + DAY)
    assert (len(found.frame), found.frame["label"][0]) == (1, 1.0)


@pytest.mark.parametrize("order", [1, -1])
def test_two_answers_at_one_moment(tmp_path, order):
    frame = answers().assign(event_id="a", label_time=START)
    found = read_labels(labels_in(tmp_path, frame.iloc[::order]), START, START + DAY)
    assert list(found.frame["label"]) == [0.0]


def test_bad_ones_are_counted(tmp_path):
    frame = answers().assign(label=["yes", "1", "0", None, "1", "0"])
    found = read_labels(labels_in(tmp_path, frame), START, START + DAY)
    assert found.set_aside == {"bad_label": 2}
    assert list(found.frame["event_id"]) == ["b", "c", "e", "f"]


@pytest.mark.parametrize("form", FORMATS)
def test_empty_file(tmp_path, form):
    found = read_labels(labels_in(tmp_path, answers().head(0), form), START, START + DAY)
    assert (len(found.frame), found.set_aside) == (0, {})


def test_column_missing(tmp_path):
    labels = labels_in(tmp_path, answers().drop(columns="label_time"))
    with pytest.raises(SchemaError, match="a label file has no column 'label_time'"):
        read_labels(labels, START, START + DAY)


@pytest.mark.parametrize("form", FORMATS)
def test_held_labels_are_those_of_each_interval(tmp_path, form):
    more = answers().assign(event_id=list("abxyzz"), label=["0", "no", "1", "1", "0", "1"])
    write(more, tmp_path / "labels" / f"b.{form}", form)
    labels = labels_in(tmp_path, answers().astype({"label": str}), form)
    (tmp_path / "labels" / f"c.{form}").write_text("{" if form == "jsonl" else "")
    intervals = [(START + i * HOUR, START + j * HOUR) for i in range(6) for j in range(i + 1, 7)]
    read = [read_labels(labels, *interval) for interval in intervals]
    assert sum(found.set_aside.get("bad_label", 0) for found in read) == 10
    held = hold_labels(labels, Window(START, START + 6 * HOUR))
    shutil.rmtree(tmp_path / "labels")
    for interval, expected in zip(intervals, read, strict=True):
        found = held(*interval)
        pd.testing.assert_frame_equal(found.frame, expected.frame)
        assert found.set_aside == expected.set_aside


def test_labels_in_folders_are_read_for_each_interval(tmp_path):
    for i, day in enumerate((START, START + DAY)):
        write(answers().assign(label_time=day + HOUR), tmp_path / "labels" / f"{day:%F}" / "a.parquet", "parquet")
        labels = Labels(path=str(tmp_path / "labels"), format="parquet", partition="%Y-%m-%d")
        held = hold_labels(labels, Window(START, START + 2 * DAY))
        assert len(held(START + i * DAY, START + (i + 1) * DAY).frame) == 6
    shutil.rmtree(tmp_path / "labels" / f"{START:%F}")
    assert held(START, START + DAY).frame.empty
