"""A class of a multiclass model is watched as the binary model of itself against the rest would be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax as scipy_softmax

from soundness import walk
from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.calibration_multiclass import class_meshes, multiclass_calibration
from whydrift.monitors.checks import check_labels
from whydrift.monitors.class_sums import (
    as_seen_by,
    head_names,
    heads,
    read_class_meshes,
    softmax,
    summarise_class_outcomes,
    summarise_classes,
)
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.outcome_streams import losses
from whydrift.monitors.reference import BaselineWindow, refer
from whydrift.monitors.streams import list_streams
from whydrift.monitors.summary import (
    ClassCells,
    Explained,
    Group,
    Layout,
    Outcomes,
    count_digests,
    merge,
    summarise_outcomes,
)
from whydrift.monitors.verdict import Status, WindowKey
from whydrift.monitors.views import write_verdict

CLASSES = ("rain", "sun: bright", "wind")
WEIGHTS = np.array([[0.9, 0.1, -0.4], [-0.5, 0.6, 0.2], [0.1, -0.7, 0.8]])  # of x1, x2 and x3 for each class
BASES = (0.3, 0.0, -0.5)
DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}
START, DAY = datetime(2026, 3, 2, tzinfo=UTC), timedelta(days=1)
BASELINE_DAYS, LAG = 30, 2


def make_rows(day, rows=300, *, moved=0.0):
    """Explained rows of a linear softmax model and their labels; every day has an effect of its own."""
    rng = np.random.default_rng([7, day])
    x = 0.1 * rng.standard_normal(3) + rng.standard_normal((rows, 3))
    x[:, 0], x[:, 2] = np.clip(np.round(x[:, 0]), -1, 1), x[:, 2] + moved
    frame = pd.DataFrame(x, columns=["x1", "x2", "x3"])
    values = x[:, None, :] * WEIGHTS
    output = values.sum(axis=2) + np.array(BASES)
    prediction, weight = scipy_softmax(output, axis=1), rng.uniform(0.5, 2.0, rows)
    label = (rng.random(rows)[:, None] > prediction.cumsum(axis=1)).sum(axis=1).astype(float)
    return (
        Explained(frame, prediction, weight, values, output, BASES, np.abs(values) / 10),
        Outcomes(frame, prediction, weight, label),
    )


@pytest.fixture(scope="module")
def layout():
    parts = [make_rows(day)[0] for day in range(BASELINE_DAYS)]
    frame, values = pd.concat([p.features for p in parts]), np.concatenate([p.values for p in parts])
    return Layout(
        task="multiclass",
        link="softmax",
        scale=1.0,
        loss_scale=1.0,
        features=tuple(fit_bins(name, frame[name]) for name in frame),
        attributions=(),
        slices=("x1",),
        groups=(Group("pair", ("x1", "x2")),),
        classes=tuple(
            ClassCells(name, tuple(map(fit_attribution_bins, frame, values[:, c].T))) for c, name in enumerate(CLASSES)
        ),
    )


def against_the_rest(explained, outcomes, number):
    """The same rows as those of a binary model."""
    return (
        replace(
            explained,
            prediction=explained.prediction[:, number],
            values=explained.values[:, number],
            output=explained.output[:, number],
            base=BASES[number],
            error=explained.error[:, number],
        ),
        replace(outcomes, prediction=outcomes.prediction[:, number], label=(outcomes.label == number).astype(float)),
    )


def as_dict(frame, *, without=()):
    keys = frame[["block", "slice", "name", "cell", "stat"]].itertuples(index=False, name=None)
    found = dict(zip(keys, frame["value"], strict=True))
    return {key: value for key, value in found.items() if (key[0], key[4]) not in without}


@pytest.mark.parametrize("number", range(3))
def test_a_class_sees_the_summary_of_the_model_against_the_rest(layout, number):
    explained, outcomes = make_rows(0)
    binary, labelled = against_the_rest(explained, outcomes, number)
    head = heads(layout)[number]
    of_the_whole = {("quality", "not_additive"), ("quality", "prediction_differs")}
    seen = as_seen_by(summarise_classes(explained, layout).frame(), layout)[number]
    assert as_dict(seen, without=of_the_whole) == as_dict(summarise(binary, head).frame(), without=of_the_whole)
    late = as_seen_by(summarise_class_outcomes(outcomes, layout).frame(), layout)[number]
    assert as_dict(late) == as_dict(summarise_outcomes(labelled, head).frame())


def test_rows_are_stored_once(layout):
    table = summarise_classes(make_rows(0)[0], layout).frame()
    for block in ("rows", "input", "slice", "quality"):
        assert block in set(table["block"])
    assert not {b for b in table["block"] if b.startswith(("rows:", "input:", "slice:"))}
    assert {b.partition(":")[2] for b in table["block"] if b.startswith("phi")} == set(CLASSES)


def test_parts_add_up_bit_for_bit(layout):
    explained, outcomes = make_rows(0)
    order = np.random.default_rng(0).permutation(300)
    pieces = np.split(order, [10, 11, 200])

    def take(batch, rows):
        cut = {
            name: getattr(batch, name)[rows] for name in batch.__slots__ if isinstance(getattr(batch, name), np.ndarray)
        }
        return replace(batch, features=batch.features.iloc[rows], **cut)

    parts = [summarise_classes(take(explained, rows), layout) for rows in pieces]
    assert merge(parts).to_bytes() == summarise_classes(explained, layout).to_bytes()
    late = [summarise_class_outcomes(take(outcomes, rows), layout) for rows in pieces]
    assert merge(late).to_bytes() == summarise_class_outcomes(outcomes, layout).to_bytes()


def test_what_the_whole_model_gets_wrong(layout):
    explained, _ = make_rows(0)
    prediction, values = explained.prediction.copy(), explained.values.copy()
    prediction[:5] = prediction[:5, ::-1]
    values[3:7, 1, 0] += 0.5
    frame = summarise_classes(replace(explained, prediction=prediction, values=values), layout).frame()
    quality = frame[frame["block"] == "quality"].set_index("stat")["value"]
    assert quality.to_dict() == {"explained": 300, "not_additive": 4, "prediction_differs": 5}


def test_the_loss_is_the_brier_score_of_all_classes(layout):
    _, outcomes = make_rows(0)
    found = losses(summarise_class_outcomes(outcomes, layout).frame())
    square = ((np.eye(3)[outcomes.label.astype(int)] - outcomes.prediction) ** 2).sum(axis=1)
    assert found[""].mean == pytest.approx(np.average(square, weights=outcomes.weight), abs=1e-8)
    by_slice = [loss for name, loss in found.items() if name]
    assert sum(loss.rows for loss in by_slice) == found[""].rows == 300


def test_calibration_is_that_of_the_rows(layout):
    outcomes = make_rows(0)[1]
    meshes = read_class_meshes(summarise_class_outcomes(outcomes, layout).frame(), layout)
    expected = multiclass_calibration(class_meshes(outcomes.prediction, outcomes.label.astype(int), outcomes.weight))
    found = multiclass_calibration(meshes)
    assert found.worst == expected.worst
    for one, other in ((found.top, expected.top), *zip(found.classes, expected.classes, strict=True)):
        assert (one.smece, one.brier, one.l2) == pytest.approx((other.smece, other.brier, other.l2), abs=1e-7)
    assert read_class_meshes(merge([]).frame(), layout) is None


def test_labels_are_numbers_of_classes(layout):
    _, outcomes = make_rows(0)
    with pytest.raises(ValueError, match="no class"):
        summarise_class_outcomes(replace(outcomes, label=np.full(300, 3.0)), layout)


def test_softmax():
    output = np.random.default_rng(0).normal(0, 200, (50, 4))
    np.testing.assert_allclose(softmax(output), scipy_softmax(output, axis=1), atol=1e-15)


def baseline(layout, reduce, reduce_outcomes):
    found = []
    for day in range(BASELINE_DAYS):
        explained, outcomes = make_rows(day)
        summary = merge([reduce(explained, outcomes), count_digests(DIGESTS, 300)])
        found.append(BaselineWindow(START + day * DAY, summary, reduce_outcomes(explained, outcomes)))
    return found


@pytest.fixture(scope="module")
def settings(world):
    return replace(world.settings, groups={})


@pytest.fixture(scope="module")
def reference(layout, settings):
    windows = baseline(
        layout, lambda e, _: summarise_classes(e, layout), lambda _, o: summarise_class_outcomes(o, layout)
    )
    return refer(windows, layout, settings, dict(DIGESTS))


def test_streams_of_a_class_are_those_of_the_model_against_the_rest(layout, settings, reference):
    number, head = 1, heads(layout)[1]
    windows = baseline(
        head,
        lambda e, o: summarise(against_the_rest(e, o, number)[0], head),
        lambda e, o: summarise_outcomes(against_the_rest(e, o, number)[1], head),
    )
    alone = refer(windows, head, settings, dict(DIGESTS))
    streams = list_streams(layout, labels=True)
    own = [i for i, stream in enumerate(streams) if stream.class_name == CLASSES[number]]
    assert [replace(streams[i], class_name=None) for i in own] == list(list_streams(head, labels=True))
    assert len(streams) == 3 * len(own)
    for here, there in zip(reference.observations, alone.observations, strict=True):
        np.testing.assert_allclose(here.values[own], there.values, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(here.variances[own], there.variances, rtol=1e-9, atol=1e-12)
    assert np.isfinite(reference.observations[-1].values).mean() > 0.8


def production(layout, days, change=None, label=lambda y: y):
    """The first days after the baseline; `change` goes to `make_rows`, from the first day on."""

    def late(day):
        outcomes = make_rows(day, **((change or {}) if day >= BASELINE_DAYS else {}))[1]
        return replace(outcomes, label=label(outcomes.label)) if day >= BASELINE_DAYS else outcomes

    found = []
    for day in range(BASELINE_DAYS, BASELINE_DAYS + days):
        key = WindowKey(
            model="m", model_version="1", baseline_id="i", start=START + day * DAY, end=START + (day + 1) * DAY
        )
        summary = merge([summarise_classes(make_rows(day, **(change or {}))[0], layout), count_digests(DIGESTS, 300)])
        found.append(WindowInput(key, summary, summarise_class_outcomes(late(day - LAG), layout)))
    return found


def verdicts(reference, windows):
    found = [write_verdict(reference, assessed, dict(DIGESTS)) for assessed in fold(reference, windows)]
    for verdict in found:
        walk(verdict)
    return found


def test_a_quiet_model_has_every_class_in_its_verdict(reference, layout):
    found = verdicts(reference, production(layout, 5))
    assert Status.PAGE not in {v.status for v in found}
    last = found[-1]
    assert [c.class_name for c in last.classes] == list(CLASSES) == list(head_names(layout))
    for one in last.classes:
        assert {a.feature for a in one.attribution} == {"x1", "x2", "x3"}
        assert sum(a.share for a in one.attribution) == pytest.approx(1.0)
        assert sum(a.shift for a in one.attribution) + one.score.base_shift == pytest.approx(one.score.shift, abs=1e-6)
        assert one.calibration.rows == 300
    assert sum(one.calibration.positives for one in last.classes) == last.rows.labelled == last.multiclass.rows
    assert sum(a.share for a in last.attribution) == pytest.approx(1.0)
    assert last.multiclass.worst_class in CLASSES
    assert last.multiclass.brier == pytest.approx(3 * last.multiclass.mean.brier, abs=1e-6)
    assert last.multiclass.baseline_top.smece < 0.05
    assert (last.score, last.calibration, last.peers) == (None, None, ())


def test_a_changed_class_is_named(reference, layout):
    """Where the third feature moves, all classes answer; what the page says is of one of them and names it."""
    found = verdicts(reference, production(layout, 6, {"moved": 1.0}))
    page = found[-1]
    assert page.status is Status.PAGE
    assert page.cause.features == ("x3",)
    assert page.cause.class_name in CLASSES
    assert f"for class {page.cause.class_name}" in page.headline
    streams = [f for f in page.findings if f.feature == "x3"]
    assert {f.class_name for f in streams} <= set(CLASSES)
    assert page.budget.pages == 1


def test_labels_of_one_class_that_go_to_another(reference, layout):
    """Rain is called sun from now on: the page is of the labels of these two."""
    found = verdicts(
        reference, production(layout, 9, label=lambda y: np.where((y == 0) & (np.arange(300) % 2), 1.0, y))
    )
    page = next(v for v in found if v.status is Status.PAGE)
    assert page.cause.kind.value == "concept_changed"
    assert page.cause.class_name in CLASSES[:2]
    assert {f.class_name for f in page.findings} <= set(CLASSES[:2])


def test_a_class_that_labels_lost(reference, layout):
    lost = production(layout, 3, label=lambda y: np.where(y == 2, 0.0, y))[-1].outcomes.frame()
    (finding,) = [f for f in check_labels(lost, layout, reference.limits, 300, 100) if f.stream == "label_class"]
    assert finding.class_name == "wind"
    assert finding.message.startswith("none of 300 labels is class wind, and the scores expect ")
    one = production(layout, 3, label=np.zeros_like)[-1].outcomes.frame()
    found = [f for f in check_labels(one, layout, reference.limits, 300, 100) if f.stream == "label_class"]
    assert [f.class_name for f in found] == list(CLASSES)
    assert found[0].message.startswith("all 300 labels are class rain, and the scores expect ")


def test_a_mute_of_a_class(reference, settings, layout):
    from whydrift.monitors.stream import muted_in
    from whydrift.monitors.verdict import Mute

    mute = Mute(since=START, until=START + DAY, reason="new product", class_name="wind")
    streams = list_streams(layout, labels=True)
    deaf = muted_in(START, [mute], streams)
    assert {stream.class_name for stream, muted in zip(streams, deaf, strict=True) if muted} == {"wind"}
    assert deaf.sum() == len(streams) / 3
