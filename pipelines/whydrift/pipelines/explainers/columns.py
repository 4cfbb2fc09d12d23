"""The one form in which features reach a model: float64 numbers, and strings as objects, NaN where missing.

A window may come with nullable integers, Arrow strings, None or a column without any value. What a column is
was settled by the background, so that the form does not hang on the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the features, in the order of the attributions, and which of them are numbers."""

    names: tuple[str, ...]
    numeric: frozenset[str]

    @classmethod
    def of(cls, background: pd.DataFrame, features: Sequence[str]) -> Columns:
        """The columns as the background has them.

        >>> Columns.of(pd.DataFrame({"x": [1, 2], "c": ["a", None]}), ["c", "x"])
        Columns(names=('c', 'x'), numeric=frozenset({'x'}))
        """
        _require(background, features)
        return cls(
            tuple(features), frozenset(name for name in features if pd.api.types.is_numeric_dtype(background[name]))
        )

    def frame(self, features: pd.DataFrame, *, copy: bool = True) -> pd.DataFrame:
        """The features alone, in order and in form; the index is 0..n-1.

        Without `copy` the values may be those of `features`, not to be written to; models may write to theirs.

        Raises:
            ModelError: a feature is absent, or a numeric one holds text.
        """
        names, chosen = list(self.names), features
        if features.columns.tolist() != names:
            _require(features, names)
            chosen = features[names]
        if self.numeric.issuperset(names) and all(map(_plain, set(chosen.dtypes))):
            doubles = chosen.to_numpy(np.float64)
            if copy:
                doubles = np.array(doubles, order="F")  # by column as below
            return pd.DataFrame(doubles, columns=chosen.columns, copy=False)
        return pd.DataFrame({name: self._column(chosen[name]) for name in names})

    def _column(self, values: pd.Series[Any]) -> np.ndarray[Any, Any]:
        if values.name not in self.numeric:
            strings = values.astype(object).to_numpy()
            return np.where(values.isna().to_numpy(), np.nan, strings)
        try:
            return pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"feature {values.name!r} is numeric in the background and holds something else here: {error}"
            ) from error


def digest(frame: pd.DataFrame) -> str:
    """sha256 of a frame's names and values.

    >>> digest(pd.DataFrame({"x": [1.0]})) == digest(pd.DataFrame({"x": [2.0]}))
    False
    """
    content = pd.util.hash_pandas_object(frame, index=False).to_numpy(dtype="<u8")
    return hashlib.sha256("\0".join(frame.columns).encode() + content.tobytes()).hexdigest()


def _plain(dtype: Any) -> bool:
    """Whether numpy alone makes doubles of a column."""
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ModelError(f"the model needs the features {', '.join(absent)}, and the rows do not have them")
