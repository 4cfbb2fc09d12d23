"""scikit-learn's tree ensembles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.encoding import matrix, single_threaded
from whydrift.pipelines.explainers.forest import Forest, IntArray, at_most, chain, pack
from whydrift.pipelines.explainers.protocol import FloatArray, Link, Task, UnsuitedError

_AVERAGED = ("RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree")
_FAMILIES = ("HistGradientBoosting", "GradientBoosting", *_AVERAGED)
_LARGEST = np.finfo(np.float64).max


def family(model: Any) -> str | None:
    """Which of scikit-learn's families of trees a model is of; None of all others."""
    kinds = {base.__name__: base.__module__ for base in type(model).__mro__}
    found = (
        name
        for name in _FAMILIES
        for kind in ("Classifier", "Regressor")
        if kinds.get(name + kind, "").startswith("sklearn.")
    )
    return next(found, None)


@dataclass(frozen=True, slots=True)
class SklearnTrees:
    """A fitted ensemble. Boosted trees add up in log-odds or in the margins of softmax, a forest in probabilities."""

    model: Any
    task: Task
    answer: Callable[[Any], FloatArray]

    @classmethod
    def of(cls, model: Any, task: Task) -> SklearnTrees:
        """Read one of scikit-learn's tree models."""
        model = single_threaded(model)
        return cls(model, task, _answer(model, task))

    def link(self) -> Link:
        """How the sum of the trees gives the prediction.

        Raises:
            UnsuitedError: the loss has another link, or the model has several outputs.
        """
        if getattr(self.model, "n_outputs_", 1) > 1:
            raise UnsuitedError(
                f"the {type(self.model).__name__} has {self.model.n_outputs_} outputs; one is supported"
            )
        loss = str(getattr(self.model, "loss", ""))
        if loss in {"exponential", "poisson", "gamma"} and family(self.model) not in _AVERAGED:
            raise UnsuitedError(f"{type(self.model).__name__} with loss {loss} has a link of its own")
        if self.task == "regression" or family(self.model) in _AVERAGED:
            return "identity"
        return "softmax" if self.task == "multiclass" else "logit"

    def output(self, encoded: Any) -> FloatArray:
        """What the trees add up to by scikit-learn itself, (n,) or (n, C)."""
        return np.asarray(self.answer(encoded), dtype=np.float64)

    def matrix(self, encoded: Any) -> FloatArray:
        """The numbers that the trees compare, (n, q)."""
        if family(self.model) != "HistGradientBoosting":
            with np.errstate(over="ignore"):
                return matrix(encoded).astype(np.float32).astype(np.float64)
        rows = np.asarray(self.model._preprocess_X(encoded, reset=False), dtype=np.float64)  # noqa: SLF001
        # A split of the missing from all else has the threshold infinity, and infinity is not below it.
        ours = np.empty_like(rows)
        ours[:, _places(self.model)] = np.minimum(rows, _LARGEST)
        return ours

    def forest(self) -> Forest:
        """The trees.

        Raises:
            UnsuitedError: they start from a model of their own (`init`).
        """
        if family(self.model) == "HistGradientBoosting":
            return _histogram(self.model)
        if family(self.model) == "GradientBoosting":
            return _boosted(self.model)
        return _averaged(self.model, self.task)


def _answer(model: Any, task: Task) -> Callable[[Any], FloatArray]:
    if task == "regression":
        return model.predict  # type: ignore[no-any-return]
    if hasattr(model, "decision_function"):
        return model.decision_function  # type: ignore[no-any-return]
    if task == "multiclass":
        return model.predict_proba  # type: ignore[no-any-return]
    return lambda encoded: np.asarray(model.predict_proba(encoded))[:, 1]


def _places(model: Any) -> IntArray:
    """For each column of a HistGradientBoosting's inner matrix its column in the input: categorical ones come first."""
    if model.is_categorical_ is None:
        return np.arange(model.n_features_in_)
    return np.concatenate([np.flatnonzero(model.is_categorical_), np.flatnonzero(~model.is_categorical_)])


def _histogram(model: Any) -> Forest:
    """What a node does with an unknown category is what it does with a missing value: both arrive as NaN."""
    places = _places(model)
    rounds = model._predictors  # noqa: SLF001
    trees = [tree for one in rounds for tree in one]
    nodes = np.concatenate([tree.nodes for tree in trees])
    roots, first = chain([tree.nodes for tree in trees])
    leaf = nodes["is_leaf"].astype(np.bool_)
    by_set = nodes["is_categorical"].astype(np.bool_) & ~leaf
    sizes = [len(tree.raw_left_cat_bitsets) for tree in trees]
    shift = np.repeat(np.cumsum(sizes) - sizes, [len(tree.nodes) for tree in trees])
    bits = np.concatenate([np.reshape(tree.raw_left_cat_bitsets, (-1, 8)) for tree in trees]).astype(np.uint32)
    outputs = len(rounds[0])
    turn = np.repeat(np.arange(len(trees)) % outputs, [len(tree.nodes) for tree in trees])
    value = np.zeros((nodes.size, outputs))
    value[np.arange(nodes.size), turn] = np.where(leaf, nodes["value"], 0)
    return Forest(
        roots=roots,
        feature=np.where(leaf, -1, places[np.where(leaf, 0, nodes["feature_idx"])]),
        threshold=np.where(leaf | by_set, 0, at_most(nodes["num_threshold"])),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        category=np.where(by_set, nodes["bitset_idx"].astype(np.int64) + shift, -1),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64) + first),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64) + first),
        cover=nodes["count"].astype(np.float64),
        value=value,
        base=np.ravel(model._baseline_prediction).astype(np.float64),  # noqa: SLF001
        offsets=np.arange(len(bits) + 1, dtype=np.int64) * 4,
        words=np.ascontiguousarray(bits).view(np.uint64).ravel(),
    ).arranged()


def _boosted(model: Any) -> Forest:
    rows, outputs = np.zeros((2, model.n_features_in_)), model.estimators_.shape[1]
    rows[1] = 1
    start = np.asarray(model._raw_predict_init(rows), dtype=np.float64)  # noqa: SLF001
    constant = model.init_ == "zero" or type(model.init_).__name__ in {"DummyClassifier", "DummyRegressor"}
    if not constant:
        raise UnsuitedError(
            f"{type(model).__name__} starts from a {type(model.init_).__name__} (init), whose part is not that of trees"
        )
    trees = [estimator.tree_ for estimator in model.estimators_.ravel()]
    value = np.zeros((sum(tree.node_count for tree in trees), outputs))
    turn = np.repeat(np.arange(len(trees)) % outputs, [tree.node_count for tree in trees])
    value[np.arange(len(value)), turn] = np.concatenate([tree.value[:, 0, 0] for tree in trees]) * model.learning_rate
    return _joined(trees, value, start[0])


def _averaged(model: Any, task: Task) -> Forest:
    estimators = getattr(model, "estimators_", [model])
    trees = [estimator.tree_ for estimator in estimators]
    value = np.concatenate([tree.value[:, 0, :] for tree in trees])
    if task != "regression":
        value = value / value.sum(axis=1, keepdims=True)
    if task == "binary":
        value = value[:, 1:]
    return _joined(trees, value / len(trees), np.zeros(value.shape[1]))


def _joined(trees: list[Any], value: FloatArray, base: FloatArray) -> Forest:
    """scikit-learn's own trees with the values of their nodes, of which the leaves' count."""
    roots, first = chain([tree.children_left for tree in trees])
    left, right = (np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) for side in ("left", "right"))
    leaf = left < 0
    offsets, words = pack([])
    return Forest(
        roots=roots,
        feature=np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])),
        threshold=np.where(leaf, 0, at_most(np.concatenate([tree.threshold for tree in trees]))),
        missing_left=np.concatenate([tree.missing_go_to_left for tree in trees]).astype(np.bool_),
        category=np.full(leaf.size, -1, dtype=np.int64),
        left=np.where(leaf, -1, left + first),
        right=np.where(leaf, -1, right + first),
        cover=np.concatenate([tree.weighted_n_node_samples for tree in trees]),
        value=np.where(leaf[:, None], value, 0),
        base=base,
        offsets=offsets,
        words=words,
    ).arranged()
