"""The sums over explained rows: attributions, their groups and totals, and the explanations' quality."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from whydrift.monitors.binning import assign
from whydrift.monitors.summary import (
    Explained,
    Layout,
    Logged,
    WindowSummary,
    chunks,
    collect,
    merge,
    summarise_logged,
)
from whydrift.monitors.summary_terms import Rows, held, ones_where, term

FloatArray = npt.NDArray[np.float64]

ADDITIVITY_TOLERANCE = 1e-3  # of the output's scale


def summarise(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce rows that are all explained: what the log says of them, and why the model answered so."""
    logged = Logged(batch.features, batch.prediction, batch.weight)
    return merge([summarise_logged(logged, layout), summarise_explained(batch, layout)])


def summarise_explained(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce attributions; where not all rows are explained, the weights are to stand for the others."""
    return merge(collect(_explained_terms(part, layout)) for part in chunks(batch))


def _explained_terms(batch: Explained, layout: Layout) -> Iterator[Rows]:
    w = held(batch.weight, 1.0)
    z = held(batch.values, layout.scale)
    total = np.zeros_like(w)
    for j in range(z.shape[1]):  # by column: a sum along rows could depend on the memory layout
        total += np.abs(z[:, j])
    for j, (bins, own) in enumerate(zip(layout.features, layout.attributions, strict=True)):
        cells = assign(bins, batch.features[bins.name])
        phi = np.ascontiguousarray(z[:, j])
        yield term("attribution", "weight", w, name=bins.name, cells=cells)
        for stat, terms in _attribution_terms(w, phi, total):
            yield term("attribution", stat, terms, name=bins.name, cells=cells)
        yield term("phi", "weight", w, name=bins.name, cells=assign(own, pd.Series(phi)))
    for group in layout.groups:
        phi = np.zeros_like(w)
        for member in group.members:
            phi += z[:, layout.names.index(member)]
        for stat, terms in _attribution_terms(w, phi, total):
            yield term("group", stat, terms, name=group.name)
    output = held(batch.output, layout.scale)
    base = held(np.full_like(w, batch.base), layout.scale)
    for stat, terms in {
        "absolute2": total * total,
        "output": output,
        "output2": output * output,
    }.items():
        yield term("total", stat, w * terms)
    yield term("total", "weight", w)
    yield term("total", "weight2", w * w)
    yield term("total", "base", w * base)
    yield from _quality_terms(batch, z, output, base, layout)


def _attribution_terms(w: FloatArray, phi: FloatArray, total: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """The sums from which means, shares and their variances are taken; all (n,)."""
    size = np.abs(phi)
    yield "value", w * phi
    yield "square", w * phi * phi
    yield "absolute", w * size
    yield "cross", w * size * total


def _quality_terms(
    batch: Explained, z: FloatArray, output: FloatArray, base: FloatArray, layout: Layout
) -> Iterator[Rows]:
    explained = base.copy()
    for j in range(z.shape[1]):
        explained += z[:, j]
    if layout.link == "logit":
        difference = np.abs(expit(batch.output) - batch.prediction)
    elif layout.task == "binary":
        difference = np.abs(batch.output - batch.prediction)
    else:
        difference = np.abs(output - held(batch.prediction, layout.scale))
    yield term("quality", "explained", np.ones_like(output))
    residual = np.abs(explained - output)
    yield term("quality", "not_additive", ones_where(residual > ADDITIVITY_TOLERANCE))
    w = held(batch.weight, 1.0)
    yield term("quality", "residual", w * residual)
    yield term("quality", "residual2", w * residual * residual)
    yield term("quality", "prediction_differs", ones_where(difference > layout.prediction_tolerance))
    if batch.error is not None:
        for j, name in enumerate(layout.names):
            error = held(np.ascontiguousarray(batch.error[:, j]), layout.scale)
            yield term("quality", "error2", w * error * error, name=name)
