"""Assessing is a fold: a verdict depends on its own and earlier windows, and on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from whydrift.monitors.assessment import fold
from whydrift.monitors.summary import WindowSummary, merge
from whydrift.pipelines.verdict_json import to_json

DAYS = 8
RELAXED = settings(
    max_examples=5,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def kinds(world):
    """What a day may be like."""
    change = world.change
    return [
        world.quiet,
        change(inputs=lambda d: d.assign(x1=d["x1"] + 2)),
        change(inputs=lambda d: d.assign(x3=d["x3"].where(d["carrier"] != "a"))),
        change(label=lambda y: 1 - y),
        change(rows=30),
        change(prediction=lambda p: p * 0.5),
        change(values=lambda v: v * 1e300),
        change(rows=1, inputs=lambda d: d.assign(x1=np.nan, carrier="new")),
    ]


@pytest.fixture(scope="module")
def judge(world, reference):
    """The verdicts of windows as JSON. A function, because Hypothesis prints its arguments."""

    def verdicts(windows):
        return [to_json(verdict) for verdict in world.verdicts(reference, windows)]

    return verdicts


HISTORY = st.lists(st.integers(0, 7), min_size=DAYS, max_size=DAYS)


@RELAXED
@given(HISTORY, st.integers(1, DAYS - 1), st.integers(0, 7), st.sets(st.integers(0, DAYS - 1), max_size=4))
def test_a_verdict_is_the_same_whatever_follows(world, judge, kinds, days, cut, other, lost):
    history = {i: kinds[k] for i, k in enumerate(days)}
    future = {**history, **dict.fromkeys(range(cut, DAYS), kinds[other])}
    seen, changed = ([w for i, w in enumerate(world.windows(DAYS, h)) if i not in lost] for h in (history, future))
    past = len([i for i in range(cut) if i not in lost])
    verdicts = judge(seen)
    assert judge(changed)[:past] == verdicts[:past]
    assert judge(seen[:past]) == verdicts[:past]
    assert b"NaN" not in b"".join(verdicts)
    assert b"Infinity" not in b"".join(verdicts)


def test_a_stored_window_and_one_from_parts_are_the_same(world, judge, kinds):
    windows = world.windows(6, {3: kinds[2], 4: kinds[3]})
    stored = [
        replace(
            w,
            summary=WindowSummary.from_bytes(merge([WindowSummary.zero(), w.summary]).to_bytes()),
            outcomes=WindowSummary.from_bytes(w.outcomes.to_bytes()),
        )
        for w in windows
    ]
    assert judge(stored) == judge(windows)


def test_windows_are_read_one_by_one(world, reference):
    """The caller may stop, and a year of windows need not be held."""
    read = []

    def source():
        for i, window in enumerate(world.windows(5)):
            read.append(i)
            yield window

    assessed = fold(reference, source())
    next(assessed)
    next(assessed)
    assert read == [0, 1]


def test_two_references_of_the_same_baseline_agree(world, judge):
    windows = world.windows(5)
    assert [to_json(v) for v in world.verdicts(world.refer(), windows)] == judge(windows)
