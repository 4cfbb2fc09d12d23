"""How a model's outputs give its predictions. It imports nothing but numpy: a model's own environment runs it too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def softmax(output: FloatArray) -> FloatArray:
    """The probabilities (n, C) of outputs (n, C).

    >>> softmax(np.array([[0.0, np.log(3.0)]]))
    array([[0.25, 0.75]])
    """
    # By column: a sum along rows could depend on the memory layout.
    weights = [np.exp(column - output.max(axis=1)) for column in output.T]
    total = np.sum(weights, axis=0)
    return np.stack([weight / total for weight in weights], axis=1)
