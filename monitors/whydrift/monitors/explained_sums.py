"""The sums over explained rows: attributions, their groups and totals, and the explanations' quality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from whydrift.monitors.row_sums import Head, reduce_rows
from whydrift.monitors.sum_arrays import STATS, ByRow, attribution_terms
from whydrift.monitors.summary import Explained, Layout, WindowSummary, collect, cut, inputs_of, logged_terms
from whydrift.monitors.summary_terms import Summand, Terms, Weight, count, held, ones_where

FloatArray = npt.NDArray[np.float64]

ADDITIVITY_TOLERANCE = 1e-3  # of the output's scale


def summarise(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce rows that are all explained: what the log says of them, and why the model answered so."""
    return _summarise(batch, layout, logged=True)


def summarise_explained(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce attributions; where not all rows are explained, the weights are to stand for the others."""
    return _summarise(batch, layout, logged=False)


def _summarise(batch: Explained, layout: Layout, *, logged: bool) -> WindowSummary:
    def terms(part: slice, weight: Weight, added: Sequence[ByRow]) -> Iterable[Summand]:
        rows = cut(batch, part)
        own = chain(explained_terms(rows, layout, weight.held, added[0]), _answer_terms(rows, layout, added[0]))
        return chain(logged_terms(rows, layout, weight.held), own) if logged else own

    return collect(reduce_rows(inputs_of(batch, layout), [head_of(batch, layout)], terms, logged=logged))


def head_of(batch: Explained, layout: Layout, mark: str = "") -> Head:
    """The attributions to one output, as `row_sums` takes them."""
    assert not isinstance(batch.base, tuple)
    groups = tuple(tuple(layout.names.index(member) for member in group.members) for group in layout.groups)
    return Head(batch.values, batch.base, layout.attributions, layout.scale, groups, mark)


def explained_terms(batch: Explained, layout: Layout, w: FloatArray, added: ByRow, mark: str = "") -> Iterator[Summand]:
    """The sums that are not by feature, of one output, whose blocks' names end with `mark`."""
    for group, phi in zip(layout.groups, added.grouped, strict=True):
        for stat, terms in zip(STATS, attribution_terms(w, phi, added.total), strict=True):
            yield Terms(f"group{mark}", stat, terms, name=group.name)
    output = held(batch.output, layout.scale)
    base = held(np.full_like(w, batch.base), layout.scale)
    for stat, terms in {
        "weight": w,
        "weight2": w * w,
        "absolute2": w * (added.total * added.total),
        "output": w * output,
        "output2": w * (output * output),
        "base": w * base,
    }.items():
        yield Terms(f"total{mark}", stat, terms)
    residual = np.abs(added.explained - output)
    yield Terms(f"quality{mark}", "residual", w * residual)
    yield Terms(f"quality{mark}", "residual2", w * residual * residual)
    if batch.error is not None:
        for j, name in enumerate(layout.names):
            error = held(np.ascontiguousarray(batch.error[:, j]), layout.scale)
            yield Terms(f"quality{mark}", "error2", w * error * error, name=name)


def _answer_terms(batch: Explained, layout: Layout, added: ByRow) -> Iterator[Summand]:
    """How many rows are explained, and how many of them otherwise than they are answered."""
    output = held(batch.output, layout.scale)
    if layout.link == "logit":
        difference = np.abs(expit(batch.output) - batch.prediction)
    elif layout.task == "binary":
        difference = np.abs(batch.output - batch.prediction)
    else:
        difference = np.abs(output - held(batch.prediction, layout.scale))
    yield count("quality", "explained", output.size)
    yield Terms("quality", "not_additive", ones_where(not_additive(added, output)))
    yield Terms("quality", "prediction_differs", ones_where(difference > layout.prediction_tolerance))


def not_additive(added: ByRow, output: FloatArray) -> npt.NDArray[np.bool_]:
    """Where attributions and base do not add up to the output, (n,) in units."""
    return np.asarray(np.abs(added.explained - output) > ADDITIVITY_TOLERANCE)
