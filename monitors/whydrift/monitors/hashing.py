"""A hash of strings that is the same everywhere: on every machine, in every process, in every version of a library.

    h = mix(seed)
    for each 8 bytes of the UTF-8 text, padded with zeros, as a little-endian number w:   h = mix(h ^ w)
    h = mix(h ^ number of bytes)

`mix` is the finaliser of SplitMix64 (Steele, Lea & Flood 2014, doi 10.1145/2714064.2660195), after adding its golden
ratio; all modulo 2**64. Not a cryptographic hash: whoever chooses event ids can choose which rows are explained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

UIntArray = npt.NDArray[np.uint64]

_WORD = 8  # bytes
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash64(values: pd.Series[Any], seed: int = 0) -> UIntArray:
    """The hash of each text, (n,); missing ones hash as the empty text does.

    >>> [hex(int(h)) for h in hash64(pd.Series(["", "event 1"], dtype="string"))]
    ['0xa706dd2f4d197e6f', '0x2e059f25eb717024']
    """
    starts, sizes, words = _buffers(values)
    found = np.full(len(values), mix(np.array([seed], np.uint64))[0], dtype=np.uint64)
    for begin in range(0, int(sizes.max(initial=0)), _WORD):
        longer = np.flatnonzero(sizes > begin)
        word = words[starts[longer] + begin]
        spare = np.maximum(_WORD - (sizes[longer] - begin), 0).astype(np.uint64) * np.uint64(_WORD)
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> spare
        found[longer] = mix(found[longer] ^ word)
    return mix(found ^ sizes.astype(np.uint64))


def mix(values: UIntArray) -> UIntArray:
    """SplitMix64's finaliser: a bijection in which each bit of the result hangs on every bit of the value."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def uniform(hashes: UIntArray) -> npt.NDArray[np.float64]:
    """The first 53 bits as a number in [0, 1), (n,)."""
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _buffers(values: pd.Series[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], UIntArray]:
    """Where each text begins, how many bytes it has, and the 8 bytes from each position on as a number."""
    array = pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    array = array.cast(pa.large_string()).fill_null("")
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    first, last = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
    text = np.zeros(last - first + _WORD, dtype=np.uint8)
    if last > first:
        text[: last - first] = np.frombuffer(data, dtype=np.uint8)[first:last]
    words = np.ndarray((text.size - _WORD + 1,), dtype="<u8", buffer=text.data, strides=(1,))
    return ends[:-1] - first, np.diff(ends), words
