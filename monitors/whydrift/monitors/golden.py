"""Rows whose answers are known: replayed through the live model and explainer, they tell a changed model for certain.

A shift of inputs, however large, cannot change what the same rows are answered. (Question: diagnosis.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.summary import WindowSummary, count_golden

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-6  # relative, to the value and to the output's scale: rounding, and nothing else
ERRORS = 5.0  # Monte Carlo standard errors that an estimated attribution may differ by


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows as they were answered when the baseline was made: `features` (n, p), `values` (n, p), `output` (n,).

    Of a model of C classes `values` is (n, C, p) and `output` (n, C).
    """

    features: pd.DataFrame
    values: FloatArray
    output: FloatArray


def compare(
    golden: Golden, values: FloatArray, output: FloatArray, *, scale: float, error: FloatArray | None = None
) -> WindowSummary:
    """Count the rows that are answered or explained differently now.

    Args:
        golden: the rows as they were.
        values: their attributions now, as `golden` has them.
        output: the model's output now, likewise.
        scale: of the output, `Layout.scale`.
        error: standard errors of estimated attributions, in the shape of `values`; None where they are exact.
    """
    allowed = TOLERANCE * (scale + np.abs(golden.values))
    if error is not None:
        allowed = np.maximum(allowed, ERRORS * error)
    rows, features = golden.features.shape  # of several classes any that differs counts
    explained = np.asarray(_differs(values, golden.values, allowed).reshape(rows, -1, features).any(axis=1))
    answered = _differs(output, golden.output, TOLERANCE * (scale + np.abs(golden.output))).reshape(rows, -1)
    return count_golden(
        rows=len(output),
        outputs=int(answered.any(axis=1).sum()),
        attributions=int(explained.any(axis=1).sum()),
        features=dict(zip(golden.features.columns, explained.sum(axis=0).tolist(), strict=True)),
    )


def _differs(now: FloatArray, then: FloatArray, allowed: FloatArray) -> npt.NDArray[np.bool_]:
    """Beyond what is allowed; what is no number differs from every number, and from nothing else."""
    with np.errstate(invalid="ignore"):  # of two infinities
        close = (now == then) | (np.abs(now - then) <= allowed) | (np.isnan(now) & np.isnan(then))
    return ~np.asarray(close)
