"""The sections of a configuration file, one class each, with their defaults; `config.Config` holds them together."""

from __future__ import annotations

from datetime import date, datetime, timedelta
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
    task: Literal["binary", "regression", "multiclass"] = "binary"
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Of a multiclass model, three or more, in the order of its outputs, as the labels name them."
    )

    @model_validator(mode="after")
    def _has_its_classes(self) -> Self:
        if self.task != "multiclass" and self.classes:
            raise ValueError(f"classes: a {self.task} model has none; set task to multiclass, or leave them out")
        if self.task == "multiclass" and (len(self.classes) < 3 or len(set(self.classes)) < len(self.classes)):
            raise ValueError("classes: a multiclass model has three or more, each named once; two are a binary task")
        return self


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
    prediction: str | tuple[str, ...] = Field(
        "prediction",
        description="Probability of the positive class, or the predicted value. Of a multiclass model a column for each"
        " of model.classes, in their order, or one column of lists.",
    )
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
    audit: str | None = Field(
        None,
        description="The chance with which a row was drawn for labelling, in (0, 1]; empty where it was labelled for"
        " another reason.",
    )


class Labels(Section):
    """Outcomes, which arrive later than predictions and in files of their own."""

    path: str
    format: Literal["parquet", "csv", "jsonl"] = Field("parquet", description="Default: that of inference_log.")
    partition: str | None = Field(None, description="Time pattern of the sub-folders, by label time.")
    columns: LabelColumns = LabelColumns()
    mature_after: Duration = Field(
        timedelta(days=7), description="So long after its window's end a cohort is taken to have its labels."
    )
    complete_after: Duration | None = Field(
        None,
        description="So long after it labels hardly ever come; how fast they do is learned from the baseline's windows"
        " that have them all. Default: twice mature_after.",
    )

    @model_validator(mode="after")
    def _completes_after_maturing(self) -> Self:
        if self.complete_after is not None and self.complete_after < self.mature_after:
            raise ValueError("complete_after: must not be before mature_after")
        return self


class Explainer(Section):
    """How rows are explained."""

    method: Literal[
        "auto", "native", "additive", "linear", "tree", "deep_lift", "gradient_shap", "integrated_gradients",
        "permutation", "kernel",
    ] = "auto"  # fmt: skip
    rows: Literal["auto", "all"] | Annotated[int, Field(ge=100)] = Field(
        "auto",
        description="How many rows of a usual window are explained; auto: as few as make sampling a tenth of what"
        " windows differ by. Inputs, scores and labels always use every row.",
    )
    perturbation: Literal["path_dependent", "interventional"] = Field(
        "path_dependent",
        description="Of trees, where absent features come from: the training rows that took the same paths, or the"
        " background. Other models take the background.",
    )
    background_rows: int = Field(
        100,
        ge=1,
        le=50_000,
        description="Baseline rows that the absent features come from; more than 1,000 are for interventional trees,"
        " and sampling takes the first 1,000.",
    )
    environment: Literal["inherit", "model"] = Field(
        "inherit",
        description="Libraries that load and explain the model. inherit: those that whydrift runs with. model: those"
        " that MLflow recorded with it, in a process and an environment of its own, which uv makes once.",
    )
    space: Literal["margin", "probability"] = Field(
        "margin",
        description="Where the attributions of a classifier add up. margin: log-odds, or what its model adds up itself."
        " probability: the prediction; only forests do so exactly, other models are sampled (permutation).",
    )

    @model_validator(mode="after")
    def _has_use_for_its_background(self) -> Self:
        trees = self.perturbation == "interventional" and self.method in {"auto", "tree"}
        if self.background_rows > 1000 and not trees:
            raise ValueError(
                "background_rows: more than 1,000 need perturbation: interventional and method: auto or tree"
            )
        return self


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
    threshold: Literal["guaranteed", "calibrated"] = Field(
        "guaranteed",
        description="Of pages. guaranteed: by a theorem, several times quieter than allowed. calibrated: the fastest"
        " that keeps the budget in a simulation of the baseline's own noise, run by `whydrift baseline`.",
    )


