"""CatBoost's trees, and its own attributions of them: path-dependent TreeSHAP, exact.

Its trees are mostly oblivious: all nodes of a level ask the same, so that a row's attributions hang on its leaf alone.
CatBoost's own come from tables of all leaves, which every call makes anew, in half a second for 500 trees of depth 6.
Source: https://catboost.ai/docs/en/concepts/shap-values.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.forest import Forest, IntArray, at_most, chain, pack
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_CUSTOM = "PythonUserDefinedPerObject"
_LOSSES: dict[Task, frozenset[str]] = {
    "binary": frozenset({"Logloss", "CrossEntropy", "Focal", _CUSTOM}),
    "multiclass": frozenset({"MultiClass"}),
    "regression": frozenset(
        {"RMSE", "MAE", "Quantile", "MAPE", "Huber", "Expectile", "Lq", "LogCosh", "GroupQuantile", _CUSTOM}
    ),
}
_LINKS: dict[Task, Link] = {"binary": "logit", "multiclass": "softmax", "regression": "identity"}


@dataclass(frozen=True, slots=True)
class CatBoostTrees:
    """A model, with what is needed to hand it rows as it was trained on them.

    Categories are strings to it. It refuses a missing one, which is handed over as the string "nan"; one that it never
    saw is in no split.
    """

    model: Any
    task: Task
    names: tuple[str, ...]
    categorical: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, task: Task) -> CatBoostTrees:
        """Read a CatBoost, CatBoostClassifier or CatBoostRegressor."""
        return cls(model, task, tuple(model.feature_names_), tuple(map(int, model.get_cat_feature_indices())))

    def link(self) -> Link:
        """How the raw value gives the prediction.

        Raises:
            UnsuitedError: the loss is not supported.
        """
        loss = str(self.model.get_all_params().get("loss_function", _CUSTOM)).partition(":")[0]
        if loss not in _LOSSES[self.task]:
            supported = ", ".join(sorted(_LOSSES[self.task] - {_CUSTOM}))
            raise UnsuitedError(f"CatBoost loss {loss} for a {self.task} task; supported are {supported}")
        return _LINKS[self.task]

    def explain(self, encoded: Any) -> Explanation:
        """CatBoost's own attributions of rows with the model's columns, in its order.

        Raises:
            UnsuitedError: the trees are not oblivious; then those of CatBoost 1.2 do not always add up, see
                https://github.com/catboost/catboost/issues/1703.
        """
        if self.model.get_all_params().get("grow_policy", "SymmetricTree") != "SymmetricTree":
            raise UnsuitedError("CatBoost's own attributions are right for symmetric trees only")
        pool = self._pool(encoded)
        # Left to itself, CatBoost takes another way for a few rows than for many.
        answer = self.model.get_feature_importance(pool, type="ShapValues", shap_mode="UsePreCalc")
        contributions = np.asarray(answer, dtype=np.float64)
        return Explanation(
            np.ascontiguousarray(contributions[..., :-1]), as_base(contributions[0, ..., -1]), self._raw(pool)
        )

    def predict(self, encoded: Any) -> FloatArray:
        """The model's predictions, (n,) or (n, C): probabilities or values."""
        ask = getattr(self.model, "predict" if self.task == "regression" else "predict_proba", self.model.predict)
        return np.asarray(ask(self._pool(encoded)), dtype=np.float64)

    def output(self, encoded: Any) -> FloatArray:
        """The raw values, (n,) or (n, C)."""
        return self._raw(self._pool(encoded))

    def matrix(self, encoded: Any) -> FloatArray:
        """The numbers that the trees compare, (n, q): float32, and of a categorical column the places of its values."""
        frame = self._frame(encoded)
        columns = [
            self._places(frame.iloc[:, i], self.categorical.index(i))
            if i in self.categorical
            else _single(frame.iloc[:, i])
            for i in range(len(self.names))
        ]
        return np.column_stack(columns)

    def forest(self) -> Forest:
        """The trees, adding up to raw values.

        Raises:
            UnsuitedError: a split asks a statistic of categories (CTR), a text or an embedding.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            self.model.save_model(str(path), format="json")
            content = json.loads(path.read_text(encoding="utf-8"))
        features = _Features.of(content["features_info"])
        if "oblivious_trees" in content:
            trees = [_oblivious(tree, features) for tree in content["oblivious_trees"]]
        else:
            trees = [_grown(tree, features) for tree in content["trees"]]
        scale, bias = content["scale_and_bias"]
        return _forest(trees, float(scale), np.atleast_1d(np.asarray(bias, dtype=np.float64)))

    def _raw(self, pool: Any) -> FloatArray:
        return np.asarray(self.model.predict(pool, prediction_type="RawFormulaVal"), dtype=np.float64)

    def _pool(self, encoded: Any) -> Any:
        import catboost

        return catboost.Pool(self._frame(encoded), cat_features=list(self.categorical))

    def _frame(self, encoded: Any) -> pd.DataFrame:
        dense = encoded.toarray() if hasattr(encoded, "toarray") else encoded
        given = pd.DataFrame(dense)
        return pd.DataFrame(
            {
                name: _texts(given.iloc[:, i]) if i in self.categorical else given.iloc[:, i].to_numpy(np.float64)
                for i, name in enumerate(self.names)
            }
        )

    def _places(self, values: pd.Series[Any], number: int) -> FloatArray:
        """Where each value stands among those that one-hot splits of the column know; past the last where nowhere."""
        found, distinct = pd.factorize(values)
        places = [self.model._object._calc_cat_feature_perfect_hash(text, number) for text in distinct]  # noqa: SLF001
        return np.asarray(places, dtype=np.float64)[found]


def _single(values: pd.Series[Any]) -> FloatArray:
    with np.errstate(over="ignore"):
        return values.to_numpy(np.float64).astype(np.float32).astype(np.float64)


def _texts(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """A categorical column as CatBoost's strings; whole numbers without a point."""
    codes, distinct = pd.factorize(values)
    texts = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in distinct]
    return np.array([*texts, "nan"], dtype=object)[codes]


