"""A model's predictions as the inference log has them: the probability of the positive class, or the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.encoding import as_input, single_threaded, split
from whydrift.pipelines.explainers.network import Network, is_torch
from whydrift.pipelines.explainers.protocol import FloatArray, Task
from whydrift.pipelines.explainers.trees import is_trees, library, read_library, refusals

Predict = Callable[[pd.DataFrame], FloatArray]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A `Predict`, called like one.

    `apart` says that a row is predicted alone as it is beside any others, bit for bit. So trees do it; models that use
    BLAS round differently for different numbers of rows.
    """

    predict: Predict
    apart: bool

    def __call__(self, frame: pd.DataFrame) -> FloatArray:
        return self.predict(frame)


def predictor(
    model: Any, task: Task, columns: Columns, background: pd.DataFrame, classes: Sequence[str] = ()
) -> Predictor:
    """A function from frames of `Columns`'s form, n rows, to predictions (n,); it is tried on the background.

    Of a multiclass model, whose `classes` are named, the predictions are (n, C). The function raises ModelError for
    rows that the model refuses.

    Raises:
        ModelError: the model cannot predict, or not what the task asks for.
    """
    _check_order(model, classes)
    answer = _answer(model, task, columns, background)
    shape = (len(classes),) if classes else ()
    asked = f"{len(classes)} probabilities, one for each of model.classes," if classes else "one number"

    def predict(frame: pd.DataFrame) -> FloatArray:
        values = np.asarray(answer(frame), dtype=np.float64)
        if task == "binary" and values.ndim == 2 and values.shape[1] == 2:
            values = values[:, 1]
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.shape != (len(frame), *shape):
            raise ModelError(
                f"{type(model).__name__} predicts an array of shape {values.shape} for {len(frame)} rows;"
                f" a {task} model gives {asked} a row. Check model.task"
                + (" (of XGBoost: the objective is to be multi:softprob)" if classes else "")
            )
        return values

    _check(predict, model, task, columns.frame(background))
    return Predictor(_in_our_words(predict, type(model).__name__), apart=is_trees(model))


def _in_our_words(predict: Predict, name: str) -> Predict:
    """The same, with a ModelError for rows that the model refuses, whatever its library raises."""

    def refusing(frame: pd.DataFrame) -> FloatArray:
        try:
            return predict(frame)
        except refusals() as error:
            raise ModelError(f"{name} cannot predict: {error}") from error

    return refusing


def _check_order(model: Any, classes: Sequence[str]) -> None:
    """That the classes are in the model's own order, where it knows them by the same names."""
    own = [str(name) for name in getattr(model, "classes_", ())]
    if classes and set(own) & set(classes) and own != list(classes):
        raise ModelError(
            f"the classes of this {type(model).__name__} are {', '.join(own)}, and model.classes has"
            f" {', '.join(classes)}: name them in the order of the model's outputs"
        )


def _answer(model: Any, task: Task, columns: Columns, background: pd.DataFrame) -> Callable[[pd.DataFrame], Any]:
    if library(model) is not None:
        trees, encoding = read_library(model, task), split(model, columns)
        return lambda frame: trees.predict(encoding.encode(frame))
    if is_torch(model):
        return _network(model, task, columns.frame(background)).predict
    method = "predict_proba" if task != "regression" and hasattr(model, "predict_proba") else "predict"
    if not hasattr(model, method):
        raise ModelError(
            f"{type(model).__name__} has neither predict_proba nor predict; log the model in its own MLflow flavour,"
            " or wrap it in an object that has one of them"
        )
    call = getattr(single_threaded(model), method)
    return lambda frame: call(as_input(model, frame))


def _network(model: Any, task: Task, background: pd.DataFrame) -> Network:
    try:
        return Network.of(model, task, background)
    except ValueError as error:
        raise ModelError(f"{type(model).__name__}: {error}") from error


def _check(predict: Predict, model: Any, task: Task, frame: pd.DataFrame) -> None:
    try:
        values = predict(frame)
    except refusals() as error:
        raise ModelError(f"{type(model).__name__} cannot predict the background rows: {error}") from error
    if task == "regression":
        return
    if values.min() < 0 or values.max() > 1:
        raise ModelError(f"{type(model).__name__} predicts {values.min():.4g} to {values.max():.4g}: no probabilities")
    if not hasattr(model, "predict_proba") and not is_torch(model) and np.isin(values, (0, 1)).all():
        raise ModelError(
            f"{type(model).__name__} predicts classes, and attributions need probabilities: log a model with"
            " predict_proba, or one whose predict gives the probability"
        )
