"""Write the demo's inference logs and labels: three months of flights, with one real incident's kind of fault.

    python demo/data.py --config configs/flights.yaml

The champion that demo/train.py registered is asked about every flight from 1 March to 31 May 2013. One fault is
ours: from 2013-05-12T00:00Z on, the weather feed of Newark (EWR) is null, and the champion predicts from what it
got. Everything else happened: late April is the week in which furloughs of air traffic controllers delayed flights
that weather and schedule could not explain.

The same parameters give the same bytes. A finished run is not repeated, so that the log keeps what was served when
the champion later changes; --force writes it anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from flights import FEATURES, STRINGS, WEATHER, as_categories, load

from whydrift.pipelines import config as configuration
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError, ModelError, WhyDriftError
from whydrift.pipelines.sections import InferenceLog, Labels

LOG_START = datetime(2013, 3, 1, tzinfo=UTC)
LOG_END = datetime(2013, 6, 1, tzinfo=UTC)
INCIDENT_START = datetime(2013, 5, 12, tzinfo=UTC)
INCIDENT_ORIGIN = "EWR"
MARKER = "_finished.json"  # readers of Parquet folders pass over names with an underscore
DAY = "day=%Y-%m-%d"
_TIME = pa.timestamp("us", "UTC")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the demo's inference logs and labels.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the monitored model")
    parser.add_argument("--force", action="store_true", help="write again what is already there")
    options = parser.parse_args(arguments)
    try:
        write(configuration.load(options.config), force=options.force)
    except WhyDriftError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write(config: Config, *, end: datetime = LOG_END, incident: bool = True, force: bool = False) -> None:
    """Write logs and labels to where the config points, and last of all the marker of a finished run."""
    if config.labels is None:
        raise ConfigError("labels: the demo writes them, and the config names no folder for them")
    log, labels = config.inference_log, config.labels
    marker, parameters = Path(log.path) / MARKER, _parameters(log, labels, end, incident=incident)
    if not force and Path(labels.path).exists() and marker.exists() and marker.read_bytes() == parameters:
        print(f"already written: {log.path}", file=sys.stderr)
        return
    model = load_champion(config)
    flights = load(LOG_START, end)
    flights = served(flights) if incident else flights
    flights["prediction"] = predict(model, flights)
    marker.unlink(missing_ok=True)
    _write_days(log_table(flights, log), log.columns.event_time, Path(log.path), log.partition or DAY)
    outcomes = label_table(flights, labels)
    _write_days(outcomes, labels.columns.label_time, Path(labels.path), DAY)
    _replace(marker, parameters)
    print(f"{len(flights)} predictions in {log.path}, {outcomes.num_rows} labels in {labels.path}", file=sys.stderr)


def served(flights: pd.DataFrame) -> pd.DataFrame:
    """The features as the model got them: with the weather of one airport null from the incident on."""
    hit = (flights["event_time"] >= INCIDENT_START) & (flights["origin"] == INCIDENT_ORIGIN)
    return flights.assign(**{name: flights[name].mask(hit) for name in WEATHER})


def load_champion(config: Config) -> Any:
    """The XGBoost model that `model.alias` names.

    Raises:
        ModelError: there is none yet.
    """
    import mlflow.xgboost

    uri = f"models:/{config.model.name}@{config.model.alias}"
    mlflow.set_tracking_uri(config.mlflow.tracking_uri)
    try:
        return mlflow.xgboost.load_model(uri)
    except mlflow.MlflowException as error:
        raise ModelError(f"{uri}: cannot be loaded; run demo/train.py first ({error})") from error


def predict(model: Any, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Probability of arriving late, float64 of shape (rows,)."""
    booster = model.get_booster()
    stored = booster.get_categories(export_to_arrow=True).to_arrow()
    categories = {name: values.to_pylist() for name, values in stored if values is not None}
    rows = as_categories(frame[booster.feature_names], categories)
    return np.asarray(model.predict_proba(rows)[:, 1], dtype=np.float64)


def log_table(flights: pd.DataFrame, log: InferenceLog) -> pa.Table:
    """The inference log: id, time, features, prediction; NaN becomes null."""
    names = log.columns
    fields = [(names.event_id, pa.string()), (names.event_time, _TIME)]
    fields += [(name, pa.string() if name in STRINGS else pa.float64()) for name in FEATURES]
    fields += [(names.prediction, pa.float64())]
    own = {"event_id": names.event_id, "event_time": names.event_time, "prediction": names.prediction}
    return pa.Table.from_pandas(flights.rename(columns=own), pa.schema(fields), preserve_index=False)


def label_table(flights: pd.DataFrame, labels: Labels) -> pa.Table:
    """Outcomes of the flights that arrived: id, 1 or 0, and when it became known, 20 to 40 hours after departure.

    The hour within that span is drawn from the event id, so that it is the same in every run.
    """
    arrived = flights[flights["late"].notna()]
    seconds = 20 * 3600 + np.array([crc32(name.encode()) % (20 * 3600) for name in arrived["event_id"]])
    names = labels.columns
    frame = pd.DataFrame({
        names.event_id: arrived["event_id"],
        names.label: arrived["late"],
        names.label_time: arrived["event_time"] + pd.to_timedelta(seconds, unit="s"),
    }).sort_values([names.label_time, names.event_id])  # fmt: skip
    types = [(names.event_id, pa.string()), (names.label, pa.float64()), (names.label_time, _TIME)]
    return pa.Table.from_pandas(frame, pa.schema(types), preserve_index=False)


def _write_days(table: pa.Table, time: str, folder: Path, partition: str) -> None:
    """One file a UTC day of the column `time`."""
    table = table.replace_schema_metadata(None)  # pandas' version is in it
    days = pc.floor_temporal(table[time], unit="day")
    for day in pc.unique(days).to_pylist():
        sink = pa.BufferOutputStream()
        pq.write_table(table.filter(pc.equal(days, day)), sink, compression="zstd")
        _replace(folder / day.strftime(partition) / "part-0.parquet", sink.getvalue().to_pybytes())


def _replace(path: Path, content: bytes) -> None:
    """Write whole or not at all: a reader meets the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _parameters(log: InferenceLog, labels: Labels, end: datetime, *, incident: bool) -> bytes:
    """What decides the bytes of the logs, besides the model that was champion when they were written."""
    facts = {
        "period": [LOG_START.isoformat(), end.isoformat()],
        "incident": [INCIDENT_ORIGIN, INCIDENT_START.isoformat()] if incident else None,
        "log": {"partition": log.partition, **log.columns.model_dump()},
        "labels": labels.columns.model_dump(),
    }
    return (json.dumps(facts, indent=2) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
