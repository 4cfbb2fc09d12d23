"""Models of several classes: each class is a head, watched as if it stood alone against the rest.

A summary holds what belongs to the rows (rows, input, slice, missing, set_aside, digest, golden, and how many are
explained) once, as of any model. What belongs to a class has the class in its block's name, `attribution:late`:

| block                                    | of a class                                                          |
|------------------------------------------|---------------------------------------------------------------------|
| attribution, phi, group, total, score    | as of a binary model whose output is the class's                    |
| quality                                  | residual, residual2, error2                                         |
| outcome, loss                            | as of a binary model whose label is whether the row is of the class |

Of the model as a whole are, beside the rows:

| block | slice | cell | stats                                                                                         |
|-------|-------|------|-----------------------------------------------------------------------------------------------|
| loss  | s     |      | as ever, the loss being Brier's score of all classes, the sum of squared errors (Brier 1950)  |
| top   |       | mesh | labelled, positive: by the probability of the likeliest class, and where it was the right one |
| top   |       |      | loss: squared error of that probability                                                       |

`as_seen_by` gives the frame of a summary as one class sees it. That is the frame of a binary model, and all that reads
such frames serves a class unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from whydrift.monitors.calibration import MESH, ScoreMesh
from whydrift.monitors.calibration_multiclass import ClassMeshes
from whydrift.monitors.dense import by_stat, dense
from whydrift.monitors.explained_sums import explained_terms, head_of, not_additive
from whydrift.monitors.links import softmax
from whydrift.monitors.outcome_streams import score_mesh
from whydrift.monitors.row_sums import reduce_rows
from whydrift.monitors.sum_arrays import ByRow
from whydrift.monitors.summary import (
    Explained,
    Layout,
    Logged,
    Outcomes,
    WindowSummary,
    chunks,
    collect,
    cut,
    inputs_of,
    loss_terms,
    merge,
    row_terms,
    summarise_outcomes,
)
from whydrift.monitors.summary_terms import Summand, Terms, Weight, count, held, mesh_terms, ones_where

FloatArray = npt.NDArray[np.float64]

_OF_ROWS = frozenset({"rows", "input", "slice", "missing", "set_aside", "digest", "golden", "quality"})
_OF_A_CLASS = frozenset({"attribution", "phi", "group", "total", "score", "outcome", "loss"})
_QUALITY_OF_A_CLASS = frozenset({"residual", "residual2", "error2"})
_MARK = ":"  # no block has it in its name, and a class may


def heads(layout: Layout) -> tuple[Layout, ...]:
    """The layout as each class sees it, a binary one; of other models the layout itself."""
    if not layout.classes:
        return (layout,)
    return tuple(replace(layout, task="binary", attributions=c.attributions, classes=()) for c in layout.classes)


def head_names(layout: Layout) -> tuple[str | None, ...]:
    """The names of the heads; that of a model without classes has none."""
    return tuple(c.name for c in layout.classes) or (None,)


def as_seen_by(frame: pd.DataFrame, layout: Layout) -> tuple[pd.DataFrame, ...]:
    """The frame of a summary as each head sees it; of a model without classes the frame itself."""
    if not layout.classes:
        return (frame,)
    code, blocks = pd.factorize(frame["block"])
    found = []
    for c in layout.classes:
        seen = [_seen_by(c.name, block) for block in blocks]
        at = np.flatnonzero(np.array([block is not None for block in seen], dtype=np.bool_)[code])
        names = pd.Series(seen, dtype="str").array.take(code[at])
        found.append(frame.take(at).assign(block=names).reset_index(drop=True))
    return tuple(found)


def _seen_by(name: str, block: str) -> str | None:
    """What a class calls a block of the summary; None where that is another's."""
    own, mark, owner = block.partition(_MARK)
    if not mark:
        return block if block in _OF_ROWS else None
    return own if owner == name and (own in _OF_A_CLASS or own == "quality") else None


