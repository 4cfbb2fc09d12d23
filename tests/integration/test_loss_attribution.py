"""Which feature makes the model wrong: from labels through baseline, windows and verdict to the report and MLflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from whydrift.monitors.summary import WindowSummary, merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window, split

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
DAYS = [FIRST + i * DAY for i in range(5)]


def shuffled(frame):
    """Another row's hour, as after a join on the wrong key: each column is what it was."""
    return frame.assign(hour=np.random.default_rng(0).permutation(frame["hour"]))


def told(project, day):
    found = project.verdict(day)["loss_attribution"]
    return found, {f["feature"]: f for f in found["features"]}


def test_a_shuffled_feed_is_named(project):
    for day in DAYS[1:]:
        project.edit_log(day, lambda frame: project.answer(shuffled(frame)))
    for day in DAYS:
        assert project.window("run", day).code in (0, 1)
    before, quiet = told(project, DAYS[2])  # the cohort of the first day, which is as ever
    after, broken = told(project, DAYS[4])
    assert (before["loss"], before["background_rows"], before["left_out"]) == ("brier", 20, 0)
    assert before["cohort_start"] == "2024-02-01T00:00:00Z"
    assert 40 < before["rows"] < 85
    assert before["rate"] == pytest.approx(60 / 250, rel=0.02)
    for one in (before, after):
        assert sum(f["value"] for f in one["features"]) == pytest.approx(one["mean"] - one["expected"], abs=1e-7)
    assert all(abs(f["effect"]) < 3 for f in quiet.values())
    assert after["features"][0]["feature"] == "hour"
    assert broken["hour"]["effect"] == max(f["effect"] for f in broken.values())
    assert broken["hour"]["value"] > 0 > broken["hour"]["baseline"]

    (page,) = (project.folder / "outputs" / "reports").rglob(f"{DAYS[4]:%Y%m%d}*.html")
    text = page.read_text()
    assert "Which feature makes the model wrong" in text
    assert 'aria-label="Mean loss attribution by feature over time' in text
    (run,) = project.active_runs(DAYS[4])
    assert run.data.metrics["loss_attribution/hour"] == pytest.approx(broken["hour"]["value"])


def test_hourly_sums_are_the_days(project):
    config = configuration.load(project.config)
    daily = Job.open(config).summariser
    window = config.window.model_copy(update={"every": HOUR})
    hourly = replace(daily, log=replace(daily.log, config=config.model_copy(update={"window": window})))
    whole = daily.outcomes(Window(FIRST, FIRST + DAY))
    parts = [hourly.outcomes(hour) for hour in split(FIRST, FIRST + DAY, HOUR)]
    assert merge(parts).to_bytes() == whole.to_bytes()
    own = whole.frame().query("block == 'loss_attribution'")
    assert set(own["name"]) == {"", *daily.layout.names}
    assert WindowSummary.from_bytes(whole.to_bytes()) == whole


def test_it_can_be_switched_off_and_is_absent_without_labels(project):
    project.configure(loss_attribution={"rows": 0})
    for day in DAYS[:3]:
        assert project.window("run", day).code in (0, 1)
    assert project.verdict(DAYS[2])["loss_attribution"] is None
    assert project.verdict(DAYS[2])["rows"]["labelled"] > 0


def test_a_loss_other_than_the_baselines_asks_for_another_baseline(project):
    project.configure(loss_attribution={"loss": "log_loss"})
    result = project.window("run", FIRST)
    assert result.code == 3
    assert "loss_attribution.loss is 'log_loss' now and was 'brier'" in result.err


def test_a_space_other_than_the_baselines_asks_for_another_baseline(project):
    project.configure(explainer={"space": "probability"})
    result = project.window("run", FIRST)
    assert result.code == 3
    assert "explainer.space is 'probability' now and was 'margin'" in result.err


def test_probability_and_a_loss_of_ones_own(own_registry):
    project = own_registry
    project.configure(
        explainer={"space": "probability", "background_rows": 5},
        loss_attribution={"loss": "user_losses:cost", "rows": 50},
        baseline={"start": "2024-01-30"},  # two days, which are quick to sample
    )
    assert project.run("baseline").code == 0
    assert project.window("run", DAYS[2]).code == 0
    verdict = project.verdict(DAYS[2])
    assert verdict["findings"] == []
    assert verdict["score"]["unit"] == "probability"
    assert 0 < verdict["score"]["mean"] < 1
    assert verdict["soundness"]["explainer"] == "permutation"
    assert verdict["loss_attribution"]["loss"] == "user_losses:cost"
    assert verdict["loss_attribution"]["rate"] == pytest.approx(50 / 250, rel=0.02)
    assert verdict["loss_attribution"]["baseline_mean"] is None

    project.configure(loss_attribution={"loss": "user_losses:absent"})
    result = project.run("baseline")
    assert result.code == 2
    assert "loss_attribution.loss: 'user_losses:absent' cannot be imported" in result.err
