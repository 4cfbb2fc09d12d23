"""Stage `gate`: candidate against champion on the same rows, before promotion. It never moves an alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.comparison import Comparison, Margins, PairedWindow, Side, compare
from whydrift.monitors.streams import losses, score_mesh
from whydrift.monitors.summary import Outcomes, summarise_outcomes
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.explainers.protocol import Explainer
from whydrift.pipelines.job import Job
from whydrift.pipelines.progress import progress
from whydrift.pipelines.rows import LogReader, Summariser, make_explainer
from whydrift.pipelines.sources.table import read_labels
from whydrift.pipelines.window import Window

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateResult:
    """Who was compared, over which windows, and how it came out."""

    model: str
    champion: str
    candidate: str
    start: str
    end: str
    comparison: Comparison

    @property
    def passed(self) -> bool | None:
        return self.comparison.passed


def gate(job: Job, candidate: str, windows: Sequence[Window]) -> GateResult:
    """Compare the candidate, by alias or version, with the job's champion.

    Raises:
        ConfigError: the candidate is the champion, or there are no labels to judge by.
    """
    config = job.config
    if config.labels is None:
        raise ConfigError("the gate compares losses and calibration: it needs the labels section of the configuration")
    version = job.registry.resolve(config.model.name, candidate)
    if version.version == job.version.version:
        raise ConfigError(f"the candidate {candidate} is version {version.version}, which is the champion itself")
    model = job.registry.load(version)
    explainer = make_explainer(config, model, job.baseline.background[list(model.features)])
    champion = job.summariser
    both = LogReader(config, job.version, {**model.features, **champion.log.features})
    paired = [
        _pair(config, champion, explainer, list(model.features), both, window)
        for window in progress(windows, "comparing")
    ]
    g = config.gate
    margins = Margins(
        min_share_cosine=g.min_share_cosine,
        max_brier_increase=g.max_brier_increase,
        max_smece_increase=g.max_smece_increase,
        max_slice_loss_ratio=g.max_slice_loss_ratio,
        confidence=g.confidence,
        min_windows=g.min_windows,
        min_slice_rows=g.min_slice_rows,
    )
    return GateResult(
        model=version.name,
        champion=job.version.version,
        candidate=version.version,
        start=windows[0].start.isoformat(),
        end=windows[-1].end.isoformat(),
        comparison=compare(paired, margins, binary=config.model.task == "binary"),
    )


def _pair(
    config: Config, champion: Summariser, explainer: Explainer, features: list[str], log: LogReader, window: Window
) -> PairedWindow:
    records = log.read(window).frame
    names = champion.layout.names
    sides = []
    frames = []
    for one, columns in ((champion.explainer, list(champion.log.features)), (explainer, features)):
        explanation = one.explain(records[columns])
        prediction = 1 / (1 + np.exp(-explanation.output)) if one.link == "logit" else explanation.output
        outcomes = _outcomes(config, champion, records, prediction, window)
        loss = losses(outcomes)
        sizes = dict(zip(columns, np.abs(explanation.values).sum(axis=0), strict=True))
        everything = [*names, *(c for c in features if c not in names)]
        sides.append(
            Side(
                absolute=np.array([sizes.get(name, 0.0) for name in everything]),
                mesh=score_mesh(outcomes) if config.model.task == "binary" else None,
                loss=_sums(outcomes, "loss"),
            )
        )
        frames.append((outcomes, loss))
    outcomes, loss = frames[0]
    return PairedWindow(sides[0], sides[1], _sums(outcomes, "weight"), {name: one.rows for name, one in loss.items()})


def _outcomes(
    config: Config, champion: Summariser, records: pd.DataFrame, prediction: FloatArray, window: Window
) -> pd.DataFrame:
    """Frame of the outcome summary of one model's predictions, with labels that were mature in their time."""
    if config.labels is None:
        raise ConfigError("the gate needs labels")
    due = window.end + config.label_lag * config.window.every
    labels = read_labels(config.labels, window.start, due).frame[["event_id", "label"]]
    joined = records.assign(prediction=prediction).merge(labels, on="event_id", how="inner")
    batch = Outcomes(
        features=joined[list(champion.log.features)],
        prediction=joined["prediction"].to_numpy(np.float64),
        weight=joined["weight"].to_numpy(np.float64),
        label=joined["label"].to_numpy(np.float64),
    )
    return summarise_outcomes(batch, champion.layout).frame()


def _sums(outcomes: pd.DataFrame, stat: str) -> dict[str, float]:
    block = outcomes[(outcomes["block"] == "loss") & (outcomes["stat"] == stat)]
    return {str(name): float(value) for name, value in zip(block["slice"], block["value"], strict=True)}
