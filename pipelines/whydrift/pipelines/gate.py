"""Stage `gate`: candidate against champion on the same rows, before promotion. It never moves an alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from whydrift.monitors.calibration import ScoreMesh
from whydrift.monitors.class_sums import top_mesh
from whydrift.monitors.comparison import Comparison, Contracts, Margins, PairedWindow, Side, compare
from whydrift.monitors.contract_sums import Sums, read_sums
from whydrift.monitors.expectations import summarise_contracts
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.outcome_streams import losses, score_mesh
from whydrift.monitors.summary import Explained, Layout, WindowSummary, merge
from whydrift.pipelines.errors import ConfigError, ModelError
from whydrift.pipelines.explainers.protocol import Explainer, Explanation, answers
from whydrift.pipelines.job import Job
from whydrift.pipelines.progress import progress
from whydrift.pipelines.rows import LogReader, Summariser, load_model, make_explainer
from whydrift.pipelines.sources.records import Records, with_predictions
from whydrift.pipelines.window import Window


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
        ModelError: the candidate takes columns that the champion does not.
    """
    config = job.config
    if config.labels is None:
        raise ConfigError("the gate compares losses and calibration: it needs the labels section of the configuration")
    version = job.registry.resolve(config.model.name, candidate)
    if version.version == job.version.version:
        raise ConfigError(f"the candidate {candidate} is version {version.version}, which is the champion itself")
    model = load_model(config, job.registry, version)
    strangers = set(model.features) - set(job.baseline.background.columns)
    if strangers:
        raise ModelError(
            f"{version.uri} takes {min(strangers)!r}, which the champion does not: there are no baseline rows of it to"
            " explain against; log the column, promote with a new baseline, and compare from then on"
        )
    explainer = make_explainer(config, model, job.baseline.background[list(model.features)], job.baseline.usual_rows)
    champion = replace(job.summariser, losses=None)  # the gate compares losses and does not explain them
    both = LogReader(config, job.version, {**model.features, **champion.log.features})
    paired = [
        _pair(champion, explainer, list(model.features), both, window) for window in progress(windows, "comparing")
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
        comparison=compare(
            paired,
            margins,
            classifier=config.model.task != "regression",
            contracts=Contracts(champion.expected, champion.layout),
        ),
    )


def _pair(
    champion: Summariser, explainer: Explainer, features: list[str], log: LogReader, window: Window
) -> PairedWindow:
    records = log.read(window)
    everything = list(dict.fromkeys([*champion.layout.names, *features]))
    sides = []
    for one, columns in ((champion.explainer, list(champion.log.features)), (explainer, features)):
        explanation = one.explain(records.frame[columns])
        answer = answers(explanation.output, one.link)
        answered = with_predictions(records.frame, answer, champion.classes)
        outcomes = (champion.outcomes(window, Records(answered, {})) or WindowSummary.zero()).frame()
        sizes = dict(zip(columns, np.moveaxis(np.abs(explanation.values).sum(axis=0), -1, 0), strict=True))
        nothing = np.zeros(len(champion.classes) or ())
        sides.append(
            Side(
                absolute=np.array([sizes.get(name, nothing) for name in everything]).ravel(),
                mesh=_mesh(outcomes, champion.layout),
                loss=_sums(outcomes, "loss"),
            )
        )
    # Weights and rows are the same on both sides: the labels are those of the rows.
    rows = {name: one.rows for name, one in losses(outcomes).items()}
    reasons = _reasons(champion, explanation, columns, answered)
    return PairedWindow(sides[0], sides[1], _sums(outcomes, "weight"), rows, reasons)


def _mesh(outcomes: pd.DataFrame, layout: Layout) -> ScoreMesh | None:
    """Of a classifier; of several classes that of the likeliest."""
    if layout.task == "regression":
        return None
    return top_mesh(outcomes) if layout.classes else score_mesh(outcomes)


def _reasons(
    champion: Summariser, explanation: Explanation, columns: list[str], answered: pd.DataFrame
) -> dict[str | None, Sums]:
    """The candidate's sums, where anything is expected of them; what it does not take it does not rely on."""
    layout, expected = champion.layout, champion.expected
    if not expected:
        return {}
    values = np.zeros((len(answered), len(layout.names)))
    values[:, [layout.names.index(name) for name in columns]] = explanation.values
    batch = Explained(
        features=answered[list(layout.names)],
        prediction=answered["prediction"].to_numpy(np.float64),
        weight=answered["weight"].to_numpy(np.float64),
        values=values,
        output=explanation.output,
        base=explanation.base,
    )
    frame = merge([summarise(batch, layout), summarise_contracts(batch, layout, expected)]).frame()
    found = {name: read_sums(frame, layout, name) for name in {e.slice for e in expected}}
    return {name: sums for name, sums in found.items() if sums is not None}


def _sums(outcomes: pd.DataFrame, stat: str) -> dict[str, float]:
    block = outcomes[(outcomes["block"] == "loss") & (outcomes["stat"] == stat)]
    return {str(name): float(value) for name, value in zip(block["slice"], block["value"], strict=True)}
