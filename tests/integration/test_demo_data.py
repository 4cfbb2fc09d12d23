"""The demo's flights, logs, labels and models: what the documentation says of them is what the files hold."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from whydrift.pipelines import config as configuration

ROOT = Path(__file__).resolve().parents[2]
INCIDENT = pd.Timestamp("2013-05-12T00:00Z")
END = pd.Timestamp("2013-05-15T00:00Z")
REQUEST = {
    "model": "flights",
    "model_version": "1",
    "window_start": "2013-05-14T00:00:00Z",
    "window_end": "2013-05-15T00:00:00Z",
    "cause": "data_broken",
    "gate_start": "2013-04-29T00:00:00Z",
    "gate_end": "2013-05-13T00:00:00Z",
    "exclude_features": [],
    "run_id": "0123456789abcdef",
}


@pytest.fixture(scope="module")
def scripts():
    """The demo's modules, imported as the scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "demo"))
        yield {name: importlib.import_module(name) for name in ("flights", "data", "train")}
        for name in ("flights", "data", "train"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def config():
    return configuration.load(ROOT / "configs" / "flights.yaml")


@pytest.fixture(scope="module")
def flights(scripts):
    return scripts["flights"].load(scripts["data"].LOG_START, scripts["data"].LOG_END)


@pytest.fixture(scope="module")
def source(scripts):
    """The published table with local scheduled times, read without the demo's loader."""
    folder = scripts["flights"]._folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        table = pd.read_csv(archive.open(archive.namelist()[0]))
    weather = pd.read_csv(folder / "weather.csv")
    local = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    table["event_time"] = local.dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    table = table[table["event_time"].between("2013-03-01T00:00Z", "2013-06-01T00:00Z", inclusive="left")]
    # Joined on local date and hour, where the loader joins on the UTC hour.
    keys = ["origin", "year", "month", "day", "hour"]
    table = table.merge(weather.drop(columns="time_hour"), on=keys, how="left")
    clock = table["sched_dep_time"].map("{:04d}".format)
    date = pd.to_datetime(table[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    table["event_id"] = date + "-" + table["carrier"] + "-" + table["flight"].astype(str) + "-" + table["origin"]
    table["event_id"] += "-" + clock
    return table.set_index("event_id")


def test_event_ids_are_unique_and_stable(flights, source):
    assert flights["event_id"].is_unique
    assert set(flights["event_id"]) == set(source.index)
    assert flights["event_id"].str.fullmatch(r"2013-\d\d-\d\d-[A-Z0-9]{2}-\d+-(EWR|JFK|LGA)-\d{4}").all()


def test_event_times_are_the_local_schedule_in_utc(flights, source):
    expected = source.loc[flights["event_id"], "event_time"].to_numpy()
    np.testing.assert_array_equal(flights["event_time"].to_numpy(), expected)


def test_features_equal_the_source(scripts, flights, source):
    rows = source.loc[flights["event_id"]]
    for name in (*scripts["flights"].WEATHER, "distance", "hour"):
        np.testing.assert_array_equal(flights[name].to_numpy(), rows[name].to_numpy(dtype=float), err_msg=name)
    weekday = pd.to_datetime(rows[["year", "month", "day"]]).dt.day_name().to_numpy()
    assert set(flights.loc[weekday == "Monday", "dow"]) == {0.0}
    one = (rows["origin"] == "JFK") & (rows["month"] == 4) & (rows["day"] == 22) & (rows["hour"] == 8)
    assert set(flights.loc[one.to_numpy(), "departures"]) == {float(one.sum())}
    assert {str(flights[name].dtype) for name in scripts["flights"].NUMBERS} == {"float64"}


def test_nothing_known_after_departure_is_a_feature(scripts, flights, config):
    features = set(scripts["flights"].FEATURES)
    later = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "late", "label", "label_time"}
    assert not features & later
    logged = scripts["data"].log_table(flights.assign(prediction=0.5), config.inference_log).column_names
    assert logged == ["event_id", "event_time", *scripts["flights"].FEATURES, "prediction"]


def test_late_is_fifteen_minutes_and_unknown_for_flights_that_never_arrived(flights, source):
    delay = source.loc[flights["event_id"], "arr_delay"].to_numpy()
    late = flights["late"].to_numpy()
    np.testing.assert_array_equal(np.isnan(late), np.isnan(delay))
    np.testing.assert_array_equal(late == 1.0, delay >= 15)


def test_incident_is_exactly_where_it_is_documented(scripts, flights):
    got = scripts["data"].served(flights)
    weather = list(scripts["flights"].WEATHER)
    hit = (flights["event_time"] >= INCIDENT) & (flights["origin"] == "EWR")
    assert hit.any()
    assert got.loc[hit, weather].isna().all(axis=None)
    pd.testing.assert_frame_equal(got[~hit], flights[~hit])
    pd.testing.assert_frame_equal(got.drop(columns=weather), flights.drop(columns=weather))


def test_labels_come_later_in_two_days_and_only_for_flights_that_arrived(scripts, flights, config, source):
    labels = scripts["data"].label_table(flights, config.labels).to_pandas().set_index("event_id")
    assert labels.index.is_unique
    assert set(labels.index) == set(flights.loc[flights["late"].notna(), "event_id"])
    wait = labels["label_time"] - source.loc[labels.index, "event_time"]
    assert wait.min() >= pd.Timedelta(hours=20)
    assert wait.max() < pd.Timedelta(hours=40) < config.labels.mature_after
    assert wait.mean() == pytest.approx(pd.Timedelta(hours=30), abs=pd.Timedelta(minutes=10))
    # Nothing is reported before it happened: scheduled departure + delay + time in the air.
    rows = source.loc[labels.index]
    minutes = rows["dep_delay"] + rows["air_time"]
    assert (labels["label_time"] > rows["event_time"] + pd.to_timedelta(minutes, unit="min")).all()


def test_labels_do_not_hang_on_the_order_of_rows(scripts, flights, config):
    mixed = flights.sample(frac=1, random_state=1)
    table = scripts["data"].label_table
    assert table(mixed, config.labels).equals(table(flights, config.labels))


def test_tables_have_plain_types_and_nulls(scripts, flights, config):
    table = scripts["data"].log_table(flights.assign(prediction=0.5), config.inference_log)
    assert {table.schema.field(name).type for name in scripts["flights"].STRINGS} == {pa.string()}
    assert {table.schema.field(name).type for name in scripts["flights"].NUMBERS} == {pa.float64()}
    assert table.schema.field("event_time").type == pa.timestamp("us", "UTC")
    assert table["wind_gust"].null_count == flights["wind_gust"].isna().sum() > 0


def test_training_is_deterministic(scripts, flights):
    rows = flights[flights["late"].notna()].head(4000)
    raw = [scripts["train"].fit(rows, scripts["flights"].FEATURES).get_booster().save_raw() for _ in range(2)]
    assert raw[0] == raw[1]


def test_a_category_that_was_never_trained_on_counts_as_missing(scripts, flights):
    features = scripts["flights"].FEATURES
    model = scripts["train"].fit(flights[flights["late"].notna()].head(4000), features)
    rows = flights.head(500)[list(features)]
    unseen, missing = rows.assign(dest="XXX"), rows.assign(dest=pd.Series([None] * 500, dtype="str"))
    np.testing.assert_array_equal(scripts["data"].predict(model, unseen), scripts["data"].predict(model, missing))
    assert (scripts["data"].predict(model, rows) != scripts["data"].predict(model, unseen)).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a retraining request"),
        ("[]", "not a retraining request"),
        (json.dumps({**REQUEST, "model": "trains"}), "is for model 'trains'"),
        (json.dumps({**REQUEST, "exclude_features": ["dep_delay"]}), r"names \['dep_delay'\]"),
    ],
)
def test_bad_requests_are_refused(scripts, config, tmp_path, content, message):
    path = tmp_path / "request.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(scripts["train"].DataError, match=message):
        scripts["train"].read_request(path, config)


