"""Labels that come late, and positives later than negatives: what whole jobs say of them, and when."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whydrift.monitors.audit import draw
from whydrift.monitors.summary import WindowSummary

DAY = timedelta(days=1)
FIRST = pd.Timestamp("2024-02-01", tz="UTC").to_pydatetime()
DAYS = [FIRST + i * DAY for i in range(7)]


def relabel(project, change):
    """Rewrite the label files, one for each day of arrival; `change` gives the rows of all days, with event_time."""
    logs = pq.read_table(project.folder / "logs", columns=["event_id", "event_time", "prediction"]).to_pandas()
    labels = pq.read_table(project.folder / "labels", columns=["event_id", "label"]).to_pandas()
    rows = change(labels.merge(logs, on="event_id").sort_values("event_id", ignore_index=True))
    shutil.rmtree(project.folder / "labels")
    columns = [c for c in rows if c not in {"event_time", "prediction", "day"}]
    for day, part in rows.groupby(rows["label_time"].dt.strftime("%Y-%m-%d")):
        path = project.folder / "labels" / f"day={day}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(part[columns], preserve_index=False), path)
    return rows


def slow_positives(rows):
    rng = np.random.default_rng(5)
    hours = np.where(rows["label"] == 1, rng.uniform(12, 96, len(rows)), rng.uniform(4, 36, len(rows)))
    time = rows["event_time"] + pd.to_timedelta(np.floor(hours * 3600), unit="s")
    return rows.assign(label_time=time, day=rows["event_time"].dt.floor("D"))


@pytest.fixture
def late(own_registry):
    """A project whose positives take up to four days and its negatives one and a half, and all rows with labels."""
    project = own_registry
    project.configure(labels={"mature_after": "4d", "complete_after": "6d"})
    rows = relabel(project, slow_positives)
    assert project.run("baseline").code == 0
    return project, rows


def labels_of(project, day):
    return project.verdict(day)["labels"]


def parts(project, name):
    return {k: v for k, v in project.tree().items() if k.endswith(name)}


@pytest.mark.slow
def test_late_labels_from_rows_to_verdict(late):
    project, rows = late
    labels = project.folder / "labels"
    later = project.folder / "later"
    shutil.copytree(labels, later)

    # Live: a window runs when only the labels of its time are there.
    shutil.rmtree(labels)
    for day in sorted(later.iterdir()):
        if day.name <= f"day={FIRST - DAY:%F}":
            shutil.copytree(day, labels / day.name)
    for day in DAYS:
        shutil.copytree(later / f"day={day:%F}", labels / f"day={day:%F}")
        assert project.window("run", day).code == 0
    live = project.tree()
    assert len(parts(project, "arrivals.parquet")) == len(DAYS)

    # Backfill: all labels are there from the start, and nothing that any window said changes by a byte.
    shutil.rmtree(labels)
    shutil.copytree(later, labels)
    shutil.rmtree(project.store)
    assert project.window("backfill", FIRST, days=len(DAYS)).code == 0
    assert project.tree() == live

    truth = rows.groupby("day")["label"].mean()
    errors, naive, hits = [], [], []
    for day in DAYS:
        told = labels_of(project, day)
        assert told["maturity"]["mature"]
        assert told["maturity"]["positives"] > 0.9
        assert told["maturity"]["coverage"] == 1.0
        for cohort in told["cohorts"]:
            final = truth[pd.Timestamp(cohort["cohort_start"])]
            low, high = cohort["base_rate_bounds"]
            assert low - 1e-6 <= final <= high + 1e-6
            if cohort["age"] in (1, 2):
                errors.append(cohort["base_rate"] - final)
                naive.append(cohort["seen_base_rate"] - final)
                low, high = cohort["base_rate_interval"]
                hits.append(low - 1e-6 <= final <= high + 1e-6)
    assert np.mean(hits) >= 0.85
    assert np.mean(naive) < -0.05
    assert abs(np.mean(errors)) < 0.3 * abs(np.mean(naive))

    _check_newer_pictures(project, rows, truth)


def _check_newer_pictures(project, rows, truth):
    # The same cohort, as its labels land: each later window holds the newer picture.
    pictures = [
        c for day in DAYS for c in labels_of(project, day)["cohorts"] if c["cohort_start"].startswith("2024-02-02")
    ]
    assert [c["age"] for c in pictures] == [0, 1, 2, 3, 4]
    widths = [c["loss_bounds"][1] - c["loss_bounds"][0] for c in pictures]
    assert all(b < a for a, b in pairwise(widths))
    assert widths[-1] < 1e-6
    assert pictures[-1]["base_rate"] == pytest.approx(truth[pd.Timestamp("2024-02-02", tz="UTC")], abs=1e-6)

    # A label that lands late and belongs to the past is in every later picture, and in none before.
    moved = rows.copy()
    of_day = moved["day"] == pd.Timestamp("2024-02-03", tz="UTC")
    moved.loc[of_day, "label_time"] = pd.Timestamp("2024-02-06T12:00", tz="UTC")
    relabel(project, lambda _: moved)
    assert project.window("backfill", FIRST, days=len(DAYS)).code == 0
    again = [c for d in DAYS for c in labels_of(project, d)["cohorts"] if c["cohort_start"].startswith("2024-02-03")]
    assert [c["labelled"] for c in again] == [0, 0, 0, 250, 250]


@pytest.mark.slow
def test_an_audit_sample_finds_what_labels_by_choice_hide(late):
    """Only rows that the model doubts are labelled by choice, and a tenth by chance; the concept has changed."""
    project, _ = late
    project.configure(labels={"columns": {"audit": "chance"}})

    truth, naive, errors, scores = {}, [], [], []

    def select(rows):
        rng = np.random.default_rng(9)
        odds = rows["prediction"] / (1 - rows["prediction"]) * 3
        changed = (rng.random(len(rows)) < odds / (1 + odds)).astype(float)
        label = np.where(rows["event_time"] < FIRST, rows["label"], changed)
        days = pd.DataFrame({"label": label, "prediction": rows["prediction"]})
        truth["means"] = days.groupby(rows["event_time"].dt.floor("D")).mean()
        drawn = draw(rows["event_id"], 0.4)
        time = rows["event_time"] + pd.to_timedelta(30, unit="h")
        keep = drawn | (rows["prediction"] > 0.3) | (rows["event_time"] < FIRST)
        return rows.assign(label=label, chance=np.where(drawn, 0.4, np.nan), label_time=time)[keep]

    kept = relabel(project, select)
    assert project.window("backfill", FIRST, days=len(DAYS)).code == 0
    for day in DAYS[4:]:
        cohort = pd.Timestamp(day - 4 * DAY)
        told = {a["of"]: a for a in labels_of(project, day)["audit"]}
        assert set(told) == {"label", "loss"}
        low, high = told["label"]["interval"]
        means = truth["means"].loc[cohort]
        assert low <= means["label"] <= high
        scores.append(means["prediction"] - means["label"])
        chosen = kept[kept["event_time"].dt.floor("D") == cohort]
        naive.append(chosen["label"].mean() - means["label"])
        errors.append(told["label"]["value"] - means["label"])
        assert told["label"]["audited"] == chosen["chance"].notna().sum()
    assert abs(np.mean(errors)) < 0.03
    assert np.mean(naive) > 0.05  # of the labels that are there most were not drawn by chance
    assert np.mean(scores) < -0.1  # nor do the model's own scores know that the concept changed


def test_labels_that_are_taken_too_early_are_said_to_be(late):
    project, _ = late
    project.configure(labels={"mature_after": "1d", "complete_after": "6d"})
    assert project.window("run", DAYS[0], "--format", "json").code == 0
    maturity = labels_of(project, DAYS[0])["maturity"]
    assert maturity["mature"] is False
    assert maturity["positives"] < 0.6 < 0.9 < maturity["negatives"]
    report = next((project.folder / "outputs" / "reports").rglob("*.html")).read_text()
    assert "raise labels.mature_after" in report


def test_arrivals_are_counts_that_can_be_read_again(finished):
    path = next((finished / "store").rglob("arrivals.parquet"))
    summary = WindowSummary.from_bytes(path.read_bytes())
    frame = summary.frame()
    assert set(frame["block"]) == {"arrival", "delay", "label_mesh"}
    assert frame["slice"].nunique() == 3
    verdict = json.loads(path.with_name("verdict.json").read_text())
    assert [c["age"] for c in verdict["labels"]["cohorts"]] == [0, 1, 2]
    assert {e["method"] for e in verdict["labels"]["estimates"]} == {"cbpe", "pape"}
