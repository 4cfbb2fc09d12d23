"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from sample_verdict import VERDICT
from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.evidence import Thresholds
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.reference import BaselineWindow, Reference, Settings, refer
from whydrift.monitors.summary import (
    Explained,
    Group,
    Layout,
    Outcomes,
    WindowSummary,
    count_digests,
    count_set_aside,
    merge,
    summarise_outcomes,
)
from whydrift.monitors.verdict import (
    CauseKind,
    Verdict,
    WindowKey,
)
from whydrift.monitors.views import write_verdict


@pytest.fixture
def make_verdict() -> Callable[..., Verdict]:
    """The sample verdict, a page; keyword arguments replace fields."""

    def make(**changes: Any) -> Verdict:
        return replace(VERDICT, **changes)

    return make


WORLD_START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
BASELINE_DAYS = 35
_COEFFICIENTS = {"x1": 0.7, "x2": 0.62, "x3": 0.55}
_CARRIERS = {"a": -0.5, "b": 0.1, "c": 0.7}
_BASE = -1.0
_DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}


def _same(x: Any) -> Any:
    return x


def _values(frame: pd.DataFrame) -> np.ndarray:
    """The exact attributions, (n, 4)."""
    columns = [c * frame[name].fillna(0.0).to_numpy(float) for name, c in _COEFFICIENTS.items()]
    columns.append(frame["carrier"].map(_CARRIERS).fillna(0.0).to_numpy(float))
    return np.column_stack(columns)


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to the rows of a day: each function takes a column or table and returns another."""

    rows: int = 400
    inputs: Callable[[pd.DataFrame], pd.DataFrame] = _same
    values: Callable[[np.ndarray], np.ndarray] = _same
    prediction: Callable[[np.ndarray], np.ndarray] = _same
    label: Callable[[np.ndarray], np.ndarray] = _same
    digests: Mapping[str, str] = field(default_factory=lambda: _DIGESTS)
    set_aside: Mapping[str, int] = field(default_factory=dict)


_QUIET = Change()


class World:
    """A model that is linear in its log-odds, and its days: every day has effects of its own on all columns."""

    change = Change
    quiet = _QUIET
    baseline_days = BASELINE_DAYS

    def __init__(self, *, task: str = "binary", labels: bool = True, lag: int = 2, seed: int = 0) -> None:
        self.seed = seed
        frame = pd.concat([self._inputs(day, 400) for day in range(BASELINE_DAYS)])
        binary, values = task == "binary", _values(frame)
        self.layout = Layout(
            task="binary" if binary else "regression",
            link="logit" if binary else "identity",
            scale=1.0,
            loss_scale=1.0 if binary else 2.0,
            features=tuple(fit_bins(name, frame[name]) for name in frame),
            attributions=tuple(map(fit_attribution_bins, frame, values.T)),
            slices=("carrier",),
            groups=(Group("sensors", ("x1", "x2")),),
            predictions=None if binary else fit_bins("prediction", pd.Series(_BASE + values.sum(axis=1))),
        )
        self.settings = Settings(
            width=DAY,
            min_rows=100,
            labels=labels,
            lag=lag,
            thresholds=Thresholds(page=90.0, ticket=7.0),
            false_pages=1.0,
            period=timedelta(days=90),
            groups={"sensors": ("x1", "x2"), "everything": ("x1", "x2", "x3", "carrier")},
            policy=RetrainingPolicy(
                frozenset({CauseKind.CONCEPT_CHANGED, CauseKind.INPUTS_MOVED}), 1000, timedelta(days=14)
            ),
        )

    def start(self, day: int) -> datetime:
        return WORLD_START + day * DAY

    def _inputs(self, day: int, rows: int) -> pd.DataFrame:
        rng = np.random.default_rng([self.seed, day, 1])
        centre, spread = 0.15 * rng.standard_normal(3), np.exp(0.05 * rng.standard_normal(3))
        frame = pd.DataFrame(centre + spread * rng.standard_normal((rows, 3)), columns=list(_COEFFICIENTS))
        mix = rng.dirichlet([40.0, 80.0, 40.0])
        return frame.assign(carrier=rng.choice(list(_CARRIERS), size=rows, p=mix))

    def _rows(self, day: int, change: Change) -> tuple[Explained, Outcomes]:
        frame = change.inputs(self._inputs(day, change.rows))
        values = _values(frame)
        output = _BASE + values.sum(axis=1)
        rng = np.random.default_rng([self.seed, day, 2])
        truth = output + 0.1 * rng.standard_normal()
        if self.layout.task == "binary":
            prediction, label = expit(output), (rng.random(output.size) < expit(truth)).astype(float)
        else:
            prediction, label = output, truth + rng.standard_normal(output.size)
        prediction, weight = change.prediction(prediction), np.ones(output.size)
        return (
            Explained(frame, prediction, weight, change.values(values), output, _BASE),
            Outcomes(frame, prediction, weight, change.label(label)),
        )

    @cache  # noqa: B019 - worlds live as long as the session
    def summaries(self, day: int, change: Change) -> tuple[WindowSummary, WindowSummary]:
        """What is stored of a day's rows, and of their labels."""
        explained, outcomes = self._rows(day, change)
        counts = [count_set_aside(change.set_aside), count_digests(change.digests, change.rows)]
        return merge([summarise(explained, self.layout), *counts]), summarise_outcomes(outcomes, self.layout)

    def baseline(self, days: int = BASELINE_DAYS, changes: Mapping[int, Change] | None = None) -> list[BaselineWindow]:
        """The first days."""
        found = []
        for day in range(days):
            summary, outcomes = self.summaries(day, (changes or {}).get(day, _QUIET))
            found.append(BaselineWindow(self.start(day), summary, outcomes if self.settings.labels else None))
        return found

    def refer(self, days: int = BASELINE_DAYS, **settings: Any) -> Reference:
        """A reference fitted on the first days."""
        return refer(self.baseline(days), self.layout, replace(self.settings, **settings), dict(_DIGESTS))

    def windows(self, days: int, changes: Mapping[int, Change] | Change | None = None) -> list[WindowInput]:
        """The first production days; `changes` by day, or from the first one on."""

        def change(day: int) -> Change:
            if isinstance(changes, Change):
                return changes if day >= 0 else _QUIET
            return (changes or {}).get(day, _QUIET)

        found = []
        for day in range(days):
            at, lag = BASELINE_DAYS + day, self.settings.lag
            key = WindowKey(
                model="m", model_version="1", baseline_id="id", start=self.start(at), end=self.start(at + 1)
            )
            late = self.summaries(at - lag, change(day - lag))[1] if self.settings.labels else None
            found.append(WindowInput(key, self.summaries(at, change(day))[0], late))
        return found

    def verdicts(self, reference: Reference, windows: Sequence[WindowInput]) -> list[Verdict]:
        return [
            write_verdict(reference, assessed, {**_DIGESTS, "config": "c"}) for assessed in fold(reference, windows)
        ]


@pytest.fixture(scope="session")
def world() -> World:
    """Four features, 35 baseline days of 400 rows with effects of the day, labels two days later."""
    return World()


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture(scope="session")
def reference(world: World) -> Reference:
    return world.refer()
