"""XGBoost's trees, and its own attributions of them: path-dependent TreeSHAP, exact.

Source of the attributions: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.forest import Forest, IntArray, chain, pack
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_IDENTITY = frozenset(
    {"reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror"}
)
_LOGIT = frozenset({"binary:logistic", "reg:logistic"})
_LOG = frozenset({"count:poisson", "reg:gamma", "reg:tweedie"})


@dataclass(frozen=True, slots=True)
class XGBoostTrees:
    """A booster, with what is needed to hand it rows as it was trained on them.

    String columns become the codes of the categories that the booster knows (it keeps them when it is saved, since
    XGBoost 3.1). A category that it never saw is handed over as missing: XGBoost itself would refuse the batch.
    `rounds` is the range of trees that predictions use, shorter than the model where training stopped early.
    """

    booster: Any
    task: Task
    rounds: tuple[int, int]
    missing: float
    categories: dict[int, pd.Index[Any]]

    @classmethod
    def of(cls, model: Any, task: Task) -> XGBoostTrees:
        """Read a Booster or one of XGBoost's scikit-learn classes."""
        booster = model.get_booster() if hasattr(model, "get_booster") else model
        # Booster.predict uses all trees; the scikit-learn classes use those up to the best iteration.
        best = booster.attributes().get("best_iteration") if booster is not model else None
        return cls(
            booster=booster,
            task=task,
            rounds=(0, 0) if best is None else (0, int(best) + 1),
            missing=float(getattr(model, "missing", np.nan)),
            categories=_categories(booster),
        )

    def link(self) -> Link:
        """How the margin gives the prediction.

        Raises:
            UnsuitedError: the model is not made of trees, has several outputs, or its objective is not supported.
        """
        learner = _learner(self.booster)
        if _is_linear(learner):
            raise UnsuitedError("XGBoost's gblinear booster has no trees")
        objective = learner["objective"]["name"]
        outputs = max(int(learner["learner_model_param"][key]) for key in ("num_class", "num_target"))
        if self.task == "multiclass" and objective == "multi:softprob":
            return "softmax"
        if outputs > 1:
            raise UnsuitedError(
                f"the XGBoost model has {outputs} outputs ({objective}); one is supported (of quantiles: one"
                " quantile_alpha a model), and multi:softprob for the multiclass task"
            )
        if objective == "reg:logistic" or (self.task == "binary" and objective in _LOGIT):
            return "logit"
        if self.task == "regression" and objective in _IDENTITY:
            return "identity"
        raise UnsuitedError(
            f"XGBoost objective {objective} for a {self.task} task; supported are binary:logistic for binary,"
            f" multi:softprob for multiclass, {', '.join(sorted(_IDENTITY))} and reg:logistic for regression"
        )

    def explain(self, encoded: Any) -> Explanation:
        """XGBoost's own attributions of rows with the booster's columns, in its order."""
        data = self._data(encoded)
        contributions = self._predict(data, pred_contribs=True)
        return Explanation(
            np.ascontiguousarray(contributions[..., :-1]),
            as_base(contributions[0, ..., -1]),
            self._predict(data, output_margin=True),
        )

    def predict(self, encoded: Any) -> FloatArray:
        """The model's predictions, (n,) or (n, C): probabilities or values."""
        return self._predict(self._data(encoded))

    def output(self, encoded: Any) -> FloatArray:
        """The margins, (n,) or (n, C)."""
        return self._predict(self._data(encoded), output_margin=True)

    def matrix(self, encoded: Any) -> FloatArray:
        """The numbers that the trees compare, rounded to float32 as XGBoost does, (n, q)."""
        numbers = self._numbers(encoded)
        if hasattr(numbers, "tocoo"):
            entries = numbers.tocoo()
            numbers = np.full(entries.shape, np.nan)  # what a sparse matrix leaves out is missing to XGBoost
            numbers[entries.row, entries.col] = entries.data
        with np.errstate(over="ignore"):
            rounded = np.asarray(numbers).astype(np.float32)
        rounded[rounded == np.float32(self.missing)] = np.nan
        return rounded.astype(np.float64)

    def forest(self) -> Forest:
        """The trees that predictions use, adding up to margins.

        Raises:
            UnsuitedError: a leaf holds several numbers.
        """
        learner = json.loads(bytes(self.booster.save_raw("json")))["learner"]
        booster = learner["gradient_booster"]
        model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
        used = model["iteration_indptr"][self.rounds[1]] if self.rounds[1] else len(model["trees"])
        trees = model["trees"][:used]
        if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in trees):
            raise UnsuitedError("XGBoost's multi_output_tree has several numbers a leaf; one_output_per_tree has one")
        base = _base(learner)
        dropped = booster.get("weight_drop", np.ones(len(trees)))[:used]  # of dart: the weights of its trees
        return _forest(trees, model["tree_info"][:used], dropped, base)

    def _predict(self, data: Any, **kind: bool) -> FloatArray:
        answer = self.booster.predict(data, iteration_range=self.rounds, **kind)
        return np.asarray(answer, dtype=np.float64)

    def _data(self, encoded: Any) -> Any:
        import xgboost

        return xgboost.DMatrix(
            self._numbers(encoded),
            missing=self.missing,
            feature_names=self.booster.feature_names,
            feature_types=self.booster.feature_types,
            enable_categorical=True,
        )

    def _numbers(self, encoded: Any) -> Any:
        if not isinstance(encoded, pd.DataFrame):
            return encoded
        return np.column_stack([self._column(i, encoded.iloc[:, i]) for i in range(encoded.shape[1])])

    def _column(self, position: int, values: pd.Series[Any]) -> FloatArray:
        if position not in self.categories:
            return values.to_numpy(dtype=np.float64)
        codes = self.categories[position].get_indexer(pd.Index(values)).astype(np.float64)
        return np.where(codes < 0, np.nan, codes)


