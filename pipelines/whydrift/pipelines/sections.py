"""The sections of a configuration file, one class each, with their defaults; `config.Config` holds them together."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from whydrift.monitors.verdict import CauseKind
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.window import EPOCH, parse_duration, parse_time


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
