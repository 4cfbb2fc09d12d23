"""Slices and gaps from summaries to the verdict and its report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whydrift.monitors.assessment import fold
from whydrift.monitors.cell_sums import fit_usual, pool, read_cells, read_usual, summarise_cells
from whydrift.monitors.fairness import fit_fairness
from whydrift.monitors.grid import SliceCell
from whydrift.monitors.outcome_streams import losses
from whydrift.monitors.slices import Searched, SearchRules, search_columns
from whydrift.monitors.streams import list_streams
from whydrift.monitors.verdict import Status
from whydrift.monitors.views import Extras, write_verdict
from whydrift.pipelines.config import Config
from whydrift.pipelines.outputs.report import render

DAYS = 8
RULES = SearchRules(min_rows=60, min_effect=1.1)


def _asked(make_world, *, task="binary"):
    """A world whose baseline was searched, and where gaps of carriers are watched."""
    world = make_world(task=task)
    whole = [world._inputs(day, 400) for day in range(world.baseline_days)]
    if task == "binary":
        world.layout = fit_fairness(whole[0], world.layout, ["carrier"], 0.5, {})
    frame = world.baseline()[0].summary.frame()
    world.layout = search_columns(frame, world.layout, np.array([0.3, 0.2, 0.1, 0.4]), "auto", 12)
    usual = fit_usual([_cells(world, day, world.quiet) for day in range(world.baseline_days)], world.layout)
    world.layout = replace(world.layout, promoted=(SliceCell("x1 low", ("x1",), (0,)),))
    world.summaries.cache_clear()
    return world, read_usual(usual, world.layout)


def _cells(world, day, change):
    return read_cells(summarise_cells(world._rows(day, change)[1], world.layout), world.layout)


def _verdicts(world, usual, reference, change):
    """Of windows where the change lasts from the first production day on."""
    lag = world.settings.lag
    found, recent = [], []
    for at, assessed in enumerate(fold(reference, world.windows(DAYS, change))):
        day = world.baseline_days + at - lag
        recent.append(_cells(world, day, change if at >= lag else world.quiet))
        extras = Extras(searched=Searched(pool(recent[-28:]), usual))
        found.append(write_verdict(reference, assessed, {}, extras=extras))
    return found


def _wrong_for_the_first(label):
    """Labels are turned round for one row in two of the first quarter of the rows."""
    turned = label.copy()
    turned[: len(label) // 4 : 2] = 1 - turned[: len(label) // 4 : 2]
    return turned


@pytest.fixture(scope="module")
def broken(make_world):
    world, usual = _asked(make_world)

    def first(frame):  # the rows whose labels will be wrong are those of carrier a
        return frame.assign(carrier=np.where(np.arange(len(frame)) < len(frame) // 4, "a", frame["carrier"].mode()[0]))

    change = world.change(inputs=first, label=_wrong_for_the_first)
    reference = world.refer(search=RULES)
    return world, reference, _verdicts(world, usual, reference, change)


def test_the_verdict_tells_the_slice_that_became_worse(broken):
    _, _, verdicts = broken
    last = verdicts[-1]
    found = last.search.found[0]
    assert "carrier=a" in found.slice
    assert found.question == "diagnosis"
    assert found.ratio > 1.3 * found.baseline_ratio
    assert last.search.windows == DAYS
    assert last.search.columns[0] == "carrier", "a configured slice comes first"
    text = render(last)
    assert "carrier=a" in text
    assert "Where did the model become worse than elsewhere" in text


def test_the_search_pages_nobody_and_needs_no_fold(broken):
    world, reference, verdicts = broken
    plain = [write_verdict(reference, a, {}) for a in fold(reference, world.windows(3))]
    assert all(v.search is None for v in plain)
    assert [v.status for v in plain] == [Status.OK] * 3
    assert all(v.rows.labelled for v in verdicts)


def test_gaps_are_streams_and_are_told(broken):
    world, _, verdicts = broken
    kinds = [s.kind for s in list_streams(world.layout, labels=True) if s.kind.startswith("gap_")]
    assert kinds == [k for k in ("gap_selection", "gap_tpr", "gap_fpr", "gap_calibration") for _ in range(2)]
    assert "gap_tpr" not in {s.kind for s in list_streams(world.layout, labels=False)}
    told = {(g.metric, g.group): g for g in verdicts[0].fairness}
    assert len(told) == 8
    gap = told["selection_rate", "carrier=a"]
    assert gap.reference == "carrier=b"
    assert gap.interval[0] < gap.log_ratio < gap.interval[1]
    assert gap.log_ratio == pytest.approx(np.log(gap.rate / gap.reference_rate))
    assert "Selected, of those without it" in render(verdicts[0])


def test_a_slice_that_was_found_is_a_stream_with_a_tenth_of_the_weight_at_most(broken):
    world, reference, _ = broken
    [found] = [j for j, s in enumerate(reference.detector.streams) if s.automatic]
    stream = reference.detector.streams[found]
    [cell] = world.layout.promoted
    assert (stream.kind, stream.slice, stream.one_sided) == ("loss", cell.name, True)
    assert 0 < reference.detector.weights[found] <= 0.1
    _, rows = world._rows(3, world.quiet)
    low, high = world.layout.searched[1].edges[:2]
    inside = rows.features["x1"].between(low, high, inclusive="left").to_numpy()
    loss = (rows.label - rows.prediction)[inside] ** 2
    told = losses(world.summaries(3, world.quiet)[1].frame())[cell.name]
    assert told.rows == loss.size > 30
    assert told.mean == pytest.approx(loss.mean())


def test_a_regression_is_searched_and_has_no_gaps(make_world):
    world, usual = _asked(make_world, task="regression")

    def off(label):
        moved = label.copy()
        moved[: len(label) // 4] += 4.0
        return moved

    def first(frame):
        return frame.assign(carrier=np.where(np.arange(len(frame)) < len(frame) // 4, "c", "b"))

    reference = world.refer(search=RULES)
    last = _verdicts(world, usual, reference, world.change(inputs=first, label=off))[-1]
    assert last.search.found[0].slice == "carrier=c"
    assert last.search.found[0].loss == pytest.approx(13.0, rel=0.2), "squared error in the label's own unit"
    assert last.fairness == ()


def test_gaps_of_a_regression_are_refused():
    sections = {
        "model": {"name": "m", "task": "regression"},
        "mlflow": {"tracking_uri": "sqlite:///m.db"},
        "inference_log": {"path": "logs"},
        "baseline": {"start": "2024-01-01", "end": "2024-02-01"},
        "store": "s",
        "outputs": "o",
        "fairness": {"columns": ["sex"]},
    }
    with pytest.raises(ValueError, match=r"fairness: rates need model\.task binary, it is regression"):
        Config.model_validate(sections)
    sections["model"]["task"] = "binary"
    assert Config.model_validate(sections).fairness.threshold == 0.5
