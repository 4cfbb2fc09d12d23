"""The gate through the command line: a twin passes, a worse model fails, and what cannot be judged never passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

NUMBERS, SITES, KINDS = ["hour", "load", "temp"], ["east", "north", "west"], ["long", "short"]
START = datetime(2024, 2, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PERIOD = ("--start", "2024-02-01", "--end", "2024-02-11")


def _frame(project: Any) -> pd.DataFrame:
    import pyarrow.parquet as pq

    rows = pq.read_table(project.folder / "logs", partitioning=None).to_pandas()
    labels = pq.read_table(project.folder / "labels", partitioning=None).to_pandas()
    joined = rows.merge(labels, on="event_id")
    for name, known in (("site", SITES), ("kind", KINDS)):
        joined[name] = joined[name].astype(pd.CategoricalDtype(known))
    return joined


@pytest.fixture
def candidate(own_registry: Any) -> Callable[..., Any]:
    """Registers version 2 as `challenger`, trained on January, and returns the project."""

    def register(*, trees: int = 25, spoil: bool = False, columns: tuple[str, ...] = ()) -> Any:
        import mlflow
        import mlflow.xgboost
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema
        from xgboost import XGBClassifier

        frame = _frame(own_registry)
        frame = frame[frame["event_time"] < START]
        label = frame["label"].astype(int)
        if spoil:
            label = label.sample(frac=1, random_state=0).reset_index(drop=True).to_numpy()
        model = XGBClassifier(n_estimators=trees, max_depth=3, enable_categorical=True, n_jobs=1, random_state=2)
        frame = frame.assign(**dict.fromkeys(columns, 1.0))
        model.fit(frame[[*NUMBERS, *columns, "site", "kind"]], label)
        schema = [ColSpec("double", n) for n in (*NUMBERS, *columns)] + [ColSpec("string", n) for n in ("site", "kind")]
        uri = own_registry.tracking_uri
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient(uri, uri)
        artifacts = (own_registry.folder / "artifacts").as_uri()
        experiment = client.create_experiment("candidates", artifact_location=artifacts)
        with mlflow.start_run(experiment_id=experiment):
            logged = mlflow.xgboost.log_model(
                model, name="meters", signature=ModelSignature(inputs=Schema(schema)), pip_requirements=["xgboost"]
            )
        version = mlflow.register_model(logged.model_uri, "meters")
        client.set_registered_model_alias("meters", "challenger", version.version)
        return own_registry

    return register


@pytest.mark.slow
def test_a_near_twin_passes_in_every_format(candidate):
    project = candidate()
    project.configure(gate={"max_brier_increase": 0.02, "max_smece_increase": 0.08, "max_slice_loss_ratio": 1.4})
    done = project.run("gate", *PERIOD, "--format", "json")
    assert done.code == 0, done.out
    result = done.json()
    assert result["passed"] is True
    assert result["candidate"] == "2"
    names = {check["name"] for check in result["checks"]}
    assert {"share_cosine", "brier_increase", "smece_increase", "loss_ratio:site=east"} <= names
    assert all(np.isfinite(check["bound"]) for check in result["checks"])
    # The oracle of the point estimates: scikit-learn's score on the same rows.
    from sklearn.metrics import brier_score_loss
    from xgboost import XGBClassifier

    champion = XGBClassifier(n_jobs=1)
    champion.load_model(project.folder / "model.ubj")
    rows = _frame(project)
    rows = rows[(rows["event_time"] >= START) & (rows["event_time"] < START + 10 * DAY)]
    import mlflow

    challenger = mlflow.xgboost.load_model("models:/meters/2")
    inputs = rows[[*NUMBERS, "site", "kind"]]
    scores = [brier_score_loss(rows["label"], m.predict_proba(inputs)[:, 1]) for m in (challenger, champion)]
    (brier,) = [check for check in result["checks"] if check["name"] == "brier_increase"]
    assert brier["value"] == pytest.approx(scores[0] - scores[1], abs=1e-6)


@pytest.mark.slow
def test_a_model_of_shuffled_labels_fails(candidate):
    project = candidate(spoil=True)
    done = project.run("gate", *PERIOD)
    assert done.code == 1
    assert done.out.startswith("gate failed: meters v2 against v1")
    junit = project.run("gate", *PERIOD, "--format", "junit")
    assert junit.code == 1
    suite = ET.fromstring(junit.out)
    assert int(suite.get("failures", 0)) == len(suite.findall("testcase/failure")) > 0
    github = project.run("gate", *PERIOD, "--format", "github")
    assert github.code == 1
    assert all(line.startswith("::error title=whydrift gate") for line in github.out.splitlines())
    assert len(github.out.splitlines()) <= 10


@pytest.mark.slow
def test_too_few_windows_is_no_pass(candidate):
    project = candidate()
    done = project.run("gate", "--start", "2024-02-01", "--end", "2024-02-04", "--format", "json")
    assert done.code == 3
    assert done.json()["passed"] is None
    assert "7 are needed" in json.dumps(done.json())


def test_the_champion_is_no_candidate_for_itself(project):
    done = project.run("gate", *PERIOD, "--candidate", "1")
    assert done.code == 2
    assert "which is the champion itself" in done.err


def test_a_gate_without_labels_is_a_configuration_error(project):
    project.configure(labels=None)
    done = project.run("gate", *PERIOD, "--candidate", "1")
    assert done.code == 2
    assert "labels" in done.err


@pytest.mark.slow
def test_a_candidate_with_columns_of_its_own_cannot_be_compared(candidate):
    done = candidate(columns=("wind",)).run("gate", *PERIOD)
    assert done.code == 3
    assert "ModelError: models:/meters/2 takes 'wind', which the champion does not" in done.err
