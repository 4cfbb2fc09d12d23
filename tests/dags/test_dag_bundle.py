"""The bundle as Airflow sees it: what parsing gives, and a day's run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAY = "whydrift_flights"


@pytest.fixture(scope="module")
def parsed(probe: Callable[..., Any]) -> Any:
    return probe("parse")


def test_ruff_finds_no_deprecated_airflow() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "AIR", "--preview", ROOT / "dags"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_committed_configuration_makes_three_dags(parsed: Any) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == {DAY, f"{DAY}_baseline", f"{DAY}_retraining"}
    assert parsed["dags"][DAY]["timetable"] == "CronDataIntervalTimetable(expression='0 0 * * *', timezone='UTC')"
    assert parsed["dags"][DAY]["catchup"] is False
    assert parsed["dags"][DAY]["max_active_runs"] == 1


def test_the_chain_of_tasks(parsed: Any) -> None:
    tasks = parsed["dags"][DAY]["tasks"]
    assert {name: task["downstream"] for name, task in tasks.items()} == {
        "profile": ["assess"],
        "assess": ["publish"],
        "publish": ["request_retraining"],
        "request_retraining": [],
    }
    assert tasks["request_retraining"]["outlets"] == ["whydrift://retraining-request/flights"]
    assert "whydrift://retraining-request/flights" in parsed["dags"][f"{DAY}_retraining"]["timetable"]


def test_every_task_has_an_owner_retries_and_a_timeout(parsed: Any) -> None:
    for dag in parsed["dags"].values():
        assert dag["doc"]
        assert dag["tags"] == ["flights", "whydrift"]
        for task in dag["tasks"].values():
            assert (task["owner"], task["retries"], task["timeout"]) == ("ml-platform", 2, 1800)


def test_parsing_is_quick_and_imports_nothing_heavy(parsed: Any) -> None:
    assert parsed["heavy"] == []
    assert parsed["seconds"] < 5  # Airflow gives a file 30 s


def test_a_broken_configuration_stops_no_other(probe: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "flights.yaml").write_bytes((ROOT / "configs" / "flights.yaml").read_bytes())
    (tmp_path / "late.yaml").write_text("model: {name: late}\nwindow: {every: 6h}\njob: {delay: 13h}\n")
    (tmp_path / "torn.yaml").write_text("model: {name: torn\n")
    (tmp_path / "odd.yaml").write_text("model: {name: odd}\nwindow: {every: 3}\n")
    parsed = probe("parse", WHYDRIFT_CONFIGS=str(tmp_path))
    assert parsed["errors"] == {}  # an import error would take every DAG of the file out of the schedule
    assert "profile" in parsed["dags"][DAY]["tasks"]
    assert parsed["dags"]["whydrift_late"]["max_active_runs"] == 3  # two more may end while one waits for its logs
    assert "whydrift_late_retraining" not in parsed["dags"]  # it has no train_command
    for name, reason in (("torn", "expected"), ("odd", "window.every: 3 is not a duration")):
        dag = parsed["dags"][f"whydrift_{name}"]
        assert dag["tags"] == ["unreadable", "whydrift"]
        assert list(dag["tasks"]) == ["read_configuration"]
        assert reason in dag["doc"]
        assert f"{name}.yaml" in parsed["log"]


@pytest.fixture(scope="module")
def ran(probe: Callable[..., Any], new_stand_in: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Four days and two retraining runs in one Airflow, with the stand-in's calls."""
    script = new_stand_in()
    request = script.folder / "request.json"
    request.write_text(json.dumps({"gate_start": "2013-05-01", "gate_end": "2013-05-15"}))
    quiet = {"run_id": "r1", "report": "r.html", "retraining_request": None}
    script.answers(
        {
            "assess": {"stdout": json.dumps({"status": "ok", "headline": "fine"})},
            "assess 2013-05-16": {"code": 1, "stdout": json.dumps({"status": "page", "headline": "broken"})},
            "assess 2013-05-17": {"code": 3, "stdout": json.dumps({"status": "insufficient_data", "headline": "few"})},
            "publish": {"stdout": json.dumps(quiet)},
            "publish 2013-05-16": {"stdout": json.dumps(quiet | {"retraining_request": str(request)})},
            "profile 2013-05-18": {"code": 3, "stderr": "whydrift: SchemaError: no column prediction"},
            "train": {"stdout": 'a library chats\n{"version": "7"}\n'},
            "gate 2013-05-01": {"stdout": '{"passed": true}'},
            "gate": {"code": 1, "stdout": '{"passed": false}'},
        }
    )
    configs = tmp_path_factory.mktemp("configs")
    (configs / "flights.yaml").write_text(
        "model: {name: flights}\njob: {retries: 1, owner: me}\n"
        f"retraining: {{train_command: [{script.path}, train]}}\n"
    )
    late = script.folder / "late.json"
    late.write_text(json.dumps({"gate_start": "2013-05-02", "gate_end": "2013-05-16"}))
    by_hand = json.dumps({"window_start": "2013-05-16T00:00:00+00:00", "window_end": "2013-05-17T00:00:00+00:00"})
    jobs = [
        f"{DAY}|2013-05-13T00:00:00+00:00|",
        f"{DAY}|2013-05-18T00:00:00+00:00|",
        f"{DAY}|2013-05-19T00:00:00+00:00|",
        f"{DAY}||{by_hand}",  # the last, because dag.test() writes conf into the DAG's own params
        f"{DAY}_retraining||{json.dumps({'request': str(request)})}",
        f"{DAY}_retraining||{json.dumps({'request': str(late)})}",
    ]
    result = probe("run", *jobs, WHYDRIFT_CLI=str(script.path), WHYDRIFT_CONFIGS=str(configs))
    return result | {"calls": script.calls, "request": str(request), "config": str(configs / "flights.yaml")}


