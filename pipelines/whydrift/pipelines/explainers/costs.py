"""What explaining costs, estimated from a model's size, so that the cheapest exact explainer is taken.

The constants are measured by benchmarks/attributions/fit_costs.py, which writes cost_table.py. They are of one machine,
and it is their ratios that decide. The estimate hangs on the model, the size of the background and a number of rows
that the baseline fixes, so that all windows of a baseline are explained by the same explainer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whydrift.pipelines.explainers.cost_table import SECONDS
from whydrift.pipelines.explainers.forest import Forest
from whydrift.pipelines.explainers.protocol import FloatArray

_MOST = 12  # levels after which a table of all decisions along a path is not made any more


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by each of a forest's `sizes`: once, by background row, by explained row, and by pair of both."""

    once: tuple[float, ...]
    background: tuple[float, ...]
    row: tuple[float, ...]
    pair: tuple[float, ...]


def sizes(forest: Forest) -> FloatArray:
    """What explainers' costs grow with, (6,).

    1, the mean depth of the leaves summed over trees, and sums over all leaves of 1, depth, depth^2 and 2^depth. A leaf
    counts once for each output that it adds to.
    """
    sums = np.zeros(4)
    tree = np.repeat(np.arange(forest.roots.size), np.diff([*forest.roots, forest.feature.size]))
    depths, leaves = np.zeros(forest.roots.size), np.zeros(forest.roots.size)
    for depth, level in enumerate(forest.levels()):
        found = level[forest.left[level] < 0]
        sums += np.count_nonzero(forest.value[found]) * np.array([1, depth, depth**2, 2.0 ** min(depth, _MOST)])
        np.add.at(depths, tree[found], depth)
        np.add.at(leaves, tree[found], 1)
    paths = float((depths / leaves).sum())
    return np.array([1.0, paths, *sums])


def seconds(name: str, forest: FloatArray, rows: int, background: int) -> float:
    """Estimated seconds to explain a window of `rows`, of an explainer in the table; `forest` are its `sizes`."""
    cost = Cost(*SECONDS[name])
    by_size = np.array(cost.once) + background * np.array(cost.background)
    by_size = by_size + rows * (np.array(cost.row) + background * np.array(cost.pair))
    return float(forest @ by_size)
