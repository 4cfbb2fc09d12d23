"""Which explainer fits a model.

`auto` takes the cheapest of those that are exact: the closed form of a linear model, and of trees the library's own
contributions, Shapley values computed from the trees' arrays, or shap's, whichever a measured model of costs says
for a usual window; for everything else it samples. What fits is tried, not believed: an exact explainer is accepted
only if, on the background, its attributions add up to its output and its output gives the model's predictions.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.additive import AdditiveModel
from whydrift.pipelines.explainers.case import TOLERANCE as EXACT
from whydrift.pipelines.explainers.case import Candidate, Case, Core, Perturbation
from whydrift.pipelines.explainers.columns import Columns, digest
from whydrift.pipelines.explainers.encoding import Encoding
from whydrift.pipelines.explainers.gradient import TOLERANCE as PATHS
from whydrift.pipelines.explainers.gradient import Algorithm, GradientExplainer
from whydrift.pipelines.explainers.kernel import KernelExplainer
from whydrift.pipelines.explainers.lime import LimeExplainer
from whydrift.pipelines.explainers.linear import LinearModel
from whydrift.pipelines.explainers.permutation import PermutationExplainer
from whydrift.pipelines.explainers.prediction import Predict, Predictor, predictor
from whydrift.pipelines.explainers.protocol import Explainer, Explanation, Link, Space, Task, UnsuitedError, answers
from whydrift.pipelines.explainers.scaling import Scaling
from whydrift.pipelines.explainers.tree_families import native, shap, shapley
from whydrift.pipelines.explainers.trees import refusals

Method = Literal[
    "auto", "native", "additive", "linear", "tree", "deep_lift", "gradient_shap", "integrated_gradients",
    "permutation", "kernel", "lime",
]  # fmt: skip

_TRIED = 1000  # rows of the background that an explainer is tried on
_SAMPLED_BACKGROUND = 1000  # rows of it that sampling takes, whose cost grows with them
_USUAL_ROWS = 10_000

_HELP = (
    "Supported are XGBoost, LightGBM and CatBoost models (native, tree), scikit-learn's HistGradientBoosting,"
    " GradientBoosting, RandomForest, ExtraTrees and DecisionTree (tree), linear models (linear) and explainable"
    " boosting machines (additive), also behind column-wise preprocessing, PyTorch modules (deep_lift, gradient_shap,"
    " integrated_gradients), and anything with predict_proba or predict (permutation, kernel). To add a family of"
    " trees, write a class like those in explainers/forests/ and name it in explainers/trees.py; to add any other"
    " family, a class with `explain` as in explainers/linear.py, and name it in FAMILIES of explainers/choose.py."
)


@dataclass(frozen=True, slots=True)
class EncodedExplainer:
    """Encodes rows, explains what the final estimator gets, and hands the attributions back to the features."""

    name: str
    core: Core
    columns: Columns
    encoding: Encoding
    parameters: Mapping[str, str]
    base: float | tuple[float, ...] = np.nan  # of the trial; what an empty batch is answered with
    tolerance: float = EXACT  # relative to the output, within which its attributions add up
    copy: bool = True  # of the rows, which a library may write to

    @property
    def link(self) -> Link:
        return self.core.link

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows.

        Raises:
            ModelError: the model refuses the rows.
        """
        frame = self.columns.frame(features, copy=self.copy)
        if frame.empty:
            heads = np.shape(self.base)
            return Explanation(np.empty((0, *heads, len(self.columns.names))), self.base, np.empty((0, *heads)))
        try:
            encoded = self.core.explain(self.encoding.encode(frame))
        except refusals() as error:
            raise ModelError(f"{self.name}: the model refuses the rows: {error}") from error
        return self.encoding.decode(encoded, len(self.columns.names))


def choose(  # noqa: PLR0913  all by keyword
    model: object,
    *,
    method: Method,
    task: Task,
    background: pd.DataFrame,
    features: Sequence[str],
    classes: Sequence[str] = (),
    perturbation: Perturbation = "path_dependent",
    rows: int = _USUAL_ROWS,
    space: Space = "margin",
) -> Explainer:
    """Make the explainer of a model.

    Args:
        model: What MLflow's own flavour loads: XGBoost, LightGBM, CatBoost, scikit-learn, PyTorch, or an object with
            predict_proba or predict.
        method: A family, or `auto` for the cheapest that fits.
        task: `binary` where the model gives the probability of the positive class, `regression` for a value,
            `multiclass` for a probability of each class.
        background: Baseline rows (b, p); absent features take their values from here where the family needs it.
        features: Names of the p features, in the order that the attributions are to have.
        classes: Of a multiclass model, in the order of its outputs.
        perturbation: Of trees, where absent features take their values from: the training rows that took the same
            paths, or all of the background.
        rows: Of a usual window; the same number has to be given for all windows that are to be compared.
        space: `probability` for attributions of a classifier that add up to its prediction itself.

    Raises:
        ModelError: no explainer fits, or not the one that was asked for; the message says why.
    """
    columns = Columns.of(background, features)
    if columns.frame(background).empty:
        raise ModelError("the explainer's background has no rows or no features")
    model = getattr(model, "best_estimator_", model)  # of a hyperparameter search
    predict = predictor(model, task, columns, background.head(_TRIED), classes)
    case = Case(model, task, columns, background, perturbation, rows)
    why_not: list[str] = []
    with _collector_paused():
        for candidate in _candidates(case, method, why_not):
            try:
                explainer = _explainer(case, candidate)
                _check_space(explainer, space)
                core = candidate.trial(explainer.core) if candidate.trial else explainer.core
                base = _try(replace(explainer, core=core), predict, background.head(_TRIED))
                return replace(explainer, base=base)
            except UnsuitedError as error:
                why_not.append(str(error))
    if method != "auto" and method not in SAMPLERS:
        raise ModelError(f"no {method} explainer for this {type(model).__name__}. {'; '.join(why_not)}. {_HELP}")
    link: Link = "identity" if space == "probability" else _SAMPLED[task]
    sampler = SAMPLERS["permutation" if method == "auto" else method]
    return sampler(predict, columns, link, background.head(_SAMPLED_BACKGROUND))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector while what stays is made.

    Trees that are read and libraries that are imported bring so many objects at once that the collector would go
    through all that is loaded several times, in vain: a fifth of the time until the first window is explained.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


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


