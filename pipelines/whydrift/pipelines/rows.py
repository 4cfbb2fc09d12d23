"""The only part that touches rows: read a window, explain it, reduce it, forget it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.class_sums import summarise_class_outcomes, summarise_classes
from whydrift.monitors.conformal import fit_residual_edges
from whydrift.monitors.expectations import Expectation, summarise_contracts
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.golden import Golden, compare
from whydrift.monitors.summary import (
    Explained,
    Layout,
    Outcomes,
    WindowSummary,
    count_digests,
    count_set_aside,
    merge,
    summarise_outcomes,
)
from whydrift.pipelines.config import Config
from whydrift.pipelines.contracts import expectations
from whydrift.pipelines.environments import interpreter
from whydrift.pipelines.errors import SchemaError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.loss_attribution import LossExplainer, explain_losses, fit_sampling
from whydrift.pipelines.explainers.losses import find_loss, try_loss
from whydrift.pipelines.explainers.prediction import predictor
from whydrift.pipelines.explainers.process import Worker
from whydrift.pipelines.explainers.protocol import Explainer, FloatArray, answers
from whydrift.pipelines.explainers.second import second_opinion
from whydrift.pipelines.progress import progress
from whydrift.pipelines.registry import LoadedModel, ModelVersion, Registry
from whydrift.pipelines.sources.records import (
    FeatureKind,
    FileSource,
    Records,
    prediction_columns,
    read_predictions,
    with_predictions,
)
from whydrift.pipelines.sources.table import TableSource, read_labels
from whydrift.pipelines.window import Window

BATCH = 65_536  # rows explained at once: bounds memory; a row's attributions do not depend on its batch

SOURCES = {"table": TableSource}


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads the windows of one model version's inference log."""

    config: Config
    version: ModelVersion
    features: Mapping[str, FeatureKind]

    def read(self, window: Window) -> Records:
        """The window's records."""
        return self.source.read(window, self.features)

    @property
    def source(self) -> FileSource:
        log = self.config.inference_log
        return SOURCES[log.kind](log, model=self.config.model, version=self.version.version)


@dataclass(frozen=True)
class Summariser:
    """Reduces records against a baseline's layout, explained by the deployed model's explainer.

    `golden` are the rows that the baseline keeps with their answers; None while it is being made. `losses` explains
    the losses of labelled rows; None where nobody asks for that.
    """

    log: LogReader
    explainer: Explainer
    layout: Layout
    model_digest: str
    golden: Golden | None = None
    losses: LossExplainer | None = None

    @cached_property
    def replayed(self) -> WindowSummary:
        """How the golden rows are answered now; asked once, because model and explainer live as long as this does."""
        if self.golden is None:
            return WindowSummary.zero()
        now = self.explainer.explain(self.golden.features)
        return compare(self.golden, now.values, now.output, scale=self.layout.scale, error=now.error)

    @cached_property
    def expected(self) -> tuple[Expectation, ...]:
        """What the owner expects of the model's reasons; raises ConfigError if the layout does not have it."""
        return expectations(self.log.config.expectations, self.layout)

    def summarise(self, records: Records) -> WindowSummary:
        """Explain the records and reduce them, with what was set aside and who explained.

        Records of a part of a window, with all their repeats, give a part of its summary: the parts merge to the whole.
        """
        parts = [count_set_aside(records.set_aside)]
        starts = range(0, len(records.frame), BATCH)
        for start in progress(starts, f"explaining {len(records.frame):,} rows"):
            batch = records.frame.iloc[start : start + BATCH]
            features = batch[list(self.log.features)]
            explanation = self.explainer.explain(features)
            finite = _finite(explanation.values) & _finite(explanation.output)
            if not finite.all():
                parts.append(count_set_aside({"not_explainable": int((~finite).sum())}))
            explained = Explained(
                features=features[finite],
                prediction=read_predictions(batch, self.classes)[finite],
                weight=batch["weight"].to_numpy(np.float64)[finite],
                values=explanation.values[finite],
                output=explanation.output[finite],
                base=explanation.base,
                error=None if explanation.error is None else explanation.error[finite],
            )
            parts += self._reduce(explained)
        digests = {"model": self.model_digest, "explainer": explainer_digest(self.explainer)}
        return merge([*parts, count_digests(digests, len(records.frame))])

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a multiclass model."""
        return self.log.config.model.classes

    def _reduce(self, explained: Explained) -> list[WindowSummary]:
        if self.layout.classes:
            return [summarise_classes(explained, self.layout)]
        return [summarise(explained, self.layout), summarise_contracts(explained, self.layout, self.expected)]

    def reduce_outcomes(self, batch: Outcomes) -> WindowSummary:
        """The summary of labelled rows."""
        outcomes = (summarise_class_outcomes if self.layout.classes else summarise_outcomes)(batch, self.layout)
        return outcomes if self.losses is None else merge([outcomes, explain_losses(self.losses, batch, self.layout)])

    def answer(self, records: Records) -> Records:
        """The records with the model's own predictions in place of the logged ones."""
        frame = records.frame
        explanation = self.explainer.explain(frame[list(self.log.features)])
        answered = with_predictions(frame, answers(explanation.output, self.explainer.link), self.classes)
        return Records(answered, records.set_aside)

    def outcomes(self, cohort: Window, records: Records | None = None) -> WindowSummary | None:
        """The summary of the cohort's `matured` rows; None where the model has no labels."""
        batch = self.matured(cohort, records)
        return None if batch is None else self.reduce_outcomes(batch)

    def matured(self, cohort: Window, records: Records | None = None) -> Outcomes | None:
        """The cohort's rows whose labels came within their time to mature; None where the model has none.

        The cohort's records are read from the log unless they are given.
        Whenever this runs, the answer is the same: labels that came later do not count.
        """
        config = self.log.config
        labels = config.labels
        if labels is None:
            return None
        due = cohort.end + config.label_lag * config.window.every
        arrived = read_labels(labels, cohort.start, due, self.classes)
        try:
            records = records or self.log.read(cohort)
        except SchemaError:  # the cohort's own window has said so; this one is to be judged all the same
            columns = ["event_id", *prediction_columns(self.classes), "weight", *self.log.features]
            records = Records(pd.DataFrame(columns=columns), {})
        joined = records.frame.merge(arrived.frame[["event_id", "label"]], on="event_id", how="inner")
        return Outcomes(
            features=joined[list(self.log.features)],
            prediction=read_predictions(joined, self.classes),
            weight=joined["weight"].to_numpy(np.float64),
            label=joined["label"].to_numpy(np.float64),
            event_id=joined["event_id"].to_numpy(object),
        )

    def stray_labels(self, window: Window, asked: pd.DataFrame) -> WindowSummary:
        """Counts of labels that arrived in the window and fit no record `asked` in the time that they can belong to."""
        labels = self.log.config.labels
        if labels is None:
            return WindowSummary.zero()
        arrived = read_labels(labels, window.start, window.end, self.classes)
        strays = int((~arrived.frame["event_id"].isin(set(asked["event_id"]))).sum())
        counts = Counter(arrived.set_aside)
        if strays:
            counts["label_without_record"] = strays
        return count_set_aside(counts)


