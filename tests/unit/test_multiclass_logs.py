"""What a multiclass model's configuration, log and labels may say, and what is set aside."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from whydrift.pipelines import config as configuration
from whydrift.pipelines.errors import ConfigError, SchemaError
from whydrift.pipelines.sections import InferenceLog, Labels, LogColumns, Model
from whydrift.pipelines.sources.records import gather, read_predictions, with_predictions
from whydrift.pipelines.sources.table import TableSource, read_labels
from whydrift.pipelines.window import Window

START = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(days=1))
CLASSES = ("calm", "busy", "7")
COLUMNS = ("p_calm", "p_busy", "p_7")
MODEL = Model(name="m", task="multiclass", classes=CLASSES)


def probabilities(rows=6):
    weight = np.random.default_rng(0).uniform(0.1, 1, (rows, 3))
    return weight / weight.sum(axis=1, keepdims=True)


def frame(p):
    return pd.DataFrame(
        {
            "event_id": [f"e{i}" for i in range(len(p))],
            "event_time": [START + timedelta(minutes=i) for i in range(len(p))],
            "load": np.arange(len(p), dtype=float),
            **dict(zip(COLUMNS, p.T, strict=True)),
        }
    )


def read(folder, raw, *, columns=COLUMNS, form="parquet"):
    if form == "parquet":
        pq.write_table(pa.Table.from_pandas(raw, preserve_index=False), folder / "a.parquet")
    elif form == "csv":
        raw.to_csv(folder / "a.csv", index=False)
    else:
        rows = raw.to_dict("records")
        (folder / "a.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    log = InferenceLog(path=str(folder), format=form, columns=LogColumns(prediction=columns))
    return gather(TableSource(log, model=MODEL, version="1").batches(WINDOW, {"load": "number"}))


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_column_for_each_class(tmp_path, form):
    p = probabilities()
    found = read(tmp_path, frame(p), form=form)
    assert found.set_aside == {}
    np.testing.assert_allclose(read_predictions(found.frame, CLASSES), p, rtol=1e-12)
    again = with_predictions(found.frame, p[:, ::-1], CLASSES)
    np.testing.assert_array_equal(read_predictions(again, CLASSES), p[:, ::-1])


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_one_column_of_lists(tmp_path, form):
    p = probabilities()
    lists = [*p.tolist()[:4], [0.5, 0.5], None]
    found = read(tmp_path, frame(p).assign(scores=lists), columns="scores", form=form)
    np.testing.assert_array_equal(read_predictions(found.frame, CLASSES), p[:4])
    assert found.set_aside == {"bad_prediction": 2}


def test_probabilities_that_are_none_are_set_aside_and_counted(tmp_path):
    p = probabilities(9)
    p[0] = [np.nan, 0.5, 0.5]
    p[1] = [np.inf, 0.0, 0.0]
    p[2] = [-0.1, 0.6, 0.5]
    p[3] = [0.5, 0.3, 0.1]
    p[4] = [0.5, 0.3, 0.2009]  # as rounding makes it
    p[5] = [1.0, 0.0, 0.0]
    found = read(tmp_path, frame(p))
    assert found.set_aside == {
        "bad_prediction": 2,
        "prediction_not_a_probability": 1,
        "predictions_do_not_sum_to_1": 1,
    }
    assert found.frame["event_id"].tolist() == ["e4", "e5", "e6", "e7", "e8"]


def test_text_for_a_probability(tmp_path):
    raw = frame(probabilities()).astype({"p_busy": object})
    raw.loc[2, "p_busy"] = "high"
    assert read(tmp_path, raw, form="csv").set_aside == {"bad_prediction": 1}


def test_a_column_that_no_file_has(tmp_path):
    with pytest.raises(SchemaError, match="p_busy"):
        read(tmp_path, frame(probabilities()).drop(columns="p_busy"))


def test_labels_are_names_of_classes(tmp_path):
    names = ["busy", "calm", 7, 7.0, "7", "gone", None, "Calm"]
    rows = [
        {"event_id": f"e{i}", "label": name, "label_time": (START + timedelta(hours=1)).isoformat()}
        for i, name in enumerate(names)
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_labels(Labels(path=str(tmp_path), format="jsonl"), WINDOW.start, WINDOW.end, CLASSES)
    assert dict(zip(found.frame["event_id"], found.frame["label"], strict=True)) == {
        "e0": 1.0, "e1": 0.0, "e2": 2.0, "e3": 2.0, "e4": 2.0,
    }  # fmt: skip
    assert found.set_aside == {"label_of_no_class": 2, "bad_label": 1}


def settings(**sections):
    content = {
        "model": {"name": "m", "task": "multiclass", "classes": list(CLASSES)},
        "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
        "inference_log": {"path": "logs", "columns": {"prediction": list(COLUMNS)}},
        "labels": {"path": "labels"},
        "baseline": {"start": "2024-01-01", "end": "2024-02-01"},
        "store": "store",
        "outputs": "outputs",
    }
    for name, value in sections.items():
        content[name] = {**content.get(name, {}), **value} if isinstance(value, dict) else value
    return yaml.safe_dump(content)


def load(folder, text):
    path = folder / "c.yaml"
    path.write_text(text)
    return configuration.load(path)


def test_a_multiclass_configuration(tmp_path):
    config = load(tmp_path, settings())
    assert config.model.classes == CLASSES
    assert config.inference_log.columns.prediction == COLUMNS
    assert load(tmp_path, settings(inference_log={"columns": {"prediction": "scores"}})).model.classes == CLASSES
    assert config.digest() != load(tmp_path, settings(model={"classes": ["calm", "7", "busy"]})).digest()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"classes": []}}, "three or more"),
        ({"model": {"classes": ["a", "b"]}}, "two are a binary task"),
        ({"model": {"classes": ["a", "b", "a"]}}, "each named once"),
        ({"model": {"task": "binary"}}, "a binary model has none"),
        ({"model": {"classes": ["a", "b", "c", "d"]}}, "3 columns for 4 classes"),
        ({"inference_log": {"format": "csv", "columns": {"prediction": "scores"}}}, "CSV has no lists"),
        ({"slice_search": {"max_columns": 3}}, "slice_search: not supported for model.task multiclass"),
        ({"fairness": {"columns": ["load"]}}, "rates need model.task binary"),
        ({"expectations": [{"no_single_feature_above": 0.9}]}, "expectations: not supported"),
        ({"labels": {"columns": {"audit": "chance"}}}, "labels.columns.audit: not supported"),
    ],
)
def test_what_is_refused_is_named(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, settings(**sections))


def test_other_tasks_have_one_prediction(tmp_path):
    with pytest.raises(ConfigError, match="a regression model has one column"):
        load(tmp_path, settings(model={"task": "regression", "classes": []}))
