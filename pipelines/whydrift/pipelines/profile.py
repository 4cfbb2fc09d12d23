"""Stage `profile`: a window's rows become its summary."""

from __future__ import annotations

import logging

from whydrift.monitors.cell_sums import summarise_cells
from whydrift.monitors.checks import kept_rows, rows_seen
from whydrift.monitors.summary import merge
from whydrift.pipelines.arriving import arrivals, asked, audit
from whydrift.pipelines.job import Job
from whydrift.pipelines.store import ARRIVALS, CELLS, OUTCOMES
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)


def profile(job: Job, window: Window) -> None:
    """Read, explain and summarise a window, and store the summary under its key.

    With it go the summary of the cohort whose labels matured by the window's end, and what is known of the labels of
    younger ones. The summary is written last: a window is there when its `summary` is, and a kill before that is
    mended by the next run. It also holds how the golden rows are answered, counted once a profile: merged windows hold
    the sums of their replays.
    """
    key = job.key(window)
    summariser = job.summariser
    reduced = job.engine.summarise(window)
    cohort = window.shifted(-job.config.label_lag)
    matured, events = summariser.matured(cohort), asked(summariser, window)
    parts = [reduced, summariser.replayed]
    if matured is not None and events is not None:
        outcomes = [summariser.reduce_outcomes(matured), audit(summariser, cohort, events)]
        job.store.write_summary(key, merge(outcomes), OUTCOMES)
        if summariser.layout.searched:
            job.store.write_summary(key, summarise_cells(matured, summariser.layout), CELLS)
        job.store.write_summary(key, arrivals(summariser, window, events), ARRIVALS)
        parts.append(summariser.stray_labels(window, events))
    summary = merge(parts)
    job.store.write_summary(key, summary)
    frame = summary.frame()
    seen = rows_seen(frame)
    if not seen:
        logger.warning("the window %s has no rows in %s", window, job.config.inference_log.path)
    logger.info("profiled %s: %d rows, %d kept", window, seen, kept_rows(frame))
