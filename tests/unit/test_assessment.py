"""From summaries to verdicts, in a small world: what each thing that goes wrong comes to, and when."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from soundness import sound, walk
from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.attribution import moments
from whydrift.monitors.reference import BaselineWindow, refer
from whydrift.monitors.summary import WindowSummary, count_set_aside
from whydrift.monitors.verdict import CauseKind, Channel, Retraining, Status
from whydrift.monitors.views import write_verdict

PAGE, OK, TICKET = Status.PAGE, Status.OK, Status.TICKET


def since(change, first, last=40):
    return dict.fromkeys(range(first, last), change)


def onset(world, verdict):
    """In production days."""
    return (verdict.since - world.start(world.baseline_days)) / timedelta(days=1)


@pytest.fixture
def run(world, reference):
    def verdicts(days, changes=None, reference=reference):
        return sound(world.verdicts(reference, world.windows(days, changes)))

    return verdicts


def test_nothing_wrong_is_quiet(run):
    verdicts = run(40)
    assert PAGE not in {v.status for v in verdicts}
    assert sum(v.status is TICKET for v in verdicts) <= 40 / 7
    last = verdicts[-1]
    assert last.budget.windows == 40
    assert last.budget.expected_false_pages == pytest.approx(40 / 90)
    assert last.rows.seen == last.rows.explained == last.rows.labelled == 400
    assert last.calibration.cohort_start == last.key.start - timedelta(days=2)
    assert {d.windows for d in last.detectable} == {2, 7, 14, 30}
    effects = [d.effect_sd for d in last.detectable]
    assert effects == sorted(effects, reverse=True)
    assert all(d.example_share_ratio > 1 for d in last.detectable)
    assert sum(s.share for s in last.slices) == pytest.approx(1.0)
    assert not last.retraining.requested


@pytest.mark.parametrize("feature", ["x1", "x2", "x3"])
def test_inputs_that_moved_are_named_with_their_onset(world, run, feature):
    moved = world.change(inputs=lambda d: d.assign(**{feature: d[feature] + 2}))
    verdicts = run(14, since(moved, 5))
    assert PAGE not in {v.status for v in verdicts[:5]}
    assert {v.status for v in verdicts[7:]} == {PAGE}
    page = verdicts[7]
    assert page.cause.kind is CauseKind.INPUTS_MOVED
    assert page.cause.features == (feature,)
    assert feature in page.headline
    assert abs(onset(world, page) - 5) <= 2
    assert {v.cause for v in verdicts[7:]} == {page.cause}
    assert verdicts[-1].budget.pages == 1
    assert not verdicts[-1].budget.armed
    shift = {row.feature: row.shift for row in page.attribution}
    assert max(shift, key=lambda name: abs(shift[name])) == feature
    row = next(row for row in page.attribution if row.feature == feature)
    assert row.composition == pytest.approx(row.shift, rel=0.2)


def test_a_page_closes_when_its_cause_is_gone(world, run):
    moved = world.change(inputs=lambda d: d.assign(x1=d["x1"] + 2))
    verdicts = run(20, dict.fromkeys(range(3, 8), moved))
    assert verdicts[6].status is PAGE
    assert verdicts[-1].status is not PAGE
    assert verdicts[-1].budget.armed


def missing_in_a(d):
    return d.assign(x1=d["x1"].where(d["carrier"] != "a"), x2=d["x2"].where(d["carrier"] != "a"))


def test_a_feed_that_went_missing_in_one_slice_pages_at_once(world, run):
    lost = world.change(inputs=missing_in_a)
    verdicts = run(12, {3: lost, 4: lost, 5: lost, 8: lost})
    assert [i for i, v in enumerate(verdicts) if any(f.stream == "missing_rate" for f in v.findings)] == [3, 4, 5, 8]
    assert {v.cause.kind for v in verdicts if v.status is PAGE} == {CauseKind.DATA_BROKEN}
    cause = verdicts[3].cause
    assert (cause.features, cause.group, cause.slice) == (("x1", "x2"), "sensors", "carrier=a")
    assert "sensors" in verdicts[3].headline
    assert [onset(world, verdicts[i]) for i in (3, 4, 5, 8)] == [3, 3, 3, 8]
    assert {f.onset for f in verdicts[5].findings if f.channel is Channel.CHECK} == {cause.onset}
    assert verdicts[3].attribution[0].missing_rate + verdicts[3].attribution[1].missing_rate > 0.2


def test_an_onset_outlives_windows_that_cannot_tell(world, run):
    lost, few = world.change(inputs=missing_in_a), world.change(rows=20, inputs=missing_in_a)
    verdicts = run(6, {1: lost, 2: few, 3: lost})
    assert [v.status for v in verdicts[1:4]] == [PAGE, Status.INSUFFICIENT_DATA, PAGE]
    assert onset(world, verdicts[3]) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"digests": {"model": "f" * 64, "explainer": "b" * 64}}, CauseKind.MODEL_CHANGED),
        ({"prediction": lambda p: p * 0.8}, CauseKind.MODEL_CHANGED),
        ({"digests": {"model": "a" * 64, "explainer": "f" * 64}}, CauseKind.EXPLAINER_CHANGED),
        ({"values": lambda v: v * 1.3}, CauseKind.EXPLAINER_CHANGED),
        ({"inputs": lambda d: d.assign(carrier="new")}, CauseKind.DATA_BROKEN),
        ({"set_aside": {"infinite:x1": 390}}, CauseKind.DATA_BROKEN),
    ],
)
def test_checks_page_in_their_first_window(world, run, change, kind):
    verdicts = run(4, {2: world.change(**change)})
    assert PAGE not in {v.status for v in verdicts[:2]}
    assert (verdicts[2].status, verdicts[2].cause.kind) == (PAGE, kind)
    assert onset(world, verdicts[2]) == 2


def often_flipped(y):
    """Two labels of five come out the other way, as if the world had become harder to tell."""
    return np.where(np.arange(y.size) % 5 < 2, 1 - y, y)


def test_labels_that_agree_less_are_a_changed_concept_since_their_cohort(world, run):
    verdicts = run(14, since(world.change(label=often_flipped), 5))
    pages = [i for i, v in enumerate(verdicts) if v.status is PAGE]
    assert pages[0] in (7, 8)
    page = verdicts[pages[0]]
    assert page.cause.kind is CauseKind.CONCEPT_CHANGED
    assert abs(onset(world, page) - 5) <= 1  # and not two days later, when its labels had come
    assert page.calibration.smece > 3 * page.calibration.baseline_smece
    assert page.calibration.cohort_end <= page.key.start


def test_a_page_of_labels_stays_open_through_a_window_without_any(world, reference):
    windows = world.windows(9, since(world.change(label=lambda y: 1 - y), 4))
    quiet = replace(windows[8], summary=WindowSummary.zero(), outcomes=None)
    opened, silent = sound(world.verdicts(reference, [*windows[:7], quiet]))[-2:]
    assert opened.status is silent.status is PAGE
    assert silent.cause == opened.cause
    assert {f.value for f in silent.findings} == {None}


def test_a_concept_that_changed_in_one_slice(world, run):
    """Only slice a's labels flip, and its loss leads."""
    carrier = {}

    def inputs(d):
        carrier["a"] = (d["carrier"] == "a").to_numpy()
        return d

    odd = world.change(inputs=inputs, label=lambda y: np.where(carrier["a"], 1 - y, y))
    page = next(v for v in run(20, since(odd, 3)) if v.status is PAGE)
    assert page.cause.kind is CauseKind.CONCEPT_CHANGED
    assert any(f.slice == "carrier=a" for f in page.findings)
    worst = max((s for s in page.slices), key=lambda s: s.loss - s.baseline_loss)
    assert worst.slice == "carrier=a"