@dataclass(frozen=True, slots=True)
class _Features:
    """Where a model's features stand among its columns."""

    numeric: dict[int, int]
    missing_left: dict[int, bool]
    categorical: dict[int, int]
    places: dict[int, dict[int, int]]

    @classmethod
    def of(cls, info: dict[str, Any]) -> _Features:
        numbers, categories = info.get("float_features", []), info.get("categorical_features", [])
        return cls(
            numeric={f["feature_index"]: f["flat_feature_index"] for f in numbers},
            missing_left={f["feature_index"]: f["nan_value_treatment"] != "AsTrue" for f in numbers},
            categorical={f["feature_index"]: f["flat_feature_index"] for f in categories},
            places={f["feature_index"]: {v: i for i, v in enumerate(f.get("values", []))} for f in categories},
        )

    def ask(self, split: dict[str, Any]) -> tuple[int, float, bool, int]:
        """A split as column, threshold, missing_left, and the place of its one category, -1 of numbers.

        Left is where the split is false, which of a category is to be turned round.
        """
        if split["split_type"] == "FloatFeature":
            number = split["float_feature_index"]
            return self.numeric[number], float(split["border"]), self.missing_left[number], -1
        if split["split_type"] == "OneHotFeature":
            number = split["cat_feature_index"]
            return self.categorical[number], 0.0, False, self.places[number][split["value"]]
        raise UnsuitedError(
            f"the CatBoost model has splits of type {split['split_type']}, which are no functions of one value;"
            " numbers and one-hot categories (one_hot_max_size) are supported, and CatBoost's own attributions"
        )


