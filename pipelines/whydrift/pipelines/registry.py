"""MLflow: the deployed model, its baseline, and one run a window.

An alias is resolved once and the version recorded. Baselines lie in the model's own artifacts, and their digest in
a tag of the model version, so that a file changed behind our back is found on load.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from whydrift.pipelines.errors import BaselineError, ModelError, StoreError, WhyDriftError, without_password
from whydrift.pipelines.loading import differing, load_native

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

BASELINE_PATH = "whydrift/baseline"
BASELINE_TAG = "whydrift.baseline"
WINDOW_TAG = "whydrift.window"
_ABANDONED_MS = 3_600_000
_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
_NOT_THE_MODEL = {"registered_model_meta"}  # written beside the model by the download itself
_STRINGS = {"string"}
_NUMBERS = {"double", "float", "long", "integer", "boolean"}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version; `model_id` is its LoggedModel's, None where it was registered from a plain run."""

    name: str
    version: str
    model_id: str | None
    run_id: str | None
    baseline_digest: str | None

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The native model or the worker that holds it, the kinds of its input columns, and the sha256 of its files."""

    native: Any
    features: dict[str, Literal["number", "string"]]
    digest: str


class Registry:
    """One MLflow server or database."""

    def __init__(self, tracking_uri: str) -> None:
        # A scheduled job that cannot reach MLflow says so in seconds; its scheduler knows how to wait.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        self._uri = tracking_uri
        with self._reaching("connect"):
            mlflow.set_tracking_uri(tracking_uri)
            mlflow.set_registry_uri(tracking_uri)
            self._client: MlflowClient = mlflow.MlflowClient(tracking_uri, tracking_uri)

    def resolve(self, name: str, alias_or_version: str) -> ModelVersion:
        """The version behind an alias, or a version number itself.

        Raises ModelError if there is none.
        """
        with self._reaching(f"find {name}@{alias_or_version}", absent=self._no_model(name, alias_or_version)):
            if alias_or_version.isdigit():
                found = self._client.get_model_version(name, alias_or_version)
            else:
                found = self._client.get_model_version_by_alias(name, alias_or_version)
            return ModelVersion(
                name, str(found.version), self._model_id(found), found.run_id, found.tags.get(BASELINE_TAG)
            )

    def _no_model(self, name: str, alias: str) -> ModelError:
        return ModelError(
            f"{without_password(self._uri)} has no model {name}@{alias}; register it, or correct the name or the alias"
        )

    def _model_id(self, found: Any) -> str | None:
        if found.model_id:
            return str(found.model_id)
        source = str(found.source)
        return source.removeprefix("models:/") if source.startswith("models:/m-") else None

    def load(self, version: ModelVersion, open_model: Callable[[Path], Any] = load_native) -> LoadedModel:
        """Download a model and open its folder, which is gone afterwards; by default with its own flavour's loader.

        Raises:
            ModelError: it cannot be opened, or has no usable signature.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = self.fetch_model(version, Path(folder))
            if open_model is load_native:
                _warn_of_other_libraries(path, version.uri)
            with self._reaching(f"load {version.uri}"):
                return open_folder(path, version.uri, open_model)

    def fetch_model(self, version: ModelVersion, folder: Path) -> Path:
        """Download a model's files."""
        import mlflow

        with self._reaching(f"fetch {version.uri}"):
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=str(folder)))

    def log_baseline(self, version: ModelVersion, folder: Path, digest: str) -> None:
        """Put a baseline's files into the model's artifacts and its digest into the version's tag."""
        with self._reaching(f"store the baseline of {version.uri}"):
            if version.model_id is not None:
                self._client.log_model_artifacts(version.model_id, str(folder), BASELINE_PATH)
            elif version.run_id is not None:
                self._client.log_artifacts(version.run_id, str(folder), BASELINE_PATH)
            else:
                raise ModelError(f"{version.uri} has neither a LoggedModel nor a run to keep a baseline in")
            self._client.set_model_version_tag(version.name, version.version, BASELINE_TAG, digest)

    def fetch_baseline(self, version: ModelVersion, folder: Path) -> Path:
        """Download the baseline's files; raises BaselineError where there are none."""
        import mlflow

        missing = BaselineError(
            f"{version.uri} has no baseline; make one with `whydrift baseline` for this version, which takes the"
            " reference period of the configuration"
        )
        if version.baseline_digest is None:
            raise missing
        home = version.uri if version.model_id is not None else f"runs:/{version.run_id}"
        with self._reaching(f"fetch the baseline of {version.uri}", absent=missing):
            return Path(
                mlflow.artifacts.download_artifacts(artifact_uri=f"{home}/{BASELINE_PATH}", dst_path=str(folder))
            )

    def replace_run(
        self,
        *,
        experiment: str,
        window: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        step: int,
        artifacts: Mapping[str, str],
        model_id: str | None,
    ) -> str:
        """Log one run for a window in place of earlier ones, and return its id.

        The new run is complete before the old ones go; a second writer's run of the same moment goes with them.
        """
        from mlflow.entities import Metric, RunTag

        with self._reaching(f"log the run of {window}"):
            experiment_id = self._experiment(experiment)
            run = self._client.create_run(experiment_id, run_name=window, tags=dict(tags))
            entities = [
                Metric(name, value, step * 1000, step, model_id=model_id) for name, value in sorted(metrics.items())
            ]
            self._client.log_batch(run.info.run_id, metrics=entities)
            for name, text in artifacts.items():
                self._client.log_text(run.info.run_id, text, name)
            self._client.set_terminated(run.info.run_id)
            # Only a complete run carries the window's tag: a killed writer's is never taken for the result.
            self._client.log_batch(run.info.run_id, tags=[RunTag(WINDOW_TAG, window)])
            found = self._client.search_runs([experiment_id], f"tags.`{WINDOW_TAG}` = '{window}'")
            newest = max(found, key=lambda r: (r.info.start_time, r.info.run_id))
            for other in found:
                if other.info.run_id != newest.info.run_id:
                    self._client.delete_run(other.info.run_id)
            self._delete_abandoned(experiment_id, window, newest.info.start_time)
            return str(newest.info.run_id)

    def _delete_abandoned(self, experiment_id: str, window: str, now: int) -> None:
        """Delete what killed writers of the window left: runs that have not been finished for an hour."""
        query = f"attributes.run_name = '{window}' and attributes.status = 'RUNNING'"
        for run in self._client.search_runs([experiment_id], query):
            if run.info.start_time < now - _ABANDONED_MS:
                self._client.delete_run(run.info.run_id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=self._artifacts(name)))
        except MlflowException:  # another writer was quicker
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _artifacts(self, experiment: str) -> str | None:
        """Beside a SQLite file, since MLflow would take the working folder; a server knows its own place."""
        if not self._uri.startswith("sqlite:///"):
            return None
        return (Path(self._uri.removeprefix("sqlite:///")).parent / "artifacts" / experiment).as_uri()

    @contextmanager
    def _reaching(self, action: str, *, absent: WhyDriftError | None = None) -> Iterator[None]:
        """Say in our words what MLflow could not do."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if absent is not None and error.error_code in _ABSENT:
                raise absent from error
            raise self._unreachable(action, error.message) from error
        except (OSError, ImportError) as error:
            raise self._unreachable(action, str(error)) from error
        except _database_errors() as error:
            raise self._unreachable(action, str(error)) from error

    def _unreachable(self, action: str, said: str) -> StoreError:
        shown = without_password(self._uri)
        credentials = self._uri.removesuffix(shown.partition("://")[2]).partition("://")[2]
        if credentials:  # MLflow's own messages repeat the URI
            said = said.replace(credentials, "")
        return StoreError(f"MLflow at {shown} could not {action}: {said}")


def open_folder(path: Path, uri: str, open_model: Callable[[Path], Any] = load_native) -> LoadedModel:
    """Open a model's downloaded files; raises ModelError if that fails or it has no usable signature."""
    import mlflow

    features, digest = _features(mlflow.models.Model.load(str(path)).signature, uri), _digest(path)
    try:
        return LoadedModel(open_model(path), features, digest)
    except ModelError as error:
        raise ModelError(f"{uri}: {error}") from error


