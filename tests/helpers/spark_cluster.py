"""A Spark master and two workers as processes of this machine, on loopback and free ports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PATIENCE = 120
ENVIRONMENT = {
    **os.environ,
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_DRIVER_PYTHON": sys.executable,
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "SPARK_DAEMON_MEMORY": "256m",
}


@dataclass(frozen=True)
class Submitted:
    """An application's driver, and the file that it writes stdout and stderr to."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> bool:
        return self.process.poll() is not None

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Cluster:
    """`workers` are process ids of JVMs, each of which starts another for its executor."""

    url: str
    workers: tuple[int, ...]
    ui: int
    folder: Path
    ends: ExitStack

    @property
    def settings(self) -> dict[str, str]:
        return {
            "spark.master": self.url,
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.port": str(self.ui),
            "spark.executor.memory": "512m",
            "spark.sql.shuffle.partitions": "6",
        }

    def run(self, *command: str | Path) -> Submitted:
        """A command whose environment has the cluster's settings."""
        lines = (f"{name} {value}\n" for name, value in self.settings.items())
        (self.folder / "spark-defaults.conf").write_text("".join(lines), encoding="utf-8")
        environment = ENVIRONMENT | {"SPARK_CONF_DIR": str(self.folder)}
        return Submitted(_start(command, self.folder / "run.log", self.ends, environment), self.folder / "run.log")

    def submit(self, script: Path, *arguments: str) -> Submitted:
        """`spark-submit` a Python file."""
        words = [word for name, value in self.settings.items() for word in ("--conf", f"{name}={value}")]
        command = [BIN / "spark-submit", *words, script, *arguments]
        return Submitted(_start(command, self.folder / "submit.log", self.ends), self.folder / "submit.log")

    def active_stages(self) -> list[dict[str, Any]]:
        """Of the application that runs now, as Spark's REST API has them; none while there is no application."""
        base = f"http://127.0.0.1:{self.ui}/api/v1/applications"
        try:
            (application,) = _get(base)
            return list(_get(f"{base}/{application['id']}/stages?status=active"))
        except (OSError, ValueError):
            return []

    def kill(self, worker: int) -> None:
        """A worker and its executor, at once and for good."""
        executors = [pid for pid in _processes() if _parent(pid) == worker]
        assert executors, "the worker has no executor"
        for pid in (worker, *executors):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def start(folder: Path) -> Iterator[Cluster]:
    """Two workers of one core; all processes end with the block."""
    with ExitStack() as ends:
        anywhere = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        log = folder / "master.log"
        _start([BIN / "spark-class", "org.apache.spark.deploy.master.Master", *anywhere], log, ends)
        url = wait_for(lambda: re.search(r"Starting Spark master at (spark://\S+)", log.read_text()))[1]
        workers = []
        for number in (1, 2):
            size = ("--cores", "1", "--memory", "1g", "--work-dir", folder / f"work{number}")
            command = [BIN / "spark-class", "org.apache.spark.deploy.worker.Worker", *anywhere, *size, url]
            workers.append(_start(command, folder / f"worker{number}.log", ends).pid)
        for number in (1, 2):
            log = folder / f"worker{number}.log"
            wait_for(lambda log=log: "Successfully registered with master" in log.read_text())
        yield Cluster(url, tuple(workers), _free_port(), folder, ends)


def wait_for(found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What a function finds, once it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.1)
    raise TimeoutError


def _start(
    command: Sequence[str | Path], log: Path, ends: ExitStack, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    ends.callback(process.wait, PATIENCE)
    ends.callback(process.kill)
    return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
