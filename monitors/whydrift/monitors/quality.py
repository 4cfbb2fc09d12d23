"""Are the explanations themselves sound? (validation)

Whether they add up is a check of every window. What is here is tracked and shown, and never alarms by itself: the
error of sampled attributions, and what was measured on the baseline's golden rows when it was made, namely how much
the attributions hang on the background rows that were drawn, how far they move when a row hardly does, and whether
another method tells the same story.

None of these is added to a stream's variance. A stream's sampling variance is that of the estimated attributions
over rows, which holds their error already; errors that rows share, since orders and background are drawn once and
pinned by the explainer's digest, are the same in the baseline and in every window, and cancel in a shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from whydrift.monitors.dense import by_stat
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import MethodAgreement, Soundness

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stability:
    """How far attributions move under noise: medians over rows, and `features` (p,), means over rows.

    `sensitivity` is relative to the size of a row's attributions, `features` to the feature's mean absolute one;
    `lipschitz` is in units of the output per standard deviation of the inputs. NaN where nothing is attributed.
    """

    sensitivity: float
    lipschitz: float
    features: FloatArray


def between_backgrounds(values: FloatArray) -> FloatArray:
    """How much attributions hang on the background: their deviation between draws by their mean size.

    Args:
        values: of the same rows with each of d backgrounds, (d, n, p).

    Returns:
        (p,): mean over rows of the standard deviation over draws, by the mean absolute attribution; NaN where that
        is 0.
    """
    return _by(values.std(axis=0, ddof=1).mean(axis=0), np.abs(values).mean(axis=(0, 1)))


def stability(values: FloatArray, noisy: FloatArray, distance: FloatArray) -> Stability:
    """The largest change over m perturbations of each row, as max-sensitivity and as a local Lipschitz ratio.

    Sources: Yeh et al. 2019, arXiv:1901.09392 (divided here by the row's size); Alvarez-Melis and Jaakkola 2018,
    arXiv:1806.08049. Of a feature the mean over rows is taken: attributions of trees change in steps, and the
    median of a step that few rows are near is 0.

    Args:
        values: attributions, (n, p).
        noisy: attributions of the perturbed rows, (m, n, p).
        distance: how far each row was moved, (m, n), in standard deviations; 0 where it was not.
    """
    change = noisy - values
    moved = np.linalg.norm(change, axis=2)
    size = np.linalg.norm(values, axis=1)
    ratio = np.divide(moved, distance, out=np.zeros_like(moved), where=distance > 0)
    return Stability(
        sensitivity=_median(_by(moved.max(axis=0), size)),
        lipschitz=_median(np.where((distance > 0).any(axis=0), ratio.max(axis=0), np.nan)),
        features=_by(np.abs(change).max(axis=0).mean(axis=0), np.abs(values).mean(axis=0)),
    )


def agree(one: FloatArray, other: FloatArray, *, method: str, top: int) -> MethodAgreement:
    """Whether two methods name the same features, means over rows (Krishna et al. 2022, arXiv:2202.01602).

    Feature agreement is the share of the `top` features that both name, sign agreement of those that both name with
    the same sign; rank correlation is Spearman's of the absolute attributions of all features.

    Args:
        one: attributions of n rows, (n, p).
        other: those of the other method.
        method: its name.
        top: how many features a person looks at; all where there are fewer.
    """
    top = min(top, one.shape[1])
    ranks = [rankdata(np.abs(values), axis=1) for values in (one, other)]
    named = [_named(values, top) for values in (one, other)]
    both = named[0] & named[1]
    centred = [r - r.mean(axis=1, keepdims=True) for r in ranks]
    spread = np.sqrt(np.prod([np.sum(c**2, axis=1) for c in centred], axis=0))
    correlation = _by(np.sum(centred[0] * centred[1], axis=1), spread)
    judged = correlation[np.isfinite(correlation)]
    return MethodAgreement(
        method=method,
        rows=len(one),
        top=top,
        features=round(float(both.sum(axis=1).mean() / top), 6),
        signs=round(float((both & (np.sign(one) == np.sign(other))).sum(axis=1).mean() / top), 6),
        ranks=known(float(judged.mean())) if judged.size else None,
    )


def relative_error(frame: pd.DataFrame, layout: Layout) -> FloatArray:
    """The sampling error of a row's attribution in a summary's frame, (p,).

    Root mean square of the standard errors by the mean absolute attribution; NaN where they were computed and not
    sampled, or where nothing was attributed.
    """
    names = list(layout.names)
    error = frame[(frame["block"] == "quality") & (frame["stat"] == "error2")].groupby("name")["value"].sum()
    block = frame[frame["block"] == "attribution"]
    sums = {s: block[block["stat"] == s].groupby("name")["value"].sum() for s in ("weight", "absolute")}
    weight, absolute = (sums[s].reindex(names).fillna(0.0).to_numpy(float) for s in ("weight", "absolute"))
    squared = error.reindex(names).to_numpy(float)
    return _by(np.sqrt(squared * weight), absolute)  # sqrt(squared / weight) / (absolute / weight)


def in_window(measured: Soundness, frame: pd.DataFrame, layout: Layout, error: FloatArray) -> Soundness:
    """What was measured when the baseline was made, with what a window's summary says of its own explanations.

    `error` (p,) is the `relative_error` of each feature.
    """
    quality = by_stat(frame, "quality", name="")
    explained = quality.get("explained", 0.0)
    errors = dict(zip(layout.names, error, strict=True))
    return replace(
        measured,
        not_additive=quality.get("not_additive", 0.0) / explained if explained else None,
        features=tuple(replace(f, error=known(errors.get(f.feature, np.nan))) for f in measured.features),
    )


def known(value: float) -> float | None:
    """The number, to the six digits that it is good for; None where it is not known."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _named(values: FloatArray, top: int) -> npt.NDArray[np.bool_]:
    """Which features are among the largest of their row, (n, p); of equal ones the first, and none that is 0."""
    chosen = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-np.abs(values), axis=1, kind="stable")[:, :top], values=True, axis=1)
    return np.asarray(chosen & (values != 0))


def _by(amount: FloatArray, size: FloatArray) -> FloatArray:
    return np.divide(amount, size, out=np.full_like(amount, np.nan), where=size > 0)


def _median(values: FloatArray) -> float:
    present = values[np.isfinite(values)]
    return float(np.median(present)) if present.size else float("nan")
