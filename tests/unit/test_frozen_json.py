"""Frozen values survive JSON bit for bit, and nothing but data is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whydrift.monitors.verdict import CauseKind
from whydrift.pipelines.frozen_json import dump, parse


@dataclass(frozen=True, slots=True)
class Inner:
    kind: CauseKind
    when: datetime | None
    share: float


@dataclass(frozen=True, slots=True)
class Outer:
    numbers: npt.NDArray[np.float64]
    flags: npt.NDArray[np.bool_]
    inner: Inner | None
    pairs: tuple[tuple[datetime, int], ...]
    two: tuple[str, float]
    names: frozenset[int]
    onsets: Mapping[tuple[str, str | None], datetime] = field(default_factory=dict)


_TIMES = st.datetimes(timezones=st.just(UTC))
_FLOATS = st.floats(allow_nan=False)
_OUTER = st.builds(
    Outer,
    numbers=hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    flags=hnp.arrays(np.bool_, st.integers(0, 5)),
    inner=st.none() | st.builds(Inner, st.sampled_from(CauseKind), st.none() | _TIMES, _FLOATS),
    pairs=st.lists(st.tuples(_TIMES, st.integers())).map(tuple),
    two=st.tuples(st.text(), _FLOATS),
    names=st.frozensets(st.integers()),
    onsets=st.dictionaries(st.tuples(st.text(), st.none() | st.text()), _TIMES),
)


@given(_OUTER)
def test_what_is_written_is_read_back(value: Outer) -> None:
    back = parse(Outer, dump(value))
    assert back.numbers.dtype == np.float64
    assert back.numbers.shape == value.numbers.shape
    assert back.numbers.tobytes() == value.numbers.tobytes()
    assert back.flags.tolist() == value.flags.tolist()
    rest = ("inner", "pairs", "two", "names", "onsets")
    assert [getattr(back, name) for name in rest] == [getattr(value, name) for name in rest]
    assert dump(back) == dump(value)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"[1]", b"null", b'["x", 2, 3, 4, 5, 6, 7]', b"[[], [], [], [], [], [], []]"]
)
def test_anything_else_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(Outer, text)
