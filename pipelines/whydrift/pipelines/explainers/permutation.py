"""Any model that can predict, by sampling orders of the features.

For every background row z one order of the features is drawn, and walked forwards and backwards: starting from z,
feature after feature takes its value from the explained row x, and each change of the output is credited to the
feature that caused it. The attribution is the mean over both walks and all background rows. It is an unbiased
estimate of the interventional Shapley value (Strumbelj and Kononenko 2014, doi:10.1007/s10115-013-0679-x), adds up
exactly because each walk telescopes, and has no error at all where features interact in pairs at most: for a pair,
the walk and its reverse credit each of the two once (antithetic sampling: Mitchell et al. 2022, JMLR 23(43)).
More background rows make it more exact: with 100, the mean error on a small neural network of ten features was 7 %
of the mean attribution. shap's permutation explainer, five orders for all background rows, was 10 % off for five
times as many predictions.

The orders are drawn once. A row's attributions therefore depend on the row alone, and the sampling error is the
same function of the row in the baseline and in every window. Each row is one call to the model, of one fixed shape,
because models that use BLAS round differently for different numbers of rows; of trees, which do not, many rows are
one call.

The background rows are a sample too, so each background row with its two walks is one independent draw, and the
spread of the draws gives the standard error of their mean. It counts both errors, of the background's choice and of
the orders: for a model without interactions beyond pairs it is that of the background alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.columns import Columns, digest
from whydrift.pipelines.explainers.prediction import Predictor
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, as_base

_CLIP = 1e-6
_AT_ONCE = 2**22  # values of the hybrids of several rows: bounds memory


@dataclass(frozen=True, slots=True)
class Walks:
    """The hybrid rows that a row is compared with: b background rows, 2 walks each, p - 1 inner steps, flattened.

    `orders` is (2, b, p): the feature that moves at each step. `moved[j]` (m,) says in which hybrids feature j has
    left the background, `template[j]` (m,) holds the background's values there, m = 2 b (p - 1).
    """

    orders: npt.NDArray[np.intp]
    moved: npt.NDArray[np.bool_]
    template: list[npt.NDArray[Any]]

    @classmethod
    def draw(cls, background: pd.DataFrame, rng: np.random.Generator) -> Walks:
        """One random order for each row of the background, and its reverse."""
        count, width = background.shape
        forward = rng.permuted(np.tile(np.arange(width), (count, 1)), axis=1)
        orders = np.stack([forward, forward[:, ::-1]])
        # ranks[..., j] is the step at which feature j moves; after step k those with a rank up to k have moved.
        ranks = np.argsort(orders, axis=2)
        moved = ranks[:, :, None, :] <= np.arange(width - 1)[None, None, :, None]
        source = np.broadcast_to(np.arange(count)[None, :, None], (2, count, width - 1)).ravel()
        template = [background[name].to_numpy()[source] for name in background.columns]
        return cls(orders, np.ascontiguousarray(moved.reshape(-1, width).T), template)

    def answers(self, predict: Predictor, frame: pd.DataFrame) -> Iterator[FloatArray | ModelError]:
        """For each row the answers to it and its m hybrids, (1 + m,) or (1 + m, C), or why there are none."""
        step = max(_AT_ONCE // ((1 + len(self.template[0])) * frame.shape[1]), 1) if predict.apart else 1
        columns = [frame[name].to_numpy() for name in frame.columns]
        for start in range(0, len(frame), step):
            yield from self._answers(predict, [own[start : start + step] for own in columns], frame.columns)

    def _answers(
        self, predict: Predictor, rows: Sequence[npt.NDArray[Any]], names: pd.Index[Any]
    ) -> Iterator[FloatArray | ModelError]:
        """The same of rows by column, in one call to the model."""
        count = len(rows[0])
        try:
            answer = predict(self._hybrids(rows, names))
            yield from answer.reshape(count, -1, *answer.shape[1:])
        except (ModelError, TypeError, ValueError) as error:
            if count == 1:
                yield error if isinstance(error, ModelError) else ModelError(str(error))
            else:  # some of them may be answered
                for i in range(count):
                    yield from self._answers(predict, [own[i : i + 1] for own in rows], names)

    def _hybrids(self, rows: Sequence[npt.NDArray[Any]], names: pd.Index[Any]) -> pd.DataFrame:
        """Of each row, by column, the row itself, then its m hybrids."""
        count, many = len(rows[0]), 1 + len(self.template[0])
        numeric = all(template.dtype == np.float64 for template in self.template)
        block = np.empty((len(rows) if numeric else 0, count * many))
        columns = [*block] if numeric else [np.empty(count * many, template.dtype) for template in self.template]
        for own, moved, template, column in zip(rows, self.moved, self.template, columns, strict=True):
            values = column.reshape(count, many)
            values[:, 0], values[:, 1:] = own, template
            np.copyto(values[:, 1:], own[:, None], where=moved)
        if numeric:  # pandas would spend longer on single columns than the model does on its answers
            return pd.DataFrame(block.T, columns=names, copy=False)
        return pd.DataFrame(dict(zip(names, columns, strict=True)))

    def credit(self, start: FloatArray, inner: FloatArray, end: float) -> FloatArray:
        """Change of the output at each feature's move, (2, b, p), from outputs at the start (b,), inside (m,), end."""
        shape = self.orders.shape
        path = np.empty((*shape[:2], shape[2] + 1))
        path[:, :, 0] = start
        path[:, :, 1:-1] = inner.reshape(*shape[:2], shape[2] - 1)
        path[:, :, -1] = end
        change = np.empty(shape)
        np.put_along_axis(change, self.orders, np.diff(path, axis=2), axis=2)
        return change