# From here on the scripts run as people run them, in a folder of their own.


def _run(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    command = [sys.executable, str(ROOT / "demo" / script), "--config", "../configs/flights.yaml", *arguments]
    return subprocess.run(
        command, cwd=folder / "cwd", env=environment, capture_output=True, text=True, check=False, timeout=200
    )


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _aliases(folder: Path) -> dict[str, int]:
    with sqlite3.connect(folder / ".demo" / "mlflow.db") as connection:
        return dict(connection.execute("select alias, version from registered_model_aliases where name = 'flights'"))


def _digests(folder: Path) -> dict[str, str]:
    files = [path for part in ("logs", "labels") for path in (folder / ".demo" / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def _model_files(folder: Path) -> set[Path]:
    return set((folder / ".demo" / "artifacts").rglob("MLmodel"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the first champion is registered and the logs are written."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "cwd").mkdir()
    (folder / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "flights.yaml", folder / "configs")
    early = _run(folder, "data.py")
    assert early.returncode == 3
    assert "ModelError: models:/flights@champion" in early.stderr
    assert _answer(_run(folder, "train.py")) == {"model": "flights", "version": "1", "alias": "champion"}
    done = _run(folder, "data.py")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def written(demo):
    """The inference log as any reader of Parquet sees it."""
    return pq.read_table(demo / ".demo" / "logs", partitioning=None).to_pandas()


@pytest.mark.slow
def test_champion_is_registered_once_in_native_format_with_raw_columns(demo, scripts):
    assert _answer(_run(demo, "train.py"))["version"] == "1"
    (path,) = _model_files(demo)
    model = yaml.safe_load(path.read_text())
    columns = {column["name"]: column["type"] for column in json.loads(model["signature"]["inputs"])}
    strings, numbers = scripts["flights"].STRINGS, scripts["flights"].NUMBERS
    assert columns == {**dict.fromkeys(strings, "string"), **dict.fromkeys(numbers, "double")}
    assert model["flavors"]["xgboost"]["model_class"] == "xgboost.sklearn.XGBClassifier"
    assert (path.parent / "model.ubj").exists()
    assert not [p for p in path.parent.rglob("*") if "pickle" in p.name or p.suffix == ".pkl"]
    assert _aliases(demo) == {"champion": 1}


@pytest.mark.slow
def test_log_has_every_day_and_only_its_own_rows(demo, written, flights):
    folders = sorted(path.name for path in (demo / ".demo" / "logs").iterdir() if path.is_dir())
    assert folders == [f"day={day:%Y-%m-%d}" for day in pd.date_range("2013-03-01", "2013-05-31")]
    for folder in folders:
        times = pq.read_table(demo / ".demo" / "logs" / folder / "part-0.parquet")["event_time"].to_pandas()
        assert set(times.dt.strftime("day=%Y-%m-%d")) == {folder}
    assert len(written) == len(flights)
    assert written["event_id"].is_unique


@pytest.mark.slow
def test_predictions_are_the_champions_on_what_it_was_served(demo, written):
    import xgboost

    (path,) = _model_files(demo)
    booster = xgboost.Booster(model_file=path.parent / "model.ubj")
    # XGBoost translates categories of any order itself, but refuses those that it never saw.
    trained = dict(booster.get_categories(export_to_arrow=True).to_arrow())["dest"].to_pylist()
    rows = written[written["dest"].isin(trained)]
    columns = rows[booster.feature_names].astype(dict.fromkeys(("origin", "carrier", "dest"), "category"))
    expected = booster.predict(xgboost.DMatrix(columns, enable_categorical=True))
    np.testing.assert_array_equal(rows["prediction"].to_numpy(dtype=np.float32), expected)
    assert 0 < len(written) - len(rows) < 1000


@pytest.mark.slow
def test_same_bytes_again(demo):
    first = _digests(demo)
    again = _run(demo, "data.py")
    assert "already written" in again.stderr
    assert _run(demo, "data.py", "--force").returncode == 0
    assert _digests(demo) == first


@pytest.mark.slow
def test_retraining_reads_what_was_served_and_known_by_then(demo, written, scripts):
    config = configuration.load(demo / "configs" / "flights.yaml")
    held_out = pd.Timestamp(REQUEST["gate_start"]), pd.Timestamp(REQUEST["gate_end"])
    rows = scripts["train"].labelled_rows(config, END.to_pydatetime(), held_out)
    labels = pq.read_table(demo / ".demo" / "labels", partitioning=None).to_pandas()
    written = written[~written["event_time"].between(*held_out, inclusive="left")]
    both = written[written["event_time"] < END].merge(labels[labels["label_time"] < END], on="event_id")
    assert len(rows) == len(both) > 50_000
    assert rows["late"].sum() == both["label"].sum()
    broken = both[(both["origin"] == "EWR") & (both["event_time"] >= INCIDENT)]
    # Where the whole feed is null, and nowhere else, humidity is null at Newark in these months.
    assert rows.loc[rows["origin"] == "EWR", "humid"].isna().sum() >= len(broken) > 100


@pytest.mark.slow
def test_retraining_registers_a_candidate_and_leaves_the_champion(demo):
    before = _model_files(demo)
    (demo / "request.json").write_text(json.dumps({**REQUEST, "exclude_features": ["wind_gust"]}), encoding="utf-8")
    answer = _answer(_run(demo, "train.py", "--request", "../request.json"))
    assert answer["alias"] == "challenger"
    assert _aliases(demo) == {"champion": 1, "challenger": int(answer["version"])}
    (path,) = _model_files(demo) - before
    names = [column["name"] for column in json.loads(yaml.safe_load(path.read_text())["signature"]["inputs"])]
    assert "wind_gust" not in names
    assert len(names) == 17
    # The retry of a task that was killed after it registered gets the same version.
    assert _answer(_run(demo, "train.py", "--request", "../request.json")) == answer


@pytest.mark.slow
def test_nothing_is_left_in_the_working_folder(demo):
    assert not list((demo / "cwd").iterdir())
    assert not list((demo / ".demo").rglob("*.tmp"))
