"""Stage `profile`: a window's rows become its summary."""

from __future__ import annotations

import logging

from whydrift.monitors.checks import rows_seen
from whydrift.monitors.summary import merge
from whydrift.pipelines.job import Job
from whydrift.pipelines.store import OUTCOMES
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)


def profile(job: Job, window: Window) -> None:
    """Read, explain and summarise a window, and store the summary under its key.

    With it goes the summary of the cohort whose labels matured by the window's end. Outcomes are written first:
    a window is there when its `summary` is, and a kill between the two is mended by the next run.
    """
    key = job.key(window)
    records = job.summariser.log.read(window)
    outcomes = job.summariser.outcomes(window.shifted(-job.config.label_lag))
    if outcomes is not None:
        job.store.write_summary(key, outcomes, OUTCOMES)
    summary = merge([job.summariser.summarise(records), job.summariser.stray_labels(window)])
    job.store.write_summary(key, summary)
    seen = rows_seen(summary.frame())
    if not seen:
        logger.warning("the window %s has no rows in %s", window, job.config.inference_log.path)
    logger.info("profiled %s: %d rows, %d kept", window, seen, len(records.frame))