def test_too_few_rows_are_said_and_not_judged(world, make_world):
    quiet = make_world(labels=False)
    reference = quiet.refer()
    few = quiet.change(rows=99, inputs=lambda d: d.assign(x1=np.nan))
    verdicts = sound(quiet.verdicts(reference, quiet.windows(4, {1: few, 2: few})))
    assert [v.status for v in verdicts] == [OK, Status.INSUFFICIENT_DATA, Status.INSUFFICIENT_DATA, OK]
    assert verdicts[1].headline == "Cannot tell of this window: 99 rows could be explained, 100 are needed."
    assert verdicts[2].budget == verdicts[0].budget
    assert verdicts[1].attribution == ()
    assert verdicts[1].score is None
    assert verdicts[3].budget.windows == verdicts[0].budget.windows + 1


def test_a_window_without_anything(world, reference):
    windows = world.windows(3)
    windows[1] = replace(windows[1], summary=WindowSummary.zero(), outcomes=None)
    verdicts = sound(world.verdicts(reference, windows))
    assert verdicts[1].status is Status.INSUFFICIENT_DATA
    assert verdicts[1].rows.seen == 0
    assert all(s.share == 0 for s in verdicts[1].slices)
    assert verdicts[1].budget.evidence == pytest.approx(verdicts[0].budget.evidence)
    assert verdicts[2].status is OK


