"""How labels are configured and read: when they are complete, and with what chance they were drawn."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import yaml

from whydrift.pipelines import config as configuration
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.sections import Labels
from whydrift.pipelines.sources.table import read_labels

START = datetime(2026, 1, 1, tzinfo=UTC)


def load(tmp_path, **labels):
    content = {
        "model": {"name": "m"},
        "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
        "inference_log": {"path": "logs"},
        "labels": {"path": "labels", **labels},
        "baseline": {"start": "2026-01-01", "end": "2026-02-01"},
        "store": "store",
        "outputs": "outputs",
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return configuration.load(path)


def test_labels_are_complete_after_twice_the_time_to_mature(tmp_path):
    config = load(tmp_path, mature_after="36h")
    assert (config.label_lag, config.label_horizon) == (2, 3)
    assert load(tmp_path, mature_after="36h", complete_after="5d").label_horizon == 5


def test_labels_are_not_complete_before_they_are_mature(tmp_path):
    with pytest.raises(ConfigError, match="complete_after: must not be before mature_after"):
        load(tmp_path, mature_after="3d", complete_after="2d")


def test_the_chance_of_the_audit_is_read_and_checked(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    chances = [0.1, np.nan, 1.0, 0.0, 1.5, -0.1]
    rows = pd.DataFrame({"event_id": list("abcdef"), "label": 1.0, "label_time": START, "audit_chance": chances})
    rows.to_parquet(folder / "part-0.parquet")
    labels = Labels.model_validate({"path": str(folder), "columns": {"audit": "audit_chance"}})
    read = read_labels(labels, START, datetime(2026, 1, 2, tzinfo=UTC))
    assert read.frame["event_id"].tolist() == ["a", "b", "c"]
    assert read.frame["chance"].fillna(-1).tolist() == [0.1, -1, 1.0]
    assert read.set_aside == {"bad_label": 3}
    without = labels.model_copy(update={"columns": labels.columns.model_copy(update={"audit": None})})
    assert len(read_labels(without, START, datetime(2026, 1, 2, tzinfo=UTC)).frame) == 6