@pytest.mark.slow
def test_a_quiet_day_runs_over_its_data_interval_and_asks_for_nothing(ran: Any) -> None:
    day = ran["runs"][0]
    assert day["tasks"] == {
        "profile": "success",
        "assess": "success",
        "publish": "success",
        "request_retraining": "skipped",
    }
    assert day["state"] == "success"
    window = ["--config", ran["config"], "--start", "2013-05-12T00:00:00+00:00", "--end", "2013-05-13T00:00:00+00:00"]
    assert ran["calls"][:3] == [
        ["profile", *window],
        ["assess", *window, "--format", "json"],
        ["publish", *window, "--format", "json"],
    ]


@pytest.mark.slow
def test_a_page_is_a_result_and_its_request_updates_the_asset(ran: Any) -> None:
    assert ran["runs"][3]["state"] == "success"
    assert set(ran["runs"][3]["tasks"].values()) == {"success"}
    assert ran["events"] == [
        {
            "request": ran["request"],
            "run_id": "r1",
            "window_start": "2013-05-16T00:00:00+00:00",
            "window_end": "2013-05-17T00:00:00+00:00",
        }
    ]


@pytest.mark.slow
def test_too_few_rows_still_give_a_published_verdict(ran: Any) -> None:
    assert ran["runs"][1]["tasks"]["publish"] == "success"


@pytest.mark.slow
def test_a_window_that_cannot_be_read_fails_at_once(ran: Any) -> None:
    day = ran["runs"][2]
    assert day["state"] == "failed"
    assert day["tasks"]["profile"] == "failed"
    assert day["tasks"]["publish"] == "upstream_failed"
    assert [call[0] for call in ran["calls"] if "2013-05-19T00:00:00+00:00" in call] == ["profile"]
    assert "SchemaError: no column prediction" in ran["log"]


@pytest.mark.slow
def test_retraining_trains_then_gates_on_the_rows_that_the_request_sets_apart(ran: Any) -> None:
    assert ran["runs"][4] == {"state": "success", "tasks": {"train": "success", "gate": "success"}}
    assert ["train", "--config", ran["config"], "--request", ran["request"]] in ran["calls"]
    (gate, _) = (call for call in ran["calls"] if call[0] == "gate")
    assert gate[1:] == [
        *("--config", ran["config"], "--candidate", "challenger"),
        *("--start", "2013-05-01", "--end", "2013-05-15", "--format", "json"),
    ]


@pytest.mark.slow
def test_a_failed_gate_is_a_failed_task(ran: Any) -> None:
    assert ran["runs"][5] == {"state": "failed", "tasks": {"train": "success", "gate": "failed"}}
    assert "version 7 does not pass the gate" in ran["log"]
