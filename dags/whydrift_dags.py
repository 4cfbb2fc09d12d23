"""Airflow DAGs of every monitored model: one file in configs/ makes a monitoring, a baseline and a retraining DAG.

The bundle is thin: it reads a few keys of the YAML files and calls the `whydrift` command, which may live in an
environment of its own. Four variables of the workers' and the DAG processor's environment:

    WHYDRIFT_CLI            the command; default `whydrift` on the PATH
    WHYDRIFT_CONFIGS        the folder of the configurations; default `configs` beside this bundle
    WHYDRIFT_SPARK_SUBMIT   for `engine: spark`, spark-submit with its options; default that beside `whydrift`
    WHYDRIFT_SCHEDULE_END   ISO time; no window that starts later is scheduled. For replaying data of the past

A configuration that cannot be read becomes a DAG with the tag `unreadable` that says why; the others are unaffected.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.sdk import (
    DAG,
    Asset,
    CronDataIntervalTimetable,
    DeltaDataIntervalTimetable,
    Metadata,
    Param,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException
from whydrift_cli import EXIT_BREACH, EXIT_NOT_EVALUATED, EXIT_PASS, interpreter, parse, run, submit, whydrift
from whydrift_config import JobConfig, folder, read_all, to_utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
log = logging.getLogger(__name__)

MONITORING_DOC = """
Evaluates one window of the inference log of **{model}** a run: the window is the run's data interval, [start, end).

- A run waits until {delay} after its window's end, without holding a worker, so that the logs are complete.
- A page or a ticket is a result, not a failure: a red task means that the window could *not* be evaluated.
- Every task can be cleared and run again; results are filed under the window and replaced.
- Missed windows: `airflow backfill create --dag-id {dag_id} --from-date ... --to-date ...`.
- By hand: give `window_start` and `window_end`; they win over the data interval.
- Where a page asks for a new model, the asset `{asset}` is updated; the retraining DAG waits for it.
"""
BASELINE_DOC = """
Explains **{model}**'s reference period and stores the baseline with the model version that production serves.
Run it by hand, after each promotion: windows of a version that has no baseline are not evaluated.
"""
RETRAINING_DOC = """
Trains a candidate for **{model}** with the configuration's `retraining.train_command` when a retraining request
arrives (asset `{asset}`), or by hand with the path of a request, then gates it against the serving
version. A failed gate is a failed task. **Nothing is promoted**: moving the alias is a person's decision.
"""


def timetable(every: timedelta) -> CronDataIntervalTimetable | DeltaDataIntervalTimetable:
    """Data intervals that are the windows: `every` wide, aligned to the Unix epoch, in UTC.

    Cron where it can say so, because it also gives a run that is started by hand the last whole window.
    """
    minutes = every // timedelta(minutes=1)
    if every == DAY:
        return CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
    if every == 7 * DAY:
        return CronDataIntervalTimetable("0 0 * * 4", timezone="UTC")  # 1 January 1970 was a Thursday
    if 60 % minutes == 0:
        return CronDataIntervalTimetable(f"*/{minutes} * * * *" if minutes < 60 else "0 * * * *", timezone="UTC")
    if minutes % 60 == 0 and DAY % every == timedelta(0):
        return CronDataIntervalTimetable(f"0 */{minutes // 60} * * *", timezone="UTC")
    return DeltaDataIntervalTimetable(every)


def first_window(job: JobConfig) -> datetime:
    """The first window boundary at or after `job.start`."""
    return EPOCH - (EPOCH - job.start) // job.every * job.every


def retraining_asset(model: str) -> Asset:
    """What a retraining request updates; a training DAG of one's own can be scheduled on it too."""
    return Asset(name=f"retraining-request/{model}", uri=f"whydrift://retraining-request/{quote(model)}")


