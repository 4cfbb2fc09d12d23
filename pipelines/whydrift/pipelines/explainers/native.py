"""XGBoost's own attributions: path-dependent TreeSHAP, exact (Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_IDENTITY = frozenset(
    {"reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror"}
)
_LOGIT = {"binary": frozenset({"binary:logistic", "reg:logistic"}), "regression": frozenset({"reg:logistic"})}


def is_xgboost(model: object) -> bool:
    """Whether the model is a Booster or one of XGBoost's scikit-learn classes, found out without importing XGBoost."""
    return any(cls.__module__.partition(".")[0] == "xgboost" for cls in type(model).__mro__)


@dataclass(frozen=True, slots=True)
class XGBoostTrees:
    """A booster, with what is needed to hand it rows as it was trained on them.

    String columns become the codes of the categories that the booster knows (it keeps them when it is saved, since
    XGBoost 3.1). A category that it never saw is handed over as missing: XGBoost itself would refuse the batch.
    `rounds` is the range of trees that predictions use, shorter than the model where training stopped early.
    """

    booster: Any
    link: Link
    rounds: tuple[int, int]
    missing: float
    categories: dict[int, pd.Index[Any]]

    @classmethod
    def of(cls, model: Any, link: Link) -> XGBoostTrees:
        """Read a Booster or one of XGBoost's scikit-learn classes."""
        booster = _booster(model)
        # Booster.predict uses all trees; the scikit-learn classes use those up to the best iteration.
        best = booster.attributes().get("best_iteration") if booster is not model else None
        return cls(
            booster=booster,
            link=link,
            rounds=(0, 0) if best is None else (0, int(best) + 1),
            missing=float(getattr(model, "missing", np.nan)),
            categories=_categories(booster),
        )

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows with the booster's columns, in its order."""
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

    def _predict(self, data: Any, **kind: bool) -> FloatArray:
        answer = self.booster.predict(data, iteration_range=self.rounds, **kind)
        return np.asarray(answer, dtype=np.float64)

    def _data(self, encoded: Any) -> Any:
        import xgboost

        if isinstance(encoded, pd.DataFrame):
            table = [self._column(i, encoded.iloc[:, i]) for i in range(encoded.shape[1])]
            encoded = np.column_stack(table)
        return xgboost.DMatrix(
            encoded,
            missing=self.missing,
            feature_names=self.booster.feature_names,
            feature_types=self.booster.feature_types,
            enable_categorical=True,
        )

    def _column(self, position: int, values: pd.Series[Any]) -> FloatArray:
        if position not in self.categories:
            return values.to_numpy(dtype=np.float64)
        codes = self.categories[position].get_indexer(pd.Index(values)).astype(np.float64)
        return np.where(codes < 0, np.nan, codes)


def xgboost_link(model: Any, task: Task) -> Link:
    """How the margin gives the prediction.

    Raises:
        UnsuitedError: the model is not made of trees, has several outputs, or its objective is not supported.
    """
    learner = _learner(_booster(model))
    if _is_linear(learner):
        raise UnsuitedError("XGBoost's gblinear booster has no trees")
    objective = learner["objective"]["name"]
    outputs = max(int(learner["learner_model_param"][key]) for key in ("num_class", "num_target"))
    if task == "multiclass" and objective == "multi:softprob":
        return "softmax"
    if outputs > 1:
        raise UnsuitedError(
            f"the XGBoost model has {outputs} outputs ({objective}); one is supported, and multi:softprob for the"
            " multiclass task"
        )
    if objective in _LOGIT[task]:
        return "logit"
    if task == "regression" and objective in _IDENTITY:
        return "identity"
    raise UnsuitedError(
        f"XGBoost objective {objective} for a {task} task; supported are binary:logistic for binary, multi:softprob for"
        " multiclass,"
        f" {', '.join(sorted(_IDENTITY))} and reg:logistic for regression"
    )


def _booster(model: Any) -> Any:
    return model.get_booster() if hasattr(model, "get_booster") else model


def _learner(booster: Any) -> dict[str, Any]:
    return dict(json.loads(booster.save_config())["learner"])


def _is_linear(learner: dict[str, Any]) -> bool:
    return bool(learner["gradient_booster"]["name"] == "gblinear")


def _categories(booster: Any) -> dict[int, pd.Index[Any]]:
    if _is_linear(_learner(booster)):
        return {}  # it takes numbers only, and get_categories raises
    known = booster.get_categories(export_to_arrow=True).to_arrow()
    return {i: pd.Index(values.to_pylist()) for i, (_, values) in enumerate(known or ()) if values is not None}
