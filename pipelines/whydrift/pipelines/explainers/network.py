"""PyTorch modules: what they are called on, and how their outputs stand for predictions.

A module gets a float32 tensor (n, q), its columns the features in the order of the model's signature, and answers one
number a row or one for each class. MLflow stores no word on whether these are probabilities or logits, so it is found
out: a final Sigmoid or Softmax of a Sequential is known by its type and taken off, which leaves the logits; any other
classifier gives probabilities if all its answers on the background lie in [0, 1], and logits if not. A wrong guess
would show in the logged predictions, which differ from the model's own then.

A module is copied to the CPU and to evaluation mode: dropout and batch statistics belong to training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.protocol import FloatArray, Link, Task, answers


def is_torch(model: object) -> bool:
    """Whether the model is a PyTorch module, found out without importing PyTorch."""
    return any(f"{cls.__module__}.{cls.__name__}" == "torch.nn.modules.module.Module" for cls in type(model).__mro__)


@dataclass(frozen=True, slots=True)
class Network:
    """`scores` is a module from rows (n, q) to what attributions add up to: (n, 1), or (n, C) of C classes.

    With link `logit` and `softmax` these are logits, with `identity` values or probabilities.
    """

    scores: Any
    link: Link

    @classmethod
    def of(cls, module: Any, task: Task, background: pd.DataFrame) -> Network:
        """Find out what a module's outputs are.

        Raises:
            ModelError: a feature is text, or the module gives no numbers for the background.
            ValueError: the module refuses the rows.
        """
        from torch import nn

        rows = inputs(background)
        body = copy.deepcopy(module).to("cpu").eval().requires_grad_(False)
        plain, last = _without_activation(body)
        stripped = task != "regression" and (last in {"Softmax", "LogSoftmax"} or (task, last) == ("binary", "Sigmoid"))
        layers = [plain if stripped else body]
        outputs = _call(layers[0], rows)
        if outputs.ndim == 1:
            layers.append(nn.Unflatten(0, (-1, 1)))
        if not np.isfinite(outputs).all():
            gaps = ", ".join(background.columns[~np.isfinite(rows).all(axis=0)]) or "none of which has a missing value"
            raise ModelError(
                f"the network gives no finite numbers for the background rows ({gaps}); it takes no missing values:"
                " impute them before they are logged, or in the module itself"
            )
        logits = task != "regression" and (stripped or outputs.min() < 0 or outputs.max() > 1)
        if task == "binary" and outputs.shape[1:] == (2,):
            layers.append(_combination([-1.0, 1.0] if logits else [0.0, 1.0]))
        link: Link = "identity" if not logits else "softmax" if task == "multiclass" else "logit"
        return cls(nn.Sequential(*layers), link)

    def outputs(self, rows: FloatArray) -> FloatArray:
        """Scores of rows (n, q) of any float type, (n, 1) or (n, C); ValueError where the module refuses them."""
        return _call(self.scores, rows)

    def predict(self, frame: pd.DataFrame) -> FloatArray:
        """Probabilities or values, (n, 1) or (n, C)."""
        return answers(self.outputs(inputs(frame)), self.link)


def inputs(frame: pd.DataFrame) -> Any:
    """The rows as a module gets them, (n, q) float32.

    Raises:
        ModelError: a feature is text.
    """
    text = [str(name) for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    if text:
        raise ModelError(
            f"a PyTorch module takes numbers, and {', '.join(text)} is text: log the features as the module gets them,"
            " or log a model that encodes them itself (mlflow.pyfunc)"
        )
    return np.ascontiguousarray(frame.to_numpy(dtype=np.float32))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: how a product of matrices is shared among threads decides how it is rounded."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _call(module: Any, rows: Any) -> FloatArray:
    import torch

    try:
        with one_thread(), torch.no_grad():
            return np.asarray(module(torch.tensor(rows)).numpy(), dtype=np.float64)
    except (RuntimeError, AttributeError, IndexError) as error:  # shapes, types, and outputs that are no tensor
        raise ValueError(f"the network cannot be called on {rows.dtype} rows of {rows.shape[1]}: {error}") from error


def _without_activation(module: Any) -> tuple[Any, str]:
    """A Sequential without its final activation, and its type's name; layers that only reshape may follow it."""
    from torch import nn

    if not isinstance(module, nn.Sequential):
        return module, ""
    layers = list(module)
    for position in reversed(range(len(layers))):
        if isinstance(layers[position], nn.Flatten | nn.Unflatten | nn.Identity):
            continue
        if isinstance(layers[position], nn.Sigmoid | nn.Softmax | nn.LogSoftmax):
            name, inner = type(layers[position]).__name__, nn.Identity()
        else:
            inner, name = _without_activation(layers[position])
        return nn.Sequential(*layers[:position], inner, *layers[position + 1 :]), name
    return module, ""


def _combination(weights: list[float]) -> Any:
    """A layer that adds up its inputs with these weights."""
    import torch

    layer = torch.nn.Linear(len(weights), 1, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([weights]))
    return layer
