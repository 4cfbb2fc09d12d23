"""Days of rows, and the whole path from rows to pages: summaries, streams, detector, verdicts.

Days differ although nothing changed. Every feature's mean has an effect of the day with variance `rho` in units of its
rows' variance, its log standard deviation one with variance rho / 2, and effects of two features correlate by .3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.special import expit
from streams import DAY, GUARANTEED, HORIZON, START, FloatArray

from whydrift.monitors.assessment import Assessed, WindowInput, fold
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.reference import BaselineWindow, Reference, Settings, refer
from whydrift.monitors.summary import Explained, Layout, WindowSummary, count_digests, merge
from whydrift.monitors.verdict import WindowKey

_DIGESTS = {"model": "0" * 64, "explainer": "0" * 64}
_EFFECTS_CORRELATE = 0.3
_SAMPLE = 20_000  # rows that the cells are fitted on


def draw(rng: np.random.Generator, rows: int, features: int, rho: float) -> FloatArray:
    """The inputs of one day, (rows, features): independent, normal, but for the effects of the day."""
    common, own = rng.standard_normal(2), rng.standard_normal((2, features))
    centre, spread = np.sqrt(_EFFECTS_CORRELATE) * common[:, None] + np.sqrt(1 - _EFFECTS_CORRELATE) * own
    deviation = np.exp(np.sqrt(rho / 2) * spread)
    return np.asarray(np.sqrt(rho) * centre + deviation * rng.standard_normal((rows, features)))


def explained(inputs: pd.DataFrame, values: FloatArray, base: float) -> Explained:
    """Rows that are explained exactly: log-odds are the base and the sum of the attributions."""
    output = base + values.sum(axis=1)
    return Explained(inputs, expit(output), np.ones(len(output)), values, output, base)


def lay_out(days: Iterable[Explained]) -> Layout:
    """The layout that a baseline of these days would fix."""
    some = list(days)
    inputs = pd.concat([day.features for day in some]).iloc[:_SAMPLE]
    values = np.concatenate([day.values for day in some])[:_SAMPLE]
    scale = 2.0 ** round(np.log2(np.concatenate([day.output for day in some]).std()))
    return Layout(
        task="binary",
        link="logit",
        scale=scale,
        loss_scale=1.0,
        features=tuple(fit_bins(str(name), inputs[name]) for name in inputs),
        attributions=tuple(
            fit_attribution_bins(str(name), own / scale) for name, own in zip(inputs, values.T, strict=True)
        ),
        slices=(),
    )


def reduce_day(day: Explained, layout: Layout) -> WindowSummary:
    """What is stored of a day."""
    return merge([summarise(day, layout), count_digests(_DIGESTS, len(day.output))])


def judge(baseline: Iterable[WindowSummary], layout: Layout, days: Iterable[WindowSummary]) -> Iterator[Assessed]:
    """The verdicts on the days after the baseline's, one after the other."""
    first = [BaselineWindow(START + i * DAY, summary, None) for i, summary in enumerate(baseline)]
    yield from fold(_refer(first, layout), _windows(days, len(first)))


def _refer(first: list[BaselineWindow], layout: Layout) -> Reference:
    settings = Settings(
        width=DAY,
        min_rows=100,
        labels=False,
        lag=0,
        thresholds=GUARANTEED,
        false_pages=1.0,
        period=HORIZON * DAY,
        groups={},
        policy=RetrainingPolicy(frozenset(), 1000, timedelta(days=14)),
    )
    return refer(first, layout, settings, dict(_DIGESTS))


def _windows(days: Iterable[WindowSummary], after: int) -> Iterator[WindowInput]:
    for i, summary in enumerate(days):
        start = START + (after + i) * DAY
        key = WindowKey(model="m", model_version="1", baseline_id="b", start=start, end=start + DAY)
        yield WindowInput(key, summary, None)


@dataclass(frozen=True, slots=True)
class Found:
    """The first page by evidence after the onset: its delay, 1 in the first window that moved, and what it names."""

    early: bool
    delay: int | None
    features: tuple[str | None, ...]


def first_page(verdicts: Iterable[Assessed], quiet: int) -> Found:
    """Looks no further than it has to."""
    for i, assessed in enumerate(verdicts):
        if assessed.evidence.page and i < quiet:
            return Found(early=True, delay=None, features=())
        if assessed.evidence.page:
            return Found(False, i - quiet + 1, tuple(f.feature for f in assessed.findings))
    return Found(early=False, delay=None, features=())
