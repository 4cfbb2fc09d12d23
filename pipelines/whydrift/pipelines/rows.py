"""The only part that touches rows: read a window, explain it, reduce it, forget it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.class_sums import (
    summarise_class_outcomes,
    summarise_explained_classes,
    summarise_logged_classes,
)
from whydrift.monitors.conformal import fit_residual_edges
from whydrift.monitors.expectations import Expectation, summarise_contracts
from whydrift.monitors.explained_sums import summarise_explained
from whydrift.monitors.golden import Golden, compare
from whydrift.monitors.sampling import draw
from whydrift.monitors.summary import (
    Explained,
    Layout,
    Logged,
    Outcomes,
    WindowSummary,
    count_digests,
    count_set_aside,
    merge,
    outcome_columns,
    summarise_logged,
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
from whydrift.pipelines.explainers.prediction import Predict, predictor
from whydrift.pipelines.explainers.process import Worker
from whydrift.pipelines.explainers.protocol import Explainer, FloatArray, answers
from whydrift.pipelines.explainers.second import second_opinion
from whydrift.pipelines.registry import LoadedModel, ModelVersion, Registry
from whydrift.pipelines.sources.records import (
    FeatureKind,
    FileSource,
    Records,
    batch_rows,
    cut,
    gather,
    prediction_columns,
    read_predictions,
    with_predictions,
)
from whydrift.pipelines.sources.table import ReadLabels, TableSource, read_labels
from whydrift.pipelines.window import Window

_AT_ONCE = 16  # partial summaries that are merged at once

SOURCES = {"table": TableSource}


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads the windows of one model version's inference log."""

    config: Config
    version: ModelVersion
    features: Mapping[str, FeatureKind]

    def batches(self, window: Window) -> Iterator[Records]:
        """The window's records, batch after batch."""
        return self.source.batches(window, self.features)

    def read(self, window: Window) -> Records:
        """The window's records."""
        return gather(self.batches(window))

    @property
    def source(self) -> FileSource:
        log = self.config.inference_log
        return SOURCES[log.kind](log, model=self.config.model, version=self.version.version)