def test_all_rows_set_aside_page(world, reference):
    windows = world.windows(2)
    windows[1] = replace(windows[1], summary=count_set_aside({"missing_column:x1": 400}))
    verdict = sound(world.verdicts(reference, windows))[1]
    assert (verdict.status, verdict.cause.kind) == (PAGE, CauseKind.DATA_BROKEN)
    assert "missing_column:x1" in verdict.cause.sentence
    assert (verdict.rows.seen, verdict.rows.explained) == (400, 0)


def test_missing_windows_are_counted(world, reference):
    windows = world.windows(10)
    kept = [windows[i] for i in (0, 1, 4, 5, 9)]
    assert [v.missing_windows for v in world.verdicts(reference, kept)] == [0, 0, 2, 2, 5]


def test_an_unreadable_file_is_a_ticket(world, run):
    verdict = run(1, world.change(set_aside={"unreadable_file": 1}))[0]
    assert (verdict.status, verdict.cause) == (TICKET, None)
    assert verdict.headline.startswith("Worth a look: 1 log file(s)")


def test_retraining_is_asked_for_once_a_cooldown_and_with_enough_labels(world, run):
    patient = world.refer(policy=replace(world.settings.policy, cooldown=timedelta(days=3)))
    verdicts = run(14, since(world.change(label=often_flipped), 2), patient)
    asked = [i for i, v in enumerate(verdicts) if v.retraining.requested]
    assert len(asked) >= 2
    assert set(np.diff(asked)) == {3}
    first = verdicts[asked[0]]
    assert first.retraining == Retraining(
        requested=True,
        reason=f"concept_changed since {first.since:%Y-%m-%d}, 1,200 mature labels since then",
        labelled_since_onset=1200,
    )
    assert verdicts[asked[0] - 1].status is PAGE
    assert verdicts[asked[0] - 1].retraining.labelled_since_onset == 800


def test_regression(make_world):
    world = make_world(task="regression")
    reference = world.refer()
    assert {s.kind for s in reference.detector.streams} >= {"share", "level", "loss"}
    assert not {s.kind for s in reference.detector.streams} & {"calibration_intercept", "smece"}
    wrong = world.change(label=lambda y: y + 3)
    verdicts = sound(world.verdicts(reference, world.windows(12, since(wrong, 4))))
    assert PAGE not in {v.status for v in verdicts[:4]}
    assert verdicts[-1].cause.kind is CauseKind.CONCEPT_CHANGED
    assert verdicts[-1].calibration is None
    assert verdicts[-1].slices[0].loss == pytest.approx(10.0, rel=0.2)
    assert verdicts[3].slices[0].loss == pytest.approx(1.0, rel=0.3)


