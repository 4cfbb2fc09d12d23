"""Verdicts as JSON, and the committed schema of that JSON."""

from __future__ import annotations

import json

from pydantic import TypeAdapter, ValidationError

from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.errors import StoreError

_ADAPTER = TypeAdapter(Verdict)


def to_json(verdict: Verdict) -> bytes:
    """Indented JSON; equal verdicts give equal bytes."""
    return _ADAPTER.dump_json(verdict, indent=1) + b"\n"


def from_json(data: bytes, where: str) -> Verdict:
    """Read a verdict; `where` names its place in the error.

    Raises:
        StoreError: if the bytes are no verdict of this schema version.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        raise StoreError(f"{where} is not a verdict of this version; delete it and run the window again") from error


def json_schema() -> str:
    """The JSON schema, committed as configs/verdict.schema.json."""
    return json.dumps(_ADAPTER.json_schema(mode="serialization"), indent=2) + "\n"
