"""Files of rows become the same records whatever their format, partitions, order and spelling of time."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from log_files import write
from whydrift.pipelines.errors import NoDataError, SchemaError, StoreError
from whydrift.pipelines.sections import InferenceLog, LogColumns, Model
from whydrift.pipelines.sources.records import gather
from whydrift.pipelines.sources.table import TableSource
from whydrift.pipelines.window import Window, split

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2024, 2, 1, tzinfo=UTC)
WINDOW = Window(START, START + DAY)
FEATURES = {"load": "number", "site": "string"}
FORMATS = ["parquet", "csv", "jsonl"]


def rows(count=48, start=START):
    rng = np.random.default_rng(1)
    load = rng.normal(size=count).round(6)
    load[::7] = np.nan
    return pd.DataFrame(
        {
            "event_id": [f"{i:03d}" for i in range(count)],
            "event_time": pd.to_datetime([start + i * DAY / count for i in range(count)]).astype("datetime64[us, UTC]"),
            "load": load,
            "site": [None if i % 11 == 3 else f"site {i % 3}, \u00e9\u00a0\u2028" for i in range(count)],
            "prediction": rng.random(count).round(6),
        }
    )


def read(path, window=WINDOW, features=FEATURES, *, form="parquet", task="binary", classes=(), version="1", **log):
    model = Model(name="m", task=task, classes=classes)
    source = TableSource(InferenceLog(path=str(path), format=form, **log), model=model, version=version)
    return gather(source.batches(window, features))


def same(a, b):
    assert a.set_aside == b.set_aside
    pd.testing.assert_frame_equal(a.frame, b.frame)


@pytest.fixture
def expected(tmp_path):
    write(rows(), tmp_path / "expected" / "a.parquet", "parquet")
    return read(tmp_path / "expected")


class TestFormats:
    def test_the_contract(self, expected):
        assert expected.set_aside == {}
        assert list(expected.frame) == ["event_id", "event_time", "load", "site", "prediction", "weight"]
        assert expected.frame["event_time"].dtype == "datetime64[us, UTC]"
        assert expected.frame["load"].dtype == np.float64
        assert expected.frame["site"].dtype == "string"
        assert (expected.frame["weight"] == 1).all()
        assert expected.frame["load"].isna().sum() == 7
        assert expected.frame["site"].isna().sum() == 5
        np.testing.assert_array_equal(expected.frame["prediction"], rows()["prediction"])

    @pytest.mark.parametrize("form", FORMATS)
    def test_are_equal(self, tmp_path, expected, form):
        write(rows(), tmp_path / "log" / f"a.{form}", form)
        same(read(tmp_path / "log", form=form), expected)

    @pytest.mark.parametrize("form", FORMATS)
    def test_order_of_rows_and_files_does_not_matter(self, tmp_path, expected, form):
        frame = rows().sample(frac=1, random_state=2)
        for name, part in (("z", frame[:10]), ("b/x", frame[10:30]), ("a", frame[30:])):
            write(part, tmp_path / "log" / f"{name}.{form}", form)
        same(read(tmp_path / "log", form=form), expected)

    @pytest.mark.parametrize("form", FORMATS)
    def test_other_files_are_passed_over(self, tmp_path, expected, form):
        write(rows(), tmp_path / "log" / f"a.{form}", form)
        for name in (f".a.{form}.tmp", f"_temporary/b.{form}", f".hidden/b.{form}", f"_b.{form}", "README"):
            path = tmp_path / "log" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("somebody's work in progress")
        same(read(tmp_path / "log", form=form), expected)

    @pytest.mark.parametrize("form", FORMATS)
    def test_other_names_of_columns(self, tmp_path, expected, form):
        names = {"event_id": "request", "event_time": "at", "prediction": "p"}
        write(rows().rename(columns=names), tmp_path / "log" / f"a.{form}", form)
        same(read(tmp_path / "log", form=form, columns=LogColumns(**names)), expected)

    @pytest.mark.parametrize("form", FORMATS)
    def test_whole_numbers_as_ids_with_gaps(self, tmp_path, form):
        frame = rows().assign(event_id=pd.array([None, *range(1, 48)], dtype="Int64"))
        write(frame, tmp_path / "log" / f"a.{form}", form)
        records = read(tmp_path / "log", form=form)
        assert set(records.frame["event_id"]) == {str(i) for i in range(1, 48)}
        assert records.set_aside == {"event_id_missing": 1}

    def test_csv_types_come_from_all_rows(self, tmp_path):
        """More than a block of whole numbers before the first fraction must not make the file unreadable."""
        frame = rows(60_000).assign(load=7, site="here")
        frame["load"] = [*["7"] * 59_999, "7.5"]
        write(frame, tmp_path / "log" / "a.csv", "csv")
        records = read(tmp_path / "log", form="csv")
        assert records.set_aside == {}
        assert records.frame["load"].iloc[-1] == 7.5

    def test_digits_in_a_csv_string_column_are_text(self, tmp_path):
        write(rows().assign(site=["07"] * 48), tmp_path / "log" / "a.csv", "csv")
        assert set(read(tmp_path / "log", form="csv").frame["site"]) == {"07"}


class TestCutFiles:
    def test_csv_row_with_too_many_fields(self, tmp_path):
        write(rows(), tmp_path / "log" / "a.csv", "csv")
        with (tmp_path / "log" / "a.csv").open("a") as file:
            file.write("x,y,z,too,many,fields\n")
        records = read(tmp_path / "log", form="csv")
        assert records.set_aside == {"malformed_line": 1}
        assert len(records.frame) == 48

    @pytest.mark.parametrize(("form", "reason"), [("csv", "truncated_line"), ("jsonl", "malformed_line")])
    @pytest.mark.parametrize("cut", [2, 5, 20])
    def test_last_row(self, tmp_path, form, reason, cut):
        path = tmp_path / "log" / f"a.{form}"
        write(rows(), path, form)
        path.write_bytes(path.read_bytes()[:-cut])
        records = read(tmp_path / "log", form=form)
        assert records.set_aside == {reason: 1}
        assert list(records.frame["event_id"]) == list(rows()["event_id"][:-1])

    @pytest.mark.parametrize("form", FORMATS)
    def test_empty_file_is_no_error(self, tmp_path, expected, form):
        write(rows(), tmp_path / "log" / f"a.{form}", form)
        write(rows().head(0), tmp_path / "log" / f"b.{form}", form)
        same(read(tmp_path / "log", form=form), expected)

    @pytest.mark.parametrize("form", FORMATS)
    def test_only_an_empty_file(self, tmp_path, form):
        write(rows().head(0), tmp_path / "log" / f"b.{form}", form)
        records = read(tmp_path / "log", form=form)
        assert (len(records.frame), records.set_aside) == (0, {})

    def test_parquet_cut_anywhere(self, tmp_path, expected):
        write(rows(), tmp_path / "log" / "a.parquet", "parquet")
        data = (tmp_path / "log" / "a.parquet").read_bytes()
        for cut in range(0, len(data), 97):
            (tmp_path / "log" / "b.parquet").write_bytes(data[:cut])
            records = read(tmp_path / "log")
            assert records.set_aside == {"unreadable_file": 1}
            pd.testing.assert_frame_equal(records.frame, expected.frame)


class TestPartitions:
    @pytest.mark.parametrize("partition", ["day=%Y-%m-%d", "%Y/%m/%d", "%Y-%m-%d/hour=%H", "month=%Y-%m"])
    def test_a_window_reads_its_own_folders(self, tmp_path, partition):
        frame = pd.concat([rows(start=START + i * DAY).assign(event_id=lambda f, i=i: f"{i}-" + f["event_id"])
                           for i in range(3)], ignore_index=True)  # fmt: skip
        for folder, part in frame.groupby(frame["event_time"].dt.strftime(partition)):
            write(part, tmp_path / "log" / folder / "a.parquet", "parquet")
        plain = tmp_path / "plain"
        write(frame, plain / "a.parquet", "parquet")
        for window in [*split(START, START + 3 * DAY, DAY), Window(START + DAY, START + DAY + HOUR)]:
            records = read(tmp_path / "log", window, partition=partition)
            assert len(records.frame) == (48 if window.width == DAY else 2)
            same(records, read(plain, window))

    def test_folders_of_other_windows_are_not_opened(self, tmp_path, expected):
        write(rows(), tmp_path / "log" / "day=2024-02-01" / "a.parquet", "parquet")
        broken = tmp_path / "log" / "day=2024-02-02" / "a.parquet"
        broken.parent.mkdir()
        broken.write_text("broken")
        same(read(tmp_path / "log", partition="day=%Y-%m-%d"), expected)
        assert read(tmp_path / "log").set_aside == {"unreadable_file": 1}

    def test_absent_partition_is_an_empty_window(self, tmp_path):
        (tmp_path / "log").mkdir()
        assert read(tmp_path / "log", partition="day=%Y-%m-%d").frame.empty

    @pytest.mark.parametrize("partition", [None, "day=%Y-%m-%d"])
    def test_absent_log_is_an_error(self, tmp_path, partition):
        with pytest.raises(NoDataError, match="log does not exist"):
            read(tmp_path / "log", partition=partition)

    def test_file_instead_of_folder(self, tmp_path):
        (tmp_path / "log").write_text("x")
        with pytest.raises(StoreError, match="log cannot be listed"):
            read(tmp_path / "log")


SPELLINGS = {
    "zone": lambda t: t.isoformat(),
    "Z": lambda t: f"{t:%Y-%m-%dT%H:%M:%S.%f}Z",
    "none": lambda t: f"{t:%Y-%m-%d %H:%M:%S.%f}",
    "tokyo": lambda t: t.astimezone(timezone(timedelta(hours=9))).isoformat(),
}


class TestTime:
    @pytest.mark.parametrize("spelling", SPELLINGS)
    @pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
    def test_spellings(self, tmp_path, expected, form, spelling):
        frame = rows()
        frame["event_time"] = frame["event_time"].map(SPELLINGS[spelling]).astype("string")
        write(frame, tmp_path / "log" / f"a.{form}", form)
        same(read(tmp_path / "log", form=form), expected)

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    @pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
    def test_parquet_units_and_zones(self, tmp_path, unit, zone):
        frame = rows()
        frame["event_time"] = frame["event_time"].dt.floor("s")
        write(frame, tmp_path / "a" / "a.parquet", "parquet")
        time = pa.array(frame["event_time"].dt.tz_localize(None)).cast(pa.timestamp(unit))
        table = pa.Table.from_pandas(frame, preserve_index=False)
        column = time if zone is None else pa.array(frame["event_time"]).cast(pa.timestamp(unit, zone))
        table = table.set_column(table.schema.get_field_index("event_time"), "event_time", column)
        (tmp_path / "b").mkdir()
        pq.write_table(table, tmp_path / "b" / "a.parquet")
        same(read(tmp_path / "b"), read(tmp_path / "a"))

    def test_windows_are_half_open_and_share_nothing(self, tmp_path):
        frame = rows(2).assign(event_time=pd.to_datetime([START, START + DAY], utc=True))
        write(frame, tmp_path / "log" / "a.parquet", "parquet")
        assert list(read(tmp_path / "log").frame["event_id"]) == ["000"]
        assert list(read(tmp_path / "log", WINDOW.shifted(1)).frame["event_id"]) == ["001"]
        assert read(tmp_path / "log", WINDOW.shifted(-1)).frame.empty

    def test_numbers_are_no_times(self, tmp_path):
        write(rows().assign(event_time=1_706_745_600), tmp_path / "log" / "a.parquet", "parquet")
        assert read(tmp_path / "log").set_aside == {"bad_event_time": 48}


class TestFaults:
    def test_each_row_counts_once_under_its_first_fault(self, tmp_path):
        frame = rows().astype({"load": object, "prediction": object, "event_id": object})
        frame.loc[0, "event_id"] = None
        frame.loc[0, "load"] = "broken"
        frame.loc[1, ["load", "prediction"]] = ["broken", None]
        frame.loc[2, "load"] = float("inf")
        frame.loc[3, "prediction"] = 7.0
        write(frame, tmp_path / "log" / "a.jsonl", "jsonl")
        records = read(tmp_path / "log", form="jsonl")
        assert records.set_aside == {
            "event_id_missing": 1,
            "wrong_type:load": 1,
            "infinite:load": 1,
            "prediction_not_a_probability": 1,
        }
        assert len(records.frame) + sum(records.set_aside.values()) == 48

    @pytest.mark.parametrize("value", [[1], {"a": 1}, 5, 5.5])
    def test_json_values_that_are_no_text(self, tmp_path, value):
        frame = rows().assign(site=pd.Series([value, *["here"] * 47], dtype=object))
        path = tmp_path / "log" / "a.jsonl"
        path.parent.mkdir()
        lines = frame.assign(event_time=frame["event_time"].astype(str), load=1.0).to_dict("records")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert read(tmp_path / "log", form="jsonl").set_aside == {"wrong_type:site": 1}

    @pytest.mark.parametrize("value", [[1], {"a": 1}, "five", ""])
    def test_json_values_that_are_no_number(self, tmp_path, value):
        path = tmp_path / "log" / "a.jsonl"
        path.parent.mkdir()
        line = {"event_id": "1", "event_time": "2024-02-01", "load": value, "site": "x", "prediction": 0.5}
        path.write_text(json.dumps(line) + "\n")
        assert read(tmp_path / "log", form="jsonl").set_aside == {"wrong_type:load": 1}

    def test_truth_values_and_whole_numbers_are_numbers(self, tmp_path):
        write(rows().assign(load=[True, False] * 24), tmp_path / "log" / "a.parquet", "parquet")
        assert set(read(tmp_path / "log").frame["load"]) == {0.0, 1.0}

    def test_regression_predictions_have_no_bounds(self, tmp_path):
        write(rows().assign(prediction=-40.0), tmp_path / "log" / "a.parquet", "parquet")
        assert read(tmp_path / "log", task="regression").set_aside == {}
        assert read(tmp_path / "log").set_aside == {"prediction_not_a_probability": 48}

    def test_rows_of_another_model_version(self, tmp_path):
        columns = LogColumns(model_version="version")
        write(rows().assign(version=[1, 2] * 24), tmp_path / "log" / "a.parquet", "parquet")
        records = read(tmp_path / "log", columns=columns, version="2")
        assert records.set_aside == {"other_model_version": 24}
        assert list(records.frame["event_id"]) == list(rows()["event_id"][1::2])

    def test_weights(self, tmp_path):
        weights = [2.0, 0.0, -1.0, None, np.inf, *[1.5] * 43]
        write(rows().assign(w=weights), tmp_path / "log" / "a.parquet", "parquet")
        records = read(tmp_path / "log", columns=LogColumns(weight="w"))
        assert records.set_aside == {"bad_weight": 3}
        assert list(records.frame["weight"][:2]) == [2.0, 1.0]  # a row without weight counts as itself

    def test_columns_that_are_not_asked_for_do_not_matter(self, tmp_path, expected):
        write(rows().assign(other="x", password="y"), tmp_path / "log" / "a.parquet", "parquet")
        same(read(tmp_path / "log"), expected)

    def test_column_missing(self, tmp_path, expected):
        write(rows(), tmp_path / "log" / "a.parquet", "parquet")
        write(rows().drop(columns="site"), tmp_path / "log" / "b.parquet", "parquet")
        records = read(tmp_path / "log")
        assert records.set_aside == {"column_missing:site": 48}
        pd.testing.assert_frame_equal(records.frame, expected.frame)
        assert read(tmp_path / "log", WINDOW.shifted(1)).set_aside.get("column_missing:site", 0) == 0

    def test_key_column_missing(self, tmp_path):
        write(rows().drop(columns="prediction"), tmp_path / "log" / "a.parquet", "parquet")
        with pytest.raises(SchemaError, match=r"no file of \[2024-02-01T00:00:00Z, .* has the column 'prediction'"):
            read(tmp_path / "log")


class TestDuplicates:
    def test_one_of_each_stays(self, tmp_path, expected):
        write(pd.concat([rows(), rows().head(10), rows().head(3)]), tmp_path / "log" / "a.parquet", "parquet")
        records = read(tmp_path / "log")
        assert records.set_aside == {"duplicate": 13}
        pd.testing.assert_frame_equal(records.frame, expected.frame)

    def test_the_same_id_at_another_time_is_another_event(self, tmp_path):
        """So that windows stay additive: a day drops what its hours drop."""
        frame = rows().assign(event_id="same")
        write(frame, tmp_path / "log" / "a.parquet", "parquet")
        assert len(read(tmp_path / "log").frame) == 48

    def test_hours_drop_what_the_day_drops(self, tmp_path):
        frame = pd.concat([rows(), rows().sample(20, random_state=1), rows().sample(9, random_state=2)])
        frame.iloc[:5, frame.columns.get_loc("prediction")] = 2.0
        write(frame, tmp_path / "log" / "a.parquet", "parquet")
        whole = read(tmp_path / "log")
        hours = [read(tmp_path / "log", hour) for hour in split(START, START + DAY, HOUR)]
        assert sum((Counter(h.set_aside) for h in hours), Counter()) == whole.set_aside
        pd.testing.assert_frame_equal(pd.concat([h.frame for h in hours], ignore_index=True), whole.frame)
