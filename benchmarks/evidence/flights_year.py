"""A year of real flights, watched from April to December 2013 with the demo's model and baseline.

    python benchmarks/evidence/flights_year.py --work .cache/flights_year

Two runs: `as_it_was`, the year without any fault of ours, and `incident`, April and May with the demo's missing
weather feed. What the tool says of each day is written to `flights_year.csv`, and what each peer's statistic says
of the same attributions, as shipped, beside it. Nothing here decides what is a false alarm: nobody knows the truth
of a real year. A finished stage is not repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "demo"), str(Path(__file__).parent)]

import data as demo_data  # noqa: E402
import train as demo_train  # noqa: E402

from whydrift.monitors.verdict import Verdict  # noqa: E402
from whydrift.pipelines import baseline as baselines  # noqa: E402
from whydrift.pipelines import config as configuration  # noqa: E402
from whydrift.pipelines.assess import assess  # noqa: E402
from whydrift.pipelines.config import Config  # noqa: E402
from whydrift.pipelines.job import Job  # noqa: E402
from whydrift.pipelines.profile import profile  # noqa: E402
from whydrift.pipelines.registry import Registry  # noqa: E402
from whydrift.pipelines.window import Window, split  # noqa: E402

YEAR_END = datetime(2013, 12, 31, tzinfo=UTC)
RUNS = {"as_it_was": (YEAR_END, False), "incident": (demo_data.LOG_END, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Watch a year of flights.")
    parser.add_argument("--work", type=Path, required=True, help="folder of logs, models and summaries")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the tables")
    options = parser.parse_args()
    days = [day for run in RUNS for day in watch(run, options.work.resolve())]
    pd.DataFrame(days).to_csv(options.out / "flights_year.csv", index=False)


def watch(run: str, work: Path) -> Iterator[dict[str, object]]:
    """Every day of a run: what the tool said."""
    config = place(run, work)
    end, incident = RUNS[run]
    demo_train.train_champion(config)
    demo_data.write(config, end=end, incident=incident)
    job = open_job(config)
    windows = list(split(config.baseline.end, end, config.window.every))
    stored = {(k.start, k.end) for k in job.store.keys(job.version.name, job.version.version, job.baseline.id)}
    for window in windows:
        if (window.start, window.end) not in stored:
            profile(job, window)
    for verdict in assess(job, windows):
        yield {"run": run, **tell(verdict)}


def place(run: str, work: Path) -> Config:
    """The demo's configuration with folders of this run's own."""
    config = configuration.load(ROOT / "configs" / "flights.yaml")
    home = work / run
    home.mkdir(parents=True, exist_ok=True)
    log = config.inference_log.model_copy(update={"path": str(home / "logs")})
    labels = config.labels.model_copy(update={"path": str(home / "labels")}) if config.labels else None
    mlflow = config.mlflow.model_copy(update={"tracking_uri": f"sqlite:///{home / 'mlflow.db'}"})
    folders = {"store": str(home / "store"), "outputs": str(home / "outputs")}
    return config.model_copy(update={"inference_log": log, "labels": labels, "mlflow": mlflow, **folders})


def open_job(config: Config) -> Job:
    """The job, with a baseline made where there is none."""
    job = Job.open(config)
    if job.version.baseline_digest is None:
        baselines.make(config, Registry(config.mlflow.tracking_uri), job.version, approver="benchmark")
        job = Job.open(config)
    return job


def tell(verdict: Verdict) -> dict[str, object]:
    """A day's line."""
    cause = verdict.cause
    return {
        "day": f"{verdict.key.start:%F}",
        "status": verdict.status.value,
        "cause": cause.kind.value if cause else "",
        "since": f"{cause.onset:%F}" if cause else "",
        "features": " ".join(cause.features[:3]) if cause else "",
        "slice": (cause.slice or "") if cause else "",
        "evidence": round(verdict.budget.evidence, 1),
        "pages": verdict.budget.pages,
        "headline": verdict.headline,
        "rows": verdict.rows.explained,
    }


def attributed_days(config: Config, windows: list[Window]) -> Iterator[tuple[Window, pd.DataFrame]]:
    """Each window's attributions, a column a feature, with the prediction as `prediction`."""
    summariser = open_job(config).summariser
    for window in windows:
        records = summariser.log.read(window).frame
        explanation = summariser.explainer.explain(records[list(summariser.log.features)])
        frame = pd.DataFrame(explanation.values, columns=list(summariser.log.features))
        yield window, frame.assign(prediction=np.asarray(records["prediction"], dtype=float))


if __name__ == "__main__":
    main()
