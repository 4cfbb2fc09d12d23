"""The child's side: loads one model in the environment that it runs in, and explains with it what the parent sends.

    python -m whydrift.pipelines.explainers.worker FOLDER

It imports what explainers need and nothing else of ours. It ends when the parent closes its input, or ends itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import Explainer
from whydrift.pipelines.explainers.second import second_opinion
from whydrift.pipelines.explainers.wire import (
    Message,
    explanation_to_table,
    receive,
    rows_from_table,
    send,
)
from whydrift.pipelines.loading import describe, load_native

# Makes an explainer of a model; the same names are methods of `process.Worker`.
MAKERS: dict[str, Callable[..., Explainer]] = {"choose": choose, "second_opinion": second_opinion}


def main(folder: Path) -> None:
    """Serve the parent until it has nothing more to ask."""
    requests, answers = _take_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches the parent too, which then closes our input
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    try:
        model = load_native(folder)
    except ModelError as error:
        send(answers, {"refusal": str(error)})
        return
    send(answers, {"environment": describe(folder)})
    made: list[Explainer] = []
    while True:
        try:
            request, rows = receive(requests)
        except EOFError:
            return
        try:
            answer, table = _answer(model, made, request, rows)
        except ModelError as error:
            answer, table = {"refusal": str(error)}, None
        send(answers, answer, table)


def _answer(model: Any, made: list[Explainer], request: Message, rows: pa.Table) -> tuple[Message, pa.Table | None]:
    frame = rows_from_table(rows)
    if "maker" in request:
        explainer = MAKERS[request["maker"]](model, background=frame, **request["settings"])
        made.append(explainer)
        named = {"name": explainer.name, "link": explainer.link, "parameters": dict(explainer.parameters)}
        return {"number": len(made) - 1, **named}, None
    explanation = made[request["number"]].explain(frame)
    return {"base": explanation.base}, explanation_to_table(explanation)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes to the parent, out of reach of libraries that read stdin or print: these get none, and stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _follow(parent: int) -> None:
    """End this process soon after its parent, in the middle of whatever it does."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