def _candidates(case: Case, method: Method, why_not: list[str]) -> list[Candidate]:
    """All that may fit, the cheapest first; why others do not is added to `why_not`."""
    candidates = []
    for name, ask in FAMILIES.items():
        if method != name.partition(":")[0] and (method != "auto" or name in _BY_NAME):
            continue
        try:
            candidates.append(ask(case))
        except UnsuitedError as error:
            why_not.append(f"{name}: {error}")
    return sorted(candidates, key=lambda candidate: candidate.seconds)


def _linear(case: Case) -> Candidate:
    encoding, scaling = case.encoding, None
    if encoding.steps is not None and (scaling := Scaling.of(encoding.steps)) is not None:
        encoding = replace(encoding, estimator=case.model, steps=None)  # which as a whole is linear in its features
    core = LinearModel.of(case.encoding.estimator, case.task, encoding.encode(case.frame), scaling)
    copy = encoding.steps is not None
    return Candidate("linear", 0, lambda: core, ("sklearn",), uses_background=True, encoding=encoding, copy=copy)


def _additive(case: Case) -> Candidate:
    core = AdditiveModel.of(case.encoding.estimator, case.task)
    return Candidate("interpret:terms", 0, lambda: core, ("interpret",), uses_background=False)


def _gradient(algorithm: Algorithm) -> Callable[[Case], Candidate]:
    def ask(case: Case) -> Candidate:
        core = GradientExplainer.of(case.model, case.task, case.frame.head(_SAMPLED_BACKGROUND), algorithm)
        tolerance = EXACT if algorithm == "deep_lift" else PATHS
        name, libraries = f"captum:{algorithm}", ("torch", "captum")
        return Candidate(name, 0, lambda: core, libraries, uses_background=True, tolerance=tolerance)

    return ask


# What can be asked for by name; of the exact ones `auto` tries the cheapest first, before it samples. The part before
# the colon is the configured method.
FAMILIES: dict[str, Callable[[Case], Candidate]] = {
    "linear": _linear,
    "additive": _additive,
    "native": native,
    "tree:shapley": shapley,
    "tree:shap": shap,
    "deep_lift": _gradient("deep_lift"),
    "gradient_shap": _gradient("gradient_shap"),
    "integrated_gradients": _gradient("integrated_gradients"),
}
# Rules and path integrals answer other questions than the Shapley values that `auto` is about, see docs/explainers.md.
_BY_NAME = frozenset({"deep_lift", "gradient_shap", "integrated_gradients"})

# What explains anything that predicts.
SAMPLERS: dict[str, Callable[[Predictor, Columns, Link, pd.DataFrame], Explainer]] = {
    "permutation": PermutationExplainer.of,
    "kernel": KernelExplainer.of,
    "lime": LimeExplainer.of,
}


def _explainer(case: Case, candidate: Candidate) -> EncodedExplainer:
    core, tolerance = candidate.make(), candidate.tolerance  # which imports the libraries, with what each needs for it
    parameters = _versions(*candidate.libraries)
    if candidate.uses_background:
        parameters["background"] = digest(case.frame)
    encoding = candidate.encoding or case.encoding
    return EncodedExplainer(
        candidate.name, core, case.columns, encoding, parameters, tolerance=tolerance, copy=candidate.copy
    )


def _versions(*modules: str) -> dict[str, str]:
    return {name: str(import_module(name).__version__) for name in modules}


def _try(explainer: EncodedExplainer, predict: Predict, background: pd.DataFrame) -> float | tuple[float, ...]:
    """The explainer's base, if it is right about the background.

    Raises:
        UnsuitedError: it is not, e.g. of a class that changes what its base class predicts.
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
    if not gap <= EXACT * scale:
        raise UnsuitedError(f"what {explainer.name} explains differs from the model's predictions by up to {gap:.2g}")
    return explanation.base
