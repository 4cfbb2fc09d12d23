"""Environments of the libraries that models record, made by uv once and kept in the user's cache folder.

An environment lies in $XDG_CACHE_HOME/whydrift/environments (default ~/.cache) under the sha256 of all that it is made
of: the model's requirements, what explaining adds to them, and the interpreter. It is built beside its place and moved
there when it is complete, so that one that exists can be used; to delete the folder costs nothing but the next making.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import yaml

from whydrift.pipelines.errors import ConfigError, ModelError, StoreError
from whydrift.pipelines.loading import recorded

logger = logging.getLogger(__name__)

# What a worker imports; each is added where the model's requirements do not name it.
_MINIMUM = ("mlflow-skinny", "numpy", "pandas", "pyarrow<26", "scipy")  # pyarrow 26 refuses numpy 1 on import only
_FOR_FLAVOUR = {
    "sklearn": ("numba", "shap"),
    "xgboost": ("numba",),
    "lightgbm": ("numba",),
    "catboost": ("numba",),
    "pytorch": ("captum",),
}
_OLDEST = (3, 11)  # Python that our own code runs on
_INSTALL_SECONDS = 1800
_UNREACHABLE = 2  # uv's exit code where a download failed; 1 is for requirements that cannot be met
_PASSED = frozenset({"PATH", "HOME", "TMPDIR", "LANG", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR"})
_PREFIXES = ("UV_", "XDG_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_CREDENTIALS = re.compile(r"://[^/\s@]+@")


def interpreter(folder: Path) -> Path:
    """The Python of the environment that a model's folder records; it is made when it is first asked for.

    Raises:
        ConfigError: there is no uv.
        ModelError: the model records no requirements, or they cannot be met.
        StoreError: the package index did not answer.
    """
    if not (folder / "requirements.txt").exists():
        raise ModelError(
            "the model records no requirements.txt, so its environment is not known; log it again with MLflow, or set"
            " explainer.environment to inherit"
        )
    uv, cache = _uv(), _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        python, added = _python(uv, folder, cache), _added(folder)
        place = cache / _key(folder, python, added)
        with (cache / f"{place.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one job makes it, the others wait; the lock goes with its process
            if not place.exists():
                _make(uv, python, folder, added, place)
    except OSError as error:
        raise StoreError(
            f"the model's environment cannot be kept in {cache}: {error}; XDG_CACHE_HOME names another folder"
        ) from error
    return place / "bin" / "python"


def _make(uv: list[str], python: str, folder: Path, added: list[str], place: Path) -> None:
    for left in place.parent.glob(f"{place.name}.part-*"):  # of jobs that were killed
        shutil.rmtree(left, ignore_errors=True)
    logger.info("making the model's environment %s, once", place)
    part = Path(tempfile.mkdtemp(prefix=f"{place.name}.part-", dir=place.parent))
    try:
        _install(uv, ["venv", "--quiet", "--relocatable", "--allow-existing", "--python", python, str(part)], part)
        requirements = ["--requirements", str(folder.resolve() / "requirements.txt"), *added]
        target = str(part / "bin" / "python")
        _install(uv, ["pip", "install", "--quiet", "--python", target, *requirements], part)
        part.chmod(0o755)
        part.rename(place)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _install(uv: list[str], arguments: list[str], folder: Path) -> None:
    try:
        done = _run(uv, arguments, folder)
    except subprocess.TimeoutExpired as error:
        raise StoreError(
            f"uv has not made the model's environment within {_INSTALL_SECONDS // 60} min; is the package index slow?"
        ) from error
    if done.returncode == 0:
        return
    said = _CREDENTIALS.sub("://", done.stderr.strip())
    if done.returncode == _UNREACHABLE:
        raise StoreError(f"uv could not get the libraries that the model records: {said}")
    raise ModelError(
        "the environment that the model records cannot be made; correct its requirements with"
        f" mlflow.models.update_model_requirements, or set explainer.environment to inherit. uv says: {said}"
    )


def _python(uv: list[str], folder: Path, cache: Path) -> str:
    """The recorded interpreter, else another patch level of it, else our own; never one that is to be downloaded."""
    version = _recorded_python(folder)
    minor = ".".join(version.split(".")[:2])
    if tuple(map(int, minor.split("."))) >= _OLDEST:
        for asked in (version, minor):
            found = _run(uv, ["python", "find", "--system", "--no-project", asked], cache)
            if found.returncode == 0:
                return found.stdout.strip()
    logger.warning(
        "the model was recorded with Python %s, which is not found here or older than %s; its environment gets Python"
        " %s, in which it may not load. `uv python install %s` installs one",
        version,
        ".".join(map(str, _OLDEST)),
        platform.python_version(),
        minor,
    )
    return str(Path(sys.executable).resolve())


def _recorded_python(folder: Path) -> str:
    """As python_env.yaml has it; our own where there is none."""
    path = folder / "python_env.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    found = re.match(r"\d+\.\d+(\.\d+)?", str(content.get("python", ""))) if isinstance(content, dict) else None
    return found[0] if found else platform.python_version()


def _added(folder: Path) -> list[str]:
    """What explaining needs and the model does not name."""
    flavours = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    wanted = [*_MINIMUM, *(one for name, needs in _FOR_FLAVOUR.items() if name in flavours for one in needs)]
    named = set(recorded(folder))
    if "mlflow" in named:
        named.add("mlflow-skinny")  # comes with it; of old versions it would overwrite its files
    return [one for one in wanted if one.partition("<")[0] not in named]


def _key(folder: Path, python: str, added: list[str]) -> str:
    total = hashlib.sha256()
    files = [folder / name for name in ("requirements.txt", "constraints.txt")]
    for part in [python, platform.machine(), *added, *(f.read_text(encoding="utf-8") for f in files if f.exists())]:
        total.update(part.encode() + b"\0")
    return total.hexdigest()


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "whydrift" / "environments"


def _uv() -> list[str]:
    """The command: of our own environment, else on the PATH."""
    if find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    found = shutil.which("uv")
    if found is None:
        raise ConfigError(
            "explainer.environment: model needs uv, which makes the model's environment; `pip install uv` beside"
            " whydrift, or put it on the PATH"
        )
    return [found]


def _run(uv: list[str], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run uv with its own settings and what reaches the package index, and no other key of ours."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PREFIXES) or name.lower() in _PROXIES
    }
    return subprocess.run(  # noqa: S603  uv as found, arguments of ours
        [*uv, *arguments],
        cwd=folder,
        env={**passed, "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_INSTALL_SECONDS,
    )
