"""A model whose rows are explained in part: from its baseline to the report, and the same whatever the split."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from whydrift.monitors.summary import merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window, split

FIRST = datetime(2024, 2, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def sampled(own_registry):
    """The project with a baseline for which 110 of a day's 250 rows are explained."""
    own_registry.configure(explainer={"rows": 110}, slices=[], window={"min_rows": 60})
    assert own_registry.run("baseline").code == 0
    return own_registry


def test_a_window_of_which_some_rows_are_explained(sampled):
    assert sampled.window("run", FIRST).code == 0
    verdict = sampled.verdict(FIRST)
    sample = verdict["sample"]
    assert sample["explained"] == verdict["rows"]["explained"]
    assert sample["rows"] == verdict["rows"]["seen"] == 250
    assert 80 < sample["explained"] < 140
    assert (sample["why"], sample["chance"]) == ("configured", 0.44)
    assert 0 < sample["with_all"] <= sample["with_tenfold"] <= 1
    assert 0 < sample["sampling_part"] <= 1
    (page,) = (sampled.folder / "outputs" / "reports").rglob("*.html")
    assert f"{sample['explained']} of 250 rows are explained, drawn by a hash" in page.read_text()

    job = Job.open(configuration.load(sampled.config))
    daily, day = job.summariser, Window(FIRST, FIRST + timedelta(days=1))
    frame = daily.summarise(daily.log.batches(day)).frame()
    for block in ("rows", "input"):
        assert frame[(frame["block"] == block) & (frame["stat"] == "rows")]["value"].sum() % 250 == 0

    window = job.config.window.model_copy(update={"every": HOUR})
    log = replace(daily.log, config=job.config.model_copy(update={"window": window}))
    hours = [replace(daily, log=log).summarise(log.batches(hour)) for hour in split(day.start, day.end, HOUR)]
    assert merge(hours[::-1]).to_bytes() == daily.summarise(daily.log.batches(day)).to_bytes()


def test_auto_sizes_the_sample_by_what_the_windows_vary_by(own_registry):
    """Days of 16,000 rows, of which 250 differ: what days vary by is more than a sample adds."""
    start = FIRST - 28 * DAY
    own_registry.configure(
        explainer={"rows": "auto"}, baseline={"start": f"{start:%F}"}, slices=[], labels=None, loss_attribution=None
    )
    for day in range(29):
        own_registry.edit_log(start + day * DAY, lambda frame: copied(frame, 64))
    assert own_registry.run("baseline").code == 0
    assert own_registry.window("run", FIRST).code == 0
    sample = own_registry.verdict(FIRST)["sample"]
    assert (sample["rows"], sample["why"]) == (16_000, "stream")
    assert 2_000 < 16_000 * sample["chance"] < 8_000
    assert sample["explained"] == pytest.approx(16_000 * sample["chance"], rel=0.05)
    assert sample["stream"].split(" of ")[0] in {"level", "share", "response", "shape"}
    assert sample["sampling_part"] < 0.2


def copied(frame, times):
    """The rows so many times, under other ids."""
    return pd.concat([frame.assign(event_id=frame["event_id"] + f"/{n}") for n in range(times)], ignore_index=True)


def test_another_number_of_rows_needs_another_baseline(sampled):
    sampled.configure(explainer={"rows": "all"})
    done = sampled.window("run", FIRST)
    assert done.code == 3
    assert "explainer.rows is 'all' now and was 110 when the baseline" in done.err
