"""Interventional Shapley values by their definition: all coalitions of the features, all rows of the background."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd


def shapley(score: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, background: pd.DataFrame) -> np.ndarray:
    """Of n rows and p features, (n, p); absent features take the background's values."""
    width, names = rows.shape[1], list(rows.columns)
    value = {}
    for size in range(width + 1):
        for coalition in combinations(range(width), size):
            mixed = background.loc[background.index.repeat(len(rows))].reset_index(drop=True)
            for j in coalition:
                mixed[names[j]] = np.tile(rows[names[j]].to_numpy(), len(background))
            value[coalition] = score(mixed).reshape(len(background), len(rows)).mean(axis=0)
    phi = np.zeros(rows.shape)
    for j in range(width):
        others = [k for k in range(width) if k != j]
        for size in range(width):
            weight = factorial(size) * factorial(width - size - 1) / factorial(width)
            for coalition in combinations(others, size):
                phi[:, j] += weight * (value[tuple(sorted((*coalition, j)))] - value[coalition])
    return phi
