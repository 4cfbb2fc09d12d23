"""The calibrated threshold from the configuration through the baseline to the verdict, and mutes beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

FIRST = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.mark.slow
def test_a_calibrated_baseline_is_kept_used_and_stated(own_registry: Any, caplog):
    own_registry.configure(
        budget={"threshold": "calibrated"},
        mutes=[{"kind": "smece", "since": "2024-02-01", "until": "2024-02-10", "reason": "small cohorts"}],
    )
    caplog.set_level("INFO")
    assert own_registry.run("baseline").code == 0
    assert "false pages a period in 400 simulated ones" in caplog.text
    done = own_registry.window("run", FIRST, "--format", "json")
    assert done.code == 0
    budget = done.json()["budget"]
    assert budget["threshold"] == "calibrated"
    assert 90 / 16 <= budget["page_threshold"] < 90
    low, high = budget["simulated_interval"]
    assert low < budget["simulated_false_pages"] < high <= 1
    assert budget["expected_false_pages"] == pytest.approx(high / 90)
    assert [(m["kind"], m["until"], m["reason"]) for m in done.json()["muted"]] == [
        ("smece", "2024-02-10T00:00:00Z", "small cohorts")
    ]

    own_registry.configure(budget={"page": {"false_alarms": 2, "per": "90d"}})
    other = own_registry.window("run", FIRST)
    assert other.code == 3
    assert "the baseline was made for 1 in 90 days; make a new one" in other.err

    own_registry.configure(budget={"threshold": "guaranteed", "page": {"false_alarms": 1, "per": "90d"}})
    plain = own_registry.window("run", FIRST, "--format", "json").json()["budget"]
    assert (plain["threshold"], plain["page_threshold"], plain["simulated_false_pages"]) == ("guaranteed", 90, None)


def test_a_baseline_that_was_not_calibrated_is_refused_where_that_is_asked(project: Any):
    project.configure(budget={"threshold": "calibrated"})
    done = project.window("run", FIRST)
    assert done.code == 3
    assert "the baseline was made without one; make a new one with `whydrift baseline`" in done.err
