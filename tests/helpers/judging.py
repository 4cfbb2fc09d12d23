"""How a command ended, as the tests of the command line look at it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
OUTCOME_COHORT = timedelta(days=2)  # labels.mature_after


def fails(result, code, *words):
    """The command ended with this code and one message for people."""
    assert result.code == code, result
    assert result.out == ""
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def judged(result):
    """The verdict on stdout."""
    verdict = json.loads(result.out)
    assert {"ok": 0, "ticket": 0, "page": 1, "insufficient_data": 3}[verdict["status"]] == result.code
    return verdict


def evaluate(project, day=FIRST):
    """Profile and assess a day; its verdict."""
    result = project.window("profile", day)
    assert (result.code, result.out) == (0, "")
    verdict = judged(project.window("assess", day, "--format", "json"))
    assert project.verdict(day) == verdict
    return verdict


def findings(verdict):
    return {(f["stream"], f["feature"]): f["status"] for f in verdict["findings"]}
