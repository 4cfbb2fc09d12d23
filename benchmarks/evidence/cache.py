"""Results of simulations, kept as they come, so that a study that was killed goes on where it was.

A line of JSON a result. Each carries the digest of the code that it was made with, and only results of today's code
are taken up again; a comment or a docstring changes no digest.
"""

from __future__ import annotations

import ast
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Row = dict[str, Any]

HOME = Path(__file__).resolve().parents[2] / ".cache" / "evidence"


def digest(modules: Iterable[ModuleType]) -> str:
    """Of what the modules do: of their syntax trees, without docstrings."""
    found = hashlib.sha256()
    for module in modules:
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        found.update(ast.dump(tree).encode())
    return found.hexdigest()[:12]


def generator(cell: str, seed: int) -> np.random.Generator:
    """The random numbers of one run: they depend on its cell's name and its seed alone."""
    return np.random.default_rng([zlib.crc32(cell.encode()), seed])


class Cache:
    """The results of one study, by key."""

    def __init__(self, path: Path, code: str) -> None:
        self._path, self._code = path, code
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a line that a killed process left half written
            path.write_text(whole, encoding="utf-8")
        lines = [json.loads(line) for line in whole.splitlines()]
        self._rows: dict[str, Row] = {line["key"]: line["row"] for line in lines if line["code"] == code}

    def get(self, key: str, compute: Callable[[], Row]) -> Row:
        """The stored result, or else that of `compute`, stored."""
        if key not in self._rows:
            row = compute()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"code": self._code, "key": key, "row": row}) + "\n")
            self._rows[key] = row
        return self._rows[key]

    def find(self, key: str) -> Row | None:
        """The stored result, if there is one."""
        return self._rows.get(key)
