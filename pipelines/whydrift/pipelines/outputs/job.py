"""How the last run of a model's job went: what tells a dead job from a quiet one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from whydrift.pipelines.errors import StoreError
from whydrift.pipelines.files import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The last run of a model's job. Times are Unix seconds, durations are seconds.

    A run that ended with a verdict is a success, whatever the verdict; `exit_code` is 0 then, and else that of the
    error that ended the run. `last_success` is carried over from the run before where this one failed, and is None
    where none ever succeeded.
    """

    model: str
    model_version: str
    interval_seconds: float
    last_success: float | None
    last_completion: float
    exit_code: int
    stage_seconds: dict[str, float]


_ADAPTER = TypeAdapter(JobStatus)


def write(status: JobStatus, outputs: Path) -> None:
    """Replace the model's status in one step."""
    path = _path(outputs, status.model)
    write_atomically(path, _ADAPTER.dump_json(status, indent=1) + b"\n")


def read(outputs: Path, model: str) -> JobStatus | None:
    """None where the model's job has never finished.

    Raises:
        StoreError: if the file cannot be read, or is no job status.
    """
    path = _path(outputs, model)
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: the job status cannot be read: {error}") from error
    except ValidationError as error:
        raise StoreError(f"{path} is not a job status of this version; delete it, the next run writes it") from error


def _path(outputs: Path, model: str) -> Path:
    return outputs / "jobs" / f"{model}.json"
