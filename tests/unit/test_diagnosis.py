"""From findings to a cause: what is certain comes before what is estimated, and the right feature is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from whydrift.monitors.attribution import Split, cells, split_shift
from whydrift.monitors.diagnosis import diagnose, fit_split_null
from whydrift.monitors.summary import WindowSummary
from whydrift.monitors.verdict import CauseKind, Channel, Finding, Status

ONSET = datetime(2026, 5, 1, tzinfo=UTC)
EMPTY = WindowSummary.zero().frame()
GROUPS = {"wide": ("x1", "x2", "x3", "carrier"), "pair": ("x1", "x2")}


def split(composition=(0.0,) * 4, response=(0.0,) * 4):
    c, r = np.array(composition), np.array(response)
    return Split(c, r, np.abs(c), np.abs(r))


NULL = fit_split_null([split((0.1,) * 4, (0.01,) * 4), split((0.2,) * 4, (0.03,) * 4)], 4)


def failed(stream, feature=None, days=0, value=0.5):
    text = f"{stream} of {feature or 'all'} fails"
    return Finding(
        channel=Channel.CHECK,
        stream=stream,
        status=Status.PAGE,
        message=text,
        feature=feature,
        value=value,
        onset=ONSET + timedelta(days=days),
        confirmed=True,
    )


def spoke(stream, feature=None, evidence=50.0, slice_=None, days=0):
    return replace(
        failed(stream, feature, days), channel=Channel.EVIDENCE, slice=slice_, evidence=evidence, confirmed=False
    )


@pytest.fixture
def cause(world):
    def run(*findings, split=None, frame=EMPTY, groups=GROUPS):
        return diagnose(findings, frame, world.layout, split, NULL, groups)

    return run


def test_nothing_found_has_no_cause(cause):
    assert cause() is None


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        ("model_digest", CauseKind.MODEL_CHANGED),
        ("prediction_differs", CauseKind.MODEL_CHANGED),
        ("explainer_digest", CauseKind.EXPLAINER_CHANGED),
        ("additivity", CauseKind.EXPLAINER_CHANGED),
        ("missing_rate", CauseKind.DATA_BROKEN),
        ("unseen_rate", CauseKind.DATA_BROKEN),
        ("set_aside", CauseKind.DATA_BROKEN),
        ("share", CauseKind.INPUTS_MOVED),
        ("level", CauseKind.INPUTS_MOVED),
        ("loss", CauseKind.CONCEPT_CHANGED),
        ("smece", CauseKind.CONCEPT_CHANGED),
        ("calibration_intercept", CauseKind.CONCEPT_CHANGED),
    ],
)
def test_each_stream_has_its_cause(cause, stream, kind):
    feature = "x1" if stream in {"missing_rate", "unseen_rate", "share", "level"} else None
    make = failed if stream.endswith(("digest", "differs", "rate", "aside")) or stream == "additivity" else spoke
    found = cause(make(stream, feature), split=split())
    assert found.kind is kind
    assert found.onset == ONSET
    assert found.sentence
    assert found.next_step.endswith(".")
    assert found.grounds


def test_what_is_certain_comes_first(cause):
    everything = [
        spoke("share", "x1"),
        failed("missing_rate", "x2"),
        failed("additivity"),
        failed("prediction_differs", days=2),
        failed("model_digest", days=1),
    ]
    kinds = []
    while everything:
        kinds.append(cause(*everything, split=split()).kind)
        everything.pop()
    assert kinds == [
        CauseKind.MODEL_CHANGED,
        CauseKind.EXPLAINER_CHANGED,
        CauseKind.EXPLAINER_CHANGED,
        CauseKind.DATA_BROKEN,
        CauseKind.INPUTS_MOVED,
    ]


def test_values_that_only_the_log_lost_are_not_taken_for_another_model(cause):
    found = cause(failed("missing_rate", "x2"), failed("prediction_differs"))
    assert found.kind is CauseKind.DATA_BROKEN
    assert found.features == ("x2",)
    assert "the model was served with values that the log does not have" in found.grounds[-1]


def test_the_onset_of_checks_is_the_earliest(cause):
    found = cause(failed("missing_rate", "x1", days=3), failed("missing_rate", "x2", days=1))
    assert found.onset == ONSET + timedelta(days=1)
    assert found.features == ("x1", "x2")
    assert len(found.grounds) == 2


@pytest.mark.parametrize(
    ("features", "group"), [(["x1"], None), (["x1", "x2"], "pair"), (["x1", "x3"], "wide"), (["x2", "zz"], None)]
)
def test_the_smallest_group_that_holds_all(cause, features, group):
    found = cause(*[failed("missing_rate", name) for name in features])
    assert found.group == group
    if group:
        assert found.sentence.startswith(f"the {group} columns ({', '.join(features)}) are missing in 50%")
        assert group in found.next_step


def frame_of(world, inputs):
    return world.windows(1, {0: world.change(inputs=inputs)})[0].summary.frame()


def test_the_slice_that_misses_a_feature_is_named(cause, world):
    frame = frame_of(world, lambda d: d.assign(x1=d["x1"].where(d["carrier"] != "a")))
    found = cause(failed("missing_rate", "x1", value=0.25), frame=frame)
    assert found.slice == "carrier=a"
    assert found.sentence == "x1 is missing in 25% of the rows, nearly all of them carrier=a"


@pytest.mark.parametrize("where", [lambda d: d["carrier"] == "zz", lambda d: d.index % 2 == 0])
def test_no_slice_is_named_where_all_miss_it(cause, world, where):
    frame = frame_of(world, lambda d: d.assign(x1=d["x1"].where(where(d))))
    assert cause(failed("missing_rate", "x1"), frame=frame).slice is None


def test_a_slice_that_holds_all_but_is_mostly_fine_is_not_the_place(cause, world):
    frame = frame_of(world, lambda d: d.assign(x1=d["x1"].where((d["carrier"] != "b") | (d.index % 2 == 0))))
    assert cause(failed("missing_rate", "x1"), frame=frame).slice is None


def test_outcomes_lead_if_most_evidence_is_theirs(cause):
    streams = [spoke("loss", evidence=60, slice_="carrier=a", days=1), spoke("share", "x1", evidence=40)]
    found = cause(*streams, split=split())
    assert (found.kind, found.slice, found.features) == (CauseKind.CONCEPT_CHANGED, "carrier=a", ())
    assert found.onset == ONSET + timedelta(days=1)
    streams[1] = spoke("share", "x1", evidence=61)
    found = cause(*streams, split=split())
    assert (found.kind, found.features, found.slice) == (CauseKind.INPUTS_MOVED, ("x1",), None)


def test_outcomes_without_evidence_left_are_outcomes_still(cause):
    found = cause(spoke("loss", evidence=0.0), spoke("smece", evidence=0.0), split=split())
    assert (found.kind, found.sentence) == (CauseKind.CONCEPT_CHANGED, "loss of all fails, and 1 more stream with it")


def test_the_feature_that_moved_itself_is_named(cause):
    """Shares sum to 1, so all move if one does, and with clipped evidence their order says nothing."""
    named = [spoke("share", "x2"), spoke("share", "x3", days=1), spoke("share", "x1"), spoke("level", "x3", days=2)]
    found = cause(*named, split=split(composition=(0.2, 0.1, 3.0, 0.2)))
    assert found.features == ("x3",)
    assert found.sentence == "share of x3 fails, and 3 more streams with it"
    assert found.onset == ONSET + timedelta(days=1)
    both = cause(*named, split=split(composition=(4.0, 0.1, 3.0, 0.2)))
    assert both.features == ("x1", "x3")


def test_without_a_feature_that_stands_out_the_strongest_evidence_is_named(cause):
    found = cause(spoke("share", "x2"), spoke("share", "x3"), split=split())
    assert found.features == ("x2", "x3")
    assert found.sentence == "share of x2 fails, and 1 more stream with it"


def test_inputs_or_joint(cause):
    inputs = cause(spoke("level", "x1"), split=split(composition=(2.0, 0, 0, 0), response=(0.5, 0, 0, 0)))
    joint = cause(spoke("level", "x1"), split=split(composition=(0.1, 0, 0, 0), response=(0.5, 0, 0, 0)))
    noise = cause(spoke("level", "x1"), split=split(composition=(0.01, 0, 0, 0), response=(0.05, 0, 0, 0)))
    assert [c.kind for c in (inputs, joint, noise)] == [
        CauseKind.INPUTS_MOVED,
        CauseKind.JOINT_MOVED,
        CauseKind.INPUTS_MOVED,
    ]


def test_without_rows_the_cause_is_unknown(cause):
    assert cause(spoke("level", "x1"), split=None).kind is CauseKind.UNKNOWN


def test_the_same_inputs_answered_differently_are_joint(world, reference):
    """As if a partner in an interaction had moved: x1 counts half as much again at every value."""
    turned = world.windows(1, {0: world.change(values=lambda v: v * [1.5, 1.0, 1.0, 1.0])})[0]
    found = split_shift(reference.cells, cells(turned.summary.frame(), world.layout))
    finding = diagnose([spoke("share", "x2"), spoke("share", "x1")], EMPTY, world.layout, found, reference.null, {})
    assert (finding.kind, finding.features) == (CauseKind.JOINT_MOVED, ("x1",))


def test_the_null_of_a_split_is_its_size_between_baseline_windows(world, reference):
    splits = [
        split_shift(reference.cells, cells(world.summaries(day, world.quiet)[0].frame(), world.layout))
        for day in range(world.baseline_days)
    ]
    sizes = np.array([s.response_size for s in splits])
    np.testing.assert_allclose(reference.null.response, sizes.mean(axis=0))
    np.testing.assert_allclose(reference.null.response_deviation, sizes.std(axis=0, ddof=1), atol=1e-12)
    composition = np.array([s.composition_size for s in splits])
    np.testing.assert_allclose(reference.null.composition, composition.mean(axis=0))
    assert (reference.null.composition > 0).all()


def test_the_null_of_one_window_names_nothing(cause, world):
    null = fit_split_null([split()], 4)
    findings = [spoke("share", "x2"), spoke("share", "x1")]
    found = diagnose(findings, EMPTY, world.layout, split((9.0, 0, 0, 0), (9.0, 0, 0, 0)), null, {})
    assert found.features == ("x2", "x1")
    assert found.kind is CauseKind.INPUTS_MOVED
