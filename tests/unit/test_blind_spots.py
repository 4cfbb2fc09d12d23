"""Changes that a ranking of features does not show: its NDCG stays at or above .90, and here they page."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.reference import BaselineWindow, refer
from whydrift.monitors.summary import Explained, Layout, count_digests, merge
from whydrift.monitors.verdict import Status, WindowKey

DAYS, ROWS, QUIET = 35, 800, 6
DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}
COEFFICIENTS = np.array([1.0, 0.95, 0.85, 0.75, 0.7, 0.65, 0.6, 0.5])
NAMES = [f"x{j + 1}" for j in range(COEFFICIENTS.size)]
PRODUCT = 0.8


def attributions(x):
    """Of sum b_j x_j + e x1 x2 against a background of independent features with mean 0: Shapley values, exactly.

    A product of two features is shared equally between them.
    """
    values = x * COEFFICIENTS
    values[:, :2] += (PRODUCT / 2 * x[:, 0] * x[:, 1])[:, None]
    return values


def same(x):
    return x


def dies(x):
    """x1 is a constant from now on, the background's mean."""
    return np.column_stack([np.zeros(len(x)), x[:, 1:]])


def correlates(x):
    """x1 and x2 with a correlation of .6, and each distributed as ever."""
    return np.column_stack([x[:, 0], 0.6 * x[:, 0] + 0.8 * x[:, 1], x[:, 2:]])


def scales(x):
    return x * np.where(np.arange(x.shape[1]) == 2, 1.5, 1.0)


def explain(day, change, seed):
    rng = np.random.default_rng([seed, day])
    spread = np.exp(0.02 * rng.standard_normal(COEFFICIENTS.size))
    x = change(0.03 * rng.standard_normal(COEFFICIENTS.size) + spread * rng.standard_normal((ROWS, COEFFICIENTS.size)))
    values = attributions(x)
    output = values.sum(axis=1)
    return Explained(pd.DataFrame(x, columns=NAMES), output, np.ones(ROWS), values, output, 0.0)


@dataclass(frozen=True)
class Seen:
    """What came of a change: NDCG by day, the first window that paged, and what it named."""

    ndcg: list[float]
    page: int | None
    streams: set[tuple[str, str | None]]
    features: tuple[str, ...]


def baseline(world, seed=0):
    """A reference fitted on quiet days, and the mean absolute attributions of these."""
    batches = [explain(day, same, seed) for day in range(DAYS)]
    frame = pd.concat([batch.features for batch in batches])
    every = np.concatenate([batch.values for batch in batches])
    layout = Layout(
        task="regression",
        link="identity",
        scale=2.0,
        loss_scale=2.0,
        features=tuple(fit_bins(name, frame[name]) for name in NAMES),
        attributions=tuple(map(fit_attribution_bins, NAMES, every.T / 2.0)),
        slices=(),
        predictions=fit_bins("prediction", pd.Series(every.sum(axis=1))),
    )
    settings = replace(world.settings, labels=False, groups={})
    windows = [BaselineWindow(world.start(day), reduce(batch, layout), None) for day, batch in enumerate(batches)]
    return refer(windows, layout, settings, DIGESTS), np.abs(every).mean(axis=0)


@pytest.fixture(scope="module")
def known(world):
    return baseline(world)


def follow(world, known, change, seed=0, days=8):
    """Some quiet days, then the change."""
    (reference, usual), later, ndcg = known, [], []
    for day in range(DAYS, DAYS + QUIET + days):
        batch = explain(day, change if day >= DAYS + QUIET else same, seed)
        ndcg.append(ndcg_score([usual], [np.abs(batch.values).mean(axis=0)]))
        start = world.start(day)
        key = WindowKey(model="m", model_version="1", baseline_id="b", start=start, end=start + timedelta(days=1))
        later.append(WindowInput(key, reduce(batch, reference.layout), None))
    for window, assessed in enumerate(fold(reference, later)):
        if assessed.status is Status.PAGE:
            named = [reference.detector.streams[i] for i in assessed.evidence.named]
            features = assessed.cause.features if assessed.cause else ()
            return Seen(ndcg, window - QUIET, {(s.kind, s.feature) for s in named}, features)
    return Seen(ndcg, None, set(), ())


def reduce(batch, layout):
    return merge([summarise(batch, layout), count_digests(DIGESTS, ROWS)])


CHANGES = [
    (dies, ("x1",), {("level", "x1"), ("share", "x1"), ("shape", "x1"), ("response", "x1")}),
    (correlates, ("x1", "x2"), {("response", "x1"), ("response", "x2"), ("level", "x1"), ("level", "x2")}),
    (scales, ("x3",), {("share", "x3"), ("shape", "x3")}),
]


@pytest.mark.parametrize(("change", "features", "streams"), CHANGES, ids=[c.__name__ for c, *_ in CHANGES])
def test_we_page_where_a_ranking_is_blind(world, known, change, features, streams):
    seen = follow(world, known, change)
    assert min(seen.ndcg) >= 0.90
    assert seen.page is not None
    assert 0 <= seen.page <= 3
    assert seen.streams & streams
    assert set(seen.features) == set(features)
