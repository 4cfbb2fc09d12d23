"""What a prediction costs: the usual losses, and a user's own.

A loss takes labels (n,) and predictions, (n,) or of C classes (n, C), and gives (n,) numbers, each of its own row
alone. Labels are 0 or 1, the number of the class, or the value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from whydrift.pipelines.errors import ConfigError, ModelError
from whydrift.pipelines.explainers.protocol import FloatArray, Task
from whydrift.pipelines.loss_section import LossAttribution

_LEAST = 1e-15  # a probability below it would cost infinitely much

LossFunction = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss with its name. ModelError where a user's function fails or gives another shape."""

    name: str
    function: Callable[[FloatArray, FloatArray], Any]

    def __call__(self, label: FloatArray, prediction: FloatArray) -> FloatArray:
        try:
            values = np.asarray(self.function(label, prediction), dtype=np.float64)
        except Exception as error:  # somebody else's function may raise anything
            raise ModelError(f"the loss {self.name} fails: {type(error).__name__}: {error}") from error
        if values.shape != label.shape:
            raise ModelError(f"the loss {self.name} gives shape {values.shape} for {len(label)} rows; one number a row")
        return values


def find_loss(asked: LossAttribution, task: Task) -> Loss:
    """The loss of the configuration's section; `auto` is that of the stream `loss`.

    Raises:
        ConfigError: the function cannot be imported.
    """
    name = asked.loss_for(task)
    if ":" in name:
        return Loss(name, _import(name))
    if name == "pinball":
        return Loss(asked.full_name(task), lambda label, value: pinball(label, value, asked.quantile))
    return Loss(name, _BUILT_IN[name])


def try_loss(loss: Loss, prediction: FloatArray, classes: int) -> None:
    """Try the loss on a few predictions of the model, with labels that there can be.

    Args:
        loss: to be tried.
        prediction: of a classifier probabilities, (n,) or (n, C).
        classes: 0 for a regression, else C, 2 for a binary model.

    Raises:
        ConfigError: it fails, gives another shape or what is no finite number, or looks at more than a row.
    """
    rows = np.arange(len(prediction))
    label = (rows % classes).astype(np.float64) if classes else np.roll(prediction, 1)
    try:
        together = loss(label, prediction)
        alone = np.array([loss(label[i : i + 1], prediction[i : i + 1])[0] for i in rows])
    except ModelError as error:
        raise ConfigError(f"loss_attribution.loss: {error}") from error
    if not np.isfinite(together).all():
        raise ConfigError(f"loss_attribution.loss: {loss.name} gives {together[~np.isfinite(together)][0]} for a row")
    if not np.allclose(together, alone, rtol=1e-9, atol=1e-12):
        raise ConfigError(
            f"loss_attribution.loss: {loss.name} gives a row another loss beside other rows than alone; each row's"
            " loss is to depend on its own label and prediction"
        )


def brier(label: FloatArray, prediction: FloatArray) -> FloatArray:
    """The squared error of a probability; of C classes summed over them (Brier 1950).

    >>> brier(np.array([1.0]), np.array([0.75])), brier(np.array([1.0]), np.array([[0.5, 0.5]]))
    (array([0.0625]), array([0.5]))
    """
    if prediction.ndim == 1:
        return np.asarray((label - prediction) ** 2)
    total = np.zeros(len(label))
    for number, column in enumerate(prediction.T):  # by column: a sum along rows could depend on the memory layout
        total += ((label == number) - column) ** 2
    return total


def log_loss(label: FloatArray, prediction: FloatArray) -> FloatArray:
    """The negative log of the label's probability, which is held above 1e-15.

    >>> log_loss(np.array([0.0]), np.array([1.0])).round(2)
    array([34.54])
    """
    if prediction.ndim == 1:
        own = np.where(label == 1, prediction, 1 - prediction)
    else:
        own = prediction[np.arange(len(label)), label.astype(np.intp)]
    return np.asarray(-np.log(np.maximum(own, _LEAST)))


def squared_error(label: FloatArray, prediction: FloatArray) -> FloatArray:
    return np.asarray((label - prediction) ** 2)


def absolute_error(label: FloatArray, prediction: FloatArray) -> FloatArray:
    return np.abs(label - prediction)


def pinball(label: FloatArray, prediction: FloatArray, quantile: float) -> FloatArray:
    """What a predicted quantile costs (Koenker and Bassett 1978, doi:10.2307/1913643).

    >>> pinball(np.array([2.0, 0.0]), np.array([1.0, 1.0]), 0.9).round(2)
    array([0.9, 0.1])
    """
    return np.maximum(quantile * (label - prediction), (quantile - 1) * (label - prediction))


_BUILT_IN: dict[str, LossFunction] = {
    "brier": brier,
    "log_loss": log_loss,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
}


def _import(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, SyntaxError, AttributeError) as error:
        raise ConfigError(
            f"loss_attribution.loss: {name!r} cannot be imported: {error}; its module has to be installed, or on"
            " PYTHONPATH, where the job runs"
        ) from error
    if not callable(found):
        raise ConfigError(f"loss_attribution.loss: {name!r} is a {type(found).__name__} and no function")
    own: Callable[..., Any] = found
    return own
