"""A PyTorch model through the command line: MLflow's own flavour, a baseline, a window, and what a shift does."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from scipy.special import expit
from torch import nn

from whydrift.pipelines.cli import main
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.registry import Registry

DAY = timedelta(days=1)
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
FEATURES = ["load", "temp", "wind"]
ROWS = 120


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))


def register(uri, model):
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    folder = uri.removeprefix("sqlite:///").rpartition("/")[0]
    experiment = client.create_experiment("training", artifact_location=f"file://{folder}/artifacts")
    signature = ModelSignature(inputs=Schema([ColSpec("double", name) for name in FEATURES]))
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.pytorch.log_model(
            model, name="model", signature=signature, pip_requirements=["torch"], serialization_format="pickle"
        )
    version = mlflow.register_model(logged.model_uri, "grid")
    client.set_registered_model_alias("grid", "champion", version.version)
    mlflow.set_registry_uri("")


def write_day(folder, day, wind=0.0):
    rng = np.random.default_rng(day.toordinal())
    rows = pd.DataFrame(rng.normal(rng.normal(0, 0.1, 3), size=(ROWS, 3)), columns=FEATURES)
    rows["wind"] += wind
    with torch.no_grad():
        score = network().eval()(torch.tensor(rows.to_numpy(np.float32))).numpy()[:, 0]
    rows["prediction"] = expit(score.astype(float))
    rows["event_id"] = [f"{day:%F}-{i}" for i in range(ROWS)]
    rows["event_time"] = pd.Series([day + i * timedelta(minutes=10) for i in range(ROWS)]).astype("datetime64[us, UTC]")
    path = folder / "logs" / f"day={day:%F}" / "part.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A registered network with its logs and its baseline."""
    folder = tmp_path_factory.mktemp("grid")
    uri = f"sqlite:///{folder}/mlflow.db"
    register(uri, network())
    for i in range(33):
        write_day(folder, START + i * DAY, wind=3.0 if i == 32 else 0.0)
    config = {
        "model": {"name": "grid", "task": "binary"},
        "mlflow": {"tracking_uri": uri},
        "window": {"every": "1d", "min_rows": 100},
        "inference_log": {"path": "logs", "partition": "day=%Y-%m-%d"},
        "explainer": {"method": "deep_lift", "background_rows": 20},
        "baseline": {"start": f"{START:%F}", "end": f"{END:%F}"},
        "store": "store",
        "outputs": "outputs",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whydrift", "baseline", "--config", str(folder / "config.yaml")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    yield SimpleNamespace(folder=folder, uri=uri)
    mlflow.set_registry_uri("")


def test_windows_of_a_network(project, commandline):
    for i in (31, 32):
        day = START + i * DAY
        ended = commandline(
            "run", "--config", str(project.folder / "config.yaml"),
            "--start", f"{day:%F}", "--end", f"{day + DAY:%F}",
        )  # fmt: skip
        assert ended.code in {0, 1}, ended.err
    still, moved = (
        json.loads(
            next((project.folder / "store").glob(f"grid/v1/*/{START + i * DAY:%Y%m%d}T*/verdict.json")).read_text()
        )
        for i in (31, 32)
    )
    for verdict in (still, moved):
        assert verdict["soundness"]["explainer"] == "captum:deep_lift"
        assert verdict["soundness"]["agreement"]["method"] == "permutation"
        assert verdict["soundness"]["not_additive"] == 0
        assert not [f for f in verdict["findings"] if f["stream"] in {"additivity", "prediction_differs"}]
    assert still["status"] == "ok"
    assert [f for f in moved["findings"] if f["feature"] == "wind"]


def test_the_flavour_is_loaded_as_a_module_or_says_what_to_install(project, monkeypatch):
    registry = Registry(project.uri)
    version = registry.resolve("grid", "champion")
    model = registry.load(version)
    assert isinstance(model.native, nn.Module)
    assert model.features == dict.fromkeys(FEATURES, "number")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"cannot be loaded.*pip install 'whydrift\[neural\]'"):
        registry.load(version)
