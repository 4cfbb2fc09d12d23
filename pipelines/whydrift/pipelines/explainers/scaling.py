"""Scalers that shift and stretch each column by itself; a linear model behind them is linear in the features too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.protocol import FloatArray


@dataclass(frozen=True, slots=True)
class Scaling:
    """`(x - centre) * factor` of q columns."""

    centre: FloatArray
    factor: FloatArray

    @classmethod
    def none(cls, columns: int) -> Scaling:
        """What leaves the columns as they are."""
        return cls(np.zeros(columns), np.ones(columns))

    @classmethod
    def of(cls, steps: Any) -> Scaling | None:
        """That of a fitted Pipeline of scikit-learn's own scalers; None where a step is anything else."""
        scalings = [scaling for _, step in steps.steps if (scaling := cls._of_step(step)) is not None]
        return reduce(cls.then, scalings) if len(scalings) == len(steps.steps) else None

    @classmethod
    def _of_step(cls, step: Any) -> Scaling | None:
        if not type(step).__module__.startswith("sklearn.preprocessing."):
            return None  # a class of somebody's own may do anything under the same name
        none = cls.none(step.n_features_in_)
        match type(step).__name__:
            case "StandardScaler":
                centre = step.mean_ if step.with_mean else none.centre
                return cls(centre, 1 / step.scale_ if step.with_std else none.factor)
            case "RobustScaler":
                centre = step.center_ if step.with_centering else none.centre
                return cls(centre, 1 / step.scale_ if step.with_scaling else none.factor)
            case "MinMaxScaler" if not step.clip:
                return cls(step.data_min_ - step.feature_range[0] / step.scale_, step.scale_)
            case "MaxAbsScaler" if not getattr(step, "clip", False):
                return cls(none.centre, 1 / step.scale_)
        return None

    def then(self, other: Scaling) -> Scaling:
        """The two, one after the other."""
        return Scaling(self.centre + other.centre / self.factor, self.factor * other.factor)

    def apply(self, columns: FloatArray) -> FloatArray:
        """Scaled columns, (..., q)."""
        return (columns - self.centre) * self.factor
