"""LightGBM's trees, and its own attributions of them: path-dependent TreeSHAP, exact.

The text of a model has its trees as flat lists of exact numbers; how a node decides is in LightGBM's `tree.h`.
Source of the attributions: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.encoding import matrix
from whydrift.pipelines.explainers.forest import Forest, IntArray, at_most, chain, pack
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_IDENTITY = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape", "custom"})
_BY_SET, _DEFAULT_LEFT = 1, 2  # bits of a node's decision_type; the next two are how it knows a missing value
_ZERO, _SET = 1, -1
_NEAR_ZERO = float(np.float32(1e-35))  # kZeroThreshold: what is no larger counts as zero


@dataclass(frozen=True, slots=True)
class LightGBMTrees:
    """A booster, with what is needed to hand it rows as it was trained on them.

    String columns become the codes of the categories of the training frame, which the booster keeps; a category that
    it never saw becomes missing, as LightGBM itself does it. Predictions stop at the best iteration, as is its default.
    `kinds` are, by feature, how its nodes decide.
    """

    booster: Any
    task: Task
    header: dict[str, str]
    trees: list[dict[str, str]]
    parameters: dict[str, str]
    kinds: dict[int, set[int]]

    @classmethod
    def of(cls, model: Any, task: Task) -> LightGBMTrees:
        """Read a Booster or one of LightGBM's scikit-learn classes."""
        booster = model.booster_ if hasattr(model, "booster_") else model
        header, trees, parameters = _sections(booster.model_to_string())
        return cls(booster, task, header, trees, parameters, _kinds(trees))

    def link(self) -> Link:
        """How the raw score gives the prediction.

        Raises:
            UnsuitedError: the objective is not supported.
        """
        objective, *options = self.header.get("objective", "custom").split(" ")
        if objective == "binary" and self.task == "binary" and "sigmoid:1" in options:
            return "logit"
        if objective == "cross_entropy" and self.task != "multiclass":
            return "logit"
        if objective == "multiclass" and self.task == "multiclass":
            return "softmax"
        if objective in _IDENTITY and self.task == "regression" and "sqrt" not in options:
            return "identity"
        raise UnsuitedError(
            f"LightGBM objective {' '.join([objective, *options])} for a {self.task} task; supported are binary with"
            " sigmoid 1 and cross_entropy for binary, multiclass for multiclass,"
            f" {', '.join(sorted(_IDENTITY))} without reg_sqrt and cross_entropy for regression"
        )

    def explain(self, encoded: Any) -> Explanation:
        """LightGBM's own attributions of rows with the booster's columns, in its order."""
        rows = self._numbers(encoded)
        contributions = self._predict(rows, pred_contrib=True)
        if self._outputs > 1:
            contributions = contributions.reshape(len(rows), self._outputs, -1)
        contributions = contributions * self._scale
        return Explanation(
            np.ascontiguousarray(contributions[..., :-1]),
            as_base(contributions[0, ..., -1]),
            self._scale * self._predict(rows, raw_score=True),
        )

    def predict(self, encoded: Any) -> FloatArray:
        """The model's predictions, (n,) or (n, C): probabilities or values."""
        return self._predict(self._numbers(encoded))

    def output(self, encoded: Any) -> FloatArray:
        """The raw scores, (n,) or (n, C)."""
        return self._scale * self._predict(self._numbers(encoded), raw_score=True)

    def matrix(self, encoded: Any) -> FloatArray:
        """The numbers that the trees compare, (n, q): NaN where a node goes its default way, or past its sets."""
        rows = self._numbers(encoded)
        rows = np.where(np.abs(rows) <= _NEAR_ZERO, 0.0, rows)
        for feature, kinds in self.kinds.items():
            column = rows[:, feature]
            if kinds == {_SET}:
                column[:] = np.trunc(column)
                column[column < 0] = np.nan
            elif kinds == {_ZERO}:
                column[column == 0] = np.nan
        return rows

    def forest(self) -> Forest:
        """The trees that predictions use, adding up to raw scores.

        Raises:
            UnsuitedError: a leaf holds a linear model, or a column is missing where it is zero for some trees only.
        """
        if any(tree.get("is_linear") == "1" for tree in self.trees):
            raise UnsuitedError("LightGBM's linear_tree has a linear model in each leaf; constants are supported")
        if any(_ZERO in kinds and len(kinds) > 1 for kinds in self.kinds.values()):
            raise UnsuitedError("a column of the LightGBM model has trees with and without zero_as_missing")
        return _forest(self.trees, self._outputs, self._scale)

    @property
    def _outputs(self) -> int:
        return int(self.header["num_tree_per_iteration"])

    @property
    def _scale(self) -> float:
        """Of boosting type rf predictions are means over the trees, and raw scores and contributions are sums."""
        return self._outputs / len(self.trees) if "average_output" in self.header else 1.0

    def _predict(self, rows: FloatArray, **kind: bool) -> FloatArray:
        return np.asarray(self.booster.predict(rows, **kind), dtype=np.float64)

    def _numbers(self, encoded: Any) -> FloatArray:
        known = self.booster.pandas_categorical or []
        if not known:
            return matrix(encoded)
        frame = pd.DataFrame(encoded)
        coded = dict(zip(self._coded(frame, len(known)), known, strict=True))
        columns = [_codes(frame.iloc[:, i], coded.get(i)) for i in range(frame.shape[1])]
        return np.column_stack(columns)

    def _coded(self, frame: pd.DataFrame, known: int) -> list[int]:
        """The columns that were of pandas' category type in training; the model has their categories and not them."""
        strings = [i for i in range(frame.shape[1]) if not pd.api.types.is_numeric_dtype(frame.dtypes.iloc[i])]
        if len(strings) == known:
            return strings
        named = sorted(int(i) for i in self.parameters.get("categorical_feature", "").split(",") if i)
        if len(named) == known:
            return named
        raise UnsuitedError(
            f"the LightGBM model has the categories of {known} columns, and {len(strings)} of the features are strings;"
            " log the model with a signature that has its category columns as strings"
        )