def test_without_labels(make_world):
    world = make_world(labels=False)
    reference = world.refer()
    verdicts = sound(world.verdicts(reference, world.windows(5)))
    assert {v.status for v in verdicts} <= {OK, TICKET}
    assert verdicts[-1].calibration is None
    assert verdicts[-1].rows.labelled == 0
    assert all(s.loss is None and s.baseline_loss is None for s in verdicts[-1].slices)


def test_while_learning_only_checks_page(world, run):
    young = world.refer(days=20)
    moved = world.change(inputs=lambda d: d.assign(x1=d["x1"] + 2))
    verdicts = run(12, since(moved, 2), young)
    assert {v.status for v in verdicts} == {OK}
    assert verdicts[-1].budget.learning
    assert not verdicts[-1].budget.armed
    assert verdicts[-1].headline.startswith("No check failed. Still learning: 20 baseline windows")
    broken = run(3, {2: world.change(inputs=missing_in_a)}, young)
    assert (broken[2].status, broken[2].cause.kind) == (PAGE, CauseKind.DATA_BROKEN)


def ndcg(baseline, live):
    """Amazon SageMaker's statistic: discounted baseline attributions in the live order, over those in their own."""
    discount = np.log2(np.arange(len(baseline)) + 2)
    return (baseline[np.argsort(-live)] / discount).sum() / (np.sort(baseline)[::-1] / discount).sum()


def test_the_top_feature_dies_and_a_rank_statistic_does_not_notice(world, run):
    assert ndcg(np.array([0.7, 0.5, 0.05]), np.array([0.1, 0.2, 0.7])) == pytest.approx(
        0.69, abs=0.005
    )  # their example
    dead = world.change(inputs=lambda d: d.assign(x1=0.0))
    verdicts = run(8, since(dead, 3))
    page = next(v for v in verdicts if v.status is PAGE)
    assert page.key.start <= world.start(world.baseline_days + 5)
    assert page.cause.features == ("x1",)
    baseline = {row.feature: row.baseline_share for row in page.attribution}
    assert max(baseline, key=baseline.get) == "x1"
    live = {row.feature: row.share for row in page.attribution}
    assert live["x1"] == 0.0
    names = sorted(baseline)
    assert ndcg(np.array([baseline[n] for n in names]), np.array([live[n] for n in names])) > 0.9


def test_a_model_that_answers_a_constant_pages(world, run):
    """All attributions are 0, shares are not defined, and still it is seen."""
    flat = world.change(
        inputs=lambda d: d.assign(x1=0.0, x2=0.0, x3=0.0), values=lambda v: v * [1, 1, 1, 0.0], prediction=np.asarray
    )
    windows = world.windows(6, since(flat, 2))
    verdicts = world.verdicts(world.refer(), windows)
    for verdict in verdicts:
        walk(verdict)
    assert verdicts[-1].status is PAGE


def test_a_page_from_streams_that_its_window_does_not_carry_has_a_cause(world):
    """Nearly all evidence is there already when a window without rows tips the scale by its labels."""
    moved = world.change(inputs=lambda d: d.assign(x2=d["x2"] + 2))
    doubtful = world.change(label=lambda y: np.where(np.arange(y.size) < 40, 1 - y, y))
    windows = world.windows(7, {4: doubtful, 5: moved})
    windows[6] = replace(windows[6], summary=WindowSummary.zero())

    def verdicts(threshold):
        thresholds = replace(world.settings.thresholds, page=threshold)
        return sound(world.verdicts(world.refer(thresholds=thresholds), windows))

    before, after = (v.budget.evidence for v in verdicts(1e9)[-2:])
    assert before < after < 1.1 * before
    page = verdicts((before + after) / 2)[-1]
    assert page.status is PAGE
    assert page.cause.kind is CauseKind.UNKNOWN
    assert "x2" in page.cause.features
    assert "does not tell" in page.headline


