"""A changed concept's cause says whose loss attribution rose; the fold, the verdict and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whydrift.monitors.loss_attribution import LossRows, summarise_losses
from whydrift.monitors.loss_sampling import LossSampling
from whydrift.monitors.reference import refer
from whydrift.monitors.summary import merge
from whydrift.monitors.verdict import CauseKind, Status

DRAWS, ROWS = 4, 60
SINCE = 4


@pytest.fixture
def layout(world):
    return replace(world.layout, loss_attribution=LossSampling("brier", 0.25, 0.5, DRAWS))


def with_losses(world, layout, outcomes, day, rise):
    """The outcomes with loss attributions around -0.02, those of x2 higher by `rise`."""
    rng = np.random.default_rng([day, 9])
    changes = -0.02 + 0.05 * rng.standard_normal((ROWS, len(layout.names), DRAWS))
    changes[:, layout.names.index("x2")] += rise
    base = np.full(ROWS, 0.25)
    loss = base + changes.mean(axis=2).sum(axis=1)
    return merge([outcomes, summarise_losses(LossRows(np.full(ROWS, 2.0), loss, base, changes), layout)])


def judged(world, layout, change, rise):
    made = [replace(w, outcomes=with_losses(world, layout, w.outcomes, i, 0.0)) for i, w in enumerate(world.baseline())]
    reference = refer(made, layout, world.settings, {"model": "a" * 64, "explainer": "b" * 64})
    windows = world.windows(10, dict.fromkeys(range(SINCE, 10), change))
    windows = [
        replace(w, outcomes=with_losses(world, layout, w.outcomes, 100 + i, rise if i >= SINCE + 2 else 0.0))
        for i, w in enumerate(windows)
    ]
    return world.verdicts(reference, windows)


def scatter(label):
    """Every third label is another row's."""
    return np.where(np.arange(label.size) % 3 == 0, np.roll(label, 1), label)


def test_the_page_names_the_feature(world, layout):
    verdicts = judged(world, layout, world.change(label=scatter), 0.1)
    page = next(v for v in verdicts if v.status is Status.PAGE)
    assert page.cause.kind is CauseKind.CONCEPT_CHANGED
    blamed = [g for g in page.cause.grounds if "loss attribution" in g]
    assert len(blamed) == 1
    assert blamed[0].startswith("the loss attribution of x2 rose by 0.")
    assert page.loss_attribution.features[0].feature == "x2"
    start = page.key.start - 2 * (page.key.end - page.key.start)
    assert (page.loss_attribution.cohort_start, page.loss_attribution.rows) == (start, ROWS)


def test_the_page_says_that_no_feature_is_to_blame(world, layout):
    page = next(v for v in judged(world, layout, world.change(label=scatter), 0.0) if v.status is Status.PAGE)
    assert "no feature's loss attribution rose by more than windows differ by (60 rows explained)" in page.cause.grounds


def test_it_has_no_part_in_status_evidence_or_other_causes(world, layout):
    quiet = judged(world, layout, world.quiet, 0.1)
    assert Status.PAGE not in {v.status for v in quiet}
    assert quiet[-1].loss_attribution.features[0].effect > 3
    plain = world.verdicts(world.refer(), world.windows(10))
    assert [(v.status, v.budget, v.findings) for v in quiet] == [(v.status, v.budget, v.findings) for v in plain]

    moved = world.change(inputs=lambda frame: frame.assign(x1=frame["x1"] + 3))
    page = next(v for v in judged(world, layout, moved, 0.1) if v.status is Status.PAGE)
    assert page.cause.kind is not CauseKind.CONCEPT_CHANGED
    assert not any("loss attribution" in ground for ground in page.cause.grounds)


def test_without_labels_there_is_none(make_world):
    world = make_world(labels=False)
    assert [v.loss_attribution for v in world.verdicts(world.refer(), world.windows(2))] == [None, None]