def _kinds(trees: list[dict[str, str]]) -> dict[int, set[int]]:
    """By feature how its nodes decide: by which kind of missing value (0 none, 1 zero, 2 NaN), or by a set."""
    kinds: dict[int, set[int]] = {}
    for tree in trees:
        decisions = _ints(tree, "decision_type")
        found = np.where(decisions & _BY_SET, _SET, (decisions >> 2) & 3)
        for feature, kind in {*zip(_ints(tree, "split_feature").tolist(), found.tolist(), strict=True)}:
            kinds.setdefault(feature, set()).add(kind)
    return kinds


def _codes(values: pd.Series[Any], categories: list[Any] | None) -> FloatArray:
    if categories is None:
        return values.to_numpy(dtype=np.float64)
    codes = pd.Index(categories).get_indexer(pd.Index(values)).astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def _sections(text: str) -> tuple[dict[str, str], list[dict[str, str]], dict[str, str]]:
    """The text of a model as its header, its trees and its training parameters."""
    head, *parts = text.partition("\nend of trees")[0].split("\nTree=")
    after = text.partition("\nparameters:")[2].partition("end of parameters")[0]
    parameters = (line.strip("[]").partition(": ")[::2] for line in after.splitlines() if line.startswith("["))
    return _pairs(head), [_pairs(part) for part in parts], dict(parameters)


def _pairs(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


def _ints(tree: dict[str, str], name: str) -> IntArray:
    return np.array(tree.get(name, "").split(), dtype=np.int64)


def _floats(tree: dict[str, str], name: str) -> FloatArray:
    return np.array(tree.get(name, "").split(), dtype=np.float64)


def _forest(trees: list[dict[str, str]], outputs: int, scale: float) -> Forest:
    """Of each tree the inner nodes come first, then the leaves; a child below 0 is leaf number -1 - child."""
    parts = [_tree(tree) for tree in trees]
    roots, first = chain([part["left"] for part in parts])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sets: list[IntArray] = []
    for tree, part in zip(trees, parts, strict=True):
        part["shift"] = np.full(len(part["left"]), len(sets))
        sets += _sets(tree)
    offsets, words = pack(sets)
    shift = np.concatenate([part["shift"] for part in parts])
    value = np.zeros((first.size, outputs))
    turn = np.repeat(np.arange(len(trees)) % outputs, [len(part["left"]) for part in parts])
    value[np.arange(first.size), turn] = joined["value"] * scale
    return Forest(
        roots=roots,
        feature=joined["feature"],
        threshold=joined["threshold"],
        missing_left=joined["missing_left"].astype(np.bool_),
        category=np.where(joined["category"] < 0, -1, joined["category"] + shift),
        left=np.where(joined["left"] < 0, -1, joined["left"] + first),
        right=np.where(joined["right"] < 0, -1, joined["right"] + first),
        cover=joined["cover"],
        value=value,
        base=np.zeros(outputs),
        offsets=offsets,
        words=words,
    ).arranged()


def _tree(tree: dict[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """One tree's nodes, with its own numbers of nodes and sets."""
    leaves, decision, threshold = int(tree["num_leaves"]), _ints(tree, "decision_type"), _floats(tree, "threshold")
    inner, none = decision.size, np.full(leaves, -1)
    by_set = (decision & _BY_SET).astype(np.bool_)
    # A missing value counts as zero where a node does not know it, and is in no set.
    known = ((decision >> 2) & 3) > 0
    missing_left = np.where(known, (decision & _DEFAULT_LEFT) > 0, threshold >= 0) & ~by_set
    children = {side: _ints(tree, f"{side}_child") for side in ("left", "right")}
    weight = "count"  # LightGBM's own attributions count rows, whatever they weigh
    return {
        "feature": np.concatenate([_ints(tree, "split_feature"), none]),
        "threshold": np.concatenate([np.where(by_set, 0, at_most(threshold)), np.zeros(leaves)]),
        "missing_left": np.concatenate([missing_left, np.zeros(leaves, np.bool_)]),
        "category": np.concatenate([np.where(by_set, threshold, -1).astype(np.int64), none]),
        **{s: np.concatenate([np.where(c < 0, inner - 1 - c, c), none]) for s, c in children.items()},
        "cover": np.concatenate([_floats(tree, f"internal_{weight}"), _floats(tree, f"leaf_{weight}")]),
        "value": np.concatenate([np.zeros(inner), _floats(tree, "leaf_value")]),
    }


def _sets(tree: dict[str, str]) -> list[IntArray]:
    """The categories that go left, of each set of a tree; in the text 32 bits a word."""
    bounds, words = _ints(tree, "cat_boundaries"), _ints(tree, "cat_threshold").astype(np.uint32)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return [np.flatnonzero(bits[32 * begin : 32 * end]) for begin, end in pairwise(bounds)]
