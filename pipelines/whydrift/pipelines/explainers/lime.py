"""LIME: a second opinion, by a linear model that is fitted around each row (Ribeiro et al. 2016, arXiv 1602.04938).

Around the row x neighbours are made: each feature keeps the row's value or takes that of a background row, one or the
other with equal chance, each feature for itself. A linear model of the output is fitted to them by least squares,
weighted by exp(-D^2 / w^2), where D is the distance in standard deviations and w = 0.75 sqrt(p), as in the authors'
package. A number enters by its difference to the row's, text and missing values by whether they are the row's own.

A slope is no attribution. What is comparable to one is the slope times the row's distance to the background's mean,
`w_j (x_j - mean_j)`, and of text the slope times the share of the background that differs: the Shapley value where
the model is linear. Elsewhere the values need not add up to the output, and what is missing says how far the model is
from a line here. The pipeline, which needs values that add up, does not monitor by LIME; it compares with it.

The neighbours are drawn by a generator whose seed is a digest of the row's values, so the answer depends on the row
alone; it is one call to the model of one fixed shape. The errors are those of weighted least squares under unequal
variances (White 1980, doi:10.2307/1912934), given the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns, digest
from whydrift.pipelines.explainers.least_squares import solve
from whydrift.pipelines.explainers.permutation import to_output
from whydrift.pipelines.explainers.prediction import Predict
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, as_base

_WIDTH = 0.75  # of the neighbourhood, by sqrt(p)
_RIDGE = 1e-10  # settles features that do not vary, and nothing else


@dataclass(frozen=True, slots=True)
class LimeExplainer:
    """Explains `predict`, in log-odds where it gives probabilities; see `PermutationExplainer` for the outputs."""

    predict: Predict
    columns: Columns
    link: Link
    background: pd.DataFrame
    base: FloatArray
    neighbours: int
    parameters: Mapping[str, str]
    name: str = field(default="lime", init=False)

    @classmethod
    def of(cls, predict: Predict, columns: Columns, link: Link, background: pd.DataFrame) -> LimeExplainer:
        """Keep the background; a row costs 1,000 predictions, or 20 a feature where these are more."""
        frame = columns.frame(background)
        base = to_output(predict(frame), link).mean(axis=0)
        neighbours = max(1000, 20 * frame.shape[1])
        parameters = {"background": digest(frame), "neighbours": str(neighbours)}
        return cls(predict, columns, link, frame, base, neighbours, parameters)

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows, one after the other.

        Raises:
            ModelError: the model refuses the rows.
        """
        frame = self.columns.frame(features)
        heads, width = self.base.shape, frame.shape[1]
        values, errors = np.empty((len(frame), *heads, width)), np.empty((len(frame), *heads, width))
        output = np.empty((len(frame), *heads))
        for i in range(len(frame)):
            try:
                output[i], values[i], errors[i] = self._row(frame.iloc[i : i + 1])
            except (ModelError, TypeError, ValueError) as error:
                raise ModelError(f"the model refuses row {i} of the batch or a mixture of it: {error}") from error
        return Explanation(values, as_base(self.base), output, errors)

    def _row(self, row: pd.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Output (), values (p,) and errors (p,) of one row; with classes (C,) and (C, p)."""
        rng = np.random.default_rng(int(digest(row)[:32], 16))
        shape = self.neighbours, row.shape[1]
        moved, source = rng.random(shape) < 0.5, rng.integers(len(self.background), size=shape)
        columns, steps, to_mean, owners = {}, [], [], []
        for j, name in enumerate(row.columns):
            value, others = row[name].to_numpy()[0], self.background[name].to_numpy()
            for step in _steps(value, others):
                steps.append(np.where(moved[:, j], step[source[:, j]], 0.0))
                to_mean.append(step.mean())
                owners.append(j)
            drawn = np.concatenate([[value], others[source[:, j]]], dtype=others.dtype)
            drawn[1:][~moved[:, j]] = value
            columns[name] = drawn
        outputs = to_output(self.predict(pd.DataFrame(columns)), self.link)
        if not np.isfinite(outputs).all():
            raise ValueError("it gives no finite number for some neighbours of the row")
        weights, missed = _fit(np.column_stack(steps), outputs[1:].reshape(self.neighbours, -1))
        added = np.zeros((shape[1], self.neighbours))  # what each output counts for in a value
        for weight, mean, owner in zip(weights, to_mean, owners, strict=True):
            added[owner] -= weight * mean
        values = np.einsum("pm,mk->kp", added, outputs[1:].reshape(self.neighbours, -1))
        errors = np.sqrt(np.einsum("pm,mk->kp", added**2, missed**2))
        heads = outputs.shape[1:]
        return outputs[0], values.reshape(*heads, -1), errors.reshape(*heads, -1)


def _steps(value: Any, others: npt.NDArray[Any]) -> list[FloatArray]:
    """How far background values (b,) are from the row's, in standard deviations, and which of them are missing."""
    missing = pd.isna(others)
    if pd.isna(value):
        return [np.where(missing, 0.0, -1.0)]
    if others.dtype == object:
        return [np.where(others == value, 0.0, -1.0)]
    gaps = [np.where(missing, -1.0, 0.0)] if missing.any() else []
    if missing.all():
        return gaps
    known = others[~missing]
    return [(np.where(missing, known.mean(), others) - value) / (float(known.std()) or 1.0), *gaps]


def _fit(steps: FloatArray, outputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What outputs (m, K) over steps (m, q) count for in slopes, (q, m), and what the line misses of them, (m, K)."""
    near = np.exp(-np.sum(steps * steps, axis=1) / (_WIDTH**2 * steps.shape[1]))
    rows = np.column_stack([np.ones(len(steps)), steps])
    weighted = (rows * near[:, None]).T
    matrix = np.einsum("im,mj->ij", weighted, rows)
    matrix[np.diag_indices(len(matrix))] += _RIDGE * near.sum()
    weights = solve(matrix, weighted)
    line = np.einsum("im,mk->ik", weights, outputs)
    return weights[1:], outputs - np.einsum("mi,ik->mk", rows, line)
