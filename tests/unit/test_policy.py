"""A request needs a cause that a new model mends, a loss that rose, labels to learn from, and patience."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import ttest_ind_from_stats

from whydrift.monitors.policy import Cohort, RetrainingPolicy, Risk, UsualLoss, decide, fit_usual_loss, risk_since
from whydrift.monitors.verdict import Cause, CauseKind

ONSET = datetime(2026, 5, 1, tzinfo=UTC)
NOW = ONSET + timedelta(days=20)
POLICY = RetrainingPolicy(frozenset({CauseKind.CONCEPT_CHANGED}), 1000, timedelta(days=14))
ALL = RetrainingPolicy(frozenset(CauseKind), 1000, timedelta(days=14))
RISEN, SAME = Risk(0.2, 0.15, 0.1, 5), Risk(0.11, 0.1, 0.1, 5)


def ask(kind=CauseKind.CONCEPT_CHANGED, labelled=1000, last=None, risk=None, policy=POLICY):
    cause = Cause(kind=kind, sentence="s", onset=ONSET)
    return decide(policy, cause, labelled=labelled, risk=risk, now=NOW, last=last)


def test_a_request():
    answer = ask(labelled=1234)
    assert answer.requested
    assert answer.labelled_since_onset == 1234
    assert answer.reason == "concept_changed since 2026-05-01, 1,234 mature labels since then"


def test_nothing_without_a_page():
    answer = decide(POLICY, None, labelled=10**6, risk=RISEN, now=NOW, last=None)
    assert (answer.requested, answer.reason, answer.labelled_since_onset) == (False, "no page", 0)


@pytest.mark.parametrize("kind", sorted(set(CauseKind) - {CauseKind.CONCEPT_CHANGED}))
def test_other_causes_are_to_be_mended(kind):
    answer = ask(kind, labelled=10**6)
    assert not answer.requested
    assert kind.value in answer.reason


def test_too_few_labels():
    answer = ask(labelled=999)
    assert not answer.requested
    assert "999" in answer.reason
    assert answer.labelled_since_onset == 999


@pytest.mark.parametrize(("days", "requested"), [(13, False), (14, True), (15, True)])
def test_the_cooldown(days, requested):
    answer = ask(last=NOW - timedelta(days=days))
    assert answer.requested is requested
    assert ("cooldown" in answer.reason) is not requested


@pytest.mark.parametrize("kind", [CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED])
@pytest.mark.parametrize(
    ("risk", "requested", "words"),
    [
        (RISEN, True, "is 0.2 (at least 0.15) and was 0.1"),
        (SAME, False, "is 0.11 (at least 0.1) and was 0.1"),
        (None, False, "no label tells"),
        (Risk(0.2, 0.15, 0.1, 1), False, "1 window with labels tells too little"),
        (Risk(0.2, 0.15, 0.1, 2), True, "is 0.2 (at least 0.15) and was 0.1"),
    ],
)
def test_inputs_that_moved_ask_only_where_the_loss_rose(kind, risk, requested, words):
    answer = ask(kind, risk=risk, policy=ALL)
    assert answer.requested is requested
    assert words in answer.reason


@pytest.mark.parametrize("kind", sorted(set(CauseKind) - {CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED}))
def test_what_the_owner_added_needs_no_loss(kind):
    assert ask(kind, risk=SAME, policy=ALL).requested


def test_the_bound_is_that_of_a_t_test_with_the_baselines_variance():
    rng = np.random.default_rng(3)
    baseline, since = rng.normal(0.2, 0.01, 30), rng.normal(0.205, 0.01, 6)
    usual = fit_usual_loss(baseline)
    risk = risk_since(ONSET, [Cohort(ONSET + i * timedelta(days=1), 100, x) for i, x in enumerate(since)], usual)
    assert (risk.windows, risk.usual) == (6, pytest.approx(baseline.mean()))
    # scipy pools the squares of both samples: of one without spread they are the baseline's over more degrees.
    of_baseline = (baseline.mean(), baseline.std(ddof=1), 30)
    pooled = ttest_ind_from_stats(since.mean(), 0.0, 6, *of_baseline).statistic * np.sqrt(29 / 34)
    ours = (risk.mean - risk.usual) / (risk.mean - risk.lower) * 1.699127  # t(0.95, 29), from a table
    assert ours == pytest.approx(pooled, rel=1e-5)


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(2000):
        usual = fit_usual_loss(rng.normal(0.2, 0.02, 28))
        since = [Cohort(ONSET, 100, x) for x in rng.normal(0.2, 0.02, 5)]
        wrong += (risk := risk_since(ONSET, since, usual)).lower > risk.usual
    assert 0.035 < wrong / 2000 < 0.065


def test_only_cohorts_since_the_onset_count():
    usual = UsualLoss(0.1, 0.01, 30)
    before, after, empty = (
        Cohort(ONSET - timedelta(days=1), 100, 9.0),
        Cohort(ONSET, 100, 0.1),
        Cohort(ONSET + timedelta(days=1), 0, 0.0),
    )
    assert risk_since(ONSET, [before, after, empty], usual).mean == 0.1
    assert risk_since(ONSET, [before, empty], usual) is None
    assert risk_since(ONSET, [after], None) is None
    assert fit_usual_loss([0.1]) is None