_NOTHING = (-1, 0.0, False, -1)  # what a leaf asks


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree: what each node asks (nodes, 4), where it leads, and its leaves' values (nodes, C) and weights."""

    asks: FloatArray
    left: IntArray
    right: IntArray
    value: FloatArray
    cover: FloatArray


@cache
def _full(depth: int) -> tuple[IntArray, IntArray, IntArray]:
    """Of a full tree's nodes, level by level: the level, and the children, -1 of a leaf.

    >>> _full(1)
    (array([0, 1, 1]), array([ 1, -1, -1]), array([ 2, -1, -1]))
    """
    inner, leaves = 2**depth - 1, np.full(2**depth, -1)
    level = np.repeat(np.arange(depth + 1), 2 ** np.arange(depth + 1))
    left = np.arange(1, 2 * inner, 2)
    return level, np.concatenate([left, leaves]), np.concatenate([left + 1, leaves])


def _oblivious(tree: dict[str, Any], features: _Features) -> _Tree:
    """A full tree, level by level. The last split is the root: CatBoost's own attributions read it so."""
    asks = [features.ask(split) for split in reversed(tree["splits"] or [])]
    level, left, right = _full(len(asks))
    leaves = 2 ** len(asks)
    cover = [np.asarray(tree["leaf_weights"], dtype=np.float64)]
    for _ in asks:
        cover.append(cover[-1][::2] + cover[-1][1::2])
    values = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(leaves, -1)
    value = np.zeros((level.size, values.shape[1]))
    value[-leaves:] = values
    return _Tree(np.array([*asks, _NOTHING], dtype=np.float64)[level], left, right, value, np.concatenate(cover[::-1]))


def _grown(tree: dict[str, Any], features: _Features) -> _Tree:
    """A tree that was grown by depth or by loss; parents come before their children."""
    nodes, left, right = [tree], [-1], [-1]
    for here, node in enumerate(nodes):  # which grows meanwhile
        if "split" in node:
            left[here], right[here] = len(nodes), len(nodes) + 1
            nodes += [node["left"], node["right"]]
            left += [-1, -1]
            right += [-1, -1]
    cover = [0.0 if "split" in node else float(node["weight"]) for node in nodes]
    for here in reversed(range(len(nodes))):
        if left[here] >= 0:
            cover[here] = cover[left[here]] + cover[right[here]]
    width = next(np.size(node["value"]) for node in nodes if "split" not in node)
    value = [np.zeros(width) if "split" in node else np.ravel(node["value"]) for node in nodes]
    asks = [features.ask(node["split"]) if "split" in node else _NOTHING for node in nodes]
    columns = np.array(asks, dtype=np.float64), np.array(left), np.array(right)
    return _Tree(*columns, np.array(value, dtype=np.float64), np.array(cover))


def _forest(trees: list[_Tree], scale: float, bias: FloatArray) -> Forest:
    roots, first = chain([tree.left for tree in trees])
    feature, threshold, missing_left, place = np.concatenate([tree.asks for tree in trees]).T
    left, right = (np.concatenate([getattr(tree, side) for tree in trees]) for side in ("left", "right"))
    left, right = (np.where(side < 0, -1, side + first) for side in (left, right))
    by_set, numeric = place >= 0, (feature >= 0) & (place < 0)
    offsets, words = pack(np.arange(int(place.max()) + 1).reshape(-1, 1))  # set k is category k alone
    return Forest(
        roots=roots,
        feature=feature.astype(np.int64),
        threshold=np.where(numeric, at_most(threshold), 0),
        missing_left=missing_left.astype(np.bool_),
        category=place.astype(np.int64),
        left=np.where(by_set, right, left),
        right=np.where(by_set, left, right),
        cover=np.concatenate([tree.cover for tree in trees]),
        value=np.concatenate([tree.value for tree in trees]) * scale,
        base=bias,
        offsets=offsets,
        words=words,
    ).arranged()
