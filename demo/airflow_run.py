"""Run the demo's windows in a real Airflow: start it, trigger the windows, follow them, stop it.

    python demo/airflow_run.py --home .demo/airflow --windows 2013-05-12,2013-05-16

An api-server, a scheduler and a dag-processor on SQLite, on a free loopback port, with a home of their own.
Each window becomes a run of the monitoring DAG with the window as its data interval; a retraining request starts
the retraining DAG through its asset. One line for each run and each task goes to stdout. Exit code 0: every run
succeeded, the retraining run among them. The servers are ended in every case.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from whydrift.pipelines import config as configuration
from whydrift.pipelines.window import parse_time

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
USER = "demo"
FINAL = {"success", "failed"}
STOP_SECONDS = 5.0


class DemoError(Exception):
    """The demo cannot go on: the message says where to look."""


@dataclass(frozen=True, slots=True)
class Api:
    """Airflow's REST API."""

    base: str
    token: str = ""

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = Request(  # noqa: S310  always http on the loopback address
            self.base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def found(self, path: str) -> Any:
        """The answer, or None as long as there is none."""
        try:
            return self.call(path)
        except HTTPError as error:
            if error.code not in {404, 503}:
                raise
            return None
        except URLError:
            return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run windows of the demo in a real Airflow.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this Airflow: settings, database, logs")
    parser.add_argument("--windows", required=True, help="starts of the windows, ISO times separated by commas")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "flights.yaml")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds until the demo gives up")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    config = configuration.load(options.config)
    starts = [parse_time(text) for text in options.windows.split(",")]
    try:
        ok = run_windows(options.home.resolve(), options.config.resolve(), starts, config.window.every, options.timeout)
    except (DemoError, OSError) as error:  # OSError: the API's answers among others
        print(f"airflow_run: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0 if ok else 1


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def run_windows(home: Path, config: Path, starts: Sequence[datetime], width: timedelta, timeout: float) -> bool:
    """Start Airflow, run the windows one after the other and the retraining they ask for; True if all succeeded."""
    begin = time.monotonic()
    deadline = begin + timeout
    port = _free_port()
    password = write_settings(home, port)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "WHYDRIFT_CLI": os.environ.get("WHYDRIFT_CLI", str(BIN / "whydrift")),
        "WHYDRIFT_CONFIGS": str(config.parent),
        "WHYDRIFT_SCHEDULE_END": max(starts).isoformat(),  # else the scheduler adds a window of today
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
    }
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        servers["api-server"] = start("api-server", home, environment)
        migrate(home, environment)
        servers["dag-processor"] = start("dag-processor", home, environment)
        servers["scheduler"] = start("scheduler", home, environment, "--skip-serve-logs")
        base = f"http://127.0.0.1:{port}"

        def wait(what: str, ready: Callable[[], Any]) -> Any:
            return wait_for(what, ready, deadline, servers, home)

        wait("the api-server", lambda: Api(base).found("/api/v2/monitor/health"))
        token = Api(base).call("/auth/token", {"username": USER, "password": password})["access_token"]
        api = Api(f"{base}/api/v2", token)
        dag = f"whydrift_{config.stem}"
        for name in (dag, f"{dag}_retraining"):
            wait(f"the DAG {name}", lambda name=name: api.found(f"/dags/{quote(name)}"))
        _say(f"airflow ready after {time.monotonic() - begin:.0f} s")
        run_ids = [trigger(api, dag, start, start + width) for start in starts]
        runs = [follow(api, dag, run_id, wait) for run_id in run_ids]
        if not any(asks_for_retraining(api, dag, run_id) for run_id in run_ids):
            raise DemoError("no window asked for retraining, so there is no retraining run")
        runs += follow_retraining(api, f"{dag}_retraining", wait)
    finally:
        stop(servers)
    _say(f"airflow done after {time.monotonic() - begin:.0f} s")
    return all(state == "success" for state in runs)


