"""Stage `publish`: a verdict becomes an MLflow run, a report, and maybe a retraining request.

Each output is a view of the verdict, named by the window, and replaced when the window is published again.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from whydrift.monitors.verdict import Status, Verdict
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import NoDataError, StoreError
from whydrift.pipelines.files import write_atomically
from whydrift.pipelines.job import Job
from whydrift.pipelines.outputs import report
from whydrift.pipelines.store import window_name
from whydrift.pipelines.verdict_json import to_json
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)

HISTORY = 60  # windows on the report's time line
_DEAD = 0.99  # a column with nothing left to learn from
_METRIC_NAME = re.compile(r"[^A-Za-z0-9_./ :-]")


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a window's outputs are."""

    run_id: str
    report: Path
    retraining_request: Path | None


def publish(job: Job, window: Window) -> tuple[Verdict, Publication]:
    """Publish a stored verdict. Raises NoDataError if the window was not assessed."""
    key = job.key(window)
    verdict = job.store.read_verdict(key)
    if verdict is None:
        raise NoDataError(f"the window {window} has no verdict in {job.config.store}; run assess first")
    return verdict, publish_verdict(job, verdict, history(job, verdict))


def history(job: Job, verdict: Verdict) -> list[Verdict]:
    """The verdicts before this one under the same baseline, oldest first."""
    keys = [
        k
        for k in job.store.keys(verdict.key.model, verdict.key.model_version, verdict.key.baseline_id)
        if k.end <= verdict.key.start
    ]
    return [v for k in keys[-HISTORY:] if (v := job.store.read_verdict(k)) is not None]


def publish_verdict(job: Job, verdict: Verdict, earlier: list[Verdict]) -> Publication:
    """Write every output of a verdict and say where they are."""
    path, page = write_report(job, verdict, earlier)
    run_id = _log_run(job, verdict, page)
    request = _request(job, verdict, run_id, path)
    return Publication(run_id, path, request)


def write_report(job: Job, verdict: Verdict, earlier: list[Verdict]) -> tuple[Path, str]:
    """Write the window's page, with links to the views that were made beside it."""
    path = report_path(job, verdict)
    views = {name: path.with_suffix(f".{name}.html") for name in ("evidently", "interactions")}
    page = report.render(verdict, earlier, views={name: view.name for name, view in views.items() if view.exists()})
    write_file(path, page.encode())
    return path, page


def report_path(job: Job, verdict: Verdict) -> Path:
    """Where a window's page is."""
    folder = Path(job.config.outputs) / "reports" / verdict.key.model
    return folder / f"{window_name(verdict.key.start, verdict.key.end)}.html"


def _log_run(job: Job, verdict: Verdict, page: str) -> str:
    key = verdict.key
    window = f"v{key.model_version}/{key.baseline_id[:16]}/{window_name(key.start, key.end)}"
    tags = {
        "whydrift.status": verdict.status.value,
        "whydrift.headline": verdict.headline,
        "whydrift.cause": verdict.cause.kind.value if verdict.cause else "",
        "whydrift.model": key.model,
        "whydrift.model_version": key.model_version,
        "whydrift.baseline": key.baseline_id,
        "whydrift.config": verdict.digests["config"],
    }
    return job.registry.replace_run(
        experiment=job.config.experiment,
        window=window,
        tags=tags,
        metrics=_metrics(verdict),
        step=int(key.start.timestamp()),
        artifacts={"verdict.json": to_json(verdict).decode(), "report.html": page},
        model_id=job.version.model_id,
    )


def _metrics(verdict: Verdict) -> dict[str, float]:
    """The numbers worth a chart in MLflow; a name may hold no other characters than MLflow allows."""
    found: dict[str, float | None] = {
        "evidence": verdict.budget.evidence,
        "pages": verdict.budget.pages,
        "page": float(verdict.status is Status.PAGE),
        "rows/seen": verdict.rows.seen,
        "rows/explained": verdict.rows.explained,
        "rows/set_aside": sum(verdict.rows.set_aside.values()),
    }
    for feature in verdict.attribution:
        found[f"share/{feature.feature}"] = feature.share
        found[f"missing_rate/{feature.feature}"] = feature.missing_rate
    if verdict.score is not None:
        found["score/mean"] = verdict.score.mean
    if verdict.calibration is not None:
        for name in ("intercept", "slope", "smece", "brier"):
            found[f"calibration/{name}"] = getattr(verdict.calibration, name)
    if verdict.multiclass is not None:
        found |= {f"calibration/top/{name}": getattr(verdict.multiclass.top, name) for name in ("smece", "brier")}
    for one in verdict.classes:
        if one.calibration is not None:
            found[f"calibration/class:{one.class_name}/smece"] = one.calibration.smece
    if verdict.loss_attribution is not None:
        found |= {f"loss_attribution/{f.feature}": f.value for f in verdict.loss_attribution.features}
    for part in verdict.slices:
        found[f"loss/{part.slice.replace('=', ':')}"] = part.loss
    return {_METRIC_NAME.sub("_", name): float(value) for name, value in found.items() if value is not None}


def _request(job: Job, verdict: Verdict, run_id: str, page: Path) -> Path | None:
    """Write the retraining request, or take back one that this window no longer raises."""
    path = Path(job.config.outputs) / "requests" / verdict.key.model
    path /= f"{window_name(verdict.key.start, verdict.key.end)}.json"
    if not verdict.retraining.requested or verdict.cause is None:
        path.unlink(missing_ok=True)
        return None
    gate = _gate_period(job.config, verdict.key.end)
    content = {
        "model": verdict.key.model,
        "model_version": verdict.key.model_version,
        "window_start": verdict.key.start.isoformat(),
        "window_end": verdict.key.end.isoformat(),
        "cause": verdict.cause.kind.value,
        "sentence": verdict.cause.sentence,
        "features": list(verdict.cause.features),
        "exclude_features": [
            f.feature for f in verdict.attribution if f.missing_rate > _DEAD and f.feature in verdict.cause.features
        ],
        "gate_start": gate.start.isoformat(),
        "gate_end": gate.end.isoformat(),
        "onset": verdict.cause.onset.isoformat(),
        "reason": verdict.retraining.reason,
        "run_id": run_id,
        "report": str(page),
    }
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def _gate_period(config: Config, end: datetime) -> Window:
    """The newest windows with mature labels: training leaves them out, so that the gate judges on unseen rows."""
    last = end - config.label_lag * config.window.every
    return Window(last - config.gate.windows * config.window.every, last)


def write_file(path: Path, data: bytes) -> None:
    """Write an output whole or not at all."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
