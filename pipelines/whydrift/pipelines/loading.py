"""A model's folder as MLflow writes it: loading the model, and the libraries that it records.

It runs in a model's own environment too, and needs no library but MLflow.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from whydrift.pipelines.errors import ModelError

_FLAVOURS = ("pytorch", "xgboost", "lightgbm", "catboost", "sklearn")  # the others as python_function
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^]]*\])?\s*(==\s*(?P<version>[0-9][^\s;,]*))?")


def load_native(folder: Path) -> Any:
    """The model, by the loader of its own flavour.

    Raises:
        ModelError: the libraries of this environment cannot load it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    flavours = mlflow.models.Model.load(str(folder)).flavors
    flavour = next((name for name in _FLAVOURS if name in flavours), "pyfunc")
    settings = {"map_location": "cpu"} if flavour == "pytorch" else {}
    try:
        return getattr(mlflow, flavour).load_model(str(folder), **settings)
    except (ImportError, OSError, ValueError, TypeError, AttributeError, MlflowException) as error:
        extra = " (pip install 'whydrift[neural]')" if flavour == "pytorch" else ""
        raise ModelError(f"the model cannot be loaded: {error}{extra}") from error


def recorded(folder: Path) -> dict[str, str | None]:
    """The libraries that the folder's requirements name, and the version of each that is pinned."""
    path = folder / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = (_REQUIREMENT.match(line.strip()) for line in lines)
    return {_canonical(one["name"]): one["version"] for one in found if one}


def describe(folder: Path) -> str:
    """Python and the versions that are installed here of the libraries that the folder records."""
    names = sorted(recorded(folder))
    versions = [f"{name} {version}" for name in names if (version := _installed(name)) is not None]
    return ", ".join([f"python {sys.version_info.major}.{sys.version_info.minor}", *versions])


def differing(folder: Path) -> dict[str, tuple[str, str]]:
    """What the folder pins and what is installed here instead, where major or minor version differ.

    MLflow itself does not count: it loads what it wrote a minor version ago.
    """
    found = {}
    for name, pinned in recorded(folder).items():
        here = _installed(name)
        if pinned and here and not name.startswith("mlflow") and _minor(pinned) != _minor(here):
            found[name] = (pinned, here)
    return found


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _minor(version: str) -> list[str]:
    return version.partition("+")[0].split(".")[:2]
