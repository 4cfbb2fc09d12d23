"""Which explainer fits a model.

`auto` takes the first that fits: the model's own contributions, the closed form of a linear model, TreeSHAP, and
for everything else sampling. What fits is tried, not believed: an exact explainer is accepted only if, on the
background, its attributions add up to its output and its output gives the model's predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.additive import AdditiveModel
from whydrift.pipelines.explainers.columns import Columns, digest
from whydrift.pipelines.explainers.encoding import Encoding, split
from whydrift.pipelines.explainers.gradient import TOLERANCE, Algorithm, GradientExplainer
from whydrift.pipelines.explainers.kernel import KernelExplainer
from whydrift.pipelines.explainers.lime import LimeExplainer
from whydrift.pipelines.explainers.linear import LinearModel
from whydrift.pipelines.explainers.native import XGBoostTrees, is_xgboost, xgboost_link
from whydrift.pipelines.explainers.permutation import PermutationExplainer
from whydrift.pipelines.explainers.prediction import Predict, predictor
from whydrift.pipelines.explainers.protocol import Explainer, Explanation, Link, Space, Task, UnsuitedError, answers
from whydrift.pipelines.explainers.tree import SklearnTrees

# XGBoost computes in float32; what is looked for here is a wrong algorithm, whose errors are of order 1.
_TOLERANCE = 1e-4

_HELP = (
    "Supported are XGBoost models (native), linear models, explainable boosting machines and scikit-learn's tree"
    " models, also behind column-wise preprocessing (linear, additive, tree), PyTorch modules (deep_lift,"
    " gradient_shap, integrated_gradients), and anything with predict_proba or predict (permutation, kernel). To add a"
    " family, write"
    " a class with `explain` as in explainers/linear.py and name it in FAMILIES of explainers/choose.py."
)


Method = Literal[
    "auto", "native", "additive", "linear", "tree", "deep_lift", "gradient_shap", "integrated_gradients",
    "permutation", "kernel", "lime",
]  # fmt: skip


class Core(Protocol):
    """An explainer of encoded rows, as the final estimator takes them."""

    @property
    def link(self) -> Link: ...

    def explain(self, encoded: Any) -> Explanation: ...


@dataclass(frozen=True, slots=True)
class EncodedExplainer:
    """Encodes rows, explains what the final estimator gets, and hands the attributions back to the features."""

    name: str
    core: Core
    columns: Columns
    encoding: Encoding
    parameters: Mapping[str, str]
    base: float | tuple[float, ...] = np.nan
    tolerance: float = _TOLERANCE  # relative to the output, within which its attributions add up

    @property
    def link(self) -> Link:
        return self.core.link

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows.

        Raises:
            ModelError: the model refuses the rows.
        """
        frame = self.columns.frame(features)
        if frame.empty:
            heads = np.shape(self.base)
            return Explanation(np.empty((0, *heads, len(self.columns.names))), self.base, np.empty((0, *heads)))
        try:
            encoded = self.core.explain(self.encoding.encode(frame))
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: the model refuses the rows: {error}") from error
        return self.encoding.decode(encoded, len(self.columns.names))


def choose(
    model: object,
    *,
    method: Method,
    task: Task,
    background: pd.DataFrame,
    features: Sequence[str],
    classes: Sequence[str] = (),
    space: Space = "margin",
) -> Explainer:
    """Make the explainer of a model.

    Args:
        model: What MLflow's own flavour loads: XGBoost, scikit-learn, PyTorch, or an object with predict_proba or
            predict.
        method: A family, or `auto` for the first that fits.
        task: `binary` where the model gives the probability of the positive class, `regression` for a value,
            `multiclass` for a probability of each class.
        background: Baseline rows (b, p); absent features take their values from here where the family needs it.
        features: Names of the p features, in the order that the attributions are to have.
        classes: Of a multiclass model, in the order of its outputs.
        space: `probability` for attributions of a classifier that add up to its prediction itself.

    Raises:
        ModelError: no explainer fits, or not the one that was asked for; the message says why.
    """
    columns = Columns.of(background, features)
    if columns.frame(background).empty:
        raise ModelError("the explainer's background has no rows or no features")
    model = getattr(model, "best_estimator_", model)  # of a hyperparameter search
    predict = predictor(model, task, columns, background, classes)
    refusals = []
    for family in _AUTO if method == "auto" else {method} & FAMILIES.keys():
        try:
            explainer = FAMILIES[family](model, task, columns, background)
            _check_space(explainer, space)
            return _checked(explainer, predict, background)
        except UnsuitedError as error:
            refusals.append(f"{family}: {error}")
    if method != "auto" and method not in SAMPLERS:
        raise ModelError(f"no {method} explainer for this {type(model).__name__}. {'; '.join(refusals)}. {_HELP}")
    link: Link = "identity" if space == "probability" else _SAMPLED[task]
    return SAMPLERS["permutation" if method == "auto" else method](predict, columns, link, background)


