"""Small systems of equations, solved the same on any number of threads: LAPACK's rounding may depend on them."""

from __future__ import annotations

import numpy as np

from whydrift.pipelines.explainers.protocol import FloatArray


def solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """The solution x of `matrix x = right`, for a symmetric positive definite matrix (p, p) and right sides (p, m).

    Raises:
        ValueError: the matrix is singular.

    >>> solve(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0], [3.0]])).ravel().tolist()
    [1.0, 1.0]
    """
    rows = np.concatenate([matrix, right], axis=1)
    smallest = np.finfo(np.float64).eps * len(matrix) * np.abs(np.diagonal(matrix)).max(initial=0.0)
    for k in range(len(matrix)):  # needs no exchange of rows: a pivot of such a matrix is positive
        if not rows[k, k] > smallest:
            raise ValueError("the equations have no single solution")
        rows[k] /= rows[k, k]
        others = np.arange(len(matrix)) != k
        rows[others] -= rows[others, k, None] * rows[k]
    return np.asarray(rows[:, len(matrix) :])
