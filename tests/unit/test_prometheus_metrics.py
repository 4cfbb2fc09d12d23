"""Verdict and job status as Prometheus metrics, read back by the client library's own parser."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from whydrift.monitors.verdict import CauseKind, Channel, Finding, Status
from whydrift.pipelines.errors import StoreError
from whydrift.pipelines.outputs import job as job_status
from whydrift.pipelines.outputs.job import JobStatus
from whydrift.pipelines.outputs.prometheus import TOP_FEATURES, availability, joined, metrics, write_textfile

JOB = JobStatus(
    model="flights",
    model_version="1",
    interval_seconds=86400.0,
    last_success=1368576000.0,
    last_completion=1368579600.0,
    exit_code=3,
    stage_seconds={"profile": 12.5, "assess": 0.7},
)


def exposed(families):
    """`{metric name: {the labels but model: value}}` after a round trip through the text format."""

    class Families:
        def collect(self):
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    found = defaultdict(dict)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "model"}
            assert sample.labels["model"] == "flights"
            key = tuple(sorted(labels.items()))
            assert key not in found[sample.name], "a series twice"
            found[sample.name][key] = sample.value
    return found


def only(found, name):
    assert list(found[name]) == [()], f"{name} has more labels than model"
    return found[name][()]


def by(found, name):
    """Values by the one label besides model."""
    return {labels[0][1]: value for labels, value in found[name].items() if len(labels) == 1}


@pytest.fixture
def page(make_verdict):
    return exposed(list(metrics(make_verdict(), JOB)))


def test_every_status_and_cause_is_exported(page):
    assert by(page, "whydrift_status") == {
        "ok": 0.0,
        "ticket": 0.0,
        "page": 1.0,
        "insufficient_data": 0.0,
        "not_evaluated": 0.0,
    }
    assert set(by(page, "whydrift_cause")) == set(CauseKind)
    assert [k for k, v in by(page, "whydrift_cause").items() if v] == ["data_broken"]


@pytest.mark.parametrize("status", Status)
def test_exactly_one_status_is_1(make_verdict, status):
    found = by(exposed(metrics(make_verdict(status=status), None)), "whydrift_status")
    assert [k for k, v in found.items() if v == 1.0] == [status.value]


def test_without_a_cause_every_cause_is_0(make_verdict):
    found = exposed(metrics(make_verdict(cause=None, since=None), None))
    assert set(by(found, "whydrift_cause").values()) == {0.0}
    assert found["whydrift_onset_timestamp_seconds"] == {}


def test_times_are_unix_seconds(page):
    def seconds(day):
        return datetime(2013, 5, day, tzinfo=UTC).timestamp()

    assert only(page, "whydrift_window_start_timestamp_seconds") == seconds(14)
    assert only(page, "whydrift_window_end_timestamp_seconds") == seconds(15)
    assert only(page, "whydrift_onset_timestamp_seconds") == seconds(12)
    assert only(page, "whydrift_calibration_cohort_end_timestamp_seconds") == seconds(13)


def test_evidence_stands_beside_its_thresholds_and_budget(page):
    assert only(page, "whydrift_evidence") == 213.0
    assert only(page, "whydrift_evidence_page_threshold") == 90.0
    assert only(page, "whydrift_evidence_ticket_threshold") == 7.0
    assert only(page, "whydrift_budget_accepted_pages") == 1.0
    assert only(page, "whydrift_budget_period_seconds") == 90 * 86400
    assert only(page, "whydrift_budget_spent_pages") == 1.0
    assert only(page, "whydrift_budget_watched_windows") == 44.0
    assert only(page, "whydrift_budget_expected_pages") == pytest.approx(44 / 90)
    assert only(page, "whydrift_baseline_learning") == 0.0
    assert only(page, "whydrift_retraining_requested") == 1.0


def test_rows_are_counted_by_reason_without_the_feature(make_verdict):
    rows = replace(
        make_verdict().rows, set_aside={"infinite:temp": 2, "infinite:dewp": 3, "duplicate": 1, "unreadable_file": 4}
    )
    found = exposed(metrics(make_verdict(rows=rows, missing_windows=2), None))
    assert only(found, "whydrift_seen_rows") == 920.0
    assert only(found, "whydrift_explained_rows") == 917.0
    assert only(found, "whydrift_labelled_rows") == 903.0
    assert by(found, "whydrift_set_aside_rows") == {"infinite": 5.0, "duplicate": 1.0}
    assert only(found, "whydrift_unreadable_files") == 4.0
    assert only(found, "whydrift_missing_windows") == 2.0


def test_features_slices_and_calibration_have_their_baseline_beside_them(page):
    assert by(page, "whydrift_attribution_share_ratio") == {"temp": 0.082, "hour": 0.2}
    assert by(page, "whydrift_attribution_baseline_share_ratio") == {"temp": 0.122, "hour": 0.18}
    assert by(page, "whydrift_missing_ratio") == {"temp": 0.361, "hour": 0.0}
    assert by(page, "whydrift_missing_baseline_ratio") == {"temp": 0.0, "hour": 0.0}
    assert by(page, "whydrift_cause_feature") == {"temp": 1.0, "hour": 0.0}
    assert by(page, "whydrift_slice_loss") == {"origin=EWR": 0.12}, "a loss that is not known has no series"
    assert by(page, "whydrift_slice_baseline_loss") == {"origin=EWR": 0.17, "carrier=OO": 0.2}
    for name, value in {"intercept": -0.21, "slope": 0.8, "smece": 0.041, "brier": 0.11}.items():
        assert only(page, f"whydrift_calibration_{name}") == value
    for name, value in {"intercept": 0.02, "smece": 0.05, "brier": 0.16}.items():
        assert only(page, f"whydrift_calibration_baseline_{name}") == value


def test_a_thousand_features_give_the_top_ones_and_those_that_are_named(make_verdict):
    verdict = make_verdict()
    attribution = tuple(
        replace(verdict.attribution[0], feature=f"f{rank:04}", share=1 / (rank + 1)) for rank in range(1000)
    )
    finding = Finding(channel=Channel.CHECK, stream="missing_rate", status=Status.PAGE, message="", feature="f0500")
    cause = replace(verdict.cause, features=("f0700",))
    found = exposed(
        metrics(make_verdict(attribution=attribution[::-1], findings=(finding,), cause=cause), None),
    )
    expected = {f"f{rank:04}" for rank in range(TOP_FEATURES)} | {"f0500", "f0700"}
    assert set(by(found, "whydrift_attribution_share_ratio")) == expected
    assert set(by(found, "whydrift_missing_ratio")) == expected


def test_the_job_is_told_from_the_verdict(page):
    assert only(page, "whydrift_job_last_success_timestamp_seconds") == 1368576000.0
    assert only(page, "whydrift_job_last_completion_timestamp_seconds") == 1368579600.0
    assert only(page, "whydrift_job_last_exit_code") == 3.0
    assert only(page, "whydrift_job_interval_seconds") == 86400.0
    assert by(page, "whydrift_job_stage_duration_seconds") == {"profile": 12.5, "assess": 0.7}
    assert page["whydrift_job_info"] == {(("model_version", "1"), ("whydrift_version", version("whydrift"))): 1.0}
    assert page["whydrift_window_info"] == {(("baseline", "ab12" * 4), ("model_version", "1")): 1.0}


def test_a_job_that_never_succeeded_exports_0():
    found = exposed(metrics(None, replace(JOB, last_success=None)))
    assert only(found, "whydrift_job_last_success_timestamp_seconds") == 0.0
    assert not any(name.startswith("whydrift_status") for name in found)


def test_hostile_names_stay_inside_their_label(make_verdict):
    name = 'a"b\\c\nwhydrift_status{x="y"} 1'
    attribution = (replace(make_verdict().attribution[0], feature=name),)
    found = exposed(metrics(make_verdict(attribution=attribution), None))
    assert set(by(found, "whydrift_attribution_share_ratio")) == {name}


def test_families_of_two_models_are_joined(make_verdict):
    first = make_verdict()
    second = make_verdict(key=replace(first.key, model="churn"))
    alone = list(metrics(first, JOB))
    both = joined([*metrics(first, JOB), *metrics(second, None), availability("flights", up=True)])
    assert max(Counter(family.name for family in both).values()) == 1
    status = next(family for family in both if family.name == "whydrift_status")
    assert Counter(sample.labels["model"] for sample in status.samples) == {"flights": 5, "churn": 5}
    assert len(both) == len(alone) + 1


def test_the_openmetrics_parser_agrees(make_verdict):
    registry = CollectorRegistry(auto_describe=False)

    class Families:
        def collect(self):
            return list(metrics(make_verdict(), JOB))

    registry.register(Families())
    names = {family.name for family in parse_openmetrics(generate_openmetrics(registry).decode())}
    assert "whydrift_window" in names  # the info suffix belongs to the sample
    assert all(name.startswith("whydrift_") for name in names)


def test_the_textfile_appears_whole(tmp_path, make_verdict):
    path = tmp_path / "metrics" / "flights.prom"
    write_textfile(path, make_verdict(), JOB)
    first = path.read_text()
    assert 'whydrift_status{model="flights",status="page"} 1.0' in first
    write_textfile(path, make_verdict(status=Status.OK), JOB)
    assert 'whydrift_status{model="flights",status="page"} 0.0' in path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_job_status_round_trip(tmp_path):
    assert job_status.read(tmp_path, "flights") is None
    job_status.write(JOB, tmp_path)
    assert job_status.read(tmp_path, "flights") == JOB
    job_status.write(replace(JOB, last_success=None, exit_code=0), tmp_path)
    assert job_status.read(tmp_path, "flights").last_success is None
    assert [path.name for path in (tmp_path / "jobs").rglob("*") if path.is_file()] == ["flights.json"]


def test_a_reader_never_sees_half_a_job_status(tmp_path):
    stages = {f"stage{number}": float(number) for number in range(2000)}
    job_status.write(JOB, tmp_path)
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            job_status.write(replace(JOB, stage_seconds=stages), tmp_path)
            job_status.write(JOB, tmp_path)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = {len(job_status.read(tmp_path, "flights").stage_seconds) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= {2, 2000}


@pytest.mark.parametrize("content", ["", "{", json.dumps({"model": "flights"}), "[]"])
def test_a_broken_job_status_says_what_to_do(tmp_path, content):
    path = tmp_path / "jobs" / "flights.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StoreError, match=r"flights\.json is not a job status .* delete it"):
        job_status.read(tmp_path, "flights")
