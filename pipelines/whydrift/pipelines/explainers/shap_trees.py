"""Tree models by shap.TreeExplainer, for where the kernels of explainers/shapley_trees.py cannot run.

Not interventional for HistGradientBoosting: there the values of shap 0.51 do not add up.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.encoding import single_threaded
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, UnsuitedError, as_base
from whydrift.pipelines.explainers.trees import Trees

MOST_BACKGROUND = 1000  # its cost grows with the background: 6 rows a second at this size


@dataclass(frozen=True, slots=True)
class ShapTrees:
    """Wraps shap.TreeExplainer; `trees` hand it rows, and say what the model answers."""

    explainer: Any
    trees: Trees
    link: Link

    @classmethod
    def of(cls, model: Any, trees: Trees, background: FloatArray | None) -> ShapTrees:
        """Path-dependent without a background, else interventional.

        Raises:
            UnsuitedError: shap refuses the model, or the background is too large for it.
        """
        if background is not None and len(background) > MOST_BACKGROUND:
            raise UnsuitedError(
                f"shap takes up to {MOST_BACKGROUND} background rows; with more, interventional trees need numba"
                " (pip install 'whydrift[fast]')"
            )
        if background is not None and "HistGradientBoosting" in type(model).__name__:
            raise UnsuitedError("shap's interventional values of HistGradientBoosting do not add up")
        perturbation = "tree_path_dependent" if background is None else "interventional"
        try:
            explainer = _shap().TreeExplainer(single_threaded(model), background, feature_perturbation=perturbation)
        except (NotImplementedError, AssertionError, ValueError, TypeError) as error:
            raise UnsuitedError(f"shap.TreeExplainer does not take this {type(model).__name__}: {error}") from error
        return cls(explainer, trees, trees.link())

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows as the estimator takes them."""
        rows, output = self.trees.matrix(encoded), self.trees.output(encoded)
        values = np.asarray(self.explainer.shap_values(rows, check_additivity=False), dtype=np.float64)
        base = np.atleast_1d(np.asarray(self.explainer.expected_value, dtype=np.float64))
        if output.ndim == 2:
            return Explanation(np.ascontiguousarray(values.transpose(0, 2, 1)), as_base(base), output)
        if values.ndim == 3:
            values = np.ascontiguousarray(values[:, :, 1])
        return Explanation(values, float(base[-1]), output)


def _shap() -> Any:
    with warnings.catch_warnings():
        # shap's plots, which come along, call what matplotlib is going to deprecate.
        warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
        import shap
    return shap
