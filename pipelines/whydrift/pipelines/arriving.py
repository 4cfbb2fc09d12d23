"""Labels on their way, around their arithmetic: who was asked, and which answers are known by when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from whydrift.monitors.arrivals import Arrived, ages_watched, summarise_arrivals, summarise_delays
from whydrift.monitors.audit import Audited, summarise_audit
from whydrift.monitors.performance import summarise_joint
from whydrift.monitors.summary import WindowSummary, merge
from whydrift.pipelines.rows import Summariser
from whydrift.pipelines.sources.records import Records, read_predictions
from whydrift.pipelines.window import Window


def asked(summariser: Summariser, window: Window) -> pd.DataFrame | None:
    """Records of the window and of those before it whose labels can still come; None where the model has no labels.

    Only who was asked when, and the prediction: far fewer columns to read than the features.
    """
    config = summariser.log.config
    if config.labels is None:
        return None
    events = replace(summariser.log, features={})
    return events.read(Window(window.shifted(-config.label_lag).start, window.end)).frame


def arrivals(summariser: Summariser, window: Window, events: pd.DataFrame) -> WindowSummary:
    """What is known of the labels of the newest cohorts at the window's end; `events` as `asked` gives them.

    Whenever this runs, the answer is the same: labels that came later do not count.
    """
    config = summariser.log.config
    if summariser.labels is None:
        return WindowSummary.zero()
    ages = ages_watched(config.label_lag)
    cohorts = [window.shifted(-age) for age in ages]
    labels = summariser.labels(cohorts[-1].start, window.end).frame
    found = {c.start: _arrived(_predicted(events, c), labels, c, summariser.classes) for c in cohorts}
    return summarise_arrivals(found, summariser.layout)


def learn_arrivals(summariser: Summariser, cohorts: Sequence[tuple[Window, Records]]) -> WindowSummary:
    """What a baseline fixes beside mature outcomes: what scores came to by feature, and how late labels are.

    A cohort's labels are taken to be complete `labels.complete_after` its window's end, if other labels still came
    then: at the end of a log nobody knows whether more would have.
    """
    config = summariser.log.config
    if summariser.labels is None:
        return WindowSummary.zero()
    parts, complete = [], {}
    for cohort, records in cohorts:
        matured = summariser.matured(cohort, records)
        if matured is not None:
            parts.append(summarise_joint(matured, summariser.layout))
        due = cohort.end + config.label_horizon * config.window.every
        labels = summariser.labels(cohort.start, due).frame
        if len(labels) and labels["label_time"].max() >= due - config.window.every:
            complete[cohort.start] = _arrived(records.frame, labels, cohort, summariser.classes)
    return merge([*parts, summarise_delays(complete, summariser.layout)])


def audit(summariser: Summariser, cohort: Window, events: pd.DataFrame) -> WindowSummary:
    """The sums of a cohort's audit sample by the time it matures; nothing where no audit is configured."""
    config = summariser.log.config
    if summariser.labels is None or config.labels is None or config.labels.columns.audit is None:
        return WindowSummary.zero()
    due = cohort.end + config.label_lag * config.window.every
    labels = summariser.labels(cohort.start, due).frame
    joined = _predicted(events, cohort).merge(labels[["event_id", "label", "chance"]], on="event_id", how="left")
    columns = (joined[name].to_numpy(np.float64) for name in ("prediction", "weight", "label", "chance"))
    return summarise_audit(Audited(*columns), summariser.layout)


def _predicted(events: pd.DataFrame, cohort: Window) -> pd.DataFrame:
    return events[(events["event_time"] >= cohort.start) & (events["event_time"] < cohort.end)]


def _arrived(records: pd.DataFrame, labels: pd.DataFrame, cohort: Window, classes: Sequence[str]) -> Arrived:
    joined = records.merge(labels[["event_id", "label", "label_time"]], on="event_id", how="left")
    late = (joined["label_time"] - cohort.end) // cohort.width + 1
    return Arrived(
        prediction=read_predictions(joined, classes),
        weight=joined["weight"].to_numpy(np.float64),
        label=joined["label"].to_numpy(np.float64),
        age=np.maximum(late.fillna(0.0).to_numpy(np.float64), 0.0).astype(np.int64),
    )
