"""What a scheduled run leaves behind for its metrics and meta-alerts: when it ended, how, and how long it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import EXIT_NOT_EVALUATED, EXIT_PASS, StoreError, WhyDriftError
from whydrift.pipelines.job import Job
from whydrift.pipelines.outputs import prometheus
from whydrift.pipelines.outputs.job import JobStatus, read, write
from whydrift.pipelines.store import Store

logger = logging.getLogger(__name__)


@contextmanager
def recorded(config: Config, stage: str, *, last: bool = False) -> Iterator[Callable[[], Job]]:
    """Give what opens the job, and record how the stage went; success is what the `last` stage reaches.

    The record is a courtesy: where it cannot be written, a warning says so and the stage's own outcome stands.
    """
    opened: list[Job] = []

    def open_job() -> Job:
        opened.append(Job.open(config))
        return opened[0]

    started = time.monotonic()
    code = EXIT_NOT_EVALUATED  # also of what is no error of ours: a bug, a lack of memory
    try:
        yield open_job
        code = EXIT_PASS
    except WhyDriftError as error:
        code = error.exit_code
        raise
    finally:
        try:
            _record(config, stage, time.monotonic() - started, code, opened[0] if opened else None, last=last)
            refresh_metrics(config)
        except (StoreError, OSError) as error:
            logger.warning("the run's record could not be written: %s", error)


def refresh_metrics(config: Config) -> None:
    """Write the textfile of the newest verdict and the last run; a backfilled past does not displace the present."""
    outputs, model = Path(config.outputs), config.model.name
    verdict = Store(config.store).latest(model)
    prometheus.write_textfile(outputs / "metrics" / f"{model}.prom", verdict, read(outputs, model))


def _record(config: Config, stage: str, seconds: float, code: int, job: Job | None, *, last: bool) -> None:
    outputs = Path(config.outputs)
    before = _before(outputs, config.model.name)
    now = time.time()
    last_success = before.last_success if before is not None else None
    if last and code == EXIT_PASS:
        last_success = now
    write(
        JobStatus(
            model=config.model.name,
            model_version=job.version.version if job else before.model_version if before else "",
            interval_seconds=config.window.every.total_seconds(),
            last_success=last_success,
            last_completion=now,
            exit_code=code,
            stage_seconds={**(before.stage_seconds if before else {}), stage: round(seconds, 3)},
        ),
        outputs,
    )


def _before(outputs: Path, model: str) -> JobStatus | None:
    try:
        return read(outputs, model)
    except StoreError as error:
        logger.warning("%s; it is replaced", error)
        return None
