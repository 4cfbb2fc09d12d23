"""Frozen dataclasses to JSON and back, bit for bit, arrays included.

What is written is data only: reading it back builds the type that was asked for, and runs nothing else.
"""

from __future__ import annotations

import base64
import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


def dump(value: object) -> bytes:
    """The JSON text of a frozen dataclass of numbers, texts, times, enums, arrays, and collections of these.

    Equal values give equal bytes.
    """
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def parse(kind: type[T], data: bytes) -> T:
    """The dataclass that `dump` wrote.

    Raises:
        ValueError: the text is not one of this kind.
    """
    try:
        return cast("T", _build(kind, json.loads(data)))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a {kind.__name__}: {error!r}") from error


def _plain(value: object) -> Any:  # noqa: PLR0911 - one a kind of value
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, np.ndarray):
        return [value.dtype.str, list(value.shape), base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return [[_plain(key), _plain(item)] for key, item in value.items()]
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _build(kind: Any, data: Any) -> Any:  # noqa: PLR0911 - one a kind of value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return None if data is None else _build(next(a for a in inner if a is not type(None)), data)
    if origin is np.ndarray or kind is np.ndarray:
        dtype, shape, text = data
        return np.frombuffer(base64.b64decode(text), dtype=np.dtype(dtype)).reshape(shape).copy()
    if origin is tuple:
        each = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_build(one, item) for one, item in zip(each, data, strict=True))
    if origin is frozenset:
        return frozenset(_build(inner[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        return {_build(inner[0], key): _build(inner[1], item) for key, item in data}
    if is_dataclass(kind):
        hints = _hints(cast("type", kind))
        return cast("Any", kind)(
            **{f.name: _build(hints[f.name], item) for f, item in zip(fields(kind), data, strict=True)}
        )
    if kind is datetime:
        return datetime.fromisoformat(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    return data


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
