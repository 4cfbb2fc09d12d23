"""stdout carries results and nothing else; stderr the rest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)


def test_stages_one_by_one(project):
    result = project.window("profile", FIRST)
    assert (result.code, result.out, result.err) == (0, "", "")

    result = project.window("assess", FIRST, "--format", "json")
    assert (result.code, result.err) == (0, "")
    assert result.json() == project.verdict(FIRST)

    result = project.window("publish", FIRST, "--format", "json")
    assert (result.code, result.err) == (0, "")
    (run,) = project.active_runs(FIRST)
    published = result.json()
    assert published["run_id"] == run.info.run_id
    assert published["retraining_request"] is None
    assert Path(published["report"]).read_text().startswith("<!DOCTYPE html>")

    result = project.window("publish", FIRST)
    assert result.out.splitlines()[0] == published["report"]


def test_run_gives_what_assess_and_report_give(project):
    text = project.window("run", FIRST)
    verdict = project.window("assess", FIRST, "--format", "json")
    assert text.out.startswith("OK  meters v1  2024-02-01 00:00 to 2024-02-02 00:00 UTC\n")
    assert project.window("assess", FIRST).out == text.out
    assert project.run("report").out == text.out
    assert project.run("report", "--start", f"{FIRST:%F}", "--format", "json").json() == verdict.json()
    target = project.folder / "report.html"
    result = project.run("report", "--format", "html", "--output", str(target))
    assert (result.code, result.out, result.err) == (0, "", "")
    assert target.read_text().startswith("<!DOCTYPE html>")


def test_page_is_exit_code_one(project):
    project.edit_log(FIRST, lambda f: project.answer(f.assign(temp=np.nan)))
    result = project.window("run", FIRST)
    assert (result.code, result.err) == (1, "")
    assert result.out.startswith("PAGE  meters v1")
    assert "cause    data_broken" in result.out
    assert project.active_runs(FIRST)[0].data.tags["whydrift.status"] == "page"


def test_backfill_says_one_line_a_window(project):
    project.edit_log(FIRST + DAY, lambda f: f.head(10))
    result = project.window("backfill", FIRST, days=3)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[:2] for line in result.out.splitlines()] == [
        ["2024-02-01", "ok"],
        ["2024-02-02", "insufficient_data"],
        ["2024-02-03", "ok"],
    ]


def test_job_status_after_success_and_failure(project):
    path = project.folder / "outputs" / "jobs" / "meters.json"
    assert project.window("run", FIRST).code == 0
    succeeded = json.loads(path.read_text())
    assert (succeeded["exit_code"], succeeded["model_version"]) == (0, "1")
    assert succeeded["last_success"] == succeeded["last_completion"]

    project.edit_log(FIRST + DAY, lambda f: f.drop(columns="event_id"))
    assert project.window("run", FIRST + DAY).code == 3
    failed = json.loads(path.read_text())
    assert failed["exit_code"] == 3
    assert failed["last_success"] == succeeded["last_success"]
    assert failed["last_completion"] > succeeded["last_completion"]


def test_a_window_without_rows_is_no_failed_job(project):
    """That there was nothing to judge is a verdict: the job itself did its work."""
    project.log_file(FIRST).unlink()
    assert project.window("run", FIRST).code == 3
    status = json.loads((project.folder / "outputs" / "jobs" / "meters.json").read_text())
    assert status["exit_code"] == 0
    assert status["last_success"] is not None


@pytest.mark.slow
def test_console_script_logs_to_stderr(project):
    script = Path(sys.executable).with_name("whydrift")
    period = ["--start", f"{FIRST:%F}", "--end", f"{FIRST + DAY:%F}"]
    command = [script, "-v", "run", "--config", project.config, *period, "--format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(result.stdout) == project.verdict(FIRST)
    assert "profiled [2024-02-01T00:00:00Z, 2024-02-02T00:00:00Z): 250 rows, 250 kept" in result.stderr
    assert "2024-02-01-0001" not in result.stderr  # no row, no id


def test_interactions_of_a_window_stand_beside_its_report(project):
    project.window("run", FIRST)
    result = project.run("report", "--start", f"{FIRST:%F}", "--format", "interactions")
    assert (result.code, result.err) == (0, "")
    page = Path(result.out.strip()).read_text()
    pairs = re.findall("<td>([a-z]+ × [a-z]+)</td>", page)
    assert len(set(pairs)) == len(pairs) == 10  # of five features
    assert "on 250 rows of the window" in page
    (name,) = re.findall(r'href="([^"]+)"', page)
    assert f'href="{Path(result.out.strip()).name}"' in Path(result.out.strip()).with_name(name).read_text()
