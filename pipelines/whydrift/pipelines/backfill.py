"""Stage `backfill`: many past windows in one process, folded once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.assess import assess
from whydrift.pipelines.job import Job
from whydrift.pipelines.profile import profile
from whydrift.pipelines.progress import progress
from whydrift.pipelines.publish import HISTORY, history, publish_verdict
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)


def backfill(job: Job, windows: Sequence[Window]) -> list[Verdict]:
    """Profile, assess and publish the windows, as separate runs would have, in the order of time."""
    for window in progress(windows, "profiling"):
        profile(job, window)
    verdicts = assess(job, windows)
    earlier = history(job, verdicts[0])
    for verdict in progress(verdicts, "publishing"):
        publish_verdict(job, verdict, earlier[-HISTORY:])
        earlier.append(verdict)
    return verdicts