class Tolerances(Section):
    """Harmless lasting shifts by kind of stream: one that stays within neither pages nor tickets."""

    share: float = Field(0, ge=0, description="Of the log of a feature's share: 0.05 is five per cent of it.")
    level: float = Field(0, ge=0, description="Of a mean attribution, in its standard deviations over baseline rows.")
    shape: float = Field(0, ge=0, description="Of an attribution's distance, in its usual ones to the power of 2/3.")
    response: float = Field(0, ge=0, description="Of how inputs are answered, as shape.")
    group_share: float = Field(0, ge=0, description="As share, of a group's sum.")
    group_level: float = Field(0, ge=0, description="As level, of a group's sum.")
    score_mean: float = Field(0, ge=0, description="Of the mean output: log-odds, or units of the prediction.")
    score_shape: float = Field(0, ge=0, description="Of the scores' distance, as shape.")
    effective_features: float = Field(0, ge=0, description="Of the log of their number: 0.05 is five per cent.")
    residual: float = Field(0, ge=0, description="Of the log of what explanations miss: 0.05 is five per cent.")
    calibration_intercept: float = Field(0, ge=0, description="In log-odds.")
    calibration_slope: float = Field(0, ge=0, description="Of Cox's slope, 1 if calibrated.")
    smece: float = Field(0, ge=0, description="Of the smooth calibration error, a probability.")
    bias: float = Field(0, ge=0, description="Of a regression's mean error, in units of the label.")
    coverage: float = Field(0, ge=0, description="Of the arcsine of the root of a regression's coverage.")
    loss: float = Field(0, ge=0, description="Of a mean squared error: Brier score, or squared units of the label.")
    estimated_loss: float = Field(0, ge=0, description="Of the Brier score that the scores alone lead to expect.")
    estimated_error: float = Field(0, ge=0, description="Of the share of wrong answers that they lead to expect.")
    gap_selection: float = Field(0, ge=0, description="Of the log of a ratio of rates: 0.05 is five per cent.")
    gap_tpr: float = Field(0, ge=0, description="As gap_selection.")
    gap_fpr: float = Field(0, ge=0, description="As gap_selection.")
    gap_calibration: float = Field(0, ge=0, description="As gap_selection.")


class Calendar(Section):
    """Days that are unlike others of their weekday; that they are so is learned, not given."""

    holidays: tuple[date, ...] = Field(
        (), description="UTC days. All share one effect a stream; those of the baseline teach it."
    )


class Mute(Section):
    """Streams that are not to be heard of for a while: all that fit what is named here."""

    since: Time = Field(description="The first window that is muted starts here or later.")
    until: Time = Field(description="The first window that speaks again starts here or later.")
    reason: str = Field(min_length=1)
    kind: str | None = Field(None, description="A kind of stream, see tolerances.")
    feature: str | None = None
    slice: str | None = Field(None, description="As the report names it, e.g. carrier=AA.")
    group: str | None = None
    class_name: str | None = Field(None, description="One of model.classes.")

    @model_validator(mode="after")
    def _mutes_something_for_a_time(self) -> Self:
        if self.until <= self.since:
            raise ValueError("until: must be after since")
        if self.kind is self.feature is self.slice is self.group is self.class_name is None:
            raise ValueError("names nothing to mute: set kind, feature, slice, group or class_name")
        if self.kind is not None and self.kind not in Tolerances.model_fields:
            raise ValueError(f"kind: {self.kind!r} is none of {', '.join(Tolerances.model_fields)}")
        return self


class SliceSearch(Section):
    """The search for slices where the model is wrong more often; it shows and does not page. It needs labels.

    Columns and promoted slices are fixed when the baseline is made.
    """

    columns: Literal["auto"] | tuple[str, ...] = Field(
        "auto", description="Features that slices are made of; auto: the configured slices, then the most important."
    )
    max_columns: int = Field(12, ge=0, le=15, description="How many of them; 0 searches nothing.")
    min_rows: int = Field(200, ge=10, description="Labelled rows in the newest 28 windows; smaller cells are left out.")
    min_effect: float = Field(1.2, ge=1, description="Mean loss by that of other rows, or by how much that rose.")
    false_discoveries: float = Field(0.05, gt=0, lt=1, description="Expected share of false ones among those shown.")
    promote: int = Field(
        10, ge=0, le=20, description="Slices found in the baseline whose losses are watched, at a tenth of the budget."
    )


class Fairness(Section):
    """Gaps between groups: selection rate, true and false positive rate, and calibration; of a classifier."""

    columns: tuple[str, ...] = Field(min_length=1, description="Features of the model whose values are groups.")
    threshold: float = Field(0.5, gt=0, lt=1, description="The prediction from which on a row is selected.")
    reference: dict[str, str] = Field(
        {}, description="By column the group that others are compared with, e.g. sex: sex=F; default the largest."
    )


class Retraining(Section):
    """When a page asks for a new model. Broken data is to be mended first, so it is not in the default."""

    causes: tuple[CauseKind, ...] = Field(
        (CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED, CauseKind.CONCEPT_CHANGED),
        description="inputs_moved and joint_moved ask only where the loss since the onset is above the baseline's.",
    )
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