def _learner(booster: Any) -> dict[str, Any]:
    return dict(json.loads(booster.save_config())["learner"])


def _is_linear(learner: dict[str, Any]) -> bool:
    return bool(learner["gradient_booster"]["name"] == "gblinear")


def _categories(booster: Any) -> dict[int, pd.Index[Any]]:
    if _is_linear(_learner(booster)):
        return {}  # it takes numbers only, and get_categories raises
    known = booster.get_categories(export_to_arrow=True).to_arrow()
    return {i: pd.Index(values.to_pylist()) for i, (_, values) in enumerate(known or ()) if values is not None}


def _base(learner: dict[str, Any]) -> FloatArray:
    """What all margins start from, (C,); the file has it as a prediction (XGBoost's `ProbToMargin`)."""
    parameters = learner["learner_model_param"]
    text = parameters["base_score"].strip("[]")  # one number before XGBoost 3.1
    score = np.array([float(number) for number in text.split(",")])
    objective = learner["objective"]["name"]
    if objective in _LOGIT:
        score = -np.log(1 / score - 1)
    elif objective in _LOG:
        score = np.log(score)
    outputs = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    return np.broadcast_to(score, (outputs,)).copy()


def _forest(trees: list[dict[str, Any]], groups: list[int], weights: Any, base: FloatArray) -> Forest:
    """Numbers are float32 in XGBoost; a row whose category is in a node's set goes right there, and left here."""
    roots, first = chain([tree["left_children"] for tree in trees])
    joined = {
        name: np.concatenate([np.asarray(tree[name], dtype=kind) for tree in trees])
        for name, kind in (
            ("left_children", np.int64),
            ("right_children", np.int64),
            ("split_indices", np.int64),
            ("split_type", np.int64),
            ("split_conditions", np.float32),
            ("default_left", np.bool_),
            ("sum_hessian", np.float32),
        )
    }
    left, right = (np.where(joined[side] < 0, -1, joined[side] + first) for side in ("left_children", "right_children"))
    leaf = left < 0
    by_set = (joined["split_type"] == 1) & ~leaf
    sets, category = _sets(trees, roots, left.size)
    offsets, words = pack(sets)
    number = joined["split_conditions"].astype(np.float64)
    tree = np.repeat(np.arange(len(trees)), [len(t["left_children"]) for t in trees])
    value = np.zeros((left.size, base.size))
    value[np.arange(left.size), np.asarray(groups, dtype=np.int64)[tree]] = np.where(
        leaf, number * np.asarray(weights, dtype=np.float64)[tree], 0
    )
    return Forest(
        roots=roots,
        feature=np.where(leaf, -1, joined["split_indices"]),
        threshold=np.where(leaf | by_set, 0, number),
        missing_left=joined["default_left"] != by_set,
        category=np.where(by_set, category, -1),
        left=np.where(by_set, right, left),
        right=np.where(by_set, left, right),
        cover=joined["sum_hessian"].astype(np.float64),
        value=value,
        base=base,
        offsets=offsets,
        words=words,
    ).arranged()


def _sets(trees: list[dict[str, Any]], roots: IntArray, size: int) -> tuple[list[IntArray], IntArray]:
    """The sets of categories of all trees, and each node's set, (N,)."""
    sets: list[IntArray] = []
    category = np.full(size, -1, dtype=np.int64)
    for tree, root in zip(trees, roots, strict=True):
        codes = np.asarray(tree["categories"], dtype=np.int64)
        spans = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
        for node, begin, length in spans:
            category[root + node] = len(sets)
            sets.append(codes[begin : begin + length])
    return sets, category