def _database_errors() -> tuple[type[Exception], ...]:
    """What a database URI may fail with; none where SQLAlchemy is not installed, which only such URIs need."""
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return ()
    return (SQLAlchemyError,)


def _warn_of_other_libraries(folder: Path, uri: str) -> None:
    others = [f"{name} {then} (here {now})" for name, (then, now) in sorted(differing(folder).items())]
    if others:
        logger.warning(
            "%s was recorded with %s; `explainer: {environment: model}` explains it with its own libraries",
            uri,
            ", ".join(others),
        )


def _features(signature: Any, uri: str) -> dict[str, Literal["number", "string"]]:
    """The kinds of the signature's columns."""
    inputs = getattr(signature, "inputs", None)
    if inputs is None or inputs.is_tensor_spec():
        raise ModelError(
            f"{uri} has no column signature, which says what a record must hold; log the model with"
            " signature=mlflow.models.infer_signature(frame, prediction)"
        )
    kinds: dict[str, Literal["number", "string"]] = {}
    for column in inputs.inputs:
        kind = str(getattr(column.type, "name", column.type))
        if kind not in _STRINGS | _NUMBERS:
            raise ModelError(f"{uri}: column {column.name!r} is of type {kind}; supported are numbers and strings")
        kinds[column.name] = "string" if kind in _STRINGS else "number"
    return kinds


def _digest(path: Path) -> str:
    """sha256 over the model's files, without what is kept beside it."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if name not in _NOT_THE_MODEL and not name.startswith("whydrift/"):
            total.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