def test_a_finding_of_a_stream_that_is_not_there_says_so(world, run):
    moved = world.change(inputs=lambda d: d.assign(x1=d["x1"] + 2))
    few = world.change(rows=10)
    verdict = run(9, {**since(moved, 3, 8), 8: few})[8]
    assert verdict.status is PAGE
    assert verdict.cause.features == ("x1",)
    finding = next(f for f in verdict.findings if f.feature == "x1")
    assert (finding.value, finding.effect, finding.interval) == (None, None, None)
    assert "does not tell" in finding.message


def test_a_baseline_window_without_labels_does_not_shift_the_others(world, reference):
    """Cohorts are found by their time, not by their number."""
    holed = world.baseline()
    holed[10] = replace(holed[10], outcomes=None)
    found = refer(holed, world.layout, world.settings, {"model": "a" * 64, "explainer": "b" * 64})
    late = [i for i, s in enumerate(reference.detector.streams) if s.kind == "loss" and s.slice is None]
    whole, less = reference.detector.start.history, found.detector.start.history
    assert (whole.df - less.df)[late].tolist() == [1]
    assert less.last[late] == whole.last[late]


def test_a_baseline_without_rows_is_refused(world):
    with pytest.raises(ValueError, match="needs explained rows"):
        refer([BaselineWindow(world.start(0), WindowSummary.zero(), None)], world.layout, world.settings, {})


def test_small_and_empty_baseline_windows_teach_nothing(world):
    windows = world.baseline(changes=dict.fromkeys(range(0, 35, 5), world.change(rows=3)))
    windows[7] = BaselineWindow(world.start(7), WindowSummary.zero(), None)
    reference = refer(windows, world.layout, world.settings, {"model": "a" * 64, "explainer": "b" * 64})
    counted = world.refer().detector.start.history.df[0] - reference.detector.start.history.df[0]
    assert 6 <= counted <= 8
    assert np.isfinite(reference.heads[0].null.composition_spread).all()
    assert np.isfinite(reference.heads[0].null.share_between).all()
    sound(world.verdicts(reference, world.windows(5)))


def test_windows_shorter_than_a_day_say_the_hour(world, reference):
    hourly = replace(reference, settings=replace(reference.settings, width=timedelta(hours=1)))
    lost = world.windows(1, {0: world.change(inputs=missing_in_a)})
    assessed = next(fold(reference, lost))
    assert " 00:00 UTC: " in write_verdict(hourly, assessed, {}).headline
    assert "UTC" not in write_verdict(reference, assessed, {}).headline


def test_shares_in_the_verdict_are_those_of_the_moments(world, reference):
    window: WindowInput = world.windows(1)[0]
    verdict = world.verdicts(reference, [window])[0]
    now = moments(window.summary.frame(), world.layout)
    share = dict(zip(world.layout.names, now.share, strict=True))
    assert {row.feature: row.share for row in verdict.attribution} == pytest.approx(share)
    order = [max(row.share, row.baseline_share) for row in verdict.attribution]
    assert order == sorted(order, reverse=True)


def test_a_page_stays_open_while_the_change_lasts_and_closes_when_it_is_undone(world, make_world):
    quiet = make_world(labels=False)
    reference = quiet.refer()
    moved = quiet.change(inputs=lambda d: d.assign(x3=d["x3"] + 3.0))
    verdicts = sound(quiet.verdicts(reference, quiet.windows(40, dict.fromkeys(range(5, 30), moved))))
    first = next(i for i, v in enumerate(verdicts) if v.status is Status.PAGE)
    assert 5 <= first <= 8
    assert {v.status for v in verdicts[first:30]} == {Status.PAGE}
    assert verdicts[-1].status is not Status.PAGE
    assert all(v.cause.features == verdicts[first].cause.features for v in verdicts[first:30])
