"""The few keys of configs/*.yaml that shape a DAG, read without importing whydrift.

The scheduler's environment need not have whydrift in it, and reading must be quick: it happens at every parse.
Only what is used here is checked; `whydrift` checks the whole file when a task runs. Defaults are config.py's.
`${NAME}` is expanded by `whydrift` alone, so the keys below must be written out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

_DURATION = re.compile(r"(\d+)\s*(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]*")
_STEM = re.compile(r"[A-Za-z0-9_.-]+")
ENGINES = ("local", "spark")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """What the DAGs of one configuration file need to know. Times are UTC."""

    path: Path
    model: str
    engine: str
    every: timedelta
    start: datetime
    delay: timedelta
    owner: str
    retries: int
    timeout: timedelta
    train_command: tuple[str, ...]
    candidate_alias: str

    @property
    def name(self) -> str:
        return self.path.stem


def folder() -> Path:
    """Where the configurations are: $WHYDRIFT_CONFIGS, else `configs` beside the bundle."""
    beside = Path(__file__).resolve().parent.parent / "configs"
    return Path(os.environ.get("WHYDRIFT_CONFIGS", beside))


def read_all(where: Path) -> tuple[list[JobConfig], dict[str, str]]:
    """The jobs of every `*.yaml` in a folder, and by file name what is wrong with the ones that cannot be read."""
    jobs, problems = [], {}
    for path in sorted(where.glob("*.yaml")):
        try:
            jobs.append(read(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems[path.stem] = f"{path}: {' '.join(str(error).split())}"
    if not jobs and not problems:
        problems["configs"] = f"no *.yaml in {where}: set WHYDRIFT_CONFIGS to the folder of the configurations"
    return jobs, problems


def read(path: Path) -> JobConfig:
    """Read one file.

    Raises:
        ValueError: with the key and what it should look like.
        yaml.YAMLError: the file is not YAML.
        OSError: it cannot be read.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ValueError("the configuration must be a mapping")  # noqa: TRY004  one kind of error for all mistakes
    if not _STEM.fullmatch(path.stem):
        raise ValueError("a file's name becomes a DAG's name: only letters, digits, '_', '-' and '.'")
    return JobConfig(
        path=path.resolve(),
        model=_matching(raw, "model", "name", None, _MODEL),
        engine=_engine(raw),
        every=_duration(raw, "window", "every", "1d"),
        start=_time(raw, "job", "start", _EPOCH),
        delay=_duration(raw, "job", "delay", "1h"),
        owner=_matching(raw, "job", "owner", "ml-platform", re.compile(r"[^$]+")),
        retries=_integer(raw, "job", "retries", 2),
        timeout=_duration(raw, "job", "timeout", "30m"),
        train_command=_words(raw, "retraining", "train_command"),
        candidate_alias=_matching(raw, "retraining", "candidate_alias", "challenger", _MODEL),
    )


def to_utc(text: str) -> datetime:
    """ISO 8601 to UTC, which is also meant where no offset is given."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _engine(raw: dict[str, Any]) -> str:
    engine = raw.get("engine", "local")
    if engine not in ENGINES:
        raise ValueError(f"engine: must be one of {', '.join(ENGINES)}, got {engine!r}")
    return str(engine)


def _get(raw: dict[str, Any], section: str, key: str, default: object) -> object:
    part = raw.get(section) or {}
    if not isinstance(part, dict):
        raise ValueError(f"{section}: must be a mapping")  # noqa: TRY004  one kind of error for all mistakes
    return part.get(key, default)


def _matching(raw: dict[str, Any], section: str, key: str, default: str | None, pattern: re.Pattern[str]) -> str:
    value = _get(raw, section, key, default)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{section}.{key}: must be a text that matches {pattern.pattern}, got {value!r}")
    return value


def _duration(raw: dict[str, Any], section: str, key: str, default: str) -> timedelta:
    value = _get(raw, section, key, default)
    match = _DURATION.fullmatch(str(value).strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{section}.{key}: {value!r} is not a duration such as 15m, 6h, 1d or 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _time(raw: dict[str, Any], section: str, key: str, default: datetime) -> datetime:
    value = str(_get(raw, section, key, default))
    try:
        return to_utc(value)
    except ValueError as error:
        raise ValueError(f"{section}.{key}: {value!r} is not an ISO 8601 time such as 2013-05-12") from error


def _integer(raw: dict[str, Any], section: str, key: str, default: int) -> int:
    value = _get(raw, section, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{section}.{key}: must be a whole number, got {value!r}")
    return value


def _words(raw: dict[str, Any], section: str, key: str) -> tuple[str, ...]:
    value = _get(raw, section, key, ())
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{section}.{key}: must be a list of texts, got {value!r}")
    return tuple(value)
