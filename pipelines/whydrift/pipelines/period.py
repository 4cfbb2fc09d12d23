"""The reference period's rows: read as often as they are asked for, and how many of them are explained."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from whydrift.monitors.hashing import hash64
from whydrift.monitors.reference import BaselineWindow, refer
from whydrift.monitors.sampling import configured, pilot, size, usual
from whydrift.monitors.summary import Sampling, WindowSummary
from whydrift.pipelines.config import Config
from whydrift.pipelines.explainers.prediction import Predict
from whydrift.pipelines.progress import progress
from whydrift.pipelines.rows import LogReader, Summariser, explainer_digest
from whydrift.pipelines.settings import settings
from whydrift.pipelines.sources.records import Records, gather
from whydrift.pipelines.window import Window

logger = logging.getLogger(__name__)

FIT_ROWS = 200_000  # rows that show what a feature's values are; of a longer period a sample
_SEED = 2  # of the hash that draws them: not that of the rows that are explained


@dataclass(frozen=True, slots=True)
class Period:
    """The windows of a reference period, with what was read of them.

    `frame` are its rows, at most `FIT_ROWS` of them, `rows` counts those of each window, and `kept` are the windows'
    records where labels have to be joined to them; else no more than a batch is held at once.
    """

    log: LogReader
    windows: tuple[Window, ...]
    frame: pd.DataFrame
    rows: tuple[int, ...]
    set_aside: dict[str, int]
    kept: tuple[Records, ...] | None

    @classmethod
    def read(cls, log: LogReader, windows: Sequence[Window]) -> Period:
        """Read the period once."""
        frames, rows, aside = list[pd.DataFrame](), list[int](), Counter[str]()
        kept: list[Records] | None = [] if log.config.labels is not None else None
        for window in progress(windows, "reading the reference period"):
            batches: Iterable[Records] = log.batches(window)
            if kept is not None:
                kept.append(gather(batches))
                batches = kept[-1:]
            rows.append(0)
            for batch in batches:
                rows[-1] += len(batch.frame)
                aside.update(batch.set_aside)
                frames.append(batch.frame)
                if sum(map(len, frames)) > 2 * FIT_ROWS:
                    frames = [_first(frames)]
        frame = _first(frames).sort_values(["event_time", "event_id"], kind="stable", ignore_index=True)
        return cls(log, tuple(windows), frame, tuple(rows), dict(aside), None if kept is None else tuple(kept))

    def answered(self, summariser: Summariser) -> Period:
        """The period with the model's own predictions where its records are kept."""
        if self.kept is None:
            return self
        return replace(self, kept=tuple(summariser.answer(r) for r in progress(self.kept, "asking the model")))

    def batches(self, number: int, summariser: Summariser) -> Iterator[Records]:
        """The records of a window, with the model's own predictions."""
        if self.kept is not None:
            return iter([self.kept[number]])
        return map(summariser.answer, self.log.batches(self.windows[number]))


def summarise_period(
    config: Config, summariser: Summariser, period: Period, predictor: Predict | None
) -> tuple[Summariser, list[WindowSummary], Period]:
    """The windows' summaries, the summariser whose layout says which rows were explained, and the answered period."""
    asked = config.explainer.rows
    known = usual(period.rows, summariser.reduce_logged(period.frame))
    first = None
    if asked != "all":
        first = pilot(known, config.window.min_rows) if asked == "auto" else configured(asked, known)
    if first is not None:  # else explanations give the predictions, and cost nothing more
        summariser = replace(summariser, predictor=predictor)
    period = period.answered(summariser)
    summariser, summaries = _summarise(summariser, period, first)
    if asked == "auto" and first is not None:
        windows = [BaselineWindow(w.start, s, None) for w, s in zip(period.windows, summaries, strict=True)]
        digests = {"model": summariser.model_digest, "explainer": explainer_digest(summariser.explainer)}
        reference = refer(windows, summariser.layout, replace(settings(config), labels=False), digests)
        sampling = size(first, reference, windows, known)
        if sampling != first:
            summariser, summaries = _summarise(summariser, period, sampling)
    _tell(summariser.layout.sampling, known.typical)
    return summariser, summaries, period


def _summarise(
    summariser: Summariser, period: Period, sampling: Sampling | None
) -> tuple[Summariser, list[WindowSummary]]:
    summariser = replace(summariser, layout=replace(summariser.layout, sampling=sampling))
    numbers = progress(range(len(period.windows)), "explaining the reference period")
    return summariser, [summariser.summarise(period.batches(number, summariser)) for number in numbers]


def _tell(sampling: Sampling | None, rows: float) -> None:
    if sampling is not None:
        stream = f" ({sampling.stream})" if sampling.stream else ""
        logger.info(
            "%.0f of the %.0f rows of a usual window are explained: %s%s",
            sampling.rate * rows,
            rows,
            sampling.why,
            stream,
        )


def _first(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows, or those whose ids hash lowest."""
    frame = pd.concat([f for f in frames if len(f)] or frames[-1:], ignore_index=True)
    if len(frame) <= FIT_ROWS:
        return frame
    order = pd.Series(hash64(frame["event_id"], seed=_SEED)).sort_values(kind="stable").index
    return frame.loc[order[:FIT_ROWS]].reset_index(drop=True)
