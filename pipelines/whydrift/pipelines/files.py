"""Local files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRATCH = ".writing"  # the folder beside a file in which its next content is written


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a local file in one step; a killed writer leaves the old file and no other trace.

    Writers hold a lock on their scratch file. One that can be locked has lost its writer and is removed.
    """
    scratch = path.parent / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    _sweep(scratch)
    with _own_scratch_file(scratch) as own:
        own.write_bytes(data)
        own.replace(path)


@contextmanager
def _own_scratch_file(folder: Path) -> Iterator[Path]:
    while True:
        own = folder / uuid.uuid4().hex
        with own.open("wb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle.fileno()).st_nlink:  # else a sweep came between open and lock
                yield own
                return


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            with path.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue
