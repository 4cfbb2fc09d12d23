"""Explainers of trees: the library's own, and Shapley values computed from the arrays of any library's trees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from whydrift.pipelines.explainers.forest import Forest
from whydrift.pipelines.explainers.forests.catboost import CatBoostTrees
from whydrift.pipelines.explainers.forests.lightgbm import LightGBMTrees
from whydrift.pipelines.explainers.forests.sklearn import SklearnTrees, family
from whydrift.pipelines.explainers.forests.xgboost import XGBoostTrees
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base


class Trees(Protocol):
    """A fitted tree ensemble, seen as what its trees add up to."""

    def link(self) -> Link:
        """How that gives the prediction; UnsuitedError where it is none of ours."""

    def output(self, encoded: Any) -> FloatArray:
        """What the trees add up to by the library itself, (n,) or (n, C)."""

    def matrix(self, encoded: Any) -> FloatArray:
        """The numbers that the nodes of `forest` ask, (n, q)."""

    def forest(self) -> Forest:
        """The trees as arrays; UnsuitedError where they have splits that no number of a column decides."""


class Library(Trees, Protocol):
    """Trees of a library that has attributions of its own, and forms of rows."""

    def explain(self, encoded: Any) -> Explanation:
        """Its own path-dependent attributions."""

    def predict(self, encoded: Any) -> FloatArray:
        """The model's predictions, (n,) or (n, C): probabilities or values."""


_LIBRARIES: dict[str, Callable[[Any, Task], Library]] = {
    "xgboost": XGBoostTrees.of,
    "lightgbm": LightGBMTrees.of,
    "catboost": CatBoostTrees.of,
}


def library(model: object) -> str | None:
    """Which of the three boosting libraries a model is of, found out without importing them; None of all others."""
    roots = (cls.__module__.partition(".")[0] for cls in type(model).__mro__)
    return next((root for root in roots if root in _LIBRARIES), None)


def is_trees(model: object) -> bool:
    """Whether a model is itself a tree ensemble of any library that is supported."""
    return library(model) is not None or family(model) is not None


def read_library(model: Any, task: Task) -> Library:
    """Read a model of one of the three libraries.

    Raises:
        UnsuitedError: it is of none.
    """
    name = library(model)
    if name is None:
        raise UnsuitedError(f"{type(model).__name__} has no contributions of its own that are known here")
    return _LIBRARIES[name](model, task)


def read_trees(model: Any, task: Task) -> Trees:
    """Read a tree ensemble of any library that is supported.

    Raises:
        UnsuitedError: the model is none.
    """
    if library(model) is not None:
        return read_library(model, task)
    if family(model) is None:
        raise UnsuitedError(f"{type(model).__name__} is no tree model that is known here")
    return SklearnTrees.of(model, task)


def refusals() -> tuple[type[Exception], ...]:
    """What models raise about rows that they do not take, of the libraries that are loaded."""
    own = (getattr(sys.modules[name], error) for name, error in _ERRORS.items() if name in sys.modules)
    return (TypeError, ValueError, *own)


_ERRORS = {"lightgbm.basic": "LightGBMError", "catboost": "CatBoostError"}


class Shapley(Protocol):
    """Shapley values of a forest's outputs, as explainers/shapley_trees.py computes them."""

    @property
    def base(self) -> FloatArray:
        """(C,)."""

    @property
    def made_at_each_call(self) -> bool:
        """Whether each call to `values` makes what the values are looked up in, which takes long for few rows."""

    def values(self, rows: FloatArray) -> FloatArray:
        """Of rows (n, q): (n, q), or (n, C, q) where C > 1."""


@dataclass(frozen=True, slots=True)
class NativeTrees:
    """Explains by the library's own attributions."""

    trees: Library
    link: Link

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows as the estimator takes them."""
        return self.trees.explain(encoded)


@dataclass(frozen=True, slots=True)
class ForestTrees:
    """Explains by Shapley values of the trees' arrays; the output is the library's, so residuals tell a misreading."""

    trees: Trees
    link: Link
    shapley: Shapley

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows as the estimator takes them."""
        base = np.asarray(self.shapley.base, dtype=np.float64)
        values = self.shapley.values(self.trees.matrix(encoded))
        return Explanation(values, as_base(base if base.size > 1 else base[0]), self.trees.output(encoded))
