"""The command line: the one contract for schedulers, CI and people.

stdout carries results, stderr everything else. Exit codes: 0 pass, 1 breach, 2 usage or configuration, 3 could not
evaluate.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whydrift.pipelines.config import Config, load
from whydrift.pipelines.errors import (
    EXIT_BREACH,
    EXIT_NOT_EVALUATED,
    EXIT_PASS,
    EXIT_USAGE,
    ConfigError,
    StoreError,
    WhyDriftError,
)
from whydrift.pipelines.sections import write_duration
from whydrift.pipelines.window import Window, parse_time, split

if TYPE_CHECKING:
    from whydrift.monitors.verdict import Verdict

logger = logging.getLogger(__name__)

_Command = Callable[..., Any]


def main() -> None:
    """Run a command, and end the process with the contract's exit code."""
    try:
        code = whydrift.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = EXIT_USAGE
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except WhyDriftError as error:
        click.echo(f"whydrift: {type(error).__name__}: {error}", err=True)
        code = error.exit_code
    except Exception:  # a bug; Python would end with 1, which says that a window was judged and failed
        logger.exception("internal error")
        code = EXIT_NOT_EVALUATED
    sys.exit(code if isinstance(code, int) else EXIT_PASS)


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _config_option(command: _Command) -> _Command:
    return click.option(
        "--config", "config_path", type=click.Path(path_type=Path), required=True, help="YAML of the monitored model."
    )(command)


def _window_options(command: _Command) -> _Command:
    command = click.option("--end", type=_Time(), required=True, help="End of the window, exclusive, UTC.")(command)
    return click.option("--start", type=_Time(), required=True, help="Start of the window, inclusive, UTC.")(command)