def summarise_classes(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce rows of a multiclass model that are all explained, as `summarise` does those of others."""
    return _summarise(batch, layout, logged=True)


def summarise_explained_classes(batch: Explained, layout: Layout) -> WindowSummary:
    """Reduce attributions of a multiclass model, as `summarise_explained` does those of others."""
    return _summarise(batch, layout, logged=False)


def summarise_logged_classes(batch: Logged, layout: Layout) -> WindowSummary:
    """Reduce what the log says of rows of a multiclass model, as `summarise_logged` does those of others."""

    def terms(part: slice, weight: Weight, _: Sequence[ByRow]) -> Iterator[Summand]:
        return _logged_terms(batch.prediction[part], layout, weight.held)

    return collect(reduce_rows(inputs_of(batch, layout), (), terms, logged=True))


def _summarise(batch: Explained, layout: Layout, *, logged: bool) -> WindowSummary:
    own, marks = [_explained_of(batch, number) for number in range(len(layout.classes))], _marks(layout)
    found = [head_of(one, head, mark) for one, head, mark in zip(own, heads(layout), marks, strict=True)]

    def terms(part: slice, weight: Weight, added: Sequence[ByRow]) -> Iterator[Summand]:
        if logged:
            yield from _logged_terms(batch.prediction[part], layout, weight.held)
        for one, head, mark, rows in zip(own, heads(layout), marks, added, strict=True):
            yield from explained_terms(cut(one, part), head, weight.held, rows, mark)
        yield from _answer_terms(cut(batch, part), layout, added)

    return collect(reduce_rows(inputs_of(batch, layout), found, terms, logged=logged))


def _marks(layout: Layout) -> list[str]:
    return [f"{_MARK}{c.name}" for c in layout.classes]


def _logged_terms(prediction: FloatArray, layout: Layout, w: FloatArray) -> Iterator[Summand]:
    yield from row_terms(w)
    for number, mark in enumerate(_marks(layout)):
        yield from mesh_terms(f"score{mark}", "weight", prediction[:, number], w)


def summarise_class_outcomes(batch: Outcomes, layout: Layout) -> WindowSummary:
    """Reduce labelled rows of a multiclass model, as `summarise_outcomes` does those of others.

    Raises ValueError for a label that is the number of no class.
    """
    if not np.isin(batch.label, np.arange(len(layout.classes))).all():
        raise ValueError("a label is the number of no class; rows with such labels are to be set aside and counted")
    parts = []
    for number, (head, name) in enumerate(zip(heads(layout), head_names(layout), strict=True)):
        own = replace(
            batch, prediction=batch.prediction[:, number], label=ones_where(np.asarray(batch.label == number))
        )
        parts.append(_named(summarise_outcomes(own, head), str(name)))
    return merge([*parts, *(_whole_outcomes(part, layout) for part in chunks(batch))])


def top_mesh(outcomes: pd.DataFrame) -> ScoreMesh | None:
    """The calibration mesh of the class that is named in each row of a cohort; None without labels."""
    labelled, positive = dense(outcomes, "top", ("",), ("labelled", "positive"), MESH)[:, 0]
    loss, stats = by_stat(outcomes, "top").get("loss", 0.0), by_stat(outcomes, "loss", slice="")
    weight, weight2 = stats.get("weight", 0.0), stats.get("weight2", 0.0)
    if not labelled.any() or weight <= 0 or weight2 <= 0:
        return None
    return ScoreMesh(labelled, positive, loss, weight**2 / weight2)


def read_class_meshes(outcomes: pd.DataFrame, layout: Layout) -> ClassMeshes | None:
    """The calibration meshes of a cohort; None without labels."""
    top = top_mesh(outcomes)
    classes = [mesh for frame in as_seen_by(outcomes, layout) if (mesh := score_mesh(frame)) is not None]
    return ClassMeshes(top, tuple(classes)) if top is not None and len(classes) == len(layout.classes) else None


def _explained_of(batch: Explained, number: int) -> Explained:
    """The rows as a class sees them."""
    return replace(
        batch,
        prediction=batch.prediction[:, number],
        values=batch.values[:, number],
        output=batch.output[:, number],
        base=_bases(batch)[number],
        error=None if batch.error is None else batch.error[:, number],
    )


def _bases(batch: Explained) -> tuple[float, ...]:
    return batch.base if isinstance(batch.base, tuple) else (batch.base,)


def _keep(summary: WindowSummary, blocks: frozenset[str]) -> WindowSummary:
    return WindowSummary(summary.table.filter(_among(summary, "block", blocks)))


def _among(summary: WindowSummary, column: str, values: Sequence[str] | frozenset[str]) -> pa.Array:
    return pa.array(np.isin(summary.table[column].to_numpy(), list(values)))


def _named(summary: WindowSummary, name: str) -> WindowSummary:
    """What belongs to a class, with its name in the blocks'."""
    quality = WindowSummary(_keep(summary, frozenset({"quality"})).table)
    own = [
        _keep(summary, _OF_A_CLASS).table,
        quality.table.filter(_among(quality, "stat", _QUALITY_OF_A_CLASS)),
    ]
    table = pa.concat_tables(own)
    blocks = [f"{block}{_MARK}{name}" for block in table["block"].to_pylist()]
    return WindowSummary(table.set_column(0, table.schema.field("block"), pa.array(blocks, pa.string())))


def _answer_terms(batch: Explained, layout: Layout, added: Sequence[ByRow]) -> Iterator[Summand]:
    """How many rows are explained, and in how many any class is explained or answered otherwise than it should be."""
    missed = [not_additive(rows, held(batch.output[:, number], layout.scale)) for number, rows in enumerate(added)]
    answer = softmax(batch.output) if layout.link == "softmax" else batch.output
    differs = np.asarray((np.abs(answer - batch.prediction) > layout.prediction_tolerance).any(axis=1))
    yield count("quality", "explained", len(batch.output))
    yield Terms("quality", "not_additive", ones_where(np.logical_or.reduce(missed)))
    yield Terms("quality", "prediction_differs", ones_where(differs))


def _whole_outcomes(batch: Outcomes, layout: Layout) -> WindowSummary:
    rows, w = np.arange(len(batch.label)), held(batch.weight, 1.0)
    loss = np.zeros_like(w)
    for number in range(len(layout.classes)):
        loss += (ones_where(np.asarray(batch.label == number)) - batch.prediction[:, number]) ** 2
    named = np.asarray(batch.prediction.argmax(axis=1))
    p, right = batch.prediction[rows, named], ones_where(np.asarray(named == batch.label))
    return collect(
        [
            *loss_terms(batch, layout, loss, np.zeros_like(w)),
            *mesh_terms("top", "labelled", p, w),
            *mesh_terms("top", "positive", p, w * right),
            Terms("top", "loss", w * (right - p) ** 2),
        ]
    )
