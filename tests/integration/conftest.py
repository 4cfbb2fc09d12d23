"""A small real project that the tests of the shell share: a model in MLflow, logs, labels, a baseline, a config.

The model is registered and its baseline made once a session, through the command line. A test gets a `project` with
its own logs, labels, store, outputs and MLflow experiment; `own_registry` adds an MLflow database of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from whydrift.pipelines.cli import main

BASELINE_START = datetime(2024, 1, 1, tzinfo=UTC)
BASELINE_END = datetime(2024, 2, 1, tzinfo=UTC)
LOG_END = datetime(2024, 2, 13, tzinfo=UTC)
DAY = timedelta(days=1)
ROWS = 250
NUMBERS = ("hour", "load", "temp")
STRINGS = ("site", "kind")
FEATURES = (*NUMBERS, *STRINGS)
SITES, KINDS = ["east", "north", "west"], ["long", "short"]
LOG_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        *((name, pa.float64()) for name in NUMBERS),
        *((name, pa.string()) for name in STRINGS),
        ("prediction", pa.float64()),
    ]
)
LABEL_SCHEMA = pa.schema(
    [("event_id", pa.string()), ("label", pa.float64()), ("label_time", pa.timestamp("us", "UTC"))]
)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    """A folder with everything that one monitored model needs."""

    folder: Path
    experiment: str
    commandline: Callable[..., Result]

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def tracking_uri(self) -> str:
        uri: str = self.settings()["mlflow"]["tracking_uri"]
        return uri

    def settings(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load(self.config.read_text())
        return content

    def configure(self, **sections: Any) -> None:
        """Replace keys of sections, or whole top-level values; None removes."""
        content = self.settings()
        for name, value in sections.items():
            if value is None:
                content.pop(name, None)
            elif isinstance(value, dict):
                content[name] = {**content.get(name, {}), **value}
            else:
                content[name] = value
        self.config.write_text(yaml.safe_dump(content, sort_keys=False))

    def run(self, command: str, *options: str) -> Result:
        """`whydrift <command> --config ...` in this process."""
        return self.commandline(command, "--config", str(self.config), *options)

    def window(self, command: str, day: datetime, *options: str, days: int = 1) -> Result:
        return self.run(command, "--start", f"{day:%F}", "--end", f"{day + days * DAY:%F}", *options)

    def process(self, command: str, *options: str) -> subprocess.Popen[str]:
        """The same through the installed console script."""
        script = Path(sys.executable).with_name("whydrift")
        return subprocess.Popen(
            [script, command, "--config", self.config, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def log_file(self, day: datetime, name: str = "part-0.parquet") -> Path:
        return self.folder / "logs" / f"day={day:%F}" / name

    def label_file(self, day: datetime) -> Path:
        return self.folder / "labels" / f"day={day:%F}" / "part-0.parquet"

    def edit_log(self, day: datetime, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
        """Change the day's frame, in place or by returning another."""
        frame = pq.read_table(self.log_file(day)).to_pandas()
        changed = change(frame)
        write_parquet(self.log_file(day), frame if changed is None else changed)

    def answer(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with the predictions that the model gives for its features."""
        return frame.assign(prediction=_predict(self.folder, frame))

    def verdict(self, day: datetime) -> dict[str, Any] | None:
        """The stored verdict of a day's window."""
        found = list(self.store.glob(f"meters/v*/*/{day:%Y%m%d}T000000Z_*/verdict.json"))
        assert len(found) <= 1
        return json.loads(found[0].read_text()) if found else None

    def tree(self) -> dict[str, bytes]:
        """All files of the store, scratch files included, by name; but no cached state, of which two are kept."""
        files = [p for p in sorted(self.store.rglob("*")) if p.is_file() and p.name != "state.json"]
        return {str(p.relative_to(self.store)): p.read_bytes() for p in files}

    def active_runs(self, day: datetime) -> list[Any]:
        """The complete MLflow runs of a day's window that are not deleted."""
        import mlflow

        client = mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        name = f"{day:%Y%m%d}T000000Z_{day + DAY:%Y%m%d}T000000Z"
        return list(client.search_runs([experiment.experiment_id], f"tags.`whydrift.window` LIKE '%{name}'"))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


@pytest.fixture(scope="session", autouse=True)
def _quiet_mlflow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def commandline(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run the command line in this process; no command may end but by SystemExit, and none by a bug."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["whydrift", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "internal error" not in caplog.text
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that projects are copied from. Read only."""
    folder = tmp_path_factory.mktemp("world")
    _register(folder, _training_rows())
    _write_logs(folder)
    config = {
        "model": {"name": "meters"},
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
        "window": {"every": "1d", "min_rows": 100},
        "inference_log": {"path": "logs", "partition": "day=%Y-%m-%d"},
        "labels": {"path": "labels", "partition": "day=%Y-%m-%d", "mature_after": "2d"},
        "baseline": {"start": f"{BASELINE_START:%F}", "end": f"{BASELINE_END:%F}"},
        "slices": ["site"],
        "groups": {"weather": ["temp", "load"]},
        "loss_attribution": {"rows": 60},  # a quarter of a day's
        "job": {"owner": "energy"},
        "store": "store",
        "outputs": "outputs",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    _succeed("baseline", "--config", str(folder / "config.yaml"))
    return folder


@pytest.fixture(scope="session")
def finished(world: Path) -> Path:
    """The world with `store` and `outputs` of its first four windows, backfilled without disturbance. Read only."""
    period = ["--start", f"{BASELINE_END:%F}", "--end", f"{BASELINE_END + 4 * DAY:%F}"]
    _succeed("backfill", "--config", str(world / "config.yaml"), *period)
    return world


@pytest.fixture
def project(world: Path, tmp_path: Path, commandline: Callable[..., Result]) -> Project:
    """A project of the test's own that shares the session's MLflow database."""
    for name in ("logs", "labels"):
        shutil.copytree(world / name, tmp_path / name)
    for name in ("config.yaml", "model.ubj"):
        shutil.copy(world / name, tmp_path)
    made = Project(tmp_path, f"whydrift/{tmp_path.name}", commandline)
    made.configure(mlflow={"experiment": made.experiment})
    return made


@pytest.fixture
def own_registry(world: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with a copy of the MLflow database and artifacts, for tests that change models or baselines."""
    from mlflow.tracking._tracking_service import utils

    # MLflow remembers by a model's id where its artifacts are, whatever the database: it would write to the world's.
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())
    shutil.copytree(world / "artifacts", project.folder / "artifacts")
    database = project.folder / "mlflow.db"
    shutil.copy(world / "mlflow.db", database)
    _move(database, str(world), str(project.folder))
    project.configure(mlflow={"tracking_uri": f"sqlite:///{database}"})
    return project


def _succeed(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whydrift", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0


def _move(database: Path, old: str, new: str) -> None:
    """Make an MLflow database point to artifacts that were copied elsewhere."""
    with sqlite3.connect(database) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info('{table}')").fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    statement = f'UPDATE OR IGNORE "{table}" SET "{column}" = replace("{column}", ?, ?)'
                    connection.execute(f'{statement} WHERE "{column}" LIKE ?', (old, new, f"%{old}%"))
    connection.close()


def _training_rows() -> pd.DataFrame:
    return pd.concat([_rows(datetime(2023, 12, 1, tzinfo=UTC) + i * DAY) for i in range(12)], ignore_index=True)


def _rows(day: datetime) -> pd.DataFrame:
    """A day of requests with their true labels; days differ, as they do in the world."""
    rng = np.random.default_rng(day.toordinal())
    hour = np.sort(rng.uniform(0, 24, ROWS))
    temp = rng.normal(10 + rng.normal(0, 2), 5, ROWS)
    temp[rng.random(ROWS) < 0.05] = np.nan
    load = rng.gamma(2.0, 20 * np.exp(rng.normal(0, 0.1)), ROWS)
    site, kind = rng.choice(SITES, ROWS, p=[0.5, 0.3, 0.2]), rng.choice(KINDS, ROWS)
    logit = -1.5 + 0.08 * (hour - 12) + 0.02 * (load - 40) - 0.08 * np.nan_to_num(temp - 10) + (site == "north")
    frame = pd.DataFrame(
        {
            "event_id": [f"{day:%F}-{i:04d}" for i in range(ROWS)],
            "event_time": [day + timedelta(microseconds=int(h * 3.6e9)) for h in hour],
            "hour": np.floor(hour),
            "load": load,
            "temp": temp,
            "site": site,
            "kind": kind,
        }
    )
    frame["event_time"] = frame["event_time"].astype("datetime64[us, UTC]")
    frame["label"] = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(float)
    delay = rng.uniform(20, 40, ROWS)
    frame["label_time"] = frame["event_time"] + pd.to_timedelta(np.floor(delay * 3600), unit="s")
    return frame


def _model_input(rows: pd.DataFrame) -> pd.DataFrame:
    known = {"site": SITES, "kind": KINDS}
    columns = {k: rows[k].where(rows[k].isin(v)).astype(pd.CategoricalDtype(v)) for k, v in known.items()}
    return rows[list(FEATURES)].assign(**columns)


def _register(folder: Path, rows: pd.DataFrame) -> None:
    """Train, log and register the champion."""
    import mlflow
    import mlflow.xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=25, max_depth=3, enable_categorical=True, n_jobs=1, random_state=1)
    model.fit(_model_input(rows), rows["label"].astype(int))
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("training", artifact_location=(folder / "artifacts").as_uri())
    signature = ModelSignature(inputs=Schema([ColSpec("string" if f in STRINGS else "double", f) for f in FEATURES]))
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(model, name="meters", signature=signature, pip_requirements=["xgboost"])
    version = mlflow.register_model(logged.model_uri, "meters")
    client.set_registered_model_alias("meters", "champion", version.version)
    model.save_model(folder / "model.ubj")


def _predict(folder: Path, rows: pd.DataFrame) -> Any:
    from xgboost import XGBClassifier

    model = XGBClassifier(n_jobs=1)
    model.load_model(folder / "model.ubj")
    return model.predict_proba(_model_input(rows))[:, 1].astype(np.float64)


def _write_logs(folder: Path) -> None:
    """One file of requests a day, and one file of labels for each day of arrival."""
    days = [BASELINE_START + i * DAY for i in range((LOG_END - BASELINE_START) // DAY)]
    rows = pd.concat([_rows(day) for day in days], ignore_index=True)
    rows["prediction"] = _predict(folder, rows)
    for schema, time, name in ((LOG_SCHEMA, "event_time", "logs"), (LABEL_SCHEMA, "label_time", "labels")):
        for day, part in rows.groupby(rows[time].dt.strftime("%Y-%m-%d")):
            path = folder / name / f"day={day}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pandas(part[schema.names], schema, preserve_index=False), path)


os.environ.setdefault("MPLBACKEND", "agg")
