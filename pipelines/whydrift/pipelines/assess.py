"""Stage `assess`: all summaries up to a window become its verdict."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import lru_cache

from whydrift.monitors.cell_sums import WindowCells, pool, read_cells, read_usual
from whydrift.monitors.label_view import Arrivals
from whydrift.monitors.slices import Searched
from whydrift.monitors.verdict import Verdict, WindowKey
from whydrift.monitors.views import Extras, write_verdict
from whydrift.pipelines.errors import NoDataError
from whydrift.pipelines.folding import fold_stored
from whydrift.pipelines.job import Job
from whydrift.pipelines.store import ARRIVALS, CELLS
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)

TRAILING = 28  # windows that are searched for slices together


def assess(job: Job, windows: Collection[Window]) -> list[Verdict]:
    """Fold every stored window up to the last asked for; write and return the verdicts of those asked for.

    Raises:
        NoDataError: a window was not profiled yet.
    """
    wanted = {(w.start, w.end) for w in windows}
    keys = _stored(job, max(end for _, end in wanted))
    first = next((i for i, key in enumerate(keys) if (key.start, key.end) in wanted), len(keys))
    digests = {**job.baseline.digests, "config": job.config.digest()}
    verdicts = []
    search, recent = _search(job), deque(keys[:first], maxlen=TRAILING)
    for assessed in fold_stored(job, keys, first):
        key = assessed.window.key
        recent.append(key)
        if (key.start, key.end) in wanted:
            extras = Extras(
                searched=search(recent), arrivals=Arrivals(job.store.read_summary(key, ARRIVALS), job.usual_labels)
            )
            verdict = write_verdict(job.reference, assessed, digests, job.baseline.soundness, extras)
            job.store.write_verdict(verdict)
            verdicts.append(verdict)
            logger.info("assessed [%s, %s): %s", key.start, key.end, verdict.status.value)
    missing = wanted - {(v.key.start, v.key.end) for v in verdicts}
    if missing:
        start, end = min(missing)
        raise NoDataError(f"the window {Window(start, end)} has no summary in {job.config.store}; run profile first")
    return verdicts


def _search(job: Job) -> Callable[[Iterable[WindowKey]], Searched | None]:
    """Reads the cells of windows, each only once for all verdicts; nothing where nothing is searched."""
    layout = job.baseline.layout
    if not layout.searched:
        return lambda _: None
    usual = read_usual(job.baseline.cells, layout)

    @lru_cache(maxsize=TRAILING)
    def read(key: WindowKey) -> WindowCells | None:
        part = job.store.read_summary(key, CELLS)
        return None if part is None else read_cells(part, layout)

    def search(keys: Iterable[WindowKey]) -> Searched | None:
        windows = [cells for key in keys if (cells := read(key)) is not None]
        return Searched(pool(windows), usual) if windows else None

    return search


def _stored(job: Job, end: datetime) -> list[WindowKey]:
    """The profiled windows of the configured width that end by `end`, in the order of time."""
    keys = job.store.keys(job.version.name, job.version.version, job.baseline.id)
    return [k for k in keys if k.end <= end and k.end - k.start == job.config.window.every and job.store.has(k)]
