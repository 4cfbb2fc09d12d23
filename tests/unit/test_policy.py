"""A request needs a cause that a new model mends, labels to learn from, and patience."""

from datetime import UTC, datetime, timedelta

import pytest

from whydrift.monitors.policy import RetrainingPolicy, decide
from whydrift.monitors.verdict import Cause, CauseKind

ONSET = datetime(2026, 5, 1, tzinfo=UTC)
NOW = ONSET + timedelta(days=20)
POLICY = RetrainingPolicy(frozenset({CauseKind.CONCEPT_CHANGED}), 1000, timedelta(days=14))


def ask(kind=CauseKind.CONCEPT_CHANGED, labelled=1000, last=None):
    return decide(POLICY, Cause(kind=kind, sentence="s", onset=ONSET), labelled=labelled, now=NOW, last=last)


def test_a_request():
    answer = ask(labelled=1234)
    assert answer.requested
    assert answer.labelled_since_onset == 1234
    assert answer.reason == "concept_changed since 2026-05-01, 1,234 mature labels since then"


def test_nothing_without_a_page():
    answer = decide(POLICY, None, labelled=10**6, now=NOW, last=None)
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
