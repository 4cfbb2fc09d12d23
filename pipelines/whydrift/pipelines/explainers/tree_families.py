"""Who may explain a tree ensemble: the library itself, Shapley values from the trees' arrays, and shap."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.case import Candidate, Case, Core
from whydrift.pipelines.explainers.protocol import UnsuitedError
from whydrift.pipelines.explainers.shap_trees import ShapTrees
from whydrift.pipelines.explainers.trees import ForestTrees, NativeTrees, library, read_library

_FEW = 100  # background rows


def native(case: Case) -> Candidate:
    """The library's own attributions."""
    own = read_library(case.encoding.estimator, case.task)
    core, name = NativeTrees(own, own.link()), str(library(case.encoding.estimator))
    if case.interventional:
        raise UnsuitedError(f"{name}'s contributions are path-dependent, and explainer.perturbation: interventional")
    try:
        cost = case.seconds(name)
    except UnsuitedError:  # trees that we cannot read; then there is nothing to compare with
        cost = 0.0
    return Candidate(_NATIVE[name], cost, lambda: core, (name,), uses_background=False)


_NATIVE = {
    "xgboost": "xgboost:pred_contribs",
    "lightgbm": "lightgbm:pred_contrib",
    "catboost": "catboost:ShapValues",
}


def shapley(case: Case) -> Candidate:
    """Shapley values from the trees' arrays."""
    if find_spec("numba") is None:
        raise UnsuitedError("Shapley values from the trees' arrays need numba: pip install 'whydrift[fast]'")
    trees, link, forest = case.trees, case.trees.link(), case.forest
    name = f"trees:{case.perturbation}"

    def make() -> Core:
        from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees

        if not case.interventional:
            return ForestTrees(trees, link, ShapleyTrees.path_dependent(forest))
        try:
            values = ShapleyTrees.interventional(forest, case.encoded)
        except ValueError as error:  # a path through too many features
            raise UnsuitedError(str(error)) from error
        return ForestTrees(trees, link, values)

    def trial(core: Core) -> Core:
        """Tables that are made at each call are made for a few background rows; what is tried is how trees are read."""
        from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees

        if not (isinstance(core, ForestTrees) and core.shapley.made_at_each_call):
            return core
        return replace(core, shapley=ShapleyTrees.interventional(forest, case.encoded[:_FEW]))

    libraries = (_module(case.encoding.estimator), "numba")
    return Candidate(name, case.seconds(name), make, libraries, uses_background=case.interventional, trial=trial)


def shap(case: Case) -> Candidate:
    """What shap gives, where the other two cannot.

    Raises:
        ModelError: numba is not installed, and there is nobody else.
    """
    trees, estimator = case.trees, case.encoding.estimator
    trees.link()
    if library(estimator) is not None and not case.interventional:
        raise UnsuitedError("shap's path-dependent values of this library are the library's own")
    if find_spec("numba") is None:  # which shap needs as well; sampling would be right, and a thousand times slower
        raise ModelError("explaining this tree model needs numba: pip install 'whydrift[fast]'")
    if find_spec("shap") is None:
        raise UnsuitedError("shap is not installed: pip install 'whydrift[shap]'")
    if (case.forest.category >= 0).any():
        raise UnsuitedError("shap takes categorical splits for numeric ones")
    cost = case.seconds(f"shap:{case.perturbation}")
    libraries = ("shap", _module(estimator))
    return Candidate(
        "shap:tree",
        cost,
        lambda: ShapTrees.of(estimator, trees, case.encoded if case.interventional else None),
        libraries,
        uses_background=case.interventional,
    )


def _module(estimator: object) -> str:
    return library(estimator) or "sklearn"
