"""Kernel SHAP: Shapley values as the weighted least squares fit of a sum of features to a model's coalitions.

A coalition is a set of features that have the explained row's values; the others take those of a background row.
Weighted by the Shapley kernel, the best sum over all coalitions, held to the output itself, is the Shapley value
(Lundberg and Lee 2017, arXiv 1705.07874). Up to eleven features all coalitions are taken, and it is exact for the
background. Beyond that as many as shap takes by default, 2 p + 2,048: sizes are taken whole from the outside in while
they fit, and of the others pairs of a coalition and its complement are drawn, by which it is exact where features
interact in pairs at most (Covert and Lee 2021, arXiv 2012.01536).

The coalitions are drawn once and are the same for all rows, so the fit is one matrix that is made once. Each row is a
fixed number of calls to the model of fixed shapes: its attributions depend on the row alone. The matrix is applied
without BLAS, whose rounding depends on the number of threads.

Errors are of two kinds. The background is a sample: each of its rows gives Shapley values of its own, whose spread
gives the error of their mean. The pairs are drawn: what the fit leaves unexplained of each gives that error, and it is
none where all coalitions are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns, digest
from whydrift.pipelines.explainers.least_squares import solve
from whydrift.pipelines.explainers.permutation import to_output
from whydrift.pipelines.explainers.prediction import Predict
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, as_base

_MIXED = 50_000  # rows of one call to the model, at most: bounds memory


@dataclass(frozen=True, slots=True)
class Coalitions:
    """m coalitions of p features: `members` (m, p), `weight` (m,), the second half complements of the first.

    The last `drawn` pairs were drawn, those before them are whole sizes.
    """

    members: npt.NDArray[np.bool_]
    weight: FloatArray
    drawn: int

    @classmethod
    def draw(cls, width: int, pairs: int, rng: np.random.Generator) -> Coalitions:
        """Whole sizes from the outside in, then pairs whose sizes are drawn by what the kernel gives them.

        >>> Coalitions.draw(4, 100, np.random.default_rng(0)).members.shape
        (14, 4)
        """
        half: list[npt.NDArray[np.bool_]] = []
        weight: list[float] = []
        mass = {s: (width - 1) / (s * (width - s)) / (2 if 2 * s == width else 1) for s in range(1, width // 2 + 1)}
        while mass:
            size = min(mass)
            count = comb(width, size) // (2 if 2 * size == width else 1)
            if pairs * mass[size] < count * sum(mass.values()):
                break
            half += [_members(width, chosen) for chosen in list(combinations(range(width), size))[:count]]
            weight += [mass[size] / count] * count
            pairs -= count
            del mass[size]
        drawn = pairs if mass else 0
        if drawn:
            total = sum(mass.values())
            sizes = rng.choice(list(mass), drawn, p=np.array(list(mass.values())) / total)
            half += [_members(width, rng.permutation(width)[:size]) for size in sizes]
            weight += [total / drawn] * drawn
        one = np.array(half, dtype=np.bool_).reshape(-1, width)
        return cls(np.concatenate([one, ~one]), np.tile(weight, 2), drawn)

    def fit(self) -> tuple[FloatArray, FloatArray]:
        """(p, m) and (p,): attributions are the first times the coalitions' gains plus the second times the whole gain.

        The Lagrangian solution of the weighted least squares whose attributions add up to the whole gain.
        """
        width = self.members.shape[1]
        if width == 1:  # nothing to share
            return np.zeros((1, 0)), np.ones(1)
        z = self.members.astype(np.float64)
        weighted = (z * self.weight[:, None]).T
        solved = solve(np.einsum("im,mj->ij", weighted, z), np.column_stack([weighted, np.ones(width)]))
        share = solved[:, -1] / solved[:, -1].sum()
        return solved[:, :-1] - share[:, None] * solved[:, :-1].sum(axis=0), share


@dataclass(frozen=True, slots=True)
class KernelExplainer:
    """Explains `predict`, in log-odds where it gives probabilities; see `PermutationExplainer` for the outputs.

    `gains` (p, m) and `whole` (p,) are the fit, `start` (b,) or (b, C) the background's outputs.
    """

    predict: Predict
    columns: Columns
    link: Link
    background: pd.DataFrame
    coalitions: Coalitions
    gains: FloatArray
    whole: FloatArray
    start: FloatArray
    parameters: Mapping[str, str]
    name: str = field(default="kernel", init=False)

    @classmethod
    def of(
        cls, predict: Predict, columns: Columns, link: Link, background: pd.DataFrame, pairs: int | None = None
    ) -> KernelExplainer:
        """Draw the coalitions; `background` is (b, p), and a row costs b predictions a coalition."""
        frame = columns.frame(background)
        width = frame.shape[1]
        coalitions = Coalitions.draw(width, width + 1024 if pairs is None else pairs, np.random.default_rng(0))
        drawn = hashlib.sha256(coalitions.members.tobytes() + coalitions.weight.astype("<f8").tobytes()).hexdigest()
        gains, whole = coalitions.fit()
        start = to_output(predict(frame), link)
        parameters = {"background": digest(frame), "coalitions": drawn}
        return cls(predict, columns, link, frame, coalitions, gains, whole, start, parameters)

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows, one after the other.

        Raises:
            ModelError: the model refuses the rows.
        """
        frame = self.columns.frame(features)
        heads, width = self.start.shape[1:], frame.shape[1]
        values, errors = np.empty((len(frame), *heads, width)), np.empty((len(frame), *heads, width))
        output = np.empty((len(frame), *heads))
        for i in range(len(frame)):
            # A new frame: how a slice of the batch lies in memory depends on the batch, and BLAS rounds by that too.
            row = pd.DataFrame({name: frame[name].to_numpy()[i : i + 1] for name in frame.columns})
            try:
                output[i] = to_output(self.predict(row), self.link)[0]
                mixed = self._mixed(row)
            except (ModelError, TypeError, ValueError) as error:
                raise ModelError(f"the model refuses row {i} of the batch or a mixture of it: {error}") from error
            for head in np.ndindex(heads):
                own = (..., *head)
                gain = mixed[own] - self.start[own]
                values[(i, *head)], errors[(i, *head)] = self._fit(gain, output[(i, *head)] - self.start[own])
        known = len(self.start) > 1 or self.coalitions.drawn > 1
        return Explanation(values, as_base(self.start.mean(axis=0)), output, errors if known else None)

    def _mixed(self, row: pd.DataFrame) -> FloatArray:
        """Outputs of all coalitions with all background rows, (m, b) or (m, b, C)."""
        count = len(self.background)
        step = max(1, _MIXED // count)
        parts = [np.empty((0, *self.start.shape))]
        for first in range(0, len(self.coalitions.members), step):
            members = self.coalitions.members[first : first + step]
            columns = {}
            for j, name in enumerate(row.columns):
                absent = np.tile(self.background[name].to_numpy(), len(members))
                absent[np.repeat(members[:, j], count)] = row[name].to_numpy()[0]
                columns[name] = absent
            outputs = to_output(self.predict(pd.DataFrame(columns)), self.link)
            parts.append(outputs.reshape(len(members), *self.start.shape))
        return np.concatenate(parts)

    def _fit(self, gain: FloatArray, whole: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Attributions and their standard errors, (p,), from gains over each background row (m, b) and (b,)."""
        each = np.einsum("pm,mb->bp", self.gains, gain) + whole[:, None] * self.whole
        values = each.mean(axis=0)
        squared = each.var(axis=0) / max(len(each) - 1, 1)
        drawn = self.coalitions.drawn
        if drawn > 1:
            missed = gain.mean(axis=1) - np.where(self.coalitions.members, values, 0.0).sum(axis=1)
            pairs = (self.gains * missed).reshape(len(values), 2, -1).sum(axis=1)[:, -drawn:]
            squared = squared + pairs.var(axis=1) * drawn * drawn / (drawn - 1)
        return values, np.sqrt(squared)


def _members(width: int, chosen: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    members = np.zeros(width, dtype=np.bool_)
    members[np.asarray(chosen)] = True
    return members
