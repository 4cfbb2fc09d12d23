"""The search for slices and the gaps through the command line: baseline, profile, assess, report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

pytestmark = pytest.mark.slow

BASELINE_END, DAY = datetime(2024, 2, 1, tzinfo=UTC), timedelta(days=1)


def test_a_run_searches_slices_and_tells_gaps(own_registry):
    project = own_registry
    project.configure(slice_search={"min_rows": 100}, fairness={"columns": ["site"], "threshold": 0.4})
    assert project.run("baseline").code == 0
    days = [BASELINE_END + n * DAY for n in range(4)]
    for day in days:
        assert project.window("run", day).code in (0, 1)
    verdict = project.verdict(days[-1])
    assert verdict["search"]["windows"] == 4
    assert verdict["search"]["tested"] > 10
    assert {gap["column"] for gap in verdict["fairness"]} == {"site"}
    assert len(verdict["fairness"]) == 8
    again = project.tree()
    assert project.window("run", days[-1]).code in (0, 1)
    assert {k: v for k, v in project.tree().items() if k in again} == again


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"fairness": {"columns": ["sex"]}}, "fairness.columns: 'sex' is no feature of the model"),
        ({"slice_search": {"columns": ["sex"]}}, "slice_search.columns: 'sex' is no feature of the model"),
        ({"fairness": {"columns": ["site"], "reference": {"site": "south"}}}, "'south' is no group of site"),
    ],
)
def test_columns_and_groups_that_are_not_there_are_refused(own_registry, sections, message):
    own_registry.configure(**sections)
    result = own_registry.run("baseline")
    assert result.code == 2
    assert message in result.err


def test_other_groups_need_another_baseline(project):
    project.configure(fairness={"columns": ["site"]})
    result = project.window("run", BASELINE_END)
    assert "fairness is" in result.err
    assert "make a new one" in result.err
