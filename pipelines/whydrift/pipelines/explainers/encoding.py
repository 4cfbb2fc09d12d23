"""A model seen as a column-wise encoding and a final estimator, as in a Pipeline of scalers and encoders.

Every encoded column then belongs to one feature, its owner, and the attributions of the encoded columns can be
summed per feature. For a linear model the sums are the features' exact Shapley values. For a tree model behind a
one-hot encoder they are the usual convention: path-dependent attributions see the indicator columns as free to
vary apart.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, UnsuitedError

# One output column for each input column, made from that column alone.
_SAME_COLUMNS = frozenset(
    {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PowerTransformer", "QuantileTransformer"}
    | {"OrdinalEncoder", "Binarizer"}
)

_AT_ONCE = 1024  # rows whose columns are summed: they stay in the cache

_MADE_UP = ("Column_{}", "{}", "feature_{:04}")  # names of columns that had none, by LightGBM, CatBoost, interpret


@dataclass(frozen=True, slots=True)
class Encoding:
    """`steps` (a fitted transformer, or None) turns features into encoded columns for `estimator`.

    `owners[k]` is the position, among all features, of the one that encoded column k is made from.
    """

    estimator: Any
    steps: Any
    owners: npt.NDArray[np.intp]

    def encode(self, frame: pd.DataFrame) -> Any:
        """The estimator's own input, in the container that it was trained on."""
        if self.steps is None:
            return as_input(self.estimator, frame)
        return self.steps.transform(as_input(self.steps, frame))

    def decode(self, encoded: Explanation, features: int) -> Explanation:
        """Sum the attributions of encoded columns per feature, always in the same order.

        The sum of the columns' standard errors bounds that of the sum.
        """
        if encoded.values.shape[-1] != self.owners.size:
            raise ValueError(
                f"{encoded.values.shape[-1]} encoded columns where {self.owners.size} were traced to features"
            )
        error = None if encoded.error is None else self._sum(encoded.error, features)
        return Explanation(self._sum(encoded.values, features), encoded.base, encoded.output, error)

    def _sum(self, encoded: FloatArray, features: int) -> FloatArray:
        if np.array_equal(self.owners, np.arange(features)):
            return encoded
        sums = np.zeros((*encoded.shape[:-1], features))
        for start in range(0, len(sums), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            for column, owner in enumerate(self.owners):
                sums[part, ..., owner] += encoded[part, ..., column]
        return sums


def split(model: Any, columns: Columns) -> Encoding:
    """Separate the encoding from the final estimator.

    Raises:
        UnsuitedError: some step is not known to work column by column, so attributions cannot be handed back.
    """
    names = input_names(model)
    inputs = list(range(len(columns.names))) if names is None else [_position(columns.names, name) for name in names]
    if not hasattr(model, "steps"):
        return Encoding(model, None, np.asarray(inputs, dtype=np.intp))
    steps = model[:-1] if len(model.steps) > 1 else None
    owners = inputs if steps is None else _owners(steps, inputs)
    return Encoding(model.steps[-1][1], steps, np.asarray(owners, dtype=np.intp))


def input_names(model: Any) -> tuple[str, ...] | None:
    """Names of the columns that a model was trained on; None where it was trained on a bare array."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        names = getattr(model, "feature_names", None)  # of an XGBoost Booster
    if names is None and hasattr(model, "feature_name"):
        names = model.feature_name()  # of a LightGBM Booster
    if names is None:
        names = getattr(model, "feature_names_", None)  # of CatBoost
    if names is None or any(all(n == made_up.format(i) for i, n in enumerate(names)) for made_up in _MADE_UP):
        return None
    return tuple(map(str, names))


def as_input(model: Any, frame: pd.DataFrame) -> Any:
    """The columns that a model was trained on, without names where it never had any (it would warn)."""
    names = input_names(model)
    if names is not None:
        if frame.columns.tolist() == list(names):
            return frame.copy(deep=False)  # the model's to write to
        return frame.iloc[:, [_position(list(frame.columns), name) for name in names]]
    return frame.to_numpy() if hasattr(model, "n_features_in_") else frame


def dense(encoded: Any) -> FloatArray:
    """Encoded columns as a float64 matrix, in the order in memory that they come in."""
    return np.asarray(encoded.toarray() if hasattr(encoded, "toarray") else encoded, dtype=np.float64)


def matrix(encoded: Any) -> FloatArray:
    """Encoded columns as a float64 matrix in C order (sums along its rows then have one fixed order)."""
    return np.ascontiguousarray(dense(encoded))


def single_threaded(model: Any) -> Any:
    """A shallow copy that predicts in one thread: forests sum their trees in the order in which threads finish."""
    twin = copy.copy(model)
    if hasattr(twin, "steps"):
        twin.steps = [(name, single_threaded(step)) for name, step in twin.steps]
    elif hasattr(twin, "estimators_") and getattr(twin, "n_jobs", None) is not None:
        twin.n_jobs = 1
    return twin


def _position(names: Sequence[str], name: str) -> int:
    known = list(names)
    if name not in known:
        known = [other.replace(" ", "_") for other in known]  # as LightGBM renames them
    if name not in known:
        raise UnsuitedError(f"the model was trained on {name!r}, which is not among the features of its signature")
    return known.index(name)


def _owners(transformer: Any, inputs: list[int]) -> list[int]:
    """For each output column of a fitted transformer the feature that it is made from."""
    kind = type(transformer).__name__
    if kind == "Pipeline":
        for _, step in transformer.steps:
            inputs = _owners(step, inputs)
        return inputs
    if kind == "ColumnTransformer":
        return _column_transformer_owners(transformer, inputs)
    if kind == "OneHotEncoder":
        return _one_hot_owners(transformer, inputs)
    if kind == "SimpleImputer":
        return _imputer_owners(transformer, inputs)
    if transformer == "passthrough" or kind in _SAME_COLUMNS or _elementwise(transformer):
        return inputs
    if hasattr(transformer, "get_support"):
        return [inputs[i] for i in transformer.get_support(indices=True)]
    raise UnsuitedError(f"{kind} is not known to work column by column")


def _elementwise(transformer: Any) -> bool:
    """Whether it is a FunctionTransformer of nothing, or of a numpy function of one number."""
    if type(transformer).__name__ != "FunctionTransformer":
        return False
    function = transformer.func
    return function is None or (isinstance(function, np.ufunc) and function.nin == 1)


def _column_transformer_owners(transformer: Any, inputs: list[int]) -> list[int]:
    names = input_names(transformer)
    owners: list[int] = []
    for _, part, chosen in transformer.transformers_:
        positions = [inputs[i] for i in _positions(chosen, names, len(inputs))]
        # A part without columns was never fitted.
        if positions and not isinstance(part, str):
            owners += _owners(part, positions)
        elif part == "passthrough":
            owners += positions
    return owners


def _positions(chosen: Any, names: tuple[str, ...] | None, width: int) -> list[int]:
    """A ColumnTransformer's columns (names, numbers, a mask or a slice) as positions."""
    if isinstance(chosen, slice) and not isinstance(chosen.start, str) and not isinstance(chosen.stop, str):
        return list(range(width))[chosen]
    wanted = np.atleast_1d(np.asarray(chosen))
    if wanted.dtype == bool:
        return [int(i) for i in np.flatnonzero(wanted)]
    if wanted.size == 0 or np.issubdtype(wanted.dtype, np.integer):
        return [int(i) % width for i in wanted]
    if names is None or (wanted.dtype == object and not all(isinstance(name, str) for name in wanted)):
        raise UnsuitedError(f"the columns {chosen!r} of a ColumnTransformer cannot be traced to features")
    return [_position(names, str(name)) for name in wanted]


def _one_hot_owners(encoder: Any, inputs: list[int]) -> list[int]:
    dropped = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(inputs)
    infrequent = getattr(encoder, "infrequent_categories_", None) or [None] * len(inputs)
    owners: list[int] = []
    for owner, categories, drop, rare in zip(inputs, encoder.categories_, dropped, infrequent, strict=True):
        merged = 0 if rare is None else len(rare) - 1
        owners += [owner] * (len(categories) - merged - (drop is not None))
    return owners


def _imputer_owners(imputer: Any, inputs: list[int]) -> list[int]:
    # A column without any value in training is dropped, unless it is kept on purpose or filled with a constant.
    kept = imputer.keep_empty_features or imputer.strategy == "constant"
    owners = [owner for owner, fill in zip(inputs, imputer.statistics_, strict=True) if kept or not pd.isna(fill)]
    if imputer.indicator_ is not None:
        owners += [inputs[i] for i in imputer.indicator_.features_]
    return owners