@dataclass(frozen=True, slots=True)
class PermutationExplainer:
    """Explains `predict`, in log-odds where it gives probabilities (clipped to [1e-6, 1 - 1e-6]).

    Of several classes the outputs are the logarithms of their probabilities, of which softmax gives these back.
    """

    predict: Predictor
    columns: Columns
    link: Link
    walks: Walks
    start: FloatArray
    parameters: Mapping[str, str]
    name: str = field(default="permutation", init=False)

    @classmethod
    def of(
        cls, predict: Predictor, columns: Columns, link: Link, background: pd.DataFrame, seed: int = 0
    ) -> PermutationExplainer:
        """Draw the orders; `background` is (b, p), and costs 2 b (p - 1) predictions for each explained row."""
        frame = columns.frame(background)
        walks = Walks.draw(frame, np.random.default_rng(seed))
        orders = hashlib.sha256(walks.orders.astype("<i8").tobytes()).hexdigest()
        start = to_output(predict(frame), link)
        return cls(predict, columns, link, walks, start, {"background": digest(frame), "orders": orders})

    def explain(self, features: pd.DataFrame) -> Explanation:
        """Explain n rows.

        Raises:
            ModelError: the model refuses the rows.
        """
        frame = self.columns.frame(features)
        heads, width = self.start.shape[1:], len(self.columns.names)
        values, errors = np.empty((len(frame), *heads, width)), np.empty((len(frame), *heads, width))
        output = np.empty((len(frame), *heads))
        for i, found in enumerate(self.walks.answers(self.predict, frame)):
            if isinstance(found, ModelError):
                raise ModelError(f"the model refuses row {i} of the batch or a mixture of it: {found}") from found
            answer = to_output(found, self.link)
            output[i] = answer[0]
            for head in np.ndindex(heads):  # one, or one for each class
                own = (..., *head)
                change = self.walks.credit(self.start[own], answer[1:][own], float(answer[0][own]))
                values[(i, *head)] = change.reshape(-1, width).mean(axis=0)
                errors[(i, *head)] = _standard_error(change.mean(axis=0))
        base = as_base(self.start.mean(axis=0))
        return Explanation(values, base, output, errors if len(self.start) > 1 else None)


def _standard_error(draws: FloatArray) -> FloatArray:
    """Of the mean over draws (b, p), (p,); 0 for a single one, which says nothing."""
    count = len(draws)
    return np.asarray(np.sqrt(draws.var(axis=0) / max(count - 1, 1)))


def to_output(prediction: FloatArray, link: Link) -> FloatArray:
    """Predictions in the space of attributions: log-odds, logarithms of the classes' probabilities, or as they are."""
    if link == "identity":
        return prediction
    if link == "softmax":
        return np.asarray(np.log(np.maximum(prediction, _CLIP)))
    clipped = np.clip(prediction, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
