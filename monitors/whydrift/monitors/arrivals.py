"""Labels as they are known at the end of a window: a summary of its own, which only the report reads.

| block      | slice  | name  | cell | stats                                                        |
|------------|--------|-------|------|--------------------------------------------------------------|
| arrival    | cohort |       |      | rows, weight, weight2: of all its predictions                |
| arrival    | cohort | class |      | rows, weight, weight2: of those whose label is known         |
| delay      | cohort | class | age  | weight: of the labels that came at this age                  |
| label_mesh | cohort | all   | mesh | weight: of all predictions of a classifier, by score         |
| label_mesh | cohort | class | mesh | weight: of those whose label is known                        |

A cohort is a window of predictions, named by its start (ISO 8601). Its age is the number of windows since its end, and
a label has age a if it was known at age a and not before: 0 came while the cohort's window ran. Classes are `negative`
and `positive`, of a regression `label`. Sums are exact as all summaries' are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.calibration import MESH
from whydrift.monitors.dense import dense
from whydrift.monitors.summary import Layout, WindowSummary, collect, merge
from whydrift.monitors.summary_terms import CHUNK, Rows, Terms, held, mesh_terms, term

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CLASSES = ("negative", "positive")
MOST_COHORTS = 29  # of more ages every nth is looked at: hourly windows wait for hundreds of cohorts


@dataclass(frozen=True, slots=True)
class Arrived:
    """A cohort's predictions, (n,) each: `label` is NaN where none is known yet, and then `age` says nothing."""

    prediction: FloatArray
    weight: FloatArray
    label: FloatArray
    age: IntArray


@dataclass(frozen=True, slots=True)
class Cohort:
    """What a table holds of one cohort of a classifier.

    `rows`, `weight` and `weight2` are of all predictions, `known_*` (2,) of negatives and positives with a label;
    `mesh` (200,) and `known_mesh` (2, 200) are weights by score.
    """

    start: datetime
    rows: float
    weight: float
    weight2: float
    known_rows: FloatArray
    known_weight: FloatArray
    known_weight2: FloatArray
    mesh: FloatArray
    known_mesh: FloatArray


def ages_watched(lag: int) -> tuple[int, ...]:
    """The ages at which cohorts are looked at: from 0 to the one at which labels are mature, at most 29.

    >>> ages_watched(2)
    (0, 1, 2)
    """
    return tuple(int(age) for age in np.unique(np.linspace(0, lag, min(lag + 1, MOST_COHORTS)).round()))


def classes(layout: Layout) -> tuple[str, ...]:
    """What labels are told apart by."""
    return CLASSES if layout.task == "binary" else ("label",)


def summarise_arrivals(cohorts: Mapping[datetime, Arrived], layout: Layout) -> WindowSummary:
    """Reduce cohorts, by their starts, to what is known of their labels."""
    return merge(
        collect(terms)
        for start, whole in cohorts.items()
        for part in _chunks(whole)
        for terms in (_delay_terms(start.isoformat(), part, layout), _mesh_terms(start.isoformat(), part, layout))
    )


def summarise_delays(cohorts: Mapping[datetime, Arrived], layout: Layout) -> WindowSummary:
    """The same without the meshes: what a baseline keeps of cohorts whose labels are complete."""
    return merge(
        collect(_delay_terms(start.isoformat(), part, layout))
        for start, whole in cohorts.items()
        for part in _chunks(whole)
    )


def _chunks(cohort: Arrived) -> Iterator[Arrived]:
    for start in range(0, cohort.label.size, CHUNK):
        part = slice(start, start + CHUNK)
        yield Arrived(cohort.prediction[part], cohort.weight[part], cohort.label[part], cohort.age[part])


def _delay_terms(cohort: str, batch: Arrived, layout: Layout) -> Iterator[Rows]:
    w = held(batch.weight, 1.0)
    yield from _counts(cohort, "", w)
    for name, own in _known(batch, layout):
        yield from _counts(cohort, name, w[own])
        yield term("delay", "weight", w[own], slice_=cohort, name=name, cells=batch.age[own])


def _mesh_terms(cohort: str, batch: Arrived, layout: Layout) -> Iterator[Terms]:
    if layout.task != "binary":
        return
    w = held(batch.weight, 1.0)
    yield from _mesh(cohort, "all", batch.prediction, w)
    for name, own in _known(batch, layout):
        yield from _mesh(cohort, name, batch.prediction[own], w[own])


def _known(batch: Arrived, layout: Layout) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The rows of each class whose label is known, (n,)."""
    known = ~np.isnan(batch.label)
    if layout.task != "binary":
        yield "label", known
        return
    for code, name in enumerate(CLASSES):
        yield name, known & ((batch.label > 0) == bool(code))


def _counts(cohort: str, name: str, w: FloatArray) -> Iterator[Rows]:
    for stat, terms in (("rows", np.ones_like(w)), ("weight", w), ("weight2", w * w)):
        yield term("arrival", stat, terms, slice_=cohort, name=name)


def _mesh(cohort: str, name: str, p: FloatArray, w: FloatArray) -> Iterator[Terms]:
    for rows in mesh_terms("label_mesh", "weight", p, w):
        yield replace(rows, slice_=cohort, name=name)


def read_cohorts(frame: pd.DataFrame) -> list[Cohort]:
    """The cohorts of a classifier's table, the newest first."""
    found = []
    for start, own in frame.groupby("slice"):
        counts = dense(own, "arrival", ("", *CLASSES), ("rows", "weight", "weight2"))[:, :, 0]
        mesh = dense(own, "label_mesh", ("all", *CLASSES), ("weight",), MESH)[0]
        (rows, *known_rows), (weight, *known_weight), (weight2, *known_weight2) = counts
        found.append(
            Cohort(
                start=datetime.fromisoformat(str(start)),
                rows=float(rows),
                weight=float(weight),
                weight2=float(weight2),
                known_rows=np.array(known_rows),
                known_weight=np.array(known_weight),
                known_weight2=np.array(known_weight2),
                mesh=mesh[0],
                known_mesh=mesh[1:],
            )
        )
    return sorted(found, key=lambda cohort: cohort.start, reverse=True)


def read_delays(frame: pd.DataFrame, layout: Layout) -> tuple[FloatArray, FloatArray]:
    """Of D cohorts: the weight of labels by class and age, (D, classes, ages), and of all predictions, (D,).

    Ages end with the last at which a label came.
    """
    came = frame[frame["block"] == "delay"]
    ages = int(came["cell"].max()) + 1 if len(came) else 1
    cohorts = [own for _, own in frame[frame["block"].isin(("delay", "arrival"))].groupby("slice")]
    by_age = [dense(own, "delay", classes(layout), ("weight",), ages)[0] for own in cohorts]
    weight = [float(dense(own, "arrival", ("",), ("weight",)).sum()) for own in cohorts]
    return np.array(by_age).reshape(len(cohorts), len(classes(layout)), ages), np.array(weight)
