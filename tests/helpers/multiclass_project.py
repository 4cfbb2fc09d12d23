"""A small project of a model with three classes, whose labels are their names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

DAY = timedelta(days=1)
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
LOG_END = datetime(2024, 2, 13, tzinfo=UTC)
CLASSES = ["calm", "busy", "storm <b>"]
FEATURES = ["wind", "load", "hour", "site"]
COLUMNS = ["p_calm", "p_busy", "p_storm"]
SITES = ["east", "north", "west"]
ROWS = 300


def make_rows(day: datetime) -> pd.DataFrame:
    """A day of requests with their true labels; days differ, as they do in the world."""
    rng = np.random.default_rng(day.toordinal())
    wind = rng.gamma(2.0, 4 * np.exp(rng.normal(0, 0.05)), ROWS)
    load = rng.normal(50 + rng.normal(0, 2), 15, ROWS)
    load[rng.random(ROWS) < 0.04] = np.nan
    hour, site = np.sort(rng.uniform(0, 24, ROWS)), rng.choice(SITES, ROWS, p=[0.5, 0.3, 0.2])
    busy = 0.06 * (np.nan_to_num(load - 50)) + 0.1 * (hour - 12) * (site == "north")
    weight = np.exp(np.column_stack([np.zeros(ROWS), busy, 0.35 * (wind - 9)]))
    chance = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    frame = pd.DataFrame(
        {
            "event_id": [f"{day:%F}-{i:04d}" for i in range(ROWS)],
            "event_time": [day + timedelta(microseconds=int(h * 3.6e9)) for h in hour],
            "wind": wind,
            "load": load,
            "hour": np.floor(hour),
            "site": site,
        }
    )
    frame["event_time"] = frame["event_time"].astype("datetime64[us, UTC]")
    frame["class"] = (rng.random(ROWS)[:, None] > chance).sum(axis=1)
    frame["label"] = np.array(CLASSES)[frame["class"]]
    frame["label_time"] = frame["event_time"] + pd.to_timedelta(np.floor(rng.uniform(20, 40, ROWS) * 3600), unit="s")
    return frame


def model_input(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[FEATURES].assign(site=rows["site"].astype(pd.CategoricalDtype(SITES)))


def train(rounds=20):
    from xgboost import XGBClassifier

    rows = pd.concat([make_rows(datetime(2023, 12, 1, tzinfo=UTC) + i * DAY) for i in range(12)], ignore_index=True)
    model = XGBClassifier(n_estimators=rounds, max_depth=3, enable_categorical=True, n_jobs=1, random_state=1)
    return model.fit(model_input(rows), rows["class"])


def register(folder, model, *, alias="champion"):
    """Log and register a version of the model."""
    import mlflow
    import mlflow.xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)  # a test before this one may have left another
    client = mlflow.MlflowClient(uri, uri)
    known = client.get_experiment_by_name("training")
    experiment = (
        known.experiment_id
        if known is not None
        else client.create_experiment("training", artifact_location=(folder / "artifacts").as_uri())
    )
    signature = ModelSignature(inputs=Schema([ColSpec("string" if f == "site" else "double", f) for f in FEATURES]))
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(model, name="triage", signature=signature, pip_requirements=["xgboost"])
    version = mlflow.register_model(logged.model_uri, "triage")
    client.set_registered_model_alias("triage", alias, version.version)
    mlflow.set_registry_uri("")


def answer(model, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the model's probabilities."""
    predicted = model.predict_proba(model_input(rows)).astype(np.float64)
    return rows.assign(**dict(zip(COLUMNS, predicted.T, strict=True)))


def write_day(folder, model, rows: pd.DataFrame) -> None:
    """The log of a day of rows, and their labels in a file of their own."""
    rows = answer(model, rows)
    day = f"{rows['event_time'].min():%F}"
    for name, columns in (
        ("logs", ["event_id", "event_time", *FEATURES, *COLUMNS]),
        ("labels", ["event_id", "label", "label_time"]),
    ):
        path = folder / name / f"day={day}" / "part-0.parquet" if name == "logs" else folder / name / f"{day}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pandas(rows[columns], preserve_index=False), path)


def write_config(folder, **sections) -> None:
    config = {
        "model": {"name": "triage", "task": "multiclass", "classes": CLASSES},
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
        "window": {"every": "1d", "min_rows": 100},
        "inference_log": {"path": "logs", "partition": "day=%Y-%m-%d", "columns": {"prediction": COLUMNS}},
        "labels": {"path": "labels", "mature_after": "2d"},
        "baseline": {"start": f"{START:%F}", "end": f"{END:%F}"},
        "slices": ["site"],
        "groups": {"weather": ["wind", "hour"]},
        "loss_attribution": {"rows": 40},
        "store": "store",
        "outputs": "outputs",
        **sections,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
