"""Rows for tree models: missing values, strings, weights, and values exactly where trees decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.forest import BoolArray, Forest
from whydrift.pipelines.explainers.protocol import FloatArray

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


def shapley(value: Callable[[tuple[int, ...]], FloatArray], width: int) -> FloatArray:
    """By definition, (n, width, C), from the values of coalitions of columns, (n, C)."""
    known = {s: value(s) for size in range(width + 1) for s in combinations(range(width), size)}
    phi = np.zeros((len(known[()]), width, known[()].shape[1]))
    for coalition, before in known.items():
        size = len(coalition)
        weight = factorial(size) * factorial(width - size - 1) / factorial(width) if size < width else 0
        for j in set(range(width)) - set(coalition):
            phi[:, j] += weight * (known[tuple(sorted((*coalition, j)))] - before)
    return phi


def path_dependent(forest: Forest, rows: FloatArray) -> FloatArray:
    """Algorithm 1 of Lundberg et al. 2020 for every coalition, (n, q, C): both branches by cover of absent columns."""

    def goes_left(node: int) -> BoolArray:
        asked = replace(forest, roots=np.array([0]), value=np.array([[0.0], [1.0], [0.0]]), base=np.zeros(1))
        step = {"left": np.array([1, -1, -1]), "right": np.array([2, -1, -1])}
        here = {name: np.array([getattr(forest, name)[node]] * 3) for name in _DECISION}
        return np.asarray(replace(asked, **step, **here).predict(rows) > 0)

    choices = {node: goes_left(node) for node in np.flatnonzero(forest.left >= 0)}

    def value(coalition: tuple[int, ...]) -> FloatArray:
        mean = np.repeat(forest.value[None], len(rows), axis=0)  # (n, N, C)
        for node in reversed(np.flatnonzero(forest.left >= 0)):
            left, right = forest.left[node], forest.right[node]
            if forest.feature[node] in coalition:
                mean[:, node] = np.where(choices[node][:, None], mean[:, left], mean[:, right])
            elif forest.cover[node] > 0:
                parts = forest.cover[left] * mean[:, left] + forest.cover[right] * mean[:, right]
                mean[:, node] = parts / forest.cover[node]
        return forest.base + mean[:, forest.roots].sum(axis=1)

    return shapley(value, rows.shape[1])


def interventional(forest: Forest, rows: FloatArray, background: FloatArray) -> FloatArray:
    """Absent columns take the values of background rows, (n, q, C); the mean over these."""

    def value(coalition: tuple[int, ...]) -> FloatArray:
        mixed = np.repeat(background[None], len(rows), axis=0)
        mixed[:, :, list(coalition)] = rows[:, None, list(coalition)]
        answers = forest.predict(mixed.reshape(-1, rows.shape[1]))
        return answers.reshape(len(rows), len(background), -1).mean(axis=1)

    return shapley(value, rows.shape[1])


_DECISION = ("feature", "threshold", "missing_left", "category")
