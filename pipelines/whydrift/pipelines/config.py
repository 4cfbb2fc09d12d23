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
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from whydrift.pipelines.contracts import Expected, mistakes
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.loss_section import LossAttribution
from whydrift.pipelines.sections import (
    Allowance,
    Baseline,
    BudgetSection,
    Calendar,
    Explainer,
    Fairness,
    Gate,
    InferenceLog,
    Job,
    Labels,
    MLflow,
    Model,
    Mute,
    Retraining,
    Section,
    SliceSearch,
    Tolerances,
    Windows,
    write_duration,
)
from whydrift.pipelines.window import EPOCH

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")


class Config(Section):
    """A monitored model."""

    model: Model
    mlflow: MLflow
    window: Windows = Windows()
    inference_log: InferenceLog
    labels: Labels | None = None
    explainer: Explainer = Explainer()
    engine: Literal["local", "spark"] = Field(
        "local",
        description="Where `profile` reads and explains a window's rows: in its own process, or on the Spark cluster of"
        " its environment. The numbers are the same.",
    )
    loss_attribution: LossAttribution = LossAttribution()
    baseline: Baseline
    slices: tuple[str, ...] = Field((), description="Features of the model whose values are watched as slices.")
    groups: dict[str, tuple[str, ...]] = Field({}, description="Names for sets of features, e.g. one upstream feed.")
    slice_search: SliceSearch = SliceSearch()
    fairness: Fairness | None = None
    expectations: tuple[Expected, ...] = Field((), description="What the model must, and must not, rely on.")
    budget: BudgetSection = BudgetSection()
    tolerances: Tolerances = Tolerances()
    calendar: Calendar = Calendar()
    mutes: tuple[Mute, ...] = ()
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

    @model_validator(mode="after")
    def _fairness_is_of_a_classifier(self) -> Self:
        if self.fairness is not None and self.model.task != "binary":
            raise ValueError(f"fairness: rates need model.task binary, it is {self.model.task}; leave the section out")
        return self

    @model_validator(mode="after")
    def _space_is_of_a_classifier(self) -> Self:
        if self.explainer.space == "probability" and self.model.task == "regression":
            raise ValueError(
                "explainer.space: a regression predicts no probability, its attributions add up to its prediction;"
                " leave it out"
            )
        return self

    @model_validator(mode="after")
    def _loss_is_of_the_task(self) -> Self:
        if not self.loss_attribution.fits(self.model.task):
            raise ValueError(f"loss_attribution.loss: {self.loss_attribution.loss} is not a loss of {self.model.task}")
        return self

    @model_validator(mode="after")
    def _predictions_fit_the_task(self) -> Self:
        columns, classes = self.inference_log.columns.prediction, self.model.classes
        if isinstance(columns, str):
            if classes and self.inference_log.format == "csv":
                raise ValueError(
                    "inference_log.columns.prediction: CSV has no lists; name a column for each of model.classes"
                )
            return self
        if not classes:
            raise ValueError(f"inference_log.columns.prediction: a {self.model.task} model has one column")
        if len(columns) != len(classes):
            raise ValueError(
                f"inference_log.columns.prediction: {len(columns)} columns for {len(classes)} classes; name one for"
                " each of model.classes, in their order"
            )
        return self

    @model_validator(mode="after")
    def _executors_have_one_environment(self) -> Self:
        if self.engine == "spark" and self.explainer.environment == "model":
            raise ValueError(
                "engine: Spark's executors explain in their own environment; give them the model's libraries, and set"
                " explainer.environment to inherit"
            )
        return self

    @model_validator(mode="after")
    def _multiclass_goes_without(self) -> Self:
        """What is of one output alone; each class is watched as its own model against the rest."""
        if self.model.task != "multiclass":
            return self
        audit = self.labels is not None and self.labels.columns.audit is not None
        asked = {
            "slice_search": "slice_search" in self.model_fields_set,
            "expectations": bool(self.expectations),
            "labels.columns.audit": audit,
        }
        for section, there in asked.items():
            if there:
                raise ValueError(f"{section}: not supported for model.task multiclass yet; leave it out")
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

    @property
    def label_horizon(self) -> int:
        """Windows between a prediction's and the one by which no more labels are expected."""
        if self.labels is None:
            return 0
        return -(-(self.labels.complete_after or 2 * self.labels.mature_after) // self.window.every)

    def windows_in(self, allowance: Allowance) -> float:
        """Windows to one accepted false alarm: the e-detector's threshold (the budget lemma)."""
        return (allowance.per / self.window.every) / allowance.false_alarms

    def digest(self) -> str:
        """sha256 of the normalised content; folders and engine do not count: it is the same on every machine."""
        content = self.model_dump(mode="json", exclude={"store", "outputs", "mlflow", "job", "engine"})
        if self.explainer.rows == "auto":
            del content["explainer"]["rows"]
        if not self.model.classes:  # so that the digests of other tasks are what they always were
            del content["model"]["classes"]
        content["mutes"] = [{k: v for k, v in m.items() if k != "class_name" or v} for m in content["mutes"]]
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
    if wrong := list(mistakes(config.expectations, config.groups, config.slices)):
        lines = [f"{path}:{_line(root, where)}: {_dotted(where)}: {text}" for where, text in wrong]
        raise ConfigError("\n".join(lines))
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
