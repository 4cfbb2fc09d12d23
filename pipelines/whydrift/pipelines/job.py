"""What every stage of one model's job needs, opened once a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

from whydrift.monitors.label_view import UsualLabels, fit_usual_labels
from whydrift.monitors.reference import Reference, refer
from whydrift.monitors.verdict import WindowKey
from whydrift.pipelines import baseline as baselines
from whydrift.pipelines.config import Config
from whydrift.pipelines.contracts import expectations
from whydrift.pipelines.distributing import ENGINES, Engine
from whydrift.pipelines.errors import ConfigError, NoDataError
from whydrift.pipelines.registry import ModelVersion, Registry
from whydrift.pipelines.rows import LogReader, Summariser, load_model, make_explainer, make_loss_explainer
from whydrift.pipelines.settings import settings
from whydrift.pipelines.store import Store
from whydrift.pipelines.window import Window, split


@dataclass(frozen=True)
class Job:
    """One monitored model. The alias is resolved when the job opens, and never again."""

    config: Config
    registry: Registry
    version: ModelVersion
    store: Store

    @classmethod
    def open(cls, config: Config) -> Job:
        """Raises ModelError or StoreError."""
        registry = Registry(config.mlflow.tracking_uri)
        version = registry.resolve(config.model.name, config.model.alias)
        return cls(config, registry, version, Store(config.store))

    @cached_property
    def baseline(self) -> baselines.Baseline:
        return baselines.load(self.config, self.registry, self.version)

    @cached_property
    def summariser(self) -> Summariser:
        model = load_model(self.config, self.registry, self.version)
        explainer = make_explainer(self.config, model, self.baseline.background, self.baseline.usual_rows)
        log = LogReader(self.config, self.version, model.features)
        losses = make_loss_explainer(self.config, model, self.baseline.background)
        return Summariser(log, explainer, self.baseline.layout, model.digest, self.baseline.golden, losses)

    @cached_property
    def engine(self) -> Engine:
        """Where a window's rows are read and explained; raises ConfigError where it is not installed."""
        return ENGINES[self.config.engine](self.summariser, self.registry, self.baseline)

    @cached_property
    def reference(self) -> Reference:
        made = self.baseline
        expected = expectations(self.config.expectations, made.layout)
        said = replace(settings(self.config, made.calibrated), expectations=expected)
        return refer(made.windows, made.layout, said, made.digests)

    @cached_property
    def usual_labels(self) -> UsualLabels:
        """What the baseline says of labels on their way."""
        made = self.baseline
        outcomes = [window.outcomes for window in made.windows if window.outcomes is not None]
        return fit_usual_labels(made.cells, outcomes, made.layout)

    def key(self, window: Window) -> WindowKey:
        """What the window's results are filed under."""
        return WindowKey(
            model=self.version.name,
            model_version=self.version.version,
            baseline_id=self.baseline.id,
            start=window.start,
            end=window.end,
        )


def refuse_unfit(config: Config, windows: Sequence[Window]) -> None:
    """Windows that production has not finished, or that the baseline was made of, are not judged.

    Raises:
        NoDataError: a window ends in the future.
        ConfigError: a window is none of the configured grid, or starts before the reference period's end.
    """
    for window in windows:
        if list(split(window.start, window.end, config.window.every)) != [window]:
            raise ConfigError(f"the window {window} is {window.width} wide; window.every is {config.window.every}")
        if window.end > datetime.now(UTC):
            raise NoDataError(f"the window {window} ends in the future; its log cannot be complete")
        if window.start < config.baseline.end:
            raise ConfigError(
                f"the window {window} starts before the reference period ends ({config.baseline.end:%FT%TZ});"
                " production windows come after it"
            )
