"""The reference period: made once a model version, approved by a person, kept on the model in MLflow.

    manifest.json        ids and digests of model, explainer, background and configuration; layout; approver
    summaries.parquet    the window summaries that the statistics were fitted on
    background.parquet   the rows that absent features come from
    cells.parquet        outcomes of the period by cells of slices and of scores, and when its labels came
    golden.parquet       rows with their attributions, which every profile replays through the live model
    soundness.json       how far the attributions can be trusted, measured on golden rows

Parquet and JSON only: nothing here executes on load.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from whydrift.monitors.evidence import MIN_BASELINE_WINDOWS
from whydrift.monitors.golden import Golden
from whydrift.monitors.reference import BaselineWindow
from whydrift.monitors.sampling import CAP
from whydrift.monitors.summary import SCHEMA, Layout, WindowSummary, merge
from whydrift.monitors.threshold import Calibrated
from whydrift.monitors.verdict import Soundness
from whydrift.pipelines.arriving import learn_arrivals
from whydrift.pipelines.calibrating import calibrate, read_calibrated
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import BaselineError, NoDataError
from whydrift.pipelines.explainers.protocol import Explainer
from whydrift.pipelines.fixing import explain_golden, fit_layout, read_golden
from whydrift.pipelines.period import Period, summarise_period
from whydrift.pipelines.registry import ModelVersion, Registry
from whydrift.pipelines.rows import (
    LogReader,
    Summariser,
    explainer_digest,
    learn_losses,
    learn_residuals,
    load_model,
    make_explainer,
    make_loss_explainer,
    make_predictor,
)
from whydrift.pipelines.searching import find_slices
from whydrift.pipelines.soundness import BACKGROUNDS, from_json, measure, to_json
from whydrift.pipelines.sources.records import Records, prediction_columns
from whydrift.pipelines.sources.table import ReadLabels, hold_labels
from whydrift.pipelines.window import Window, split

logger = logging.getLogger(__name__)

MANIFEST_VERSION = 3
GOLDEN_ROWS = 500
_EXPLAINED = 2000  # rows that show the output's scale and the range of each attribution
_CORRELATED = 20_000  # rows that show which features move together
DIFFERING = 0.01  # of the logged predictions, before it is worth a warning
_MANIFEST, _SUMMARIES, _CELLS, _BACKGROUND, _GOLDEN, _SOUNDNESS = (
    "manifest.json",
    "summaries.parquet",
    "cells.parquet",
    "background.parquet",
    "golden.parquet",
    "soundness.json",
)
_LAYOUT = TypeAdapter(Layout)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline as it is used: its id is the sha256 over its files' digests.

    `golden` is a sample of its rows with their answers. `usual_rows` are those of a usual window: the choice of an
    explainer hangs on them, and has to be the same for all windows.
    """

    id: str
    layout: Layout
    windows: tuple[BaselineWindow, ...]
    cells: WindowSummary
    background: pd.DataFrame
    usual_rows: int
    golden: Golden
    soundness: Soundness
    digests: dict[str, str]
    calibrated: Calibrated | None


