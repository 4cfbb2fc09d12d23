"""Leaves a span at a time, rows a chunk at a time: what bounds the memory of explaining many rows by many leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from whydrift.pipelines.explainers.protocol import FloatArray

CHUNK = 4096  # rows

Span = tuple[int, int]  # the first and one after the last
Chunks = list[tuple[FloatArray, FloatArray]]  # columns (q, R) and weights (R,) of background rows

Made = TypeVar("Made")


def in_turn(
    make: Callable[[Span], Made], spans: Sequence[Span], pool: ThreadPoolExecutor, threads: int
) -> Iterator[tuple[Span, Made]]:
    """Spans and what is made for each, in order, for as many at a time as there are threads."""
    for i in range(0, len(spans), threads):
        some = spans[i : i + threads]
        yield from zip(some, pool.map(make, some), strict=True)
