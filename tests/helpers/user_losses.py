"""Losses as a user writes them, right and wrong."""

from __future__ import annotations

import numpy as np

NOT_A_FUNCTION = 3


def cost(label, prediction):
    """A missed positive costs five times a false alarm."""
    return np.where(label == 1, 5 * (1 - prediction) ** 2, prediction**2)


def mean_cost(label, prediction):
    return cost(label, prediction).mean()


def batch_cost(label, prediction):
    return cost(label, prediction) / cost(label, prediction).sum()


def infinite(label, prediction):
    return np.where(label == 1, np.inf, 0.0)


def failing(label, prediction):
    raise LookupError("no table of costs")