def make(config: Config, registry: Registry, version: ModelVersion, *, approver: str) -> str:
    """Build the baseline of a model version from the configured period, store it, and return its id.

    The same rows, model and configuration give the same id.

    Raises:
        NoDataError: the period has no rows that fit the model's signature.
    """
    windows = list(split(config.baseline.start, config.baseline.end, config.window.every))
    model = load_model(config, registry, version)
    period = Period.read(LogReader(_whoever_served(config), version, model.features), windows)
    frame = period.frame
    if frame.empty:
        raise NoDataError(
            f"the reference period {config.baseline.start:%F} to {config.baseline.end:%F} has no row that fits the"
            f" signature of {version.uri}; {_why_none(config, period.set_aside)}"
        )
    background = _sample(frame, config.explainer.background_rows, salt="background")[list(model.features)]
    usual_rows = _usual_rows(config, period)
    explainer = make_explainer(config, model, background, usual_rows)
    few, many = _sample(frame, _EXPLAINED, salt="scale"), _sample(frame, _CORRELATED, salt="groups")
    layout = fit_layout(config, model, explainer, few, many, frame)
    losses = make_loss_explainer(config, model, background)
    summariser, summaries, period = summarise_period(
        config,
        Summariser(period.log, explainer, layout, model.digest, losses=losses, held=_hold_labels(config)),
        period,
        make_predictor(config, model, background),
    )
    cohorts = list(zip(windows, period.kept or (), strict=period.kept is not None))
    layout, cells = find_slices(config, summariser, summaries, cohorts)
    late = learn_losses(learn_residuals(replace(summariser, layout=layout), cohorts), cohorts)
    outcomes = [late.outcomes(*cohort) for cohort in cohorts] or [None] * len(windows)
    made = [
        BaselineWindow(window.start, summary, late)
        for window, summary, late in zip(windows, summaries, outcomes, strict=True)
    ]
    _warn(version, layout, len(windows), many, summariser.answer(Records(many, {})).frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        golden = explain_golden(_sample(frame, GOLDEN_ROWS, salt="golden")[list(model.features)], explainer)
        spare = _sample(frame, BACKGROUNDS * config.explainer.background_rows, salt="backgrounds")
        (path / _SOUNDNESS).write_bytes(
            to_json(measure(config, model, explainer, background, golden, spare, usual_rows))
        )
        _write_summaries(path / _SUMMARIES, made)
        (path / _CELLS).write_bytes(merge([cells, learn_arrivals(late, cohorts)]).to_bytes())
        for name, table in ((_BACKGROUND, background), (_GOLDEN, golden)):
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path / name, compression="zstd")
        digests = {"model": model.digest, "explainer": explainer_digest(explainer)}
        calibrated = calibrate(config, made, late.layout, digests)
        manifest = _manifest(config, version, explainer, late.layout, path, digests, calibrated, usual_rows)
        manifest["approved_by"] = approver
        (path / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        registry.log_baseline(version, path, manifest["id"])
    rows = sum(period.rows)
    logger.info("baseline %s of %s: %d windows, %d rows", manifest["id"][:16], version.uri, len(made), rows)
    return str(manifest["id"])


def _hold_labels(config: Config) -> ReadLabels | None:
    """The labels of the reference period and of the time in which they come."""
    if config.labels is None:
        return None
    late = max(config.label_lag, config.label_horizon) * config.window.every
    period = Window(config.baseline.start, config.baseline.end + late)
    return hold_labels(config.labels, period, config.model.classes)


def _usual_rows(config: Config, period: Period) -> int:
    """How many rows of a usual window are explained at most: of the median of the windows that have any."""
    median = int(np.median([rows for rows in period.rows if rows]))
    asked = {"all": median, "auto": CAP}.get(str(config.explainer.rows), config.explainer.rows)
    return min(median, int(asked))


def _whoever_served(config: Config) -> Config:
    """The configuration without the column that tells versions apart: the model itself answers these rows."""
    columns = config.inference_log.columns.model_copy(update={"model_version": None})
    return config.model_copy(update={"inference_log": config.inference_log.model_copy(update={"columns": columns})})


def _warn(version: ModelVersion, layout: Layout, windows: int, rows: pd.DataFrame, answered: pd.DataFrame) -> None:
    """Say what makes a baseline less than it could be; from some of its rows as logged and as answered."""
    if windows < MIN_BASELINE_WINDOWS:
        logger.warning("the baseline has %d windows; below %d nothing statistical pages", windows, MIN_BASELINE_WINDOWS)
    columns = prediction_columns([c.name for c in layout.classes])
    logged, own = (side[columns].to_numpy(float) for side in (rows, answered))
    unit = layout.scale if layout.task == "regression" else 1.0
    rate = float((np.abs(logged - own) > layout.prediction_tolerance * unit).any(axis=1).mean())
    if rate > DIFFERING:
        logger.warning(
            "%.1f %% of the logged predictions of the reference period are not what %s gives for the logged features;"
            " the baseline uses the model's own. That is right if another version served them then; else look at"
            " inference_log.columns.prediction and prediction_tolerance: windows of production will page",
            100 * rate,
            version.uri,
        )


def load(config: Config, registry: Registry, version: ModelVersion) -> Baseline:
    """Fetch a version's baseline and check that it is the one that was approved, and made for this configuration.

    Raises:
        BaselineError: there is none, its files changed, or the configuration that shapes it did.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = registry.fetch_baseline(version, Path(folder))
        try:
            manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["schema_version"] != MANIFEST_VERSION:
                made_by = manifest["libraries"]["whydrift"]
                raise BaselineError(
                    f"the baseline of {version.uri} was made by whydrift {made_by} in another format"
                    f" ({manifest['schema_version']}, this one reads {MANIFEST_VERSION}); make a new one with"
                    " `whydrift baseline`"
                )
            files = manifest["files"]
            layout = _LAYOUT.validate_python(manifest["layout"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise BaselineError(f"the baseline of {version.uri} cannot be read: {error}; make it again") from error
        changed = [name for name, digest in files.items() if _sha256(path / name) != digest]
        if changed or _identity(manifest) != version.baseline_digest:
            raise BaselineError(
                f"the baseline of {version.uri} is not the one that was approved: {changed or 'its manifest'} changed"
                " in MLflow; restore it, or make a new one with `whydrift baseline`"
            )
        _check_made_for(config, version, manifest, layout)
        return Baseline(
            id=manifest["id"],
            layout=layout,
            windows=_read_summaries(path / _SUMMARIES),
            cells=WindowSummary.from_bytes((path / _CELLS).read_bytes()),
            background=pq.read_table(path / _BACKGROUND).to_pandas(),
            usual_rows=manifest["usual_rows"],
            golden=read_golden(path / _GOLDEN, layout),
            soundness=from_json((path / _SOUNDNESS).read_bytes()),
            digests={"model": manifest["model_digest"], "explainer": manifest["explainer_digest"]},
            calibrated=read_calibrated(config, manifest["calibrated"]),
        )


def _why_none(config: Config, counts: dict[str, int]) -> str:
    if counts:
        return "set aside: " + ", ".join(f"{reason} {count}" for reason, count in counts.items())
    log = config.inference_log
    return f"{log.path} has no {log.format} rows in that time; see inference_log.path, format, partition and baseline"


def _check_made_for(config: Config, version: ModelVersion, manifest: dict[str, Any], layout: Layout) -> None:
    if (manifest["model"], manifest["model_version"]) != (version.name, version.version):
        made_for = f"{manifest['model']} {manifest['model_version']}"
        raise BaselineError(f"the baseline of {version.uri} was made for {made_for}; make one with `whydrift baseline`")
    now = {
        "baseline.start": config.baseline.start.isoformat(),
        "baseline.end": config.baseline.end.isoformat(),
        "window.every": _seconds(config),
        "explainer.rows": config.explainer.rows,
        "slices": list(config.slices),
        "groups": {name: list(members) for name, members in config.groups.items()},
        "model.task": config.model.task,
        "model.classes": list(config.model.classes),
        "explainer.space": config.explainer.space,
        "labels": config.labels is not None,
        "fairness": _asked(config.fairness.columns, config.fairness.threshold) if config.fairness else None,
    }
    then = {
        "baseline.start": manifest["start"],
        "baseline.end": manifest["end"],
        "window.every": manifest["window_seconds"],
        "explainer.rows": manifest["rows"],
        "slices": list(layout.slices),
        "groups": {group.name: list(group.members) for group in layout.groups if not group.automatic},
        "model.task": layout.task,
        "model.classes": [c.name for c in layout.classes],
        "explainer.space": manifest["space"],
        "labels": manifest["labels"],
        "fairness": _asked([c.groups.name for c in layout.fairness.columns], layout.fairness.threshold)
        if layout.fairness
        else None,
    }
    if layout.loss_attribution is not None and config.loss_attribution.rows != 0:
        now["loss_attribution.loss"] = config.loss_attribution.full_name(config.model.task)
        then["loss_attribution.loss"] = layout.loss_attribution.loss
    for name, value in now.items():
        if value != then[name]:
            raise BaselineError(
                f"{name} is {value!r} now and was {then[name]!r} when the baseline of {version.uri} was made;"
                " make a new one with `whydrift baseline`"
            )


def _sample(frame: pd.DataFrame, rows: int, *, salt: str) -> pd.DataFrame:
    """Rows chosen by a hash of the event id: the same ones whatever the order."""
    order = [hashlib.sha256(f"{salt}:{event}".encode()).digest() for event in frame["event_id"]]
    chosen = pd.Series(order, index=frame.index).sort_values(kind="stable").index[:rows]
    return frame.loc[chosen].reset_index(drop=True)


def _manifest(
    config: Config,
    version: ModelVersion,
    explainer: Explainer,
    layout: Layout,
    folder: Path,
    digests: dict[str, str],
    calibrated: dict[str, Any] | None,
    usual_rows: int,
) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "schema_version": MANIFEST_VERSION,
        "model": version.name,
        "model_version": version.version,
        "model_digest": digests["model"],
        "explainer": {"name": explainer.name, "parameters": dict(explainer.parameters)},
        "space": config.explainer.space,
        "explainer_digest": digests["explainer"],
        "config_digest": config.digest(),
        "start": config.baseline.start.isoformat(),
        "end": config.baseline.end.isoformat(),
        "window_seconds": _seconds(config),
        "labels": config.labels is not None,
        "usual_rows": usual_rows,
        "rows": config.explainer.rows,
        "calibrated": calibrated,
        "layout": _dump(layout),
        "files": {name: _sha256(folder / name) for name in (_SUMMARIES, _CELLS, _BACKGROUND, _GOLDEN, _SOUNDNESS)},
        "libraries": {name: importlib.metadata.version(name) for name in ("whydrift", "numpy", "pandas", "pyarrow")},
    }
    return {**manifest, "id": _identity(manifest)}


def _dump(layout: Layout) -> dict[str, Any]:
    """As JSON; the classes of a model that has none are left out, so that its baselines keep their ids."""
    content: dict[str, Any] = _LAYOUT.dump_python(layout, mode="json")
    if not layout.classes:
        del content["classes"]
    return content


def _identity(manifest: dict[str, Any]) -> str:
    """The baseline's id: a digest of all that shapes its numbers, and not of who approved it."""
    content = {k: v for k, v in manifest.items() if k not in {"id", "approved_by", "libraries", "config_digest"}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_summaries(path: Path, windows: list[BaselineWindow]) -> None:
    tables = []
    for window in windows:
        for part, summary in (("summary", window.summary), ("outcomes", window.outcomes)):
            if summary is not None:
                size = summary.table.num_rows
                start = pa.array([window.start] * size, pa.timestamp("us", "UTC"))
                table = summary.table.append_column("start", start)
                tables.append(table.append_column("part", pa.array([part] * size, pa.string())))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def _read_summaries(path: Path) -> tuple[BaselineWindow, ...]:
    table = pq.read_table(path)

    def part(start: datetime, name: str) -> WindowSummary | None:
        chosen = table.filter(pc.and_(pc.equal(table["start"], start), pc.equal(table["part"], name)))
        return WindowSummary(chosen.select(SCHEMA.names).cast(SCHEMA)) if chosen.num_rows else None

    return tuple(
        BaselineWindow(start, part(start, "summary") or WindowSummary.zero(), part(start, "outcomes"))
        for start in sorted(pc.unique(table["start"]).to_pylist())
    )


def _asked(columns: Sequence[str], threshold: float) -> dict[str, Any]:
    return {"columns": list(columns), "threshold": threshold}


def _seconds(config: Config) -> int:
    return int(config.window.every.total_seconds())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