def write_settings(home: Path, port: int) -> str:
    """Write airflow.cfg with fresh secrets and an empty database; return the API user's password.

    Only the owner can read the files. Settings in a file rather than in variables: `AIRFLOW_HOME=... airflow ...`
    then shows the same Airflow to a curious user.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "airflow.db").unlink(missing_ok=True)
    password, passwords = secrets.token_urlsafe(24), home / "passwords.json"
    url = f"http://127.0.0.1:{port}"
    settings: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": ROOT / "dags",
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "executor": "LocalExecutor",
            "parallelism": 2,
            "execution_api_server_url": f"{url}/execution/",
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": passwords,
        },
        # The api-server is started while the tables are still being made; it opens the database at the first request.
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}", "check_migrations": False},
        "api": {
            "host": "127.0.0.1",
            "port": port,
            "workers": 1,
            "base_url": url,
            "secret_key": secrets.token_urlsafe(48),
        },
        "api_auth": {"jwt_secret": secrets.token_urlsafe(64)},
        "logging": {"base_log_folder": home / "logs"},
        "scheduler": {"scheduler_heartbeat_sec": 1, "scheduler_idle_sleep_time": 0.2},
        "workers": {"min_heartbeat_interval": 1},  # a task that skips or fails is only reported at the next one
        "dag_processor": {"refresh_interval": 5, "parsing_processes": 1},
        "usage_data_collection": {"enabled": False},
    }
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {str(value).replace('%', '%%')}\n" for key, value in keys.items()) + "\n"
        for section, keys in settings.items()
    )
    _write_private(passwords, json.dumps({USER: password}))
    _write_private(home / "airflow.cfg", text)
    return password


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: str, home: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """Start `airflow COMMAND` as the leader of a process group of its own, its output in HOME/COMMAND.log."""
    with (home / f"{command}.log").open("wb") as log:
        return subprocess.Popen(
            [BIN / "airflow", command, *arguments],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def migrate(home: Path, environment: Mapping[str, str]) -> None:
    with (home / "migrate.log").open("wb") as log:
        done = subprocess.run(
            [BIN / "airflow", "db", "migrate"], env=environment, cwd=home, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise DemoError(f"airflow db migrate failed, see {home / 'migrate.log'}")


def wait_for(
    what: str,
    ready: Callable[[], Any],
    deadline: float,
    servers: Mapping[str, subprocess.Popen[bytes]],
    home: Path,
) -> Any:
    """Ask until there is an answer; give up at the deadline, or as soon as a server has died."""
    while not (answer := ready()):
        for name, process in servers.items():
            if process.poll() is not None:
                raise DemoError(f"airflow {name} ended with code {process.returncode}, see {home / name}.log")
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not come in time; logs are in {home}")
        time.sleep(0.3)
    return answer


def trigger(api: Api, dag: str, start: datetime, end: datetime) -> str:
    """Start a run whose data interval is the window; its id."""
    body = {
        "dag_run_id": f"window__{start:%Y-%m-%dT%H:%M}",
        "logical_date": start.isoformat(),
        "data_interval_start": start.isoformat(),
        "data_interval_end": end.isoformat(),
    }
    return str(api.call(f"/dags/{quote(dag)}/dagRuns", body)["dag_run_id"])


def follow(api: Api, dag: str, run_id: str, wait: Callable[[str, Callable[[], Any]], Any]) -> str:
    """Wait for a run's end, print it and its tasks; its state."""
    path = f"/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}"

    def finished() -> Any:
        run = api.call(path)
        return run if run["state"] in FINAL else None

    run = wait(f"the end of {run_id}", finished)
    window = f"  [{run['data_interval_start']}, {run['data_interval_end']})" if run["data_interval_start"] else ""
    _say(f"{dag}  {run_id}{window}  {run['state']}  {run['duration']:.1f} s")
    tasks = api.call(f"{path}/taskInstances")["task_instances"]
    for task in sorted(tasks, key=lambda task: task["start_date"] or "9"):
        _say(f"    {task['task_id']:20} {task['state']}  {task['duration'] or 0:.1f} s")
    return str(run["state"])


def asks_for_retraining(api: Api, dag: str, run_id: str) -> bool:
    """Whether the run updated the asset; its last task is skipped otherwise."""
    path = f"/dags/{quote(dag)}/dagRuns/{quote(run_id, safe='')}/taskInstances/request_retraining"
    return bool(api.call(path)["state"] == "success")


def follow_retraining(api: Api, dag: str, wait: Callable[[str, Callable[[], Any]], Any]) -> list[str]:
    """Wait for every run that the asset started, at least one; their states.

    A candidate that the gate refuses is the gate at work and no failure, though Airflow shows the task in red.
    """
    path = f"/dags/{quote(dag)}/dagRuns"
    wait(f"a run of {dag}", lambda: api.call(path)["dag_runs"])
    states = []
    for run_id in [run["dag_run_id"] for run in api.call(path)["dag_runs"]]:
        state = follow(api, dag, run_id, wait)
        entry = f"{path}/{quote(run_id, safe='')}/taskInstances/gate/xcomEntries/return_value?deserialize=true"
        if result := api.found(entry):
            passed, checks = result["value"]["passed"], result["value"]["checks"]
            kept = sum(check["passed"] is True for check in checks)
            said = "lets the candidate pass" if passed else "refuses the candidate"
            _say(f"    the gate {said}: {kept} of {len(checks)} checks hold")
            state = "success" if passed is False else state
        states.append(state)
    return states


def stop(servers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """End each server's process group: ask, then insist; nothing of a demo's Airflow needs saving."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        deadline = time.monotonic() + seconds
        for process in servers.values():
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        for process in servers.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
