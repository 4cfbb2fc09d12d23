"""Means of a cohort from labels that were drawn at random: right whatever the model, the inputs and the concept do.

A known chance of being labelled makes the drawn rows speak for all. What the model says of every row sharpens it:

    theta = mean over all rows of f + mean over drawn rows of (y - f), each drawn row counted 1 / its chance

(prediction-powered inference, Angelopoulos et al. 2023, arXiv 2301.09633; the second mean is divided by the sum of its
weights). For the base rate y is the label and f the prediction; for the loss y is the squared error, and f the one
that a calibrated score p expects, p (1 - p), of a regression nothing. The sums are additive, of the outcomes' summary:

| block | name        | stats                                                                                    |
|-------|-------------|------------------------------------------------------------------------------------------|
| audit | label, loss | weight, weight2, value, value2, square2: of f over all rows of the cohort                |
| audit | label, loss | rows, drawn, drawn2, rest, rest2, restsquare2: of y - f over drawn rows, weight / chance |

Names with 2 have squared weights: `value2` sums weight**2 f, `square2` weight**2 f**2. Losses are in units of
`Layout.loss_scale` squared, values of a regression in units of `Layout.scale`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.dense import dense
from whydrift.monitors.summary import Layout, WindowSummary, collect, merge
from whydrift.monitors.summary_terms import CHUNK, Rows, held, term
from whydrift.monitors.verdict_labels import AuditEstimate

FloatArray = npt.NDArray[np.float64]

MIN_AUDITED = 30  # drawn rows, for their mean to be near normal
_Z = 1.959964
_ALL = ("weight", "weight2", "value", "value2", "square2")
_DRAWN = ("rows", "drawn", "drawn2", "rest", "rest2", "restsquare2")


@dataclass(frozen=True, slots=True)
class Audited:
    """A cohort, (n,) each: `label` and the `chance` it was drawn with are NaN where a row was not drawn."""

    prediction: FloatArray
    weight: FloatArray
    label: FloatArray
    chance: FloatArray


def draw(event_ids: Iterable[str], rate: float, *, salt: str = "audit") -> npt.NDArray[np.bool_]:
    """Which events to label for the audit, (n,): each with the same chance, whatever its order, window and features.

    A function of the id alone, so that a labelling job needs no memory: it asks for the same rows whenever it runs.

    >>> draw(["a", "b"], 1.0)
    array([ True,  True])
    """
    drawn = [int.from_bytes(hashlib.sha256(f"{salt}:{event}".encode()).digest()[:8]) for event in event_ids]
    return np.array([number < rate * 2.0**64 for number in drawn], dtype=np.bool_)


def summarise_audit(batch: Audited, layout: Layout) -> WindowSummary:
    """Reduce a cohort, its undrawn rows included."""
    parts = [slice(start, start + CHUNK) for start in range(0, batch.weight.size, CHUNK)]
    return merge(
        collect(_terms(Audited(batch.prediction[p], batch.weight[p], batch.label[p], batch.chance[p]), layout))
        for p in parts
    )


def _terms(batch: Audited, layout: Layout) -> Iterator[Rows]:
    w, drawn = held(batch.weight, 1.0), ~np.isnan(batch.label) & (batch.chance > 0)
    for name, f, y in _pairs(batch, layout):
        amounts = (w, w * w, w * f, w * w * f, w * w * f * f)
        for stat, terms in zip(_ALL, amounts, strict=True):
            yield term("audit", stat, terms, name=name)
        v, rest = w[drawn] / batch.chance[drawn], y[drawn] - f[drawn]
        amounts_drawn = (np.ones_like(v), v, v * v, v * rest, v * v * rest, v * v * rest * rest)
        for stat, terms in zip(_DRAWN, amounts_drawn, strict=True):
            yield term("audit", stat, terms, name=name)


def _pairs(batch: Audited, layout: Layout) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """What is estimated: its name, the model's guess f and the truth y, NaN where it is not known; (n,) each."""
    p, y = batch.prediction, batch.label
    unit = 1.0 if layout.task == "binary" else layout.scale
    yield "label", held(p, unit), held(y, unit)
    error = held(y, layout.loss_scale) - held(p, layout.loss_scale)
    yield "loss", p * (1 - p) if layout.task == "binary" else np.zeros_like(p), error * error


def estimate_audit(outcomes: pd.DataFrame, layout: Layout) -> tuple[AuditEstimate, ...]:
    """From the frame of a cohort's outcomes; empty with fewer than 30 drawn rows."""
    names: tuple[Literal["label", "loss"], ...] = ("label", "loss")
    every = dense(outcomes, "audit", names, _ALL)[:, :, 0].T
    drawn = dense(outcomes, "audit", names, _DRAWN)[:, :, 0].T
    units = (1.0 if layout.task == "binary" else layout.scale, layout.loss_scale**2)
    found = []
    for of, unit, all_rows, few in zip(names, units, every, drawn, strict=True):
        rows = round(float(few[0]))
        if rows < MIN_AUDITED:
            continue
        mean, variance = _mean(*all_rows)
        rest, rest_variance = _mean(*few[1:])
        value, half = unit * (mean + rest), unit * _Z * float(np.sqrt(variance + rest_variance))
        found.append(AuditEstimate(of=of, audited=rows, value=value, interval=(value - half, value + half)))
    return tuple(found)


def _mean(weight: float, weight2: float, value: float, value2: float, square2: float) -> tuple[float, float]:
    """A weighted mean and its variance (Horvitz-Thompson residuals, with the weights' sum as divisor)."""
    mean = value / weight
    return mean, max(square2 - 2 * mean * value2 + mean**2 * weight2, 0.0) / weight**2
