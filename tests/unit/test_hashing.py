"""The hash that decides which rows are explained, against its definition in plain integers."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from whydrift.monitors.hashing import hash64, uniform

MASK = 2**64 - 1


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def one(text, seed=0):
    data = text.encode()
    h = mix(seed)
    for begin in range(0, len(data), 8):
        h = mix(h ^ int.from_bytes(data[begin : begin + 8], "little"))
    return mix(h ^ len(data))


def test_splitmix64_as_its_authors_have_it():
    """The first numbers of the generator that is seeded with 1234567 (Vigna's reference implementation)."""
    state, found = 1234567, []
    for _ in range(3):
        found.append(mix(state))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.text(max_size=40).filter(lambda t: t.isprintable()), max_size=30), st.integers(0, 9))
def test_it_is_what_is_documented(texts, seed):
    found = hash64(pd.Series(texts, dtype="string"), seed)
    assert [int(h) for h in found] == [one(text, seed) for text in texts]


@pytest.mark.parametrize("dtype", ["string", "str", object])
def test_how_pandas_keeps_the_ids_does_not_matter(dtype):
    texts = [f"request-{i}" for i in range(1000)] + ["a", "Ünïcødé", "x" * 100]
    column = pd.Series(texts, dtype=dtype)
    expected = [one(text) for text in texts]
    assert [int(h) for h in hash64(column)] == expected
    assert [int(h) for h in hash64(column[200:900])] == expected[200:900]
    assert [int(h) for h in hash64(pd.concat([column[500:], column[:500]]))] == expected[500:] + expected[:500]
    assert [int(h) for h in hash64(column[::-3])] == expected[::-3]


def test_a_column_of_several_chunks():
    parts = pa.chunked_array([["a", "b"], [], ["c"]], pa.large_string())
    column = pd.Series(pd.arrays.ArrowStringArray(parts))
    assert [int(h) for h in hash64(column)] == [one(t) for t in "abc"]


@pytest.mark.parametrize("pattern", ["{}", "{:012d}", "req-{}-0", "0f{:06x}" + "0" * 24, "{0}:{0}"])
def test_ids_that_are_alike_are_spread_evenly(pattern):
    u = uniform(hash64(pd.Series([pattern.format(i) for i in range(20_000)], dtype="string")))
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 4 / np.sqrt(u.size)
    assert u.min() >= 0
    assert u.max() < 1
