"""From findings to a cause: what is certain comes before what is estimated, and the right feature is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from whydrift.monitors.attribution import cells
from whydrift.monitors.diagnosis import Known, Seen, diagnose
from whydrift.monitors.shifts import fit_null, sums
from whydrift.monitors.summary import WindowSummary, count_golden, merge
from whydrift.monitors.verdict import CauseKind, Channel, Finding, Status

ONSET = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EMPTY = WindowSummary.zero().frame()
GROUPS = {"wide": ("x1", "x2", "x3", "carrier"), "pair": ("x1", "x2")}


def failed(stream, feature=None, days=0, value=0.5):
    text = f"{stream} of {feature or 'all'} fails"
    return Finding(
        channel=Channel.CHECK,
        stream=stream,
        status=Status.PAGE,
        message=text,
        feature=feature,
        value=value,
        onset=ONSET + days * DAY,
        confirmed=True,
    )


def spoke(stream, feature=None, evidence=50.0, slice_=None, days=0):
    return replace(
        failed(stream, feature, days), channel=Channel.EVIDENCE, slice=slice_, evidence=evidence, confirmed=False
    )


@pytest.fixture(scope="module")
def known(world, reference):
    return Known(world.layout, reference.heads[0].null, reference.heads[0].calibration, GROUPS)


@pytest.fixture
def recent(world):
    """The sums of days on which such things happened, the first one on the day of the onset."""

    def days(*changes):
        windows = world.windows(len(changes), {i: world.change(**change) for i, change in enumerate(changes)})
        rows = [float(change.get("rows", 400)) for change in changes]
        shifts = [sums(cells(w.summary.frame(), world.layout), n) for w, n in zip(windows, rows, strict=True)]
        return [(ONSET + i * DAY, shift) for i, shift in enumerate(shifts)]

    return days


@pytest.fixture
def cause(known, recent):
    def run(*findings, days=({},), frame=EMPTY, outcomes=None):
        return diagnose(findings, Seen(frame, outcomes, recent(*days)), known)

    return run


def moved(name, by=2.0):
    return {"inputs": lambda d: d.assign(**{name: d[name] + by})}


def test_nothing_found_has_no_cause(cause):
    assert cause() is None


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        ("model_digest", CauseKind.MODEL_CHANGED),
        ("golden_output", CauseKind.MODEL_CHANGED),
        ("prediction_differs", CauseKind.MODEL_CHANGED),
        ("explainer_digest", CauseKind.EXPLAINER_CHANGED),
        ("golden_attribution", CauseKind.EXPLAINER_CHANGED),
        ("additivity", CauseKind.EXPLAINER_CHANGED),
        ("missing_rate", CauseKind.DATA_BROKEN),
        ("unseen_rate", CauseKind.DATA_BROKEN),
        ("out_of_range_rate", CauseKind.DATA_BROKEN),
        ("set_aside", CauseKind.DATA_BROKEN),
        ("label_coverage", CauseKind.LABEL_BROKEN),
        ("label_class", CauseKind.LABEL_BROKEN),
        ("share", CauseKind.INPUTS_MOVED),
        ("level", CauseKind.INPUTS_MOVED),
        ("loss", CauseKind.CONCEPT_CHANGED),
        ("smece", CauseKind.CONCEPT_CHANGED),
        ("calibration_intercept", CauseKind.CONCEPT_CHANGED),
    ],
)
def test_each_stream_has_its_cause(cause, stream, kind):
    evidence = {"share", "level", "loss", "smece", "calibration_intercept"}
    feature = "x1" if stream.endswith("rate") or stream in {"share", "level"} else None
    found = cause((spoke if stream in evidence else failed)(stream, feature))
    assert found.kind is kind
    assert found.onset == ONSET
    assert found.sentence
    assert found.next_step.endswith(".")
    assert found.grounds


def test_what_is_certain_comes_first(cause):
    everything = [
        spoke("share", "x1"),
        failed("label_coverage"),
        failed("missing_rate", "x2"),
        failed("additivity"),
        failed("prediction_differs", days=2),
        failed("model_digest", days=1),
    ]
    kinds = []
    while everything:
        kinds.append(cause(*everything).kind)
        everything.pop()
    assert kinds == [
        CauseKind.MODEL_CHANGED,
        CauseKind.EXPLAINER_CHANGED,
        CauseKind.EXPLAINER_CHANGED,
        CauseKind.DATA_BROKEN,
        CauseKind.LABEL_BROKEN,
        CauseKind.INPUTS_MOVED,
    ]


def test_golden_rows_that_agree_are_grounds(cause):
    agree, differ = (count_golden(500, 0, n, {}).frame() for n in (0, 2))
    found = cause(failed("explainer_digest"), frame=agree)
    assert found.grounds[-1] == "all 500 golden rows are answered and explained as before"
    assert len(cause(failed("explainer_digest"), frame=differ).grounds) == 1


def test_outputs_tell_a_changed_model_and_attributions_alone_a_changed_explainer(cause):
    both = cause(failed("golden_attribution"), failed("golden_output"))
    assert (both.kind, both.sentence) == (CauseKind.MODEL_CHANGED, "golden_output of all fails")


def test_values_that_only_the_log_lost_are_not_taken_for_another_model(cause):
    found = cause(failed("missing_rate", "x2"), failed("prediction_differs"))
    assert found.kind is CauseKind.DATA_BROKEN
    assert found.features == ("x2",)
    assert "the model was served with values that the log does not have" in found.grounds[-1]


def test_the_onset_of_checks_is_the_earliest(cause):
    found = cause(failed("missing_rate", "x1", days=3), failed("missing_rate", "x2", days=1))
    assert found.onset == ONSET + DAY
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
    found = cause(*streams)
    assert (found.kind, found.slice, found.features) == (CauseKind.CONCEPT_CHANGED, "carrier=a", ())
    assert found.onset == ONSET + DAY
    streams[1] = spoke("share", "x1", evidence=61)
    found = cause(*streams)
    assert (found.kind, found.features, found.slice) == (CauseKind.INPUTS_MOVED, ("x1",), None)


def test_outcomes_without_evidence_left_are_outcomes_still(cause):
    found = cause(spoke("loss", evidence=0.0), spoke("smece", evidence=0.0))
    assert (found.kind, found.sentence) == (CauseKind.CONCEPT_CHANGED, "loss of all fails, and 1 more stream with it")


def relabelled(world, label):
    return world.windows(3, {0: world.change(label=label)})[2].outcomes.frame()


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (lambda y: 1 - y, CauseKind.LABEL_BROKEN),
        (lambda y: np.where(np.arange(y.size) % 5 < 2, 1 - y, y), CauseKind.CONCEPT_CHANGED),
        (lambda y: np.roll(y, 1), CauseKind.CONCEPT_CHANGED),  # nothing to do with the scores any more
        (lambda y: np.where(np.arange(y.size) % 5 < 2, 1.0, y), CauseKind.CONCEPT_CHANGED),
    ],
)
def test_inverted_labels_are_broken_and_others_a_changed_concept(cause, world, label, kind):
    found = cause(spoke("loss"), spoke("smece"), outcomes=relabelled(world, label))
    assert found.kind is kind
    assert any("calibration slope" in text for text in found.grounds)
    assert found.sentence.startswith("labels are inverted") is (kind is CauseKind.LABEL_BROKEN)


def test_the_feature_that_moved_itself_is_named(cause):
    """Shares sum to 1, so all move if one does, and with clipped evidence their order says nothing."""
    named = [spoke("share", "x2"), spoke("share", "x3", days=1), spoke("share", "x1"), spoke("level", "x3", days=2)]
    found = cause(*named, days=[moved("x3")])
    assert found.features == ("x3",)
    assert found.sentence == "share of x3 fails, and 3 more streams with it"
    assert found.onset == ONSET + DAY
    both = cause(*named, days=[{"inputs": lambda d: d.assign(x1=d["x1"] + 3, x3=d["x3"] + 2)}])
    assert both.features == ("x1", "x3")
    assert both.grounds[-2].startswith("x1, over 1 window(s): its own inputs moved its attributions by 2.")


def test_without_a_feature_that_stands_out_the_strongest_evidence_is_named(cause):
    found = cause(spoke("share", "x2"), spoke("share", "x3"))
    assert found.features == ("x2", "x3")
    assert found.sentence == "share of x2 fails, and 1 more stream with it"


def test_streams_of_no_feature_have_a_cause(cause):
    found = cause(spoke("score_mean"), days=[moved("x3")])
    assert (found.kind, found.features) == (CauseKind.INPUTS_MOVED, ("x3",))
    assert cause(spoke("score_mean")).features == ()
    assert cause(spoke("residual")).kind is CauseKind.EXPLAINER_CHANGED
    assert cause(spoke("residual"), spoke("level", "x3"), days=[moved("x3")]).kind is CauseKind.INPUTS_MOVED


def test_the_same_inputs_answered_differently_are_joint(cause):
    """As if a partner in an interaction had moved: x1 counts half as much again at every value."""
    turned = {"values": lambda v: v * [1.5, 1.0, 1.0, 1.0]}
    found = cause(spoke("share", "x2"), spoke("share", "x1"), days=[turned])
    assert (found.kind, found.features) == (CauseKind.JOINT_MOVED, ("x1",))
    both = {**moved("x1", 3.0), **turned}
    assert cause(spoke("share", "x2"), spoke("share", "x1"), days=[both]).kind is CauseKind.INPUTS_MOVED


def test_days_since_the_onset_are_taken_together(cause):
    """One day of a small shift is within what a day may show; seven are not."""
    small = moved("x1", 0.27)
    assert cause(spoke("share", "x2"), spoke("level", "x1"), days=[small]).features == ("x2", "x1")
    found = cause(spoke("share", "x2"), spoke("level", "x1"), days=[small] * 7)
    assert found.features == ("x1",)
    late = cause(spoke("share", "x2", days=6), spoke("level", "x1", days=6), days=[small] * 7)
    assert late.features == ("x2", "x1")


def test_one_value_in_many_rows_is_broken_data(cause):
    stuck = {"rows": 4000, "inputs": lambda d: d.assign(x1=d["x1"].where(d.index % 12 > 0, 0.01))}
    found = cause(spoke("share", "x1"), spoke("share", "x2"), days=[stuck] * 7)
    assert (found.kind, found.features) == (CauseKind.DATA_BROKEN, ("x1",))
    assert "while all other values keep their proportions (28,000 rows of 7 window(s))" in found.sentence
    assert found.grounds[0].startswith("1")  # 8 % more than the twentieth that a cell holds


def test_without_rows_the_cause_is_unknown(cause):
    assert cause(spoke("level", "x1"), days=[]).kind is CauseKind.UNKNOWN


def test_the_null_of_one_window_names_nothing(world, recent, known):
    frame = merge([world.summaries(day, world.quiet)[0] for day in range(3)]).frame()
    young = replace(known, null=fit_null(frame, world.layout, [recent({})[0][1]]))
    seen = Seen(EMPTY, None, recent(moved("x1", 9.0)))
    found = diagnose([spoke("share", "x2"), spoke("share", "x1")], seen, young)
    assert found.features == ("x2", "x1")
    assert found.kind is CauseKind.INPUTS_MOVED
