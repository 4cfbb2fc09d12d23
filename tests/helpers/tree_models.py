"""Rows for tree models: missing values, strings, weights, and values exactly where trees decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.forest import Forest

TASKS = ("binary", "multiclass", "regression")
NAMES = ["a", "b", "c", "k", "n"]
CLASSES = ("0", "1", "2")


def make_rows(count: int = 900, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, strings with gaps, and small whole numbers."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(count, 3)), columns=["a", "b", "c"])
    rows["k"] = rng.choice(list("uvwxyz"), count)
    rows["n"] = rng.integers(0, 4, count).astype(float)
    rows.loc[::7, "a"] = np.nan
    rows.loc[::13, "k"] = np.nan
    return rows


def make_targets(rows: pd.DataFrame, seed: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """By task; the value has interactions of two and of all kinds of columns."""
    noise = 0.3 * np.random.default_rng(seed).normal(size=len(rows))
    value = rows["a"].fillna(1) * rows["b"] + (rows["k"] == "x") + rows["k"].isin(["u", "w"]) * rows["c"] + noise
    return {
        "regression": value.to_numpy(),
        "binary": (value > value.median()).to_numpy().astype(int),
        "multiclass": pd.qcut(value, 3, labels=False).to_numpy(),
    }


ROWS = make_rows()
TARGETS = make_targets(ROWS)
WEIGHT = np.random.default_rng(2).integers(1, 6, len(ROWS)) / 2
NUMBERS = ROWS[["a", "b", "c", "n"]]


def categorical(rows: pd.DataFrame) -> pd.DataFrame:
    """As it is done before training on pandas' own categories."""
    return rows.assign(k=pd.Categorical(rows["k"]))


def at_thresholds(rows: pd.DataFrame, forest: Forest, *, infinite: bool) -> pd.DataFrame:
    """Rows whose numbers are thresholds of the trees and their neighbours, as float64 and as float32, or odd ones."""
    made = pd.concat([rows] * 3, ignore_index=True)
    rng = np.random.default_rng(3)
    for column, name in enumerate(rows.columns):
        if not pd.api.types.is_numeric_dtype(rows[name]):
            made[name] = rng.choice(np.array([*"uvwxyz", "never seen", np.nan], dtype=object), len(made))
            continue
        asked = forest.threshold[(forest.feature == column) & (forest.category < 0)]
        asked = rng.permutation(np.unique(asked[np.abs(asked) < 1e30]))[:100]
        single = asked.astype(np.float32)
        odd = [np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e30, -1e30, *([np.inf, -np.inf] if infinite else [])]
        near = [np.nextafter(asked, side) for side in (-np.inf, np.inf)]
        near += [np.nextafter(single, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
        values = np.concatenate([asked, single, *near, odd])
        made[name] = rng.choice(values, len(made))
    return made
