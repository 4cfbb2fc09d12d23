"""Explainable boosting machines (interpret): the terms of the model itself.

`output = intercept + sum of terms`, each term a function of one feature or of a few. A term of one feature is that
feature's attribution; one of several features is shared among them in equal parts, which is its Shapley value where
the term is centred in each of its features. interpret centres every term on the training data, so that the base, the
intercept, is the mean output there, and an attribution says how far a feature moves a row from the average of the
training data, not of the background. Source: Lou et al. 2013, doi:10.1145/2487575.2487579.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

_LINKS: dict[tuple[Task, str], Link] = {
    ("binary", "logit"): "logit",
    ("regression", "identity"): "identity",
    ("multiclass", "mlogit"): "softmax",
}


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """A fitted model and its link."""

    model: Any
    link: Link

    @classmethod
    def of(cls, model: Any, task: Task) -> AdditiveModel:
        """Take one of interpret's boosting machines.

        Raises:
            UnsuitedError: it is something else, or its terms add up in a space that is not supported.
        """
        if not hasattr(model, "eval_terms") or not hasattr(model, "term_features_"):
            raise UnsuitedError(f"{type(model).__name__} is no explainable boosting machine: it has no eval_terms")
        link = _LINKS.get((task, str(model.link_)))
        if link is None:
            raise UnsuitedError(f"{type(model).__name__} with link {model.link_!r} for a {task} task")
        return cls(model, link)

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of rows as the model takes them; each term is looked up row by row."""
        terms = np.asarray(self.model.eval_terms(encoded), dtype=np.float64)  # (n, terms), of classes (n, terms, C)
        classes = terms.shape[2:]
        values = np.zeros((len(terms), *classes, self.model.n_features_in_))
        for term, features in enumerate(self.model.term_features_):
            for feature in features:
                values[..., feature] += terms[:, term] / len(features)
        intercept = np.asarray(self.model.intercept_, dtype=np.float64)
        return Explanation(
            values, as_base(intercept if classes else float(intercept.ravel()[0])), self._output(encoded)
        )

    def _output(self, encoded: Any) -> FloatArray:
        answer = self.model.decision_function if self.link != "identity" else self.model.predict
        return np.asarray(answer(encoded), dtype=np.float64)
