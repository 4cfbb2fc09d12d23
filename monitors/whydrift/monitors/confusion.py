"""Sums by group of people: who is selected, and who rightly.

A row is selected if its prediction is at least the decision threshold. Rows that belong to no group, because the
value is missing or was never seen, do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import FeatureBins, assign
from whydrift.monitors.summary_terms import Rows, ones_where, term

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FairnessColumn:
    """A column whose values are groups; `reference` is the index of the one that others are compared with."""

    groups: FeatureBins
    reference: int


@dataclass(frozen=True, slots=True)
class Fairness:
    """What gaps are counted over: columns, and the prediction from which on a row is selected."""

    columns: tuple[FairnessColumn, ...]
    threshold: float


def selection_terms(
    fairness: Fairness | None, features: pd.DataFrame, prediction: FloatArray, w: FloatArray
) -> Iterator[Rows]:
    """Of all rows; weights and predictions (n,). None are yielded where no gaps are asked for."""
    if fairness is None:
        return
    chosen = ones_where(prediction >= fairness.threshold)
    stats = {
        "rows": np.ones_like(w),
        "weight": w,
        "weight2": w * w,
        "selected": w * chosen,
        "selected2": w * w * chosen,
    }
    yield from _by_group("selection", fairness, features, stats)


def confusion_terms(
    fairness: Fairness | None, features: pd.DataFrame, prediction: FloatArray, w: FloatArray, label: FloatArray
) -> Iterator[Rows]:
    """Of labelled rows: the confusion table, and what a ratio of outcomes to predictions and its error are made of.

    Names that end in 2 are sums of squared weights. Arrays are (n,), labels 0 or 1.
    """
    if fairness is None:
        return
    chosen, positive = ones_where(prediction >= fairness.threshold), ones_where(label > 0)
    table = {
        "tp": chosen * positive,
        "fp": chosen * (1 - positive),
        "tn": (1 - chosen) * (1 - positive),
        "fn": (1 - chosen) * positive,
    }
    stats = {
        "rows": np.ones_like(w),
        "positives": positive,
        **{name: w * flags for name, flags in table.items()},
        **{f"{name}2": w * w * flags for name, flags in table.items()},
        "p": w * prediction,
        "p2": w * w * prediction * prediction,
        "py2": w * w * prediction * positive,
    }
    yield from _by_group("confusion", fairness, features, stats)


def _by_group(block: str, fairness: Fairness, features: pd.DataFrame, stats: dict[str, FloatArray]) -> Iterator[Rows]:
    for column in fairness.columns:
        cells = assign(column.groups, features[column.groups.name])
        inside = cells >= 0
        for stat, terms in stats.items():
            yield term(block, stat, terms[inside], name=column.groups.name, cells=cells[inside])
