"""What a worker and its parent say to each other: a line of JSON, and behind it rows or attributions as Arrow IPC.

The line says how many bytes of Arrow follow. Numbers cross as their own 64 bits: nothing is rounded.
"""

from __future__ import annotations

import json
import math
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray

Message = dict[str, Any]


def send(stream: IO[bytes], message: Message, table: pa.Table | None = None) -> None:
    """Write one message, and the table that belongs to it."""
    body = pa.BufferOutputStream()
    if table is not None:
        with pa.ipc.new_stream(body, table.schema) as writer:
            writer.write_table(table)
    content = body.getvalue()
    stream.write(json.dumps({**message, "bytes": content.size}).encode() + b"\n")
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Message, pa.Table | None]:
    """Read one message, and the table that belongs to it; raises EOFError where the other side has gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message: Message = json.loads(line)
    size = message.pop("bytes")
    body = stream.read(size)
    if len(body) < size:
        raise EOFError
    return message, pa.ipc.open_stream(body).read_all() if size else None


def rows_to_table(rows: pd.DataFrame, columns: Columns) -> pa.Table:
    """The features in their one form: float64 with its NaN, and strings with nulls.

    Raises:
        ModelError: a feature is absent, or holds neither numbers nor text.
    """
    frame, arrays = columns.frame(rows), {}
    for name in columns.names:
        if name in columns.numeric:
            arrays[name] = pa.array(frame[name].to_numpy(np.float64))
            continue
        try:
            arrays[name] = pa.array(frame[name].astype(object).to_numpy(), pa.string(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ModelError(f"feature {name!r} holds something that is neither a number nor text: {error}") from error
    return pa.table(arrays)


def rows_from_table(table: pa.Table) -> pd.DataFrame:
    """What `rows_to_table` was given, with None for missing strings."""
    return pd.DataFrame({name: table[name].to_numpy() for name in table.column_names})


def explanation_to_table(explanation: Explanation) -> pa.Table:
    """Values, output and, where there is one, error: a list of one length a row."""
    parts = {"values": explanation.values, "output": explanation.output, "error": explanation.error}
    return pa.table({name: _lists(part, explanation) for name, part in parts.items() if part is not None})


def explanation_from_table(table: pa.Table, base: float | list[float]) -> Explanation:
    """What `explanation_to_table` was given, whose base went with the message."""
    heads = (len(base),) if isinstance(base, list) else ()

    def read(name: str) -> FloatArray:
        lists = table[name].combine_chunks()
        return np.asarray(lists.flatten()).reshape(len(lists), *heads, lists.type.list_size // math.prod(heads))

    return Explanation(
        values=read("values"),
        base=tuple(base) if isinstance(base, list) else base,
        output=read("output").reshape(table.num_rows, *heads),
        error=read("error") if "error" in table.column_names else None,
    )


def _lists(part: FloatArray, explanation: Explanation) -> pa.Array:
    """An array (n, ...) as n lists."""
    heads = explanation.output.shape[1:]
    width = math.prod(heads) * (part.shape[-1] if part.ndim > 1 + len(heads) else 1)
    return pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), width)
