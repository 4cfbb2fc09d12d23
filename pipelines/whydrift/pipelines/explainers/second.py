"""Another explainer beside the one in use, which shares as little with it as can be: how far do two methods agree?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.lime import LimeExplainer
from whydrift.pipelines.explainers.permutation import PermutationExplainer
from whydrift.pipelines.explainers.prediction import predictor
from whydrift.pipelines.explainers.protocol import Explainer, Link, Task

_SAMPLED = frozenset({"permutation", "kernel"})  # estimates of the same Shapley values


def second_opinion(
    model: object,
    *,
    first: str,
    task: Task,
    link: Link,
    background: pd.DataFrame,
    features: Sequence[str],
    classes: Sequence[str] = (),
) -> Explainer:
    """LIME beside sampled Shapley values, and sampled Shapley values beside all else, in the space of `link`.

    Raises:
        ModelError: the model cannot predict, or not what the task asks for.
    """
    columns = Columns.of(background, features)
    model = getattr(model, "best_estimator_", model)  # of a hyperparameter search
    predict = predictor(model, task, columns, background, classes)
    kind = LimeExplainer if first in _SAMPLED else PermutationExplainer
    return kind.of(predict, columns, link, background)
