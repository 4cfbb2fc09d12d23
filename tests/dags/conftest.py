"""A stand-in for the `whydrift` command, and a real Airflow with a home of its own.

What is tested here is the process boundary between them, so a small script may answer for the command.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
DAGS = HERE.parents[1] / "dags"

# Answers as answers.json says, by command and day of the window or by command alone, and notes how it was called.
SCRIPT = """#!{python}
import json, os, pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
day = arguments[arguments.index("--start") + 1][:10] if "--start" in arguments else ""
answers = json.loads((here / "answers.json").read_text())
answer = answers.get(f"{{arguments[0]}} {{day}}", answers.get(arguments[0], {{}}))
print(answer.get("stdout", ""), end="")
print(answer.get("stderr", ""), file=sys.stderr, flush=True, end="\\n" if answer.get("stderr") else "")
time.sleep(answer.get("sleep", 0))
if "signal" in answer:
    os.kill(os.getpid(), answer["signal"])
sys.exit(answer.get("code", 0))
"""


class StandIn:
    """The script in a folder, with an interpreter beside it as in a virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "whydrift"
        self.path.write_text(SCRIPT.format(python=sys.executable))
        self.path.chmod(0o755)
        (folder / "python").symlink_to(sys.executable)
        (folder / "whydrift-spark.py").write_text("stands for whydrift under Spark")
        self.answers({})

    def answers(self, answers: Mapping[str, Any]) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def new_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], StandIn]:
    return lambda: StandIn(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def stand_in(new_stand_in: Callable[[], StandIn], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = new_stand_in()
    monkeypatch.setenv("WHYDRIFT_CLI", str(made.path))
    return made


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The bundle's modules, imported as Airflow does: with the bundle's root on sys.path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.syspath_prepend(DAGS)
        yield SimpleNamespace(
            cli=importlib.import_module("whydrift_cli"),
            config=importlib.import_module("whydrift_config"),
            dags=importlib.import_module("whydrift_dags"),
            exceptions=importlib.import_module("airflow.sdk.exceptions"),
        )


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Run airflow_probe.py in a fresh Airflow home."""

    def run(*arguments: str, **variables: str) -> Any:
        home = tmp_path_factory.mktemp("probe")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "DO_NOT_TRACK": "1",
            **variables,
        }
        done = subprocess.run(
            [sys.executable, HERE / "airflow_probe.py", home / "out.json", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads((home / "out.json").read_text()) | {"log": done.stdout + done.stderr}

    return run
