"""Which pairs of features act together otherwise than they did: diagnosis of a page whose cause is `joint_moved`.

SHAP's interaction values part a row's attribution into what a feature does alone and what it does with each other one
(Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9). Two samples of rows are compared: pairs whose joint effect moved
between the baseline and the window name the partners whose joint distribution moved. It needs rows, costs p times as
much as attributions, and judges nothing: errors are those of sampling rows, not of what windows differ by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two features' joint effect, both halves together, in units of the output: its mean, and its mean size."""

    first: str
    second: str
    mean: float
    mean_before: float
    mean_error: float
    size: float
    size_before: float
    size_error: float

    @property
    def change(self) -> float:
        """The larger of the changes of mean and size."""
        return max(abs(self.mean - self.mean_before), abs(self.size - self.size_before))


@dataclass(frozen=True, slots=True)
class Interactions:
    """`share` is the part of all absolute attribution that pairs have; `pairs` are ordered by their change."""

    rows: int
    rows_before: int
    share: float
    share_before: float
    pairs: tuple[Pair, ...]


def compare_interactions(now: FloatArray, before: FloatArray, names: Sequence[str], *, most: int = 20) -> Interactions:
    """The pairs whose joint effect changed most.

    Args:
        now: interaction values (n, p, p) of the window's rows, symmetric, each half of the pair's joint effect.
        before: those of baseline rows, (m, p, p).
        names: of the p features.
        most: pairs that are kept.

    >>> now, before = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    >>> now[:, 0, 1] = now[:, 1, 0] = 0.5
    >>> found = compare_interactions(now, before, ["a", "b"])
    >>> found.share, found.pairs[0].first, found.pairs[0].second, found.pairs[0].mean
    (1.0, 'a', 'b', 1.0)
    """
    first, second = np.triu_indices(len(names), k=1)
    sides = [_moments(values[:, first, second] + values[:, second, first]) for values in (now, before)]
    (mean, mean_error), (size, size_error) = sides[0]
    (mean_before, mean_error_before), (size_before, size_error_before) = sides[1]
    pairs = [
        Pair(
            first=names[first[k]],
            second=names[second[k]],
            mean=float(mean[k]),
            mean_before=float(mean_before[k]),
            mean_error=float(np.hypot(mean_error[k], mean_error_before[k])),
            size=float(size[k]),
            size_before=float(size_before[k]),
            size_error=float(np.hypot(size_error[k], size_error_before[k])),
        )
        for k in range(len(first))
    ]
    ordered = sorted(pairs, key=lambda pair: (-pair.change, pair.first, pair.second))
    return Interactions(len(now), len(before), _share(now), _share(before), tuple(ordered[:most]))


def _moments(effects: FloatArray) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Mean and mean size of effects (n, pairs), each with its standard error, (pairs,)."""
    return _mean(effects), _mean(np.abs(effects))


def _mean(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    count = max(len(values) - 1, 1)
    return values.mean(axis=0), np.asarray(np.sqrt(values.var(axis=0) / count))


def _share(values: FloatArray) -> float:
    """The part of absolute interaction values that lies off the diagonal."""
    size = np.abs(values)
    whole = float(size.sum())
    return 1 - float(np.trace(size.sum(axis=0))) / whole if whole > 0 else 0.0