@dataclass(frozen=True)
class Summariser:
    """Reduces records against a baseline's layout, explained by the deployed model's explainer.

    `golden` are the rows that the baseline keeps with their answers; None while it is being made. `losses` explains
    the losses of labelled rows; None where nobody asks for that. `predictor` gives the model's own predictions where
    they are asked for without explanations. `held` gives labels that were read before; None where each window reads its
    own.
    """

    log: LogReader
    explainer: Explainer
    layout: Layout
    model_digest: str
    golden: Golden | None = None
    losses: LossExplainer | None = None
    predictor: Predict | None = None
    held: ReadLabels | None = None

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

    def summarise(self, records: Iterable[Records]) -> WindowSummary:
        """Explain and reduce the batches, with what was set aside and who explained, in constant memory.

        Some of a window's records give a part of its summary: the parts merge to the whole.
        """
        aside = Counter[str]()

        def frames() -> Iterator[pd.DataFrame]:
            for batch in records:
                aside.update(batch.set_aside)
                yield batch.frame

        return merge([_merge_all(self.reduce(frames())), count_set_aside(aside)])

    def reduce(self, frames: Iterable[pd.DataFrame]) -> Iterator[WindowSummary]:
        """Partial summaries of checked rows: all are counted, and those that are drawn are explained."""
        digests = {"model": self.model_digest, "explainer": explainer_digest(self.explainer)}
        drawn, waiting = list[_Drawn](), 0
        for frame in (part for whole in frames for part in cut(whole)):
            yield count_digests(digests, len(frame))
            chance = draw(self.layout, frame)
            if (chance == 0).any():
                yield self.reduce_logged(frame[chance == 0])
            drawn.append(_Drawn(frame[chance > 0], chance[chance > 0]))
            waiting += len(drawn[-1].frame)
            # An explainer is at its best with as many rows at once as memory allows.
            if waiting >= batch_rows(frame.shape[1]):
                yield from self._explain(drawn)
                drawn, waiting = [], 0
        if waiting:
            yield from self._explain(drawn)

    def _explain(self, drawn: Sequence[_Drawn]) -> Iterator[WindowSummary]:
        together = pd.concat([part.frame for part in drawn], ignore_index=True)
        chances = np.concatenate([part.chance for part in drawn])
        for frame in cut(together):
            chance, chances = np.split(chances, [len(frame)])
            features = frame[list(self.log.features)]
            explanation = self.explainer.explain(features)
            finite = _finite(explanation.values) & _finite(explanation.output)
            if not finite.all():
                yield count_set_aside({"not_explainable": int((~finite).sum())})
            yield self.reduce_logged(frame[finite])
            yield from self._reduce(
                Explained(
                    features=features[finite],
                    prediction=read_predictions(frame, self.classes)[finite],
                    weight=(frame["weight"].to_numpy(np.float64) / chance)[finite],
                    values=explanation.values[finite],
                    output=explanation.output[finite],
                    base=explanation.base,
                    error=None if explanation.error is None else explanation.error[finite],
                )
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a multiclass model."""
        return self.log.config.model.classes

    def reduce_logged(self, frame: pd.DataFrame) -> WindowSummary:
        """The summary of what the log says of checked rows."""
        logged = Logged(
            features=frame[list(self.log.features)],
            prediction=read_predictions(frame, self.classes),
            weight=frame["weight"].to_numpy(np.float64),
        )
        return (summarise_logged_classes if self.layout.classes else summarise_logged)(logged, self.layout)

    def _reduce(self, explained: Explained) -> list[WindowSummary]:
        if self.layout.classes:
            return [summarise_explained_classes(explained, self.layout)]
        return [summarise_explained(explained, self.layout), summarise_contracts(explained, self.layout, self.expected)]

    def reduce_outcomes(self, batch: Outcomes) -> WindowSummary:
        """The summary of labelled rows."""
        outcomes = (summarise_class_outcomes if self.layout.classes else summarise_outcomes)(batch, self.layout)
        return outcomes if self.losses is None else merge([outcomes, explain_losses(self.losses, batch, self.layout)])

    def answer(self, records: Records) -> Records:
        """The records with the model's own predictions in place of the logged ones."""
        own = [self.predict(part[list(self.log.features)]) for part in cut(records.frame)]
        if not own:
            return records
        return Records(with_predictions(records.frame, np.concatenate(own), self.classes), records.set_aside)

    def predict(self, features: pd.DataFrame) -> FloatArray:
        """What the model answers, (n,) or (n, C)."""
        if self.predictor is not None:
            return self.predictor(features)
        return answers(self.explainer.explain(features).output, self.explainer.link)

    def outcomes(self, cohort: Window, records: Records | None = None) -> WindowSummary | None:
        """The summary of the cohort's `matured` rows; None where the model has no labels."""
        batch = self.matured(cohort, records)
        return None if batch is None else self.reduce_outcomes(batch)

    def matured(self, cohort: Window, records: Records | None = None) -> Outcomes | None:
        """The cohort's rows whose labels came within their time to mature; None where the model has none.

        The cohort's records are read from the log unless they are given; then only those of the features are kept
        that the layout sorts outcomes by, unless losses are explained. Whenever this runs, the answer is the same:
        labels that came later do not count.
        """
        config = self.log.config
        if self.labels is None:
            return None
        due = cohort.end + config.label_lag * config.window.every
        arrived = self.labels(cohort.start, due).frame[["event_id", "label"]]
        kept = ["event_id", *prediction_columns(self.classes), "weight", "label"]
        whole = records is not None or self.losses is not None
        kept += self.log.features if whole else outcome_columns(self.layout)
        batches = self.log.batches(cohort) if records is None else [records]
        parts = [pd.DataFrame(columns=kept)]
        try:
            parts += [batch.frame.merge(arrived, on="event_id", how="inner")[kept] for batch in batches]
        except SchemaError:  # the cohort's own window has said so; this one is to be judged all the same
            parts = parts[:1]
        joined = pd.concat([part for part in parts if len(part)] or parts[-1:], ignore_index=True)
        return Outcomes(
            features=joined[kept[kept.index("label") + 1 :]],
            prediction=read_predictions(joined, self.classes),
            weight=joined["weight"].to_numpy(np.float64),
            label=joined["label"].to_numpy(np.float64),
            event_id=joined["event_id"].to_numpy(object),
        )

    @property
    def labels(self) -> ReadLabels | None:
        """What reads the labels that came in an interval of time; None where the model has none."""
        configured = self.log.config.labels
        if configured is None or self.held is not None:
            return self.held
        return partial(read_labels, configured, classes=self.classes)

    def stray_labels(self, window: Window, asked: pd.DataFrame) -> WindowSummary:
        """Counts of labels that arrived in the window and fit no record `asked` in the time that they can belong to."""
        if self.labels is None:
            return WindowSummary.zero()
        arrived = self.labels(window.start, window.end)
        strays = int((~arrived.frame["event_id"].isin(set(asked["event_id"]))).sum())
        counts = Counter(arrived.set_aside)
        if strays:
            counts["label_without_record"] = strays
        return count_set_aside(counts)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rows that are to be explained, and the chance that each had, (n,)."""

    frame: pd.DataFrame
    chance: FloatArray


def _merge_all(parts: Iterable[WindowSummary]) -> WindowSummary:
    """The sum of summaries that come one after the other, of which few are held at once."""
    held: list[WindowSummary] = []
    for part in parts:
        held.append(part)
        if len(held) == _AT_ONCE:
            held = [merge(held)]
    return merge(held)


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


def make_explainer(config: Config, model: LoadedModel, background: pd.DataFrame, rows: int) -> Explainer:
    """The explainer that the configuration asks for; `rows` are those of a usual window, which the baseline fixes."""
    make = model.native.choose if isinstance(model.native, Worker) else partial(choose, model.native)
    return make(
        method=config.explainer.method,
        task=config.model.task,
        background=background,
        features=list(model.features),
        classes=config.model.classes,
        perturbation=config.explainer.perturbation,
        rows=rows,
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


def make_predictor(config: Config, model: LoadedModel, background: pd.DataFrame) -> Predict | None:
    """A function from frames of features to the model's predictions; None where the model is in another process."""
    if isinstance(model.native, Worker):
        return None
    native = getattr(model.native, "best_estimator_", model.native)
    columns = Columns.of(background, list(model.features))
    answer = predictor(native, config.model.task, columns, background, config.model.classes)
    return lambda frame: answer(columns.frame(frame))


def explainer_digest(explainer: Explainer) -> str:
    """sha256 of all that changes an explainer's numbers."""
    content = json.dumps([explainer.name, explainer.link, dict(explainer.parameters)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
