"""The fold over all stored windows, taken up where an earlier run left it.

A cached state is data about the past, never the truth: it is used only where the digest of all that it was folded
from (summaries, baseline, configuration, this code and its libraries) is the digest of what is there now. Deleting it
changes the time of the next run and not one byte of a verdict.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from whydrift.monitors import assessment
from whydrift.monitors.assessment import Assessed, Incident, WindowInput
from whydrift.monitors.summary import WindowSummary
from whydrift.monitors.verdict import WindowKey
from whydrift.pipelines import frozen_json
from whydrift.pipelines.job import Job
from whydrift.pipelines.store import OUTCOMES, STATE, SUMMARY, Store

logger = logging.getLogger(__name__)

_FOLDED = (SUMMARY, OUTCOMES)
_NUMERIC = ("numpy", "scipy", "pandas", "pyarrow")


@dataclass(frozen=True, slots=True)
class Saved:
    """The fold after a window; `digest` is of all windows up to it."""

    digest: str
    incident: Incident


def fold_stored(job: Job, keys: Sequence[WindowKey], wanted: int) -> Iterator[Assessed]:
    """Assess the stored windows `keys`, in the order of time, from number `wanted` on.

    The states before and after the last window are kept, so that it may be judged again and its successor be next;
    those of other windows are removed.
    """
    digests = _digests(job, keys)
    done, incident = _newest(job, keys, digests, wanted)
    for index in range(done, len(keys)):
        before = incident
        incident, assessed = assessment.step(job.reference, incident, _read(job.store, keys[index]))
        if index >= wanted:
            yield assessed
    if done < len(keys):
        kept = {len(keys) - 1: incident, len(keys) - 2: before}
        for index, state in kept.items():
            if index >= 0:
                job.store.write_state(keys[index], frozen_json.dump(Saved(digests[index], state)))
        for key in keys[: max(len(keys) - 2, 0)]:
            job.store.drop_state(key)


def _newest(job: Job, keys: Sequence[WindowKey], digests: Sequence[str], wanted: int) -> tuple[int, Incident]:
    """How many windows the newest state that may be used has folded, and the state."""
    for index in range(wanted - 1, -1, -1):
        data = job.store.read_part(keys[index], STATE)
        if data is None:
            continue
        try:
            saved = frozen_json.parse(Saved, data)
        except ValueError as error:
            logger.warning("the cached state of %s cannot be read and is not used: %s", keys[index].start, error)
            continue
        if saved.digest == digests[index]:
            return index + 1, saved.incident
    return 0, assessment.begin(job.reference)


def _digests(job: Job, keys: Sequence[WindowKey]) -> list[str]:
    """For each window the digest of all that the fold up to it depends on."""
    digest = hashlib.sha256(f"{_code()} {job.baseline.id} {job.config.digest()}".encode()).digest()
    found = []
    for key in keys:
        own = hashlib.sha256(f"{key.start.isoformat()} {key.end.isoformat()}".encode())
        for part in _FOLDED:
            data = job.store.read_part(key, part)
            own.update(b"none" if data is None else hashlib.sha256(data).digest())
        digest = hashlib.sha256(digest + own.digest()).digest()
        found.append(digest.hex())
    return found


@cache
def _code() -> str:
    """What computes a state: the sources of the monitors, and the versions of the libraries below them."""
    sources = sorted(Path(assessment.__file__).parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()
    return " ".join([code, *(importlib.metadata.version(name) for name in _NUMERIC)])


def _read(store: Store, key: WindowKey) -> WindowInput:
    return WindowInput(key, store.read_summary(key) or WindowSummary.zero(), store.read_summary(key, OUTCOMES))
