"""Run windows in forks of a process that has everything imported, and kill them when told to.

    python run_and_kill.py <config> <store>      on stdin: <start> <end> <kill after so many seconds, or "never">

Answers each line with JSON: how long the run took, when the store first changed, and whether it was killed. A fork
starts in milliseconds where a new process imports for seconds, so that kills land in the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

_MOMENT = 0.005


def main() -> None:
    config, store = sys.argv[1], Path(sys.argv[2])
    _import_everything()
    for line in sys.stdin:
        start, end, after = line.split()
        arguments = ["run", "--config", config, "--start", start, "--end", end]
        answer = _run(arguments, store, None if after == "never" else float(after))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(arguments: list[str], store: Path, after: float | None) -> dict[str, object]:
    before, started, changed = _files(store), time.monotonic(), None
    child = os.fork()
    if child == 0:
        _child(arguments)
    while True:
        elapsed = time.monotonic() - started
        if changed is None and _files(store) != before:
            changed = elapsed
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return {"seconds": elapsed, "changed": changed, "killed": False, "code": code}
        if after is not None and elapsed >= after:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"seconds": elapsed, "changed": changed, "killed": True, "code": -signal.SIGKILL}
        time.sleep(_MOMENT)


def _child(arguments: list[str]) -> None:
    from whydrift.pipelines.cli import main as command

    sys.argv = ["whydrift", *arguments]
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            command()
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(99)


def _files(store: Path) -> list[tuple[str, int]]:
    found = []
    for path in store.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # scratch files come and go
            found.append((str(path), path.stat().st_mtime_ns))
    return sorted(found)


def _import_everything() -> None:
    modules = (
        "matplotlib.backends.backend_svg",
        "matplotlib.font_manager",
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.xgboost",
        "sklearn",
        "whydrift.pipelines.assess",
        "whydrift.pipelines.publish",
        "whydrift.pipelines.recording",
        "xgboost",
    )
    for module in modules:
        import_module(module)


if __name__ == "__main__":
    main()
