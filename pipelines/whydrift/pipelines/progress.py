"""Progress of long work: shown on a terminal, silent in a job."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import click

_Item = TypeVar("_Item")


def progress(items: Sequence[_Item], label: str) -> Iterator[_Item]:
    """Yield the items; a terminal sees how many are done and how long the rest will take, if they are several."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, label=label, file=sys.stderr, show_pos=True) as bar:
        yield from bar
