"""One YAML file a monitored model: what it may say, and how a mistake in it is reported.

Unknown keys are refused. `${NAME}` and `${NAME:-default}` are replaced inside strings, so secrets stay in the
environment. Relative paths, a relative SQLite URI among them, are taken from the file's own folder.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from whydrift.monitors.verdict import CauseKind
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.window import EPOCH, parse_duration, parse_time

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")


def _to_duration(value: object) -> object:
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _to_time(value: object) -> object:
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        return parse_time(str(value))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def write_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> write_duration(timedelta(hours=48))
    '2d'
    """
    minutes = int(value.total_seconds()) // 60
    for unit, size in (("w", 10080), ("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


Duration = Annotated[
    timedelta,
    BeforeValidator(_to_duration),
    PlainSerializer(write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*(m|h|d|w)$", "examples": ["1h", "1d"]}),
]
Time = Annotated[
    datetime,
    BeforeValidator(_to_time),
    WithJsonSchema({"type": "string", "description": "ISO 8601, UTC where no offset is given"}),
]


class Section(BaseModel):
    """Base of every part: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Section):
    """The registered model that is watched."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$", description="Registered model name in MLflow.")
    alias: str = Field("champion", description="The alias that production serves; resolved once a run.")
    task: Literal["binary", "regression"] = "binary"


class MLflow(Section):
    """Where models, baselines and window runs live."""

    tracking_uri: str = Field(description="MLflow tracking and registry URI. Credentials belong in the environment.")
    experiment: str | None = Field(None, description="Experiment of the window runs; default whydrift/<model>.")


class Windows(Section):
    """How time is cut."""

    every: Duration = Field(timedelta(days=1), description="Width of a window; divides a day or is whole days.")
    min_rows: int = Field(100, ge=1, description="With fewer rows a window is insufficient_data.")

    @model_validator(mode="after")
    def _fits_a_day(self) -> Self:
        day = timedelta(days=1)
        if day % self.every and self.every % day:
            raise ValueError("every: must divide a day, or be a number of whole days")
        return self


class LogColumns(Section):
    """What the log calls the columns that every record has."""

    event_id: str = "event_id"
    event_time: str = "event_time"
    prediction: str = Field("prediction", description="Probability of the positive class, or the predicted value.")
    weight: str | None = Field(None, description="Inverse sampling probability; 1 where absent.")
    model_version: str | None = Field(None, description="Rows that name another version are set aside.")


class InferenceLog(Section):
    """Files of rows, one row a prediction, features as the model's signature names them."""

    kind: Literal["table"] = "table"
    path: str = Field(description="A folder, local or of an object store.")
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    partition: str | None = Field(
        None, description="Time pattern of the sub-folders, e.g. day=%Y-%m-%d, so that a window opens only its own."
    )
    columns: LogColumns = LogColumns()
    prediction_tolerance: float = Field(
        1e-4,
        ge=0,
        description="How far a logged prediction may be from the model's own: a probability, e.g. 0.005 where it is"
        " rounded, or for a regression in standard deviations.",
    )


class LabelColumns(Section):
    """What the label files call their columns."""

    event_id: str = "event_id"
    label: str = "label"
    label_time: str = "label_time"


class Labels(Section):
    """Outcomes, which arrive later than predictions and in files of their own."""

    path: str
    format: Literal["parquet", "csv", "jsonl"] = Field("parquet", description="Default: that of inference_log.")
    partition: str | None = Field(None, description="Time pattern of the sub-folders, by label time.")
    columns: LabelColumns = LabelColumns()
    mature_after: Duration = Field(
        timedelta(days=7), description="So long after its window's end a cohort is taken to have its labels."
    )


class Explainer(Section):
    """How rows are explained."""

    method: Literal["auto", "native", "tree", "linear", "permutation"] = "auto"
    background_rows: int = Field(100, ge=1, le=1000, description="Baseline rows that the absent features come from.")


class Baseline(Section):
    """The reference period; at least 28 windows, or the monitor learns and pages on hard checks only."""

    start: Time
    end: Time

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end: must be after start")
        return self


class Allowance(Section):
    """A number of false alarms in a period."""

    false_alarms: float = Field(gt=0)
    per: Duration


class BudgetSection(Section):
    """How many false alarms are accepted, over all features and slices together."""

    page: Allowance = Allowance(false_alarms=1, per=timedelta(days=90))
    ticket: Allowance = Allowance(false_alarms=1, per=timedelta(days=7))


class Retraining(Section):
    """When a page asks for a new model. Broken data is to be mended first, so it is not in the default."""

    causes: tuple[CauseKind, ...] = (CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED, CauseKind.CONCEPT_CHANGED)
    min_labelled_rows: int = Field(1000, ge=0, description="Mature labels since the onset before a request is raised.")
    cooldown: Duration = timedelta(days=14)
    train_command: tuple[str, ...] = Field(
        (), description="What the retraining DAG runs; it registers a candidate. Arguments: see docs of the DAG."
    )
    candidate_alias: str = "challenger"


class Gate(Section):
    """What a candidate must keep, compared with the champion on the same rows; margins of non-inferiority."""

    min_share_cosine: float = Field(0.9, ge=0, le=1, description="Agreement of the two attribution share vectors.")
    max_brier_increase: float = Field(0.01, ge=0)
    max_smece_increase: float = Field(0.02, ge=0)
    max_slice_loss_ratio: float = Field(1.1, ge=1, description="Candidate's loss over the champion's, per slice.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="One-sided, shared by all checks (Bonferroni).")
    min_windows: int = Field(7, ge=2, description="With fewer a check is not judged.")
    windows: int = Field(
        14,
        ge=2,
        description="Newest mature windows that a retraining request sets apart for the gate, and from training.",
    )
    min_slice_rows: int = Field(200, ge=1, description="Smaller slices are listed and not judged.")


class Job(Section):
    """The scheduled job."""

    start: Time = EPOCH
    delay: Duration = Field(timedelta(hours=1), description="Wait after a window's end until its logs are complete.")
    owner: str = "ml-platform"
    retries: int = Field(2, ge=0)
    timeout: Duration = timedelta(minutes=30)


class Config(Section):
    """A monitored model."""

    model: Model
    mlflow: MLflow
    window: Windows = Windows()
    inference_log: InferenceLog
    labels: Labels | None = None
    explainer: Explainer = Explainer()
    baseline: Baseline
    slices: tuple[str, ...] = Field((), description="Features of the model whose values are watched as slices.")
    groups: dict[str, tuple[str, ...]] = Field({}, description="Names for sets of features, e.g. one upstream feed.")
    budget: BudgetSection = BudgetSection()
    retraining: Retraining = Retraining()
    gate: Gate = Gate()
    job: Job = Job()
    store: str = Field(description="Folder of the window summaries and verdicts, local or of an object store.")
    outputs: str = Field(description="Local folder of reports, metrics and retraining requests.")

    @model_validator(mode="before")
    @classmethod
    def _labels_are_formatted_like_the_log(cls, raw: Any) -> Any:
        labels, log = (raw.get(name) if isinstance(raw, dict) else None for name in ("labels", "inference_log"))
        if isinstance(labels, dict) and isinstance(log, dict) and "format" in log:
            return {**raw, "labels": {"format": log["format"], **labels}}
        return raw

    @model_validator(mode="after")
    def _baseline_lies_on_windows(self) -> Self:
        for name, time in (("start", self.baseline.start), ("end", self.baseline.end)):
            if (time - EPOCH) % self.window.every:
                width = write_duration(self.window.every)
                raise ValueError(f"baseline.{name}: {time:%FT%TZ} does not lie on a boundary of windows of {width}")
        return self

    @property
    def experiment(self) -> str:
        return self.mlflow.experiment or f"whydrift/{self.model.name}"

    @property
    def label_lag(self) -> int:
        """Windows between a prediction and the window that assesses its labels."""
        if self.labels is None:
            return 0
        return -(-self.labels.mature_after // self.window.every)

    def windows_in(self, allowance: Allowance) -> float:
        """Windows to one accepted false alarm: the e-detector's threshold (METHODS: the budget lemma)."""
        return (allowance.per / self.window.every) / allowance.false_alarms

    def digest(self) -> str:
        """sha256 of the normalised content; folders do not count, so that it is the same on every machine."""
        content = self.model_dump(mode="json", exclude={"store", "outputs", "mlflow", "job"})
        for part in ("inference_log", "labels"):
            if content[part] is not None:
                del content[part]["path"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: with one `file:line: path: message` for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except ValueError as error:  # a date that the calendar does not have
        raise ConfigError(f"{path}: a value is not what YAML takes it for: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}:1: the configuration must be a mapping, see configs/flights.yaml")
    try:
        config = Config.model_validate(_expand(raw, root, path, ()))
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(error, root, path))) from error
    return _resolve(config, path.resolve().parent)


def _expand(value: Any, root: yaml.Node | None, path: Path, where: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, root, path, (*where, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, root, path, (*where, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise ConfigError(
                f"{path}:{_line(root, where)}: {_dotted(where)}: environment variable {match['name']} is not set"
                f" and has no default; set it or write ${{{match['name']}:-default}}"
            )
        return found

    return _VARIABLE.sub(replace, value)


def _describe(error: ValidationError, root: yaml.Node | None, path: Path) -> list[str]:
    return [
        f"{path}:{_line(root, item['loc'])}: {_dotted(item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
        + (_did_you_mean(str(item["loc"][-1])) if item["type"] == "extra_forbidden" else "")
        for item in error.errors()
    ]


def _did_you_mean(key: str) -> str:
    sections: list[type[Section]] = Section.__subclasses__()
    near = difflib.get_close_matches(key, {name for section in sections for name in section.model_fields}, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _dotted(where: tuple[str | int, ...]) -> str:
    return ".".join(map(str, where)) or "(whole file)"


def _line(node: yaml.Node | None, where: tuple[str | int, ...]) -> int:
    """The line of the deepest part of `where` that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _resolve(config: Config, folder: Path) -> Config:
    """The same configuration with paths made absolute against the file's folder."""

    def absolute(text: str) -> str:
        return text if _REMOTE.match(text) else str((folder / text).resolve())

    uri = config.mlflow.tracking_uri
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{(folder / uri.removeprefix('sqlite:///')).resolve()}"
    changes: dict[str, Any] = {
        "mlflow": config.mlflow.model_copy(update={"tracking_uri": uri}),
        "inference_log": config.inference_log.model_copy(update={"path": absolute(config.inference_log.path)}),
        "store": absolute(config.store),
        "outputs": absolute(config.outputs),
    }
    if config.labels is not None:
        changes["labels"] = config.labels.model_copy(update={"path": absolute(config.labels.path)})
    return config.model_copy(update=changes)


def json_schema() -> str:
    """The JSON schema that editors complete from, committed as configs/schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"
