"""The parent's side of a worker: a model that is loaded and explained in a process of its own."""

from __future__ import annotations

import logging
import os
import re
import selectors
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa

import whydrift
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.protocol import Explanation, Link
from whydrift.pipelines.explainers.wire import Message, explanation_from_table, receive, rows_to_table, send

logger = logging.getLogger(__name__)

_START_SECONDS = 300.0
_END_SECONDS = 5.0
_LAST_LINES = 20
_CREDENTIALS = re.compile(r"://[^/\s@]+@")
# What a worker gets to see of our environment: no address of MLflow, no key to anything.
_PASSED = frozenset(
    {"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR"}
    | {"DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"}
)


@dataclass(frozen=True, slots=True)
class RemoteExplainer:
    """An explainer that lives in a worker; it is known there by its number."""

    worker: Worker
    number: int
    columns: Columns
    name: str
    link: Link
    parameters: Mapping[str, str]

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows.

        Raises:
            ModelError: the model refuses the rows, or the worker died of them.
        """
        answer, table = self.worker.ask({"number": self.number}, rows_to_table(features, self.columns))
        return explanation_from_table(table, answer["base"])


class Worker:
    """A process that holds one model and the explainers made of it.

    It lives as long as this object. What the model prints goes to our log.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        """Start a process of an interpreter, and load the model of a folder, which is not needed any more then.

        Raises:
            ModelError: the model cannot be loaded there.
        """
        home = tempfile.TemporaryDirectory(prefix="whydrift-worker-")
        _link_sources(Path(home.name))
        process = subprocess.Popen(  # noqa: S603  the interpreter is ours or of an environment that we made
            [python, "-s", "-P", "-m", "whydrift.pipelines.explainers.worker", folder.resolve()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home.name,
            env={**_passed(), "PYTHONPATH": home.name, "PYTHONUNBUFFERED": "1"},  # its last words in their order
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._requests, self._answers = process, process.stdin, process.stdout
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = threading.Thread(target=_log, args=(process.stderr, self._last), daemon=True)
        self._log.start()
        self._one_at_a_time = threading.Lock()
        self.close = weakref.finalize(self, _end, process, self._log, home)
        try:
            answer, _ = self._receive(_START_SECONDS)
        except ModelError:
            self.close()
            raise
        self._environment = str(answer["environment"])

    def choose(self, *, background: pd.DataFrame, features: Sequence[str], **settings: object) -> RemoteExplainer:
        """As `choose.choose` of the model here."""
        return self._make("choose", background, features, settings)

    def second_opinion(
        self, *, background: pd.DataFrame, features: Sequence[str], **settings: object
    ) -> RemoteExplainer:
        """As `second.second_opinion` of the model here."""
        return self._make("second_opinion", background, features, settings)

    def ask(self, message: Message, table: pa.Table) -> tuple[Message, pa.Table | None]:
        """Send a message and wait for its answer, as long as it takes.

        Raises:
            ModelError: the worker refuses, or has died.
        """
        with self._one_at_a_time:
            with suppress(BrokenPipeError):  # it died, and the answer will say so
                send(self._requests, message, table)
            return self._receive(float("inf"))

    def _make(
        self, maker: str, background: pd.DataFrame, features: Sequence[str], settings: Mapping[str, object]
    ) -> RemoteExplainer:
        columns = Columns.of(background, features)
        message = {"maker": maker, "settings": {**settings, "features": list(features)}}
        made, _ = self.ask(message, rows_to_table(background, columns))
        parameters = {**made["parameters"], "environment": self._environment}
        return RemoteExplainer(self, made["number"], columns, made["name"], made["link"], parameters)

    def _receive(self, seconds: float) -> tuple[Message, pa.Table | None]:
        self._wait(seconds)
        try:
            answer, table = receive(self._answers)
        except EOFError:
            raise self._died() from None
        if "refusal" in answer:
            raise ModelError(answer["refusal"])
        return answer, table

    def _wait(self, seconds: float) -> None:
        """Until there is an answer. A dead worker's children may hold its pipe open, so its end is looked for too."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not selector.select(timeout=1):
                if self._process.poll() is not None:
                    raise self._died()
                if time.monotonic() > until:
                    self._process.kill()
                    raise ModelError(
                        f"the model's worker did not load the model within {seconds:.0f} s.{self._last_words()}"
                    )

    def _died(self) -> ModelError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as happens where memory runs out: give the job more, or lower explainer.background_rows"
        self._log.join(timeout=1)  # its end is read; children that live on may hold the pipe
        said = f"the model's worker {how}.{self._last_words()}"
        logger.warning("%s", said)
        return ModelError(said)

    def _last_words(self) -> str:
        return "\n  ".join([" It said at last:", *self._last]) if self._last else ""


def _passed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _PASSED}


def _link_sources(home: Path) -> None:
    """A namespace of ours alone in a folder: no other package of our environment can be imported through it."""
    (home / "whydrift").mkdir()
    for portion in whydrift.__path__:
        for package in Path(portion).iterdir():
            (home / "whydrift" / package.name).symlink_to(package.resolve())


def _log(stderr: IO[bytes], last: deque[str]) -> None:
    """Log what the worker prints, and remember the end of it; without credentials that a URI may carry."""
    with stderr:
        for line in stderr:
            said = _CREDENTIALS.sub("://", line.decode(errors="replace").rstrip())
            last.append(said)
            logger.info("worker: %s", said)


def _end(process: subprocess.Popen[bytes], log: threading.Thread, home: tempfile.TemporaryDirectory[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    log.join(timeout=1)
    home.cleanup()