def current_window(context: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The run's window: its parameters where given, else its data interval."""
    texts = context["params"].get("window_start"), context["params"].get("window_end")
    if all(texts):
        start, end = map(to_utc, texts)
    elif any(texts):
        raise AirflowFailException("give both window_start and window_end, or neither")
    elif context.get("data_interval_start") is None:
        raise AirflowFailException(
            "this run has no data interval (it was started by hand without a logical date):"
            " give the parameters window_start and window_end"
        )
    else:
        start, end = context["data_interval_start"], context["data_interval_end"]
    if start >= end:
        raise AirflowFailException(f"the window [{start}, {end}) is empty: give window_start and window_end")
    # Airflow's are pendulum times, which lose the standard library's UTC on addition.
    return datetime.fromtimestamp(start.timestamp(), UTC), datetime.fromtimestamp(end.timestamp(), UTC)


def _window_arguments(config: str) -> tuple[str, ...]:
    start, end = current_window(get_current_context())
    return "--config", config, "--start", start.isoformat(), "--end", end.isoformat()


@task
def profile(config: str, delay: timedelta, engine: str = "local") -> None:
    """Explain the window's rows, here or on a Spark cluster, and store their summary."""
    _, end = current_window(get_current_context())
    if datetime.now(UTC) < end + delay:
        # Not a failure and no retry: the task leaves the worker and is started again at that time.
        raise AirflowRescheduleException(end + delay)
    (submit if engine == "spark" else whydrift)("profile", *_window_arguments(config))


@task(multiple_outputs=False)
def assess(config: str) -> dict[str, str]:
    """Judge the window. Any verdict lets the run go on; only the want of one is a failure."""
    results = (EXIT_PASS, EXIT_BREACH, EXIT_NOT_EVALUATED)
    _, text = whydrift("assess", *_window_arguments(config), "--format", "json", results=results)
    verdict = parse(text, "status", "headline")
    return {"status": verdict["status"], "headline": verdict["headline"]}


@task(multiple_outputs=False)
def publish(config: str) -> dict[str, Any]:
    """Write the verdict to MLflow, the metrics and the report, and the retraining request if there is one."""
    _, text = whydrift("publish", *_window_arguments(config), "--format", "json")
    return dict(parse(text, "run_id", "retraining_request"))


def monitoring_dag(job: JobConfig, asset: Asset, end: datetime | None) -> DAG:
    """Each window: profile >> assess >> publish >> request_retraining."""
    dag_id = f"whydrift_{job.name}"

    @task(outlets=[asset])
    def request_retraining(published: Mapping[str, Any]) -> Any:
        """Update the asset if the window asks for a new model; skip otherwise."""
        if not published["retraining_request"]:
            raise AirflowSkipException("this window asks for no retraining")
        start, end = current_window(get_current_context())
        yield Metadata(
            asset,
            {
                "request": published["retraining_request"],
                "run_id": published["run_id"],
                "window_start": start.isoformat(),
                "window_end": end.isoformat(),
            },
        )

    with DAG(
        dag_id=dag_id,
        schedule=timetable(job.every),
        start_date=first_window(job),
        end_date=end,
        catchup=False,
        # One run at a time, and one more for each window that ends while a run still waits for its logs:
        # without catch-up, a window that finds no free run would be left out.
        max_active_runs=1 + job.delay // job.every,
        params={
            "window_start": _time("Start of the window, for a run by hand."),
            "window_end": _time("End of the window, exclusive."),
        },
        doc_md=MONITORING_DOC.format(model=job.model, delay=job.delay, dag_id=dag_id, asset=asset.uri),
        **_common(job),
    ) as dag:
        config = str(job.path)
        published = publish(config)
        profile(config, job.delay, job.engine) >> assess(config) >> published
        request_retraining(published)
    return dag


def baseline_dag(job: JobConfig) -> DAG:
    """The baseline, by hand."""

    @task
    def baseline(config: str) -> None:
        """Build and store the baseline of the serving version."""
        whydrift("baseline", "--config", config)

    with DAG(
        dag_id=f"whydrift_{job.name}_baseline",
        schedule=None,
        max_active_runs=1,
        doc_md=BASELINE_DOC.format(model=job.model),
        **_common(job),
    ) as dag:
        baseline(str(job.path))
    return dag


def newest_request(context: Mapping[str, Any], asset: Asset) -> str:
    """The path of the request: the parameter, or that of the latest window among all events of the run."""
    if given := context["params"].get("request"):
        return str(given)
    events = context["triggering_asset_events"].get(asset, ())
    extras = [event.extra for event in events if event.extra.get("request")]
    if not extras:
        raise AirflowFailException("no retraining request triggered this run: give the parameter request")
    return str(max(extras, key=lambda extra: to_utc(extra["window_end"]))["request"])


def retraining_dag(job: JobConfig, asset: Asset) -> DAG:
    """Each retraining request: train >> gate."""

    @task(multiple_outputs=False)
    def train() -> dict[str, str]:
        """Run the training command on the newest request; it registers the candidate."""
        request = newest_request(get_current_context(), asset)
        first, *others = job.train_command
        command = [interpreter() if first == "python" else first, *others, "--config", str(job.path)]
        _, text = run([*command, "--request", request], folder=job.path.parent)
        return {"request": request, "version": str(parse(text.strip().rpartition("\n")[2], "version")["version"])}

    @task(multiple_outputs=False)
    def gate(trained: Mapping[str, str]) -> dict[str, Any]:
        """Compare candidate and champion on the rows that training left out; fail if the candidate does not hold."""
        request = parse(Path(trained["request"]).read_text(encoding="utf-8"), "gate_start", "gate_end")
        period = ("--start", request["gate_start"], "--end", request["gate_end"])
        arguments = ("--config", str(job.path), "--candidate", job.candidate_alias, *period, "--format", "json")
        code, text = whydrift("gate", *arguments, results=(EXIT_PASS, EXIT_BREACH, EXIT_NOT_EVALUATED))
        result = dict(parse(text))
        if code != EXIT_PASS:
            get_current_context()["ti"].xcom_push("return_value", result)
            said = "does not pass the gate" if code == EXIT_BREACH else "could not be judged, which is no pass"
            raise AirflowFailException(f"version {trained['version']} {said}: {json.dumps(result)}")
        return result

    with DAG(
        dag_id=f"whydrift_{job.name}_retraining",
        schedule=[asset],
        max_active_runs=1,
        params={"request": Param(None, type=["null", "string"], description="Path of a request, for a run by hand.")},
        doc_md=RETRAINING_DOC.format(model=job.model, asset=asset.uri),
        **_common(job),
    ) as dag:
        gate(train())
    return dag


def _time(description: str) -> Param:
    return Param(None, type=["null", "string"], format="date-time", description=description)


def _common(job: JobConfig) -> dict[str, Any]:
    return {
        "tags": {"whydrift", job.model},
        "default_args": {
            "owner": job.owner,
            "retries": job.retries,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2,
            "max_retry_delay": timedelta(minutes=30),
            "execution_timeout": job.timeout,
        },
    }


def unreadable_dag(name: str, problem: str) -> DAG:
    """What stands for a configuration that cannot be read: no schedule, and the reason for all to see.

    An import error would show it too, but Airflow then takes every DAG of this file out of the schedule.
    """

    @task(retries=0)
    def read_configuration() -> None:
        raise AirflowFailException(problem)

    with DAG(
        dag_id=f"whydrift_{re.sub('[^A-Za-z0-9_.-]', '_', name)}",
        schedule=None,
        tags={"whydrift", "unreadable"},
        doc_md=f"This configuration cannot be read, so its model is not monitored:\n\n    {problem}\n",
    ) as dag:
        read_configuration()
    return dag


def build() -> list[DAG]:
    """The DAGs of every configuration."""
    jobs, problems = read_all(folder())
    text = os.environ.get("WHYDRIFT_SCHEDULE_END")
    end = to_utc(text) if text else None
    dags: list[DAG] = []
    for job in jobs:
        asset = retraining_asset(job.model)
        dags += [monitoring_dag(job, asset, end), baseline_dag(job)]
        if job.train_command:
            dags.append(retraining_dag(job, asset))
    for name, problem in problems.items():
        log.error("no monitoring DAG: %s", problem)
        dags.append(unreadable_dag(name, problem))
    return dags


for _dag in build():
    globals()[_dag.dag_id] = _dag
