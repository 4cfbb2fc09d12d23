"""A model of another scikit-learn than ours: its environment is made by uv, once, and its rows are explained there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from judging import FIRST, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # libraries come from the package index

SCIKIT_LEARN = "1.7.2"
REQUIREMENTS = (f"mlflow-skinny=={version('mlflow-skinny')}", f"scikit-learn=={SCIKIT_LEARN}", "numpy<2", "pandas<3")
UV = (sys.executable, "-m", "uv")
_TRAIN = """
import sys
import mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

rows = pd.read_parquet(sys.argv[1])
label = (rows["hour"] + rows["load"] / 10 + 5 * (rows["site"] == "north") > 20).astype(int)
encoder = ColumnTransformer(
    [("k", OneHotEncoder(handle_unknown="ignore"), ["site", "kind"])], remainder="passthrough", sparse_threshold=0
)
features = ["hour", "load", "temp", "site", "kind"]
model = make_pipeline(encoder, HistGradientBoostingClassifier(max_iter=10, max_depth=3)).fit(rows[features], label)
kinds = [ColSpec("string" if f in ("site", "kind") else "double", f) for f in features]
mlflow.sklearn.save_model(
    model, sys.argv[2], signature=ModelSignature(Schema(kinds)), pip_requirements=sys.argv[3:],
    serialization_format="cloudpickle",
)
"""
_MAKE = """
import sys
from pathlib import Path
from whydrift.pipelines.environments import interpreter
print(interpreter(Path(sys.argv[1])))
"""


@pytest.fixture
def folder(project, tmp_path):
    """A model that was trained with its own scikit-learn, as MLflow saved it."""
    python = tmp_path / "training" / "bin" / "python"
    for command in (
        ["venv", "--python", sys.executable, tmp_path / "training"],
        ["pip", "install", "--python", python, *REQUIREMENTS, "pyarrow<26"],
    ):
        subprocess.run([*UV, *command, "--quiet"], check=True)
    log = project.log_file(FIRST)
    subprocess.run([python, "-W", "ignore", "-c", _TRAIN, log, tmp_path / "model", *REQUIREMENTS], check=True)
    return tmp_path / "model"


@pytest.fixture
def registered(own_registry, folder):
    """The project of that model."""
    import mlflow

    client = mlflow.MlflowClient(own_registry.tracking_uri, own_registry.tracking_uri)
    artifacts = (own_registry.folder / "artifacts").as_uri()
    run = client.create_run(client.create_experiment("old", artifact_location=artifacts))
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model("old")
    client.create_model_version("old", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias("old", "champion", "1")
    own_registry.configure(model={"name": "old"}, explainer={"environment": "model", "background_rows": 5})
    return own_registry


def test_a_model_is_explained_with_the_libraries_that_it_records(registered, folder, tmp_path, monkeypatch):
    assert version("scikit-learn") != SCIKIT_LEARN
    environments = tmp_path / "cache" / "whydrift" / "environments"
    monkeypatch.setenv("XDG_CACHE_HOME", str(environments.parents[1]))
    monkeypatch.setenv("UV_CACHE_DIR", _uv_cache())

    jobs = [subprocess.Popen([sys.executable, "-c", _MAKE, folder], stdout=subprocess.PIPE) for _ in range(2)]
    pythons = {Path(job.communicate(timeout=240)[0].decode().strip()) for job in jobs}
    assert len(pythons) == 1
    (place,) = (path for path in environments.iterdir() if path.suffix != ".lock")
    assert pythons == {place / "bin" / "python"}
    (packages,) = place.glob("lib/python*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    assert {"sklearn", f"scikit_learn-{SCIKIT_LEARN}.dist-info", "shap", "pyarrow"} <= installed
    assert not {"whydrift", "prometheus_client", "jinja2", "evidently", "matplotlib", "sqlalchemy"} & installed

    made = place.stat()
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    baseline = registered.run("baseline")
    assert baseline.code == 0, baseline.err
    (manifest,) = registered.folder.glob(f"artifacts/{run_id(registered)}/**/whydrift/baseline/manifest.json")
    explainer = json.loads(manifest.read_text())["explainer"]
    assert explainer["name"] == "trees:path_dependent"
    assert explainer["parameters"]["sklearn"] == SCIKIT_LEARN
    assert f"scikit-learn {SCIKIT_LEARN}" in explainer["parameters"]["environment"]
    soundness = json.loads(manifest.with_name("soundness.json").read_text())
    assert soundness["agreement"]["method"] == "permutation"

    assert registered.window("profile", FIRST).code == 0
    verdict = judged(registered.window("assess", FIRST, "--format", "json"))
    streams = {finding["stream"] for finding in verdict["findings"] if finding["status"] == "page"}
    assert not {"explainer_digest", "golden_output", "golden_attribution", "additivity"} & streams
    now = place.stat()
    assert (now.st_ino, now.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert [path for path in environments.iterdir() if path.suffix != ".lock"] == [place]


def run_id(project):
    import mlflow

    client = mlflow.MlflowClient(project.tracking_uri, project.tracking_uri)
    return client.get_model_version("old", "1").run_id


def _uv_cache():
    """uv's own, which the change of XDG_CACHE_HOME would hide."""
    found = subprocess.run([*UV, "cache", "dir"], capture_output=True, text=True, check=True, env=os.environ)
    return found.stdout.strip()
