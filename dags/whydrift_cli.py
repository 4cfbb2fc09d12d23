"""Runs the `whydrift` command for Airflow tasks: the process boundary, and what its exit codes mean to a retry.

    exit code                        to Airflow
    0                                success
    1 or 3, where a task expects it  a result, if there is one on stdout
    anything else, StoreError or     failed, worth a retry
    EngineError
    killed by a signal               failed, worth a retry (out of memory, a worker that went away)
    anything else                    failed at once: a retry would only fail again

The command's stderr goes to the task's log line by line while it runs; its stdout carries the result. Under
`spark-submit`, which mixes the two, all goes to the log.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

EXIT_PASS = 0
EXIT_BREACH = 1
EXIT_NOT_EVALUATED = 3

_STOP_SECONDS = 10
_SAID = "whydrift: "  # begins the line that an error ends with; Spark says more after it
_PASSING = ("StoreError:", "EngineError:")
_log = logging.getLogger(__name__)


def executable() -> str:
    """The `whydrift` command: $WHYDRIFT_CLI, else the one on the PATH."""
    name = os.environ.get("WHYDRIFT_CLI", "whydrift")
    found = shutil.which(name)
    if found is None:
        raise AirflowFailException(
            f"the command {name!r} was not found on this worker; install whydrift there, or name the command of"
            " another environment in WHYDRIFT_CLI"
        )
    return found


def interpreter() -> str:
    """The Python of the environment that the `whydrift` command lives in."""
    python = Path(executable()).with_name("python")
    if not python.exists():
        raise AirflowFailException(f"retraining.train_command says python, but there is no {python} beside whydrift")
    return str(python)


def submission() -> list[str]:
    """`spark-submit` with its options, $WHYDRIFT_SPARK_SUBMIT, and the script beside `whydrift` that it is to run."""
    first, *options = shlex.split(os.environ.get("WHYDRIFT_SPARK_SUBMIT", "spark-submit"))
    found = shutil.which(first) or shutil.which(first, path=str(Path(executable()).parent))
    script = Path(executable()).with_name("whydrift-spark.py")
    if found is None or not script.exists():
        raise AirflowFailException(
            f"engine: spark needs {first if found is None else script}; install whydrift[spark] in the environment of"
            f" {executable()}, or name another spark-submit in WHYDRIFT_SPARK_SUBMIT"
        )
    return [found, *options, str(script)]


def submit(*arguments: str) -> None:
    """Run a `whydrift` command that has no result under `spark-submit`, by the rules of `whydrift`."""
    python = {"PYSPARK_PYTHON": interpreter(), **os.environ}  # else Spark takes the first python3 of the PATH
    run([*submission(), *arguments], environment=python, mixed=True)


def whydrift(*arguments: str, results: Sequence[int] = (EXIT_PASS,)) -> tuple[int, str]:
    """Run `whydrift` and return its exit code, one of `results`, and its stdout.

    Raises:
        AirflowException: the command failed in a way that a retry may mend.
        AirflowFailException: any other exit code.
    """
    return run([executable(), *arguments], results=results)


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    results: Sequence[int] = (EXIT_PASS,),
    environment: Mapping[str, str] | None = None,
    mixed: bool = False,
) -> tuple[int, str]:
    """Run any command under the same rules, in `folder` if one is given; `mixed` sends its stdout to the log too."""
    _log.info("running %s", shlex.join(command))
    last_line = ""
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8") as stdout:
        with subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            env=environment,
            stdout=subprocess.PIPE if mixed else stdout,
            stderr=subprocess.STDOUT if mixed else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                for line in process.stderr or process.stdout or ():
                    if line.startswith(_SAID) or not last_line.startswith(_SAID):
                        last_line = line.strip() or last_line
                    _log.info("%s", line.rstrip())
                code = process.wait()
            finally:
                _stop(process)
        stdout.seek(0)
        output = stdout.read()
    # Exit code 1 is also Python's for a crash, and 3 is an error's as well as a verdict's: a result says something.
    if code not in results or (code != EXIT_PASS and not output.strip()):
        raise failure(code, last_line)
    return code, output


def _stop(process: subprocess.Popen[str]) -> None:
    """End a command that a timeout or a cleared task left running."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def failure(code: int, last_line: str) -> AirflowException:
    """What to raise for an exit code that is no result; `last_line` is `whydrift`'s last one, else the last."""
    if code < 0:
        return AirflowException(f"the command was killed by signal {-code}")
    if last_line.removeprefix(_SAID).startswith(_PASSING):
        return AirflowException(last_line)
    return AirflowFailException(f"exit code {code}: {last_line or 'the command said nothing'}")


def parse(text: str, *keys: str) -> Mapping[str, Any]:
    """The JSON object in a text, which must have `keys`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AirflowFailException(f"this should be JSON: {text[:200]!r}") from error
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise AirflowFailException(f"this should be a JSON object with {', '.join(keys)}: {text[:200]!r}")
    return value
