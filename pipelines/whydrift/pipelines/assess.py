"""Stage `assess`: all summaries up to a window become its verdict."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from datetime import datetime

from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.verdict import Verdict
from whydrift.monitors.views import write_verdict
from whydrift.pipelines.errors import NoDataError
from whydrift.pipelines.job import Job
from whydrift.pipelines.store import OUTCOMES
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)


def assess(job: Job, windows: Collection[Window]) -> list[Verdict]:
    """Fold every stored window up to the last asked for; write and return the verdicts of those asked for.

    Raises:
        NoDataError: a window was not profiled yet.
    """
    wanted = {(w.start, w.end) for w in windows}
    digests = {**job.baseline.digests, "config": job.config.digest()}
    verdicts = []
    for assessed in fold(job.reference, _stored(job, max(end for _, end in wanted))):
        key = assessed.window.key
        if (key.start, key.end) in wanted:
            verdict = write_verdict(job.reference, assessed, digests)
            job.store.write_verdict(verdict)
            verdicts.append(verdict)
            logger.info("assessed [%s, %s): %s", key.start, key.end, verdict.status.value)
    missing = wanted - {(v.key.start, v.key.end) for v in verdicts}
    if missing:
        start, end = min(missing)
        raise NoDataError(f"the window {Window(start, end)} has no summary in {job.config.store}; run profile first")
    return verdicts


def _stored(job: Job, end: datetime) -> Iterator[WindowInput]:
    """The stored windows of the configured width that end by `end`, in the order of time."""
    for key in job.store.keys(job.version.name, job.version.version, job.baseline.id):
        if key.end <= end and key.end - key.start == job.config.window.every:
            summary = job.store.read_summary(key)
            if summary is not None:
                yield WindowInput(key, summary, job.store.read_summary(key, OUTCOMES))
