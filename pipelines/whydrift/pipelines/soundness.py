"""What a baseline knows of its own explanations: golden rows explained again, in other ways.

    with other background rows    where the explainer has a background
    with a little noise           on the numeric features
    by another method             permutation, or LIME where the one in use samples Shapley values itself

At most 100 rows are taken, so that this costs some seconds where explaining the reference period costs minutes. All
of it is a function of the rows: equal baselines are equal byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from whydrift.monitors.quality import agree, between_backgrounds, known, stability
from whydrift.monitors.verdict import FeatureSoundness, MethodAgreement, Soundness
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.protocol import Explainer, FloatArray
from whydrift.pipelines.registry import LoadedModel
from whydrift.pipelines.rows import make_explainer, make_second

ROWS = 100
BACKGROUNDS = 5
NOISE = 0.02  # standard deviations
_DRAWS = 8  # of the noise, for each row
_TOP = 5  # features that two methods are to agree on, at most half of all: on all of them any two agree
_PREDICTIONS = 200_000  # what the second method may ask of the model
_SECOND_BACKGROUND = 100

_ADAPTER = TypeAdapter(Soundness)


def measure(
    config: Config,
    model: LoadedModel,
    explainer: Explainer,
    background: pd.DataFrame,
    golden: pd.DataFrame,
    spare: pd.DataFrame,
    usual_rows: int,
) -> Soundness:
    """Explain the first golden rows again, in other ways.

    Args:
        config: of the monitored model.
        model: the deployed one.
        explainer: in use.
        background: its rows, which the second method takes too.
        golden: rows of the model's features.
        spare: rows that other backgrounds are dealt from, as many as `BACKGROUNDS` of them need. Where there are
            fewer, the backgrounds are smaller, and differ more than the one in use would.
        usual_rows: of a window, which the choice of an explainer hangs on.
    """
    rows = golden[list(model.features)].head(ROWS).reset_index(drop=True)
    values = _explain(explainer, rows)
    backgrounds = _backgrounds(config, model, explainer, spare, usual_rows)
    between = _between(backgrounds, rows)
    sensitivity, lipschitz, sensitive = _stability(explainer, rows, values, golden)
    return Soundness(
        explainer=explainer.name,
        rows=len(rows),
        backgrounds=len(backgrounds),
        noise=NOISE,
        sensitivity=known(sensitivity),
        lipschitz=known(lipschitz),
        agreement=_second_opinion(config, model, explainer, background, rows, values),
        features=tuple(
            FeatureSoundness(feature=name, background=known(between[j]), sensitivity=known(sensitive[j]))
            for j, name in enumerate(model.features)
        ),
    )


def to_json(soundness: Soundness) -> bytes:
    """Indented JSON; equal values give equal bytes."""
    return _ADAPTER.dump_json(soundness, indent=1) + b"\n"


def from_json(data: bytes) -> Soundness:
    """Raises ValueError where the bytes are something else."""
    return _ADAPTER.validate_json(data)


def _explain(explainer: Explainer, rows: pd.DataFrame) -> FloatArray:
    """Attributions, (n, p); of C classes (n C, p), each row's classes one after the other."""
    values = explainer.explain(rows).values
    return values.reshape(-1, values.shape[-1])


def _among_classes(values: FloatArray, classes: int) -> FloatArray:
    """Attributions (n C, p) less their mean over a row's classes: softmax leaves open what all margins share."""
    by_row = values.reshape(-1, classes, values.shape[-1])
    return np.asarray((by_row - by_row.mean(axis=1, keepdims=True)).reshape(values.shape))


def _backgrounds(
    config: Config, model: LoadedModel, explainer: Explainer, spare: pd.DataFrame, usual_rows: int
) -> list[Explainer]:
    """The explainer with other backgrounds; none where it has no background."""
    if "background" not in explainer.parameters or len(spare) < BACKGROUNDS:
        return []
    draws = [spare.iloc[i::BACKGROUNDS][list(model.features)] for i in range(BACKGROUNDS)]
    return [make_explainer(config, model, draw, usual_rows) for draw in draws]


def _between(backgrounds: Sequence[Explainer], rows: pd.DataFrame) -> FloatArray:
    if not backgrounds:
        return np.full(rows.shape[1], np.nan)
    return between_backgrounds(np.stack([_explain(other, rows) for other in backgrounds]))


def _stability(
    explainer: Explainer, rows: pd.DataFrame, values: FloatArray, golden: pd.DataFrame
) -> tuple[float, float, FloatArray]:
    """Sensitivity, Lipschitz ratio, and the features' sensitivity; NaN where no numeric feature varies.

    Whole numbers stay whole: a tree that parts 3 from 4 at 3 would call 2.99 something else, and no row has it.
    """
    numbers = golden[rows.columns].select_dtypes("number").astype("float64")
    numbers = numbers.loc[:, numbers.std(ddof=0) > 0]
    if numbers.empty:
        return float("nan"), float("nan"), np.full(rows.shape[1], np.nan)
    spread = numbers.std(ddof=0).to_numpy()
    whole = (numbers.isna() | (numbers == numbers.round())).all().to_numpy()
    still = numbers.iloc[: len(rows)].to_numpy()
    rng = np.random.default_rng(0)
    noisy, distance = [], []
    for _ in range(_DRAWS):
        moved = still + NOISE * spread * rng.standard_normal(still.shape)
        moved = np.where(whole, np.rint(moved), moved)
        frame = rows.drop(columns=numbers.columns).join(pd.DataFrame(moved, columns=numbers.columns))
        noisy.append(_explain(explainer, frame))
        distance.append(np.linalg.norm(np.nan_to_num((moved - still) / spread), axis=1))
    classes = len(values) // len(rows)
    found = stability(values, np.stack(noisy), np.repeat(np.stack(distance), classes, axis=1))
    return found.sensitivity, found.lipschitz, found.features


def _second_opinion(
    config: Config,
    model: LoadedModel,
    explainer: Explainer,
    background: pd.DataFrame,
    rows: pd.DataFrame,
    values: FloatArray,
) -> MethodAgreement | None:
    """Another explainer in the space of the one in use; None where the model is beyond it."""
    background = background.head(_SECOND_BACKGROUND)
    second = make_second(config, model, explainer, background)
    cost = int(second.parameters.get("neighbours", 2 * background.size))
    few = rows.head(max(1, _PREDICTIONS // cost))
    try:
        other = _explain(second, few)
    except ModelError:  # mixtures of rows, which only a sampling explainer asks for, can be beyond a model
        return None
    values = values[: len(other)]
    if explainer.link == "softmax":
        values, other = (_among_classes(one, len(config.model.classes)) for one in (values, other))
    top = min(_TOP, (rows.shape[1] + 1) // 2)
    return agree(values, other, method=second.name, top=top)
