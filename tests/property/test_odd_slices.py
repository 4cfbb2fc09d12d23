"""Whatever the rows are, a search and gaps give numbers or say that there is none."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors.binning import fit_bins
from whydrift.monitors.cell_sums import fit_usual, pool, read_cells, read_usual, summarise_cells
from whydrift.monitors.fairness import fit_fairness, fit_usual_gaps, tell_gaps
from whydrift.monitors.slices import Searched, SearchRules, promote, search
from whydrift.monitors.summary import Layout, Outcomes, summarise_outcomes

RULES = SearchRules(min_rows=10, min_effect=1.0)


@pytest.fixture(scope="module")
def layout():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0] * 50, "b": ["x", "y", "y"] * 50})
    bins = tuple(fit_bins(name, frame[name]) for name in frame)
    plain = Layout("binary", "logit", 1.0, 1.0, bins, bins, (), searched=bins)
    return fit_fairness(frame, plain, ["a", "b"], 0.5, {})


def _rows(rng) -> Outcomes:
    """Few or many, strange values, weights over 24 orders of magnitude, certain predictions, one outcome only."""
    n = int(rng.choice([0, 1, 5, 200]))
    features = pd.DataFrame(
        {
            "a": rng.choice([1.0, 2.0, 3.0, np.nan, 1e300, -np.inf], n),
            "b": pd.Series(rng.choice(["x", "y", None], n), dtype=object),
        }
    )
    weights = [np.ones(n), 10.0 ** rng.uniform(-12, 12, n), np.zeros(n), np.full(n, 1e-9)]
    predictions = [rng.random(n), np.zeros(n), np.ones(n)]
    labels = [(rng.random(n) < 0.5).astype(float), np.zeros(n), np.ones(n)]
    return Outcomes(features, predictions[rng.integers(3)], weights[rng.integers(4)], labels[rng.integers(3)])


def _numbers(value):
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("seed", range(2))
def test_nothing_told_of_odd_rows_is_not_a_number(seed, layout):
    rng, told = np.random.default_rng(seed), 0
    for _ in range(15):
        batches = [_rows(rng) for _ in range(rng.integers(2, 12))]
        half = len(batches) // 2
        cells = [read_cells(summarise_cells(batch, layout), layout) for batch in batches]
        usual = read_usual(fit_usual(cells[:half], layout), layout)
        promote(usual, layout, RULES, 5)
        frames = [summarise_outcomes(batch, layout).frame() for batch in batches]
        result = search(Searched(pool(cells[half:]), usual), layout, RULES)
        gaps = tell_gaps(frames[0].iloc[:0], frames[-1], fit_usual_gaps([], frames[:half], layout), layout)
        assert all(map(math.isfinite, _numbers([result, gaps])))
        told += len(result.found) + sum(gap.log_ratio is not None for gap in gaps)
    assert told > 0
