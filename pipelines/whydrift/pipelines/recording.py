"""What a scheduled run leaves behind for the meta-alerts: when it ended, how, and how long its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import EXIT_PASS, WhyDriftError
from whydrift.pipelines.job import Job
from whydrift.pipelines.outputs.job import JobStatus, read, write


@contextmanager
def recorded(config: Config, stage: str, *, last: bool = False) -> Iterator[Callable[[], Job]]:
    """Give what opens the job, and record how the stage went; success is what the `last` stage reaches."""
    opened: list[Job] = []

    def open_job() -> Job:
        opened.append(Job.open(config))
        return opened[0]

    started = time.monotonic()
    code = EXIT_PASS
    try:
        yield open_job
    except WhyDriftError as error:
        code = error.exit_code
        raise
    finally:
        outputs = Path(config.outputs)
        before = read(outputs, config.model.name)
        now = time.time()
        last_success = before.last_success if before is not None else None
        if last and code == EXIT_PASS:
            last_success = now
        seconds = {**(before.stage_seconds if before else {}), stage: round(time.monotonic() - started, 3)}
        version = opened[0].version.version if opened else (before.model_version if before else "")
        write(
            JobStatus(
                model=config.model.name,
                model_version=version,
                interval_seconds=config.window.every.total_seconds(),
                last_success=last_success,
                last_completion=now,
                exit_code=code,
                stage_seconds=seconds,
            ),
            outputs,
        )
