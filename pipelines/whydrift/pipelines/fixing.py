"""What a baseline fixes before a row is counted: units, cells, and the golden rows with their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from whydrift.monitors.binning import FeatureBins, fit_attribution_bins, fit_bins
from whydrift.monitors.fairness import fit_fairness
from whydrift.monitors.golden import Golden
from whydrift.monitors.groups import find_groups
from whydrift.monitors.summary import ClassCells, Layout
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.explainers.protocol import Explainer, FloatArray
from whydrift.pipelines.registry import LoadedModel

_ATTRIBUTION = "attribution:"
_OUTPUT = "output:"


def fit_layout(
    config: Config, model: LoadedModel, explainer: Explainer, few: pd.DataFrame, many: pd.DataFrame, frame: pd.DataFrame
) -> Layout:
    """The layout from the reference period's rows.

    Args:
        config: of the monitored model.
        model: the deployed one.
        explainer: in use.
        few: rows that show the output's scale and the range of each attribution.
        many: rows that show which features move together.
        frame: all rows.

    Raises:
        ConfigError: the configuration names what is no feature of the model, or groups that cannot be compared.
    """
    _refuse_strangers(config, model)
    sample = explainer.explain(few[list(model.features)])
    scale = float(2.0 ** np.round(np.log2(float(sample.output.std()) or 1.0)))
    values = np.where(np.isfinite(sample.values), sample.values, np.nan) / scale  # rows that cannot be explained
    regression, classes = config.model.task == "regression", config.model.classes

    def cells(own: FloatArray) -> tuple[FeatureBins, ...]:
        return tuple(map(fit_attribution_bins, model.features, own.T))

    layout = Layout(
        task=config.model.task,
        link=explainer.link,
        scale=scale,
        loss_scale=scale if regression else 1.0,
        features=tuple(fit_bins(name, frame[name]) for name in model.features),
        attributions=() if classes else cells(values),
        slices=tuple(config.slices),
        groups=find_groups(config.groups, many[list(model.features)]),
        predictions=fit_bins("prediction", pd.Series(sample.output)) if regression else None,
        prediction_tolerance=config.inference_log.prediction_tolerance,
        classes=tuple(ClassCells(name, cells(values[:, number])) for number, name in enumerate(classes)),
    )
    fairness = config.fairness
    if fairness is None:
        return layout
    try:
        return fit_fairness(frame, layout, fairness.columns, fairness.threshold, fairness.reference)
    except ValueError as error:
        raise ConfigError(f"fairness: {error}") from error


def _refuse_strangers(config: Config, model: LoadedModel) -> None:
    named = {
        "slices": config.slices,
        "groups": [member for members in config.groups.values() for member in members],
        "slice_search.columns": () if config.slice_search.columns == "auto" else config.slice_search.columns,
        "fairness.columns": config.fairness.columns if config.fairness is not None else (),
        "expectations": [feature for item in config.expectations for _, feature in item.features()],
    }
    for where, columns in named.items():
        if strangers := sorted(set(columns) - set(model.features)):
            known = ", ".join(model.features)
            raise ConfigError(f"{where}: {strangers[0]!r} is no feature of the model; it has {known}")


def explain_golden(golden: pd.DataFrame, explainer: Explainer) -> pd.DataFrame:
    """Rows of features with what they are answered and why, one column a number; `read_golden` reads them back."""
    explanation = explainer.explain(golden)
    heads = explanation.output.shape[1:]
    columns = {}
    for head in np.ndindex(heads):
        for j, name in enumerate(golden.columns):
            columns[f"{_ATTRIBUTION}{_mark(head)}{name}"] = explanation.values[(slice(None), *head, j)]
    for head in np.ndindex(heads):
        columns[f"{_OUTPUT}{_mark(head)}"] = explanation.output[(slice(None), *head)]
    return golden.assign(**columns)


def read_golden(path: Path, layout: Layout) -> Golden:
    """The rows of a file that holds what `explain_golden` gave."""
    frame, names = pq.read_table(path).to_pandas(), list(layout.names)
    heads = list(np.ndindex((len(layout.classes),) if layout.classes else ()))
    values = [frame[[f"{_ATTRIBUTION}{_mark(head)}{name}" for name in names]].to_numpy(np.float64) for head in heads]
    output = [frame[f"{_OUTPUT}{_mark(head)}"].to_numpy(np.float64) for head in heads]
    if not layout.classes:
        return Golden(frame[names], values[0], output[0])
    return Golden(frame[names], np.stack(values, axis=1), np.stack(output, axis=1))


def _mark(head: tuple[int, ...]) -> str:
    """What tells the columns of a class from those of others."""
    return "".join(f"{number}:" for number in head)