def _check_space(explainer: EncodedExplainer, space: Space) -> None:
    """That the attributions add up where they are to; of trees only forests' do so in probability.

    shap's TreeExplainer offers the probability of boosted trees as well, and spreads it over the features as the margin
    is spread, once for each background row: that adds up, and is not the Shapley value of the probability.

    Raises:
        UnsuitedError: they do not.
    """
    if space == "probability" and explainer.link != "identity":
        raise UnsuitedError(f"{explainer.name} adds up in the margin, and explainer.space asks for probability")


_SAMPLED: dict[Task, Link] = {"binary": "logit", "regression": "identity", "multiclass": "softmax"}


def _native(model: Any, task: Task, columns: Columns, _background: pd.DataFrame) -> EncodedExplainer:
    estimator = model.steps[-1][1] if hasattr(model, "steps") else model
    if not is_xgboost(estimator):
        raise UnsuitedError(f"{type(estimator).__name__} has no contributions of its own that are known here")
    trees = XGBoostTrees.of(estimator, xgboost_link(estimator, task))
    return EncodedExplainer("xgboost:pred_contribs", trees, columns, split(model, columns), _versions("xgboost"))


def _linear(model: Any, task: Task, columns: Columns, background: pd.DataFrame) -> EncodedExplainer:
    encoding = split(model, columns)
    frame = columns.frame(background)
    core = LinearModel.of(encoding.estimator, task, encoding.encode(frame))
    return EncodedExplainer("linear", core, columns, encoding, {"background": digest(frame), **_versions("sklearn")})


def _tree(model: Any, task: Task, columns: Columns, _background: pd.DataFrame) -> EncodedExplainer:
    encoding = split(model, columns)
    core = SklearnTrees.of(encoding.estimator, task)
    return EncodedExplainer("shap:tree", core, columns, encoding, _versions("shap", "sklearn"))


def _additive(model: Any, task: Task, columns: Columns, _background: pd.DataFrame) -> EncodedExplainer:
    encoding = split(model, columns)
    core = AdditiveModel.of(encoding.estimator, task)
    return EncodedExplainer("interpret:terms", core, columns, encoding, _versions("interpret"))


def _gradient(algorithm: Algorithm) -> Family:
    def of(model: Any, task: Task, columns: Columns, background: pd.DataFrame) -> EncodedExplainer:
        frame = columns.frame(background)
        core = GradientExplainer.of(model, task, frame, algorithm)
        parameters = {"background": digest(frame), **_versions("torch", "captum")}
        tolerance = _TOLERANCE if algorithm == "deep_lift" else TOLERANCE
        name, encoding = f"captum:{algorithm}", split(model, columns)
        return EncodedExplainer(name, core, columns, encoding, parameters, tolerance=tolerance)

    return of


Family = Callable[[Any, Task, Columns, pd.DataFrame], EncodedExplainer]

# What `auto` tries, in this order, before it samples; but not the last, which asks another question than the others.
FAMILIES: dict[str, Family] = {
    "native": _native,
    "additive": _additive,
    "linear": _linear,
    "tree": _tree,
    "deep_lift": _gradient("deep_lift"),
    "gradient_shap": _gradient("gradient_shap"),
    "integrated_gradients": _gradient("integrated_gradients"),
}
_AUTO = tuple(FAMILIES)[:-1]

# What explains anything that predicts.
SAMPLERS: dict[str, Callable[[Predict, Columns, Link, pd.DataFrame], Explainer]] = {
    "permutation": PermutationExplainer.of,
    "kernel": KernelExplainer.of,
    "lime": LimeExplainer.of,
}


def _versions(*modules: str) -> dict[str, str]:
    return {name: str(import_module(name).__version__) for name in modules}


def _checked(explainer: EncodedExplainer, predict: Predict, background: pd.DataFrame) -> EncodedExplainer:
    """The explainer, if it is right about the background.

    Raises:
        UnsuitedError: it is not, e.g. shap's TreeExplainer on HistGradientBoosting with categorical splits.
    """
    try:
        explanation = explainer.explain(background)
    except ModelError as error:
        raise UnsuitedError(str(error)) from error
    output = explanation.output
    scale = max(1.0, float(np.abs(output).max()))
    residual = float(np.abs(explanation.residual()).max())
    if not residual <= explainer.tolerance * scale:
        raise UnsuitedError(f"attributions of {explainer.name} miss the model's output by up to {residual:.2g}")
    gap = float(np.abs(answers(output, explainer.link) - predict(explainer.columns.frame(background))).max())
    if not gap <= _TOLERANCE * scale:
        raise UnsuitedError(f"what {explainer.name} explains differs from the model's predictions by up to {gap:.2g}")
    return replace(explainer, base=explanation.base)
