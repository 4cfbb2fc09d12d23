"""The models and rows that explaining is measured on: 50 features, 30 numbers (10 with gaps) and 20 of few values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]

FEATURES = tuple(f"x{j:02d}" for j in range(50))
_NUMERIC, _GAPPY = 30, 10
_TRAINING = 100_000


def draw(rows: int, seed: int, *, gaps: bool = True) -> tuple[pd.DataFrame, FloatArray]:
    """Rows (n, 50) and labels (n,) of main effects, kinks and products; half the features have no part in them."""
    rng = np.random.default_rng(seed)
    x = np.empty((rows, len(FEATURES)))
    common = rng.standard_normal(rows)
    x[:, :_NUMERIC] = 0.8 * rng.standard_normal((rows, _NUMERIC)) + 0.6 * common[:, None]
    x[:, _NUMERIC:] = rng.integers(0, 5, (rows, len(FEATURES) - _NUMERIC))
    effects = np.random.default_rng(0).normal(0, 0.4, len(FEATURES)) * (np.arange(len(FEATURES)) % 2)
    score = x @ effects + 0.5 * x[:, 1] * x[:, 3] + np.maximum(x[:, 5], 0) - 0.4 * (x[:, 31] > 2) * x[:, 7]
    label = (rng.random(rows) < 1 / (1 + np.exp(-(score - np.median(score))))).astype(np.float64)
    if gaps:
        x[:, :_GAPPY][rng.random((rows, _GAPPY)) < 0.05] = np.nan
    return pd.DataFrame(x, columns=list(FEATURES)), label


def _xgboost() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=500, max_depth=6, learning_rate=0.1, tree_method="hist", n_jobs=2)


def _lightgbm() -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=500, num_leaves=63, learning_rate=0.1, n_jobs=2, verbose=-1)


def _catboost() -> Any:
    import catboost

    return catboost.CatBoostClassifier(
        iterations=500, depth=6, learning_rate=0.1, thread_count=2, verbose=False, allow_writing_files=False
    )


def _hist_gradient_boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=300, early_stopping=False, random_state=0)


def _random_forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=200, max_depth=12, n_jobs=2, random_state=0)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=20, random_state=0))


# By family: how the estimator is made, and whether it takes rows with gaps.
FAMILIES: dict[str, tuple[Callable[[], Any], bool]] = {
    "xgboost 500x6": (_xgboost, True),
    "lightgbm 500x63": (_lightgbm, True),
    "catboost 500x6": (_catboost, True),
    "hist_gradient_boosting 300": (_hist_gradient_boosting, True),
    "random_forest 200x12": (_random_forest, False),
    "logistic": (_logistic, False),
    "mlp": (_mlp, False),
}


def train(family: str) -> Any:
    """The fitted model of a family."""
    make, gaps = FAMILIES[family]
    rows, label = draw(_TRAINING, seed=1, gaps=gaps)
    return make().fit(rows, label)
