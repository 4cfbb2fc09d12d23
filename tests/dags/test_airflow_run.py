"""demo/airflow_run.py against the stand-in: the real scheduler, real data intervals, and the asset between two DAGs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"run_id": "r1", "report": "r.html", "retraining_request": None}


@pytest.mark.slow
def test_two_windows_and_the_retraining_that_one_of_them_asks_for(stand_in: Any, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"gate_start": "2013-04-30", "gate_end": "2013-05-14"}))
    stand_in.answers(
        {
            "assess": {"stdout": json.dumps({"status": "ok", "headline": "fine"})},
            "publish 2013-05-12": {"stdout": json.dumps(QUIET)},
            "publish 2013-05-15": {"stdout": json.dumps(QUIET | {"retraining_request": str(request)})},
            "train": {"stdout": '{"version": "2"}'},
            "gate": {
                "code": 1,
                "stdout": json.dumps({"passed": False, "checks": [{"passed": True}, {"passed": None}]}),
            },
        }
    )
    text = (ROOT / "configs" / "flights.yaml").read_text()
    config = tmp_path / "flights.yaml"
    config.write_text(re.sub("train_command: .*", f"train_command: [{stand_in.path}, train]", text))
    command = [sys.executable, ROOT / "demo" / "airflow_run.py", "--home", tmp_path / "home", "--config", config]
    done = subprocess.run([*command, "--windows", "2013-05-12,2013-05-15"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    windows = re.findall(r"\[(\S+), (\S+)\)  success", done.stdout)
    assert windows == [
        ("2013-05-12T00:00:00Z", "2013-05-13T00:00:00Z"),
        ("2013-05-15T00:00:00Z", "2013-05-16T00:00:00Z"),
    ]
    assert [call[0] for call in stand_in.calls] == ["profile", "assess", "publish"] * 2 + ["train", "gate"]
    assert "the gate refuses the candidate: 1 of 2 checks hold" in done.stdout
    assert (tmp_path / "home" / "airflow.cfg").stat().st_mode & 0o077 == 0
    home = str(tmp_path / "home").encode()
    assert [process.name for process in Path("/proc").glob("[0-9]*") if home in _environment(process)] == []


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""
