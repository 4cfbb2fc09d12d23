"""scikit-learn's tree models by shap.TreeExplainer, path-dependent.

Path-dependent only: the interventional variant of shap 0.51 does not add up for HistGradientBoosting.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.encoding import matrix, single_threaded
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_FAMILIES = ("HistGradientBoosting", "GradientBoosting", "RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree")
_TREES = frozenset(family + kind for family in _FAMILIES for kind in ("Classifier", "Regressor"))


@dataclass(frozen=True, slots=True)
class SklearnTrees:
    """Boosted trees add up in log-odds, or in the margins of softmax.

    A forest adds up in the probability itself, so its link is the identity.
    """

    explainer: Any
    link: Link
    answer: Callable[[Any], FloatArray]

    @classmethod
    def of(cls, model: Any, task: Task) -> SklearnTrees:
        """Wrap one of scikit-learn's tree models.

        Raises:
            UnsuitedError: the model is another one, or shap refuses it.
            ModelError: shap is not installed.
        """
        if not any(base.__name__ in _TREES for base in type(model).__mro__):
            raise UnsuitedError(f"{type(model).__name__} is not one of scikit-learn's tree models")
        shap = _shap()
        model = single_threaded(model)
        try:
            explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
        except (NotImplementedError, AssertionError, ValueError, TypeError) as error:
            raise UnsuitedError(f"shap.TreeExplainer does not take this {type(model).__name__}: {error}") from error
        if task == "regression":
            return cls(explainer, "identity", model.predict)
        if hasattr(model, "decision_function"):
            return cls(explainer, "softmax" if task == "multiclass" else "logit", model.decision_function)
        if task == "multiclass":
            return cls(explainer, "identity", model.predict_proba)
        return cls(explainer, "identity", lambda encoded: np.asarray(model.predict_proba(encoded))[:, 1])

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows as the estimator takes them."""
        values = np.asarray(self.explainer.shap_values(matrix(encoded), check_additivity=False), dtype=np.float64)
        output = np.asarray(self.answer(encoded), dtype=np.float64)
        base = np.atleast_1d(np.asarray(self.explainer.expected_value, dtype=np.float64))
        if output.ndim == 2:
            return Explanation(np.ascontiguousarray(values.transpose(0, 2, 1)), as_base(base), output)
        if values.ndim == 3:
            values = np.ascontiguousarray(values[:, :, 1])
        return Explanation(values, float(base[-1]), output)


def _shap() -> Any:
    try:
        with warnings.catch_warnings():
            # shap's plots, which come along, call what matplotlib is going to deprecate.
            warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
            import shap
    except ImportError as error:
        raise ModelError("explaining tree models needs shap: pip install 'whydrift[shap]'") from error
    return shap