def learn_residuals(summariser: Summariser, cohorts: Iterable[tuple[Window, Records]]) -> Summariser:
    """The summariser with the quantiles of a regression's residuals over the cohorts; without labels as it is."""
    layout = summariser.layout
    if layout.task != "regression":
        return summariser
    batches = [batch for cohort, records in cohorts if (batch := summariser.matured(cohort, records)) is not None]
    if not batches:
        return summariser
    residuals = np.concatenate([batch.label - batch.prediction for batch in batches]) / layout.loss_scale
    edges = fit_residual_edges(residuals, np.concatenate([batch.weight for batch in batches]))
    return replace(summariser, layout=replace(layout, residual_edges=edges))


def learn_losses(summariser: Summariser, cohorts: Iterable[tuple[Window, Records]]) -> Summariser:
    """The summariser with the share of labelled rows whose losses are explained; as it is where none are to be."""
    if summariser.losses is None:
        return summariser
    asked = summariser.log.config.loss_attribution.rows
    batches = [batch for cohort, records in cohorts if (batch := summariser.matured(cohort, records)) is not None]
    sampling = fit_sampling(summariser.losses, batches, None if asked == "auto" else asked)
    return replace(summariser, layout=replace(summariser.layout, loss_attribution=sampling))


def _finite(values: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows have finite numbers only, (n,)."""
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def total_set_aside(records: Iterable[Records]) -> dict[str, int]:
    """Rows set aside over several windows, by reason."""
    return dict(sum((Counter(r.set_aside) for r in records), Counter[str]()))


def load_model(config: Config, registry: Registry, version: ModelVersion) -> LoadedModel:
    """The model, in this process or in a worker of the environment that it records, as the configuration asks for.

    Raises:
        ModelError: it cannot be loaded, or its environment cannot be made.
        ConfigError: the configuration asks for an environment, and there is no uv to make it.
        StoreError: MLflow, or the package index, cannot be reached.
    """
    if config.explainer.environment == "inherit":
        return registry.load(version)
    return registry.load(version, lambda folder: Worker(interpreter(folder), folder))


def make_explainer(config: Config, model: LoadedModel, background: pd.DataFrame) -> Explainer:
    """The explainer that the configuration asks for."""
    make = model.native.choose if isinstance(model.native, Worker) else partial(choose, model.native)
    return make(
        method=config.explainer.method,
        task=config.model.task,
        background=background,
        features=list(model.features),
        classes=config.model.classes,
        space=config.explainer.space,
    )


def make_second(config: Config, model: LoadedModel, first: Explainer, background: pd.DataFrame) -> Explainer:
    """Another explainer than the first, in the space of its link."""
    native = model.native
    make = native.second_opinion if isinstance(native, Worker) else partial(second_opinion, native)
    return make(
        first=first.name,
        task=config.model.task,
        link=first.link,
        background=background,
        features=list(model.features),
        classes=config.model.classes,
    )


def make_loss_explainer(config: Config, model: LoadedModel, background: pd.DataFrame) -> LossExplainer | None:
    """What explains the losses of labelled rows, if the configuration asks for it and the model is in this process.

    Raises:
        ConfigError: the loss is a function that cannot be imported, or not one number a row of that row alone.
    """
    if config.labels is None or config.loss_attribution.rows == 0 or isinstance(model.native, Worker):
        return None
    task, classes = config.model.task, config.model.classes
    columns = Columns.of(background, list(model.features))
    native = getattr(model.native, "best_estimator_", model.native)
    loss = find_loss(config.loss_attribution, task)
    explainer = LossExplainer.of(predictor(native, task, columns, background, classes), loss, columns, background)
    try_loss(loss, explainer.start, len(classes) if classes else 2 * (task == "binary"))
    return explainer


def explainer_digest(explainer: Explainer) -> str:
    """sha256 of all that changes an explainer's numbers."""
    content = json.dumps([explainer.name, explainer.link, dict(explainer.parameters)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
