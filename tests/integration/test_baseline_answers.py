"""What a baseline makes of logged predictions that are not its model's, and of a configuration that changed since."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

FIRST = datetime(2024, 2, 1, tzinfo=UTC)


def test_a_log_of_the_other_class_is_warned_of_and_pages_in_production(own_registry: Any, caplog):
    for day in range(1, 32):
        own_registry.edit_log(datetime(2024, 1, day, tzinfo=UTC), lambda f: f.assign(prediction=1 - f["prediction"]))
    own_registry.edit_log(FIRST, lambda f: f.assign(prediction=1 - f["prediction"]))
    made = own_registry.run("baseline")
    assert made.code == 0
    assert "of the logged predictions of the reference period are not what models:/meters/1 gives" in caplog.text
    done = own_registry.window("run", FIRST, "--format", "json")
    assert done.code == 1
    assert done.json()["cause"]["kind"] == "model_changed"


def test_rounded_predictions_need_the_tolerance_that_says_so(own_registry: Any, caplog):
    own_registry.configure(inference_log={"prediction_tolerance": 0.006})
    for day in range(1, 32):
        own_registry.edit_log(
            datetime(2024, 1, day, tzinfo=UTC), lambda f: f.assign(prediction=f["prediction"].round(2))
        )
    own_registry.edit_log(FIRST, lambda f: f.assign(prediction=f["prediction"].round(2)))
    assert own_registry.run("baseline").code == 0
    assert "logged predictions of the reference period" not in caplog.text
    assert own_registry.window("run", FIRST).code == 0


def test_rows_that_another_version_served_make_a_baseline(own_registry: Any):
    own_registry.configure(inference_log={"columns": {"model_version": "served_by"}})
    for day in range(1, 32):
        own_registry.edit_log(datetime(2024, 1, day, tzinfo=UTC), lambda f: f.assign(served_by="0"))
    own_registry.edit_log(FIRST, lambda f: f.assign(served_by="1"))
    assert own_registry.run("baseline").code == 0
    done = own_registry.window("run", FIRST, "--format", "json")
    assert done.code == 0
    assert done.json()["rows"]["explained"] == 250


def test_a_short_baseline_is_warned_of(own_registry: Any, caplog):
    own_registry.configure(baseline={"start": "2024-01-20"})
    assert own_registry.run("baseline").code == 0
    assert "the baseline has 12 windows; below 28 nothing statistical pages" in caplog.text


def test_a_baseline_of_another_period_is_refused(project: Any):
    project.configure(baseline={"start": "2024-01-02"})
    done = project.window("run", FIRST)
    assert done.code == 3
    assert "BaselineError: baseline.start is '2024-01-02T00:00:00+00:00' now" in done.err
    assert not list(project.store.rglob("*.parquet"))


def test_labels_of_another_format_are_an_error(project: Any):
    project.configure(labels={"format": "csv"})
    done = project.window("run", FIRST)
    assert done.code == 3
    assert "none that ends in .csv; see inference_log.format, labels.format" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("window: {evry: 1d}", "did you mean every?"),
        ("baseline: {start: 2024-01-01T05:00Z, end: 2024-02-01}", "does not lie on a boundary of windows of 1d"),
        ("baseline: {start: 2024-02-30, end: 2024-03-01}", "day is out of range for month"),
    ],
)
def test_mistakes_that_validate_finds(project: Any, text, said):
    name = text.partition(":")[0]
    project.configure(**{name: None})
    project.config.write_text(project.config.read_text() + text + "\n")
    done = project.run("validate")
    assert done.code == 2
    assert said in done.err
