"""What holds of every verdict."""

import math
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum

import pytest

from whydrift.monitors.verdict import Status
from whydrift.pipelines.verdict_json import from_json, to_json


def walk(value, path="verdict"):
    """Every number of a verdict is finite, every time is UTC."""
    if is_dataclass(value):
        for field in fields(value):
            walk(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            walk(item, f"{path}[{key}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            walk(item, f"{path}[{i}]")
    elif isinstance(value, datetime):
        assert value.utcoffset() == timedelta(0), path
    else:
        assert value is None or isinstance(value, Enum | str | bool) or type(value) in (int, float), (path, type(value))
        if isinstance(value, float):
            assert math.isfinite(value), path


def sound(verdicts):
    for verdict in verdicts:
        walk(verdict)
        assert from_json(to_json(verdict), "here") == verdict
        if verdict.score is not None:
            parts = sum(row.shift for row in verdict.attribution) + verdict.score.base_shift
            checks = {f.stream for f in verdict.findings}
            assert "additivity" in checks or parts == pytest.approx(verdict.score.shift, abs=1e-6)
            shares = sum(row.share for row in verdict.attribution)
            dead = all(row.share == row.level == 0 for row in verdict.attribution)
            assert dead or shares == pytest.approx(1.0)
        if verdict.status is Status.PAGE:
            assert verdict.cause is not None
            assert verdict.since == verdict.cause.onset
        else:
            assert verdict.cause is None
    return verdicts
