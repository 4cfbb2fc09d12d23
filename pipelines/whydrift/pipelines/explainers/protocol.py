"""What an explainer is, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from whydrift.monitors.links import softmax
from whydrift.pipelines.errors import ModelError

FloatArray = npt.NDArray[np.float64]
Task = Literal["binary", "regression", "multiclass"]
Link = Literal["logit", "identity", "softmax"]
Space = Literal["margin", "probability"]


class UnsuitedError(ModelError):
    """One kind of explainer does not fit the model; another may."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Attributions of n rows over p features, in the space where they add up to the model's output.

    `values` is (n, p), its columns in the order of the features; `base` is the output expected where no feature is
    known; `output` is (n,) and comes from the model itself, so that `values.sum(axis=1) + base - output` says how
    well the attributions explain it. `error` holds the standard errors (n, p) of values that were estimated from
    samples; None where they were computed. Of a model of C classes values and errors are (n, C, p), `output` is
    (n, C), and `base` has C numbers.
    """

    values: FloatArray
    base: float | tuple[float, ...]
    output: FloatArray
    error: FloatArray | None = None

    def residual(self) -> FloatArray:
        """What the attributions leave unexplained, (n,) or (n, C); rounding error for an exact explainer."""
        return np.asarray(self.values.sum(axis=-1) + np.asarray(self.base) - self.output)


def as_base(base: FloatArray | float) -> float | tuple[float, ...]:
    """A base as an explanation has it: one number, or one for each class."""
    return tuple(map(float, base)) if isinstance(base, np.ndarray) and base.ndim else float(base)


def answers(output: FloatArray, link: Link) -> FloatArray:
    """The predictions that outputs stand for, in the outputs' shape: probabilities or values."""
    if link == "softmax":
        return softmax(output)
    return np.asarray(expit(output) if link == "logit" else output)


class Explainer(Protocol):
    """The one method that a family of explainers has to offer.

    A row's attributions may depend on nothing but the row: windows are explained in batches of any size, and the
    sums over them have to come out bit for bit the same.
    """

    @property
    def name(self) -> str:
        """Family and algorithm, e.g. `xgboost:pred_contribs`."""

    @property
    def link(self) -> Link:
        """How output and prediction are related: `logit` and `softmax` of the output, or `identity`: they are equal."""

    @property
    def parameters(self) -> Mapping[str, str]:
        """All that changes the numbers, versions of libraries included; goes into the explainer's digest."""

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows.

        Args:
            features: one column a feature; numbers (NaN where missing) or strings (None or NaN where missing).

        Raises:
            ModelError: the model refuses the rows.
        """
