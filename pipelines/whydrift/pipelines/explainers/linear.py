"""Linear models in closed form: the Shapley value of feature j is w_j (x_j - mean of x_j over the background).

Source: Strumbelj and Kononenko 2014, doi:10.1007/s10115-013-0679-x. Features are taken as independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.encoding import dense, matrix
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base
from whydrift.pipelines.explainers.scaling import Scaling

_AT_ONCE = 4096  # rows: what is made of them stays in the cache


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`output = base + sum_j weights_j (x_j - means_j)`; `means` are those of the background, (q,).

    `weights` are (q,), and of C classes (C, q); the base, which is the output at the means, is () or (C,).
    """

    weights: FloatArray
    base: FloatArray
    means: FloatArray
    link: Link

    @classmethod
    def of(cls, model: Any, task: Task, background: Any, scaling: Scaling | None = None) -> LinearModel:
        """Read the coefficients of a fitted model, whose input is `background`, (b, q), after `scaling`.

        Raises:
            UnsuitedError: it has no coefficients, or more than one set of them.
        """
        if not hasattr(model, "coef_") or not hasattr(model, "intercept_"):
            raise UnsuitedError(f"{type(model).__name__} is not a linear model: it has no coef_ and intercept_")
        means = matrix(background).mean(axis=0)
        weights = np.asarray(model.coef_, dtype=np.float64)
        intercept = np.ravel(np.asarray(model.intercept_, dtype=np.float64))
        link: Link = "softmax"
        if task == "multiclass":
            if weights.shape != (intercept.size, means.size) or intercept.size < 2:
                raise UnsuitedError(f"{type(model).__name__} has not one set of coefficients a class")
        elif weights.size != means.size or intercept.size != 1:
            raise UnsuitedError(f"{type(model).__name__} has more than one output")
        else:
            weights, intercept = weights.ravel(), intercept[0]
            link = "logit" if task == "binary" else "identity"
        scaling = scaling or Scaling.none(means.size)
        base = intercept + np.sum(weights * scaling.apply(means), axis=-1)
        return cls(weights * scaling.factor, base, means, link)

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of encoded rows; ValueError where one has a missing value, as the model itself would say.

        Products are summed by einsum along each row of a C order array, and not by BLAS, whose order of summation
        depends on the number of rows.
        """
        rows, heads = dense(encoded), self.weights.shape[:-1]
        values, output = np.empty((len(rows), *heads, rows.shape[1])), np.empty((len(rows), *heads))
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            x = values[part]
            x[:] = rows[part].reshape(len(x), *(1 for _ in heads), -1)  # the same row for each class
            x -= self.means
            output[part] = np.einsum("...j,...j->...", self.weights, x) + self.base
            if not np.isfinite(output[part]).all() and not np.isfinite(x).all():
                raise ValueError(
                    "a linear model takes no missing or infinite values; impute them in the model's pipeline"
                )
            x *= self.weights
        return Explanation(values, as_base(self.base), output)
