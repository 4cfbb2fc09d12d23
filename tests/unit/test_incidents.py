"""Incidents from their first window to a request for a new model, or to none."""

from dataclasses import replace
from datetime import timedelta

import numpy as np

from soundness import sound
from whydrift.monitors.verdict import CauseKind, Status

PAGE = Status.PAGE


def since(change, first, last=40):
    return dict.fromkeys(range(first, last), change)


def onset(world, verdict):
    """In production days."""
    return (verdict.since - world.start(world.baseline_days)) / timedelta(days=1)


def test_lost_labels_are_broken_labels_since_their_cohort(world, reference):
    """Two days after the first of them were predicted, when their time to mature is over."""
    windows, few = world.windows(9), world.windows(9, since(world.change(rows=200), 3))
    lost = [replace(window, outcomes=other.outcomes) for window, other in zip(windows, few, strict=True)]
    verdicts = sound(world.verdicts(reference, lost))
    assert [v.status is PAGE for v in verdicts] == [False] * 5 + [True] * 4
    page = verdicts[5]
    assert (page.cause.kind, onset(world, page)) == (CauseKind.LABEL_BROKEN, 3)
    assert page.cause.sentence.startswith("50.0% of the records have a label")
    assert not any(v.retraining.requested for v in verdicts)


def test_without_its_own_window_a_cohort_has_no_coverage(world, reference):
    windows, few = world.windows(9), world.windows(9, since(world.change(rows=200), 3))
    lost = [replace(window, outcomes=other.outcomes) for window, other in zip(windows, few, strict=True)]
    verdicts = world.verdicts(reference, [lost[i] for i in (0, 1, 2, 5)])
    assert {f.stream for v in verdicts for f in v.findings} & {"label_coverage"} == set()


def test_labels_of_one_class_are_broken_labels(world, reference):
    verdicts = sound(world.verdicts(reference, world.windows(8, since(world.change(label=np.zeros_like), 2))))
    assert [v.status is PAGE for v in verdicts] == [False] * 4 + [True] * 4
    assert (verdicts[4].cause.kind, onset(world, verdicts[4])) == (CauseKind.LABEL_BROKEN, 2)
    assert not any(v.retraining.requested for v in verdicts)


def easier(d):
    """Hardly any positives: the loss falls."""
    return d.assign(x1=d["x1"] - 2)


def test_inputs_that_moved_without_harm_ask_for_nothing(world, reference):
    verdicts = sound(world.verdicts(reference, world.windows(16, since(world.change(inputs=easier), 3))))
    pages = [v for v in verdicts if v.status is PAGE]
    assert {v.cause.kind for v in pages} == {CauseKind.INPUTS_MOVED}
    assert pages[-1].retraining.labelled_since_onset > 1000
    assert not any(v.retraining.requested for v in verdicts)
    assert "no worse" in pages[-1].retraining.reason


def test_inputs_that_moved_and_are_answered_worse_ask(world, reference):
    def worse(y):
        return np.where(np.arange(y.size) % 3 == 0, 1 - y, y)

    verdicts = world.verdicts(reference, world.windows(16, since(world.change(inputs=easier, label=worse), 3)))
    asked = [v for v in verdicts if v.retraining.requested]
    assert asked
    assert asked[0].cause.kind is CauseKind.INPUTS_MOVED
    assert "the loss since then is" in asked[0].retraining.reason


def test_a_default_for_a_fifth_of_the_rows_is_broken_data_and_no_retraining(world, reference):
    stuck = world.change(rows=4000, inputs=lambda d: d.assign(x1=d["x1"].where(d.index % 5 > 0, 0.0)))
    verdicts = sound(world.verdicts(reference, world.windows(14, since(stuck, 2))))
    page = next(v for v in verdicts if v.status is PAGE)
    assert page.cause.features == ("x1",)
    assert page.cause.kind is CauseKind.DATA_BROKEN
    assert not any(v.retraining.requested for v in verdicts)