def _format_option(*formats: str) -> Callable[[_Command], _Command]:
    return click.option("--format", "form", type=click.Choice(formats), default=formats[0], show_default=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="whydrift")
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what is being done.")
def whydrift(*, verbose: bool) -> None:
    """Watch why a deployed model decides."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("mlflow", "alembic", "py4j"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@whydrift.command()
@_config_option
def validate(config_path: Path) -> None:
    """Check a configuration file."""
    config = load(config_path)
    width = write_duration(config.window.every)
    click.echo(f"{config_path}: {config.model.name}@{config.model.alias}, windows of {width}: valid")


@whydrift.command()
@_config_option
@click.option("--approver", help="Who approves it; default job.owner.")
def baseline(config_path: Path, approver: str | None) -> None:
    """Make the baseline of the deployed model from the reference period."""
    from whydrift.pipelines import baseline as stage
    from whydrift.pipelines.job import Job

    config = load(config_path)
    job = Job.open(config)
    baseline_id = stage.make(config, job.registry, job.version, approver=approver or config.job.owner)
    click.echo(json.dumps({"model": job.version.name, "version": job.version.version, "baseline": baseline_id}))


@whydrift.command()
@_config_option
@_window_options
def profile(config_path: Path, start: datetime, end: datetime) -> None:
    """Read, explain and summarise a window."""
    from whydrift.pipelines.job import refuse_unfit
    from whydrift.pipelines.profile import profile as stage
    from whydrift.pipelines.recording import recorded

    config, window = load(config_path), Window(start, end)
    refuse_unfit(config, [window])
    with recorded(config, "profile") as open_job:
        stage(open_job(), window)


@whydrift.command()
@_config_option
@_window_options
@_format_option("text", "json")
def assess(config_path: Path, start: datetime, end: datetime, form: str) -> int:
    """Judge a window by all windows up to it."""
    from whydrift.pipelines.assess import assess as stage
    from whydrift.pipelines.recording import recorded

    with recorded(load(config_path), "assess") as open_job:
        (verdict,) = stage(open_job(), [Window(start, end)])
    _show(verdict, form)
    return _exit_code(verdict)


@whydrift.command()
@_config_option
@_window_options
@_format_option("text", "json")
def publish(config_path: Path, start: datetime, end: datetime, form: str) -> None:
    """Write a verdict to MLflow, the metrics, the report, and maybe a retraining request."""
    from whydrift.pipelines.publish import publish as stage
    from whydrift.pipelines.recording import recorded

    with recorded(load(config_path), "publish", last=True) as open_job:
        _, done = stage(open_job(), Window(start, end))
    if form == "json":
        request = str(done.retraining_request) if done.retraining_request else None
        click.echo(json.dumps({"run_id": done.run_id, "report": str(done.report), "retraining_request": request}))
    else:
        click.echo(f"{done.report}\nMLflow run {done.run_id}")
        if done.retraining_request:
            click.echo(f"retraining request {done.retraining_request}")


@whydrift.command()
@_config_option
@_window_options
@_format_option("text", "json")
def run(config_path: Path, start: datetime, end: datetime, form: str) -> int:
    """Profile, assess and publish a window."""
    from whydrift.pipelines.assess import assess as assess_stage
    from whydrift.pipelines.job import refuse_unfit
    from whydrift.pipelines.profile import profile as profile_stage
    from whydrift.pipelines.publish import publish as publish_stage
    from whydrift.pipelines.recording import recorded

    config, window = load(config_path), Window(start, end)
    refuse_unfit(config, [window])
    with recorded(config, "run", last=True) as open_job:
        job = open_job()
        profile_stage(job, window)
        (verdict,) = assess_stage(job, [window])
        publish_stage(job, window)
    _show(verdict, form)
    return _exit_code(verdict)


@whydrift.command()
@_config_option
@_window_options
def backfill(config_path: Path, start: datetime, end: datetime) -> None:
    """Run all windows of a period, in one process."""
    from whydrift.pipelines.backfill import backfill as stage
    from whydrift.pipelines.job import Job, refuse_unfit
    from whydrift.pipelines.recording import refresh_metrics

    config = load(config_path)
    windows = _windows(config, start, end)
    refuse_unfit(config, windows)
    verdicts = stage(Job.open(config), windows)
    refresh_metrics(config)
    for verdict in verdicts:
        day = timedelta(days=1)
        start_text = f"{verdict.key.start:%F}" if config.window.every >= day else f"{verdict.key.start:%F %H:%M}"
        click.echo(f"{start_text}  {verdict.status.value:<18} {verdict.headline}")


@whydrift.command()
@_config_option
@click.option("--candidate", help="Alias or version of the candidate; default retraining.candidate_alias.")
@_window_options
@_format_option("text", "json", "junit", "github")
def gate(config_path: Path, candidate: str | None, start: datetime, end: datetime, form: str) -> int:
    """Compare a candidate with the champion on the same rows."""
    from whydrift.pipelines.gate import gate as stage
    from whydrift.pipelines.job import Job
    from whydrift.pipelines.outputs.gate_formats import FORMATS

    config = load(config_path)
    windows = _windows(config, start, end)
    result = stage(Job.open(config), candidate or config.retraining.candidate_alias, windows)
    click.echo(FORMATS[form](result))
    return {True: EXIT_PASS, False: EXIT_BREACH, None: EXIT_NOT_EVALUATED}[result.passed]


@whydrift.command()
@_config_option
@click.option("--start", type=_Time(), help="Start of the window; default the newest.")
@click.option("--end", type=_Time(), help="End of the window; default one width after its start.")
@_format_option("text", "json", "html", "evidently", "interactions")
@click.option("--output", type=click.Path(path_type=Path), help="File to write instead of stdout.")
def report(config_path: Path, start: datetime | None, end: datetime | None, form: str, output: Path | None) -> None:
    """Show what is known of a window."""
    from whydrift.pipelines.job import Job
    from whydrift.pipelines.show import show

    config = load(config_path)
    if start is None and end is not None:
        raise click.UsageError("--end needs --start")
    window = None if start is None else Window(start, end or start + config.window.every)
    text = show(Job.open(config), window, form)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{output} cannot be written: {error}") from error


@whydrift.command()
@click.option(
    "--config",
    "config_paths",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="YAML of a monitored model; may be given for several.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=9464, show_default=True)
def serve(config_paths: tuple[Path, ...], host: str, port: int) -> None:
    """Serve /metrics, /-/healthy and an index of models, windows and reports."""
    from whydrift.pipelines.serve import serve as stage

    configs = [load(path) for path in config_paths]
    click.echo(f"serving on http://{host}:{port}/ until interrupted", err=True)
    stage(configs, host, port)


def _windows(config: Config, start: datetime, end: datetime) -> list[Window]:
    """The windows that tile a period; raises ConfigError where the period is empty or off the grid."""
    period = Window(start, end)
    return list(split(period.start, period.end, config.window.every))


def _show(verdict: Verdict, form: str) -> None:
    from whydrift.pipelines.show import as_text
    from whydrift.pipelines.verdict_json import to_json

    click.echo(to_json(verdict).decode() if form == "json" else as_text(verdict), nl=form != "json")


def _exit_code(verdict: Verdict) -> int:
    from whydrift.monitors.verdict import Status

    unknown = {Status.INSUFFICIENT_DATA, Status.NOT_EVALUATED}
    if verdict.status is Status.PAGE:
        return EXIT_BREACH
    return EXIT_NOT_EVALUATED if verdict.status in unknown else EXIT_PASS
