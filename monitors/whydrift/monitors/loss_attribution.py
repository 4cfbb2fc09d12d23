"""Which feature makes the model wrong: the Shapley values of the loss, summed and read.

A row's loss attributions are the interventional Shapley values of loss(f(x), y) with the row's label held: their sum
is the row's loss less its expectation over background rows, so what is below 0 makes the model better. Their mean over
a window, followed over time, is the monitoring plot of Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9. It is
diagnosis: no stream of its own, no part in the budget. The sums are those of a cohort's outcomes:

| block            | name    | cell       | stats                                                             |
|------------------|---------|------------|-------------------------------------------------------------------|
| loss_attribution | feature | background | value: of the loss attribution against one background row         |
| loss_attribution | feature |            | square: of the loss attribution, the mean over background rows    |
| loss_attribution |         |            | rows, weight, weight2; base: expected loss; value: loss less that |
| loss_attribution |         |            | left_out: rows that could not be explained                        |

Losses are in units of `LossSampling.scale`, weights are the rows' own by the chance of being sampled. All rows meet the
same background rows, so the error of a mean is the spread of its parts by background row, and is not less for more
rows; that of a change between windows is the spread of the parts' changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.dense import dense
from whydrift.monitors.summary import Layout, WindowSummary, collect
from whydrift.monitors.summary_terms import Rows, held, term
from whydrift.monitors.verdict_loss import FeatureLoss, LossAttribution

FloatArray = npt.NDArray[np.float64]

BLOCK = "loss_attribution"
MIN_ROWS = 30  # sampled ones, for a mean to be near normal
BEYOND = 3.0  # standard errors of a change, for a feature to be named
_MIN_WINDOWS = 5  # of the baseline, for their differences to be known
_NAMED = 3


@dataclass(frozen=True, slots=True)
class LossRows:
    """Rows with their loss attributions: `changes` (n, p, b) by background row, the others (n,); NaN if unexplained.

    `weight` is the row's own by its chance of being sampled, `loss` that of the model's answer, and `base` that
    expected where no feature is known.
    """

    weight: FloatArray
    loss: FloatArray
    base: FloatArray
    changes: FloatArray


@dataclass(frozen=True, slots=True)
class LossMeans:
    """A cohort's means, in units of the loss: `draws` (p, b) by background row, `variance` (p,) from sampling rows."""

    rows: int
    left_out: int
    loss: float
    base: float
    draws: FloatArray
    variance: FloatArray

    @property
    def value(self) -> FloatArray:
        """The features' mean loss attributions, (p,)."""
        return np.asarray(self.draws.mean(axis=1))


@dataclass(frozen=True, slots=True)
class UsualLosses:
    """The baseline's windows: means over them, and `between` (p,) and `variance` (p,), the variance of their means and
    how much of it a window's sampling comes to. `windows` is how many there are.
    """

    windows: int
    loss: float
    base: float
    draws: FloatArray
    between: FloatArray
    variance: FloatArray


def summarise_losses(batch: LossRows, layout: Layout) -> WindowSummary:
    """Reduce a few hundred rows with their loss attributions."""
    return collect(_terms(batch, layout))


def _terms(batch: LossRows, layout: Layout) -> Iterator[Rows]:
    sampling = layout.loss_attribution
    if sampling is None:
        raise ValueError("the layout has no loss attributions")
    known = np.isfinite(batch.changes).all(axis=(1, 2)) & np.isfinite(batch.loss) & np.isfinite(batch.base)
    yield term(BLOCK, "left_out", (~known).astype(np.int64))
    w = held(batch.weight[known], 1.0)
    base, loss = (held(values[known], sampling.scale) for values in (batch.base, batch.loss))
    own = {"rows": np.ones_like(w), "weight": w, "weight2": w * w, "base": w * base, "value": w * (loss - base)}
    for stat, terms in own.items():
        yield term(BLOCK, stat, terms)
    cells = np.tile(np.arange(sampling.draws), w.size)
    for j, name in enumerate(layout.names):
        changes = held(np.ascontiguousarray(batch.changes[known, j]), sampling.scale)
        mean = changes.mean(axis=1)
        yield term(BLOCK, "value", (w[:, None] * changes).ravel(), name=name, cells=cells)
        yield term(BLOCK, "square", w * mean * mean, name=name)


def read_losses(outcomes: pd.DataFrame, layout: Layout) -> LossMeans | None:
    """The means of a cohort's frame; None of fewer than 30 sampled rows."""
    sampling = layout.loss_attribution
    if sampling is None:
        return None
    stats = ("rows", "left_out", "weight", "weight2", "base", "value")
    rows, left_out, weight, weight2, base, value = (float(v) for v in dense(outcomes, BLOCK, ("",), stats)[:, 0, 0])
    if rows < MIN_ROWS or not weight > 0:
        return None
    (sums,) = dense(outcomes[outcomes["stat"] == "value"], BLOCK, layout.names, ("value",), sampling.draws)
    (squares,) = dense(outcomes, BLOCK, layout.names, ("square",))
    draws = sums / weight
    spread = np.maximum(squares[:, 0] / weight - draws.mean(axis=1) ** 2, 0.0)
    return LossMeans(
        rows=round(rows),
        left_out=round(left_out),
        loss=(base + value) / weight * sampling.scale,
        base=base / weight * sampling.scale,
        draws=draws * sampling.scale,
        variance=spread * weight2 / weight**2 * sampling.scale**2,
    )


def fit_usual_losses(outcomes: Sequence[pd.DataFrame], layout: Layout) -> UsualLosses | None:
    """What is usual, from the frames of the baseline's cohorts; None of fewer than five that can be read."""
    found = [means for frame in outcomes if (means := read_losses(frame, layout)) is not None]
    if len(found) < _MIN_WINDOWS:
        return None
    return UsualLosses(
        windows=len(found),
        loss=float(np.mean([one.loss for one in found])),
        base=float(np.mean([one.base for one in found])),
        draws=np.mean([one.draws for one in found], axis=0),
        between=np.var([one.value for one in found], axis=0, ddof=1),
        variance=np.mean([one.variance for one in found], axis=0),
    )


def tell_losses(
    outcomes: pd.DataFrame | None, usual: UsualLosses | None, layout: Layout, cohort: tuple[datetime, datetime]
) -> LossAttribution | None:
    """What the verdict says of a cohort; None where it has no loss attributions, or too few."""
    sampling, now = layout.loss_attribution, read_losses(outcomes, layout) if outcomes is not None else None
    if sampling is None or now is None:
        return None
    features = [_tell(name, j, now, usual) for j, name in enumerate(layout.names)]
    return LossAttribution(
        cohort_start=cohort[0],
        cohort_end=cohort[1],
        loss=sampling.loss,
        rows=now.rows,
        left_out=now.left_out,
        rate=sampling.rate,
        background_rows=sampling.draws,
        mean=now.loss,
        expected=now.base,
        baseline_mean=usual.loss if usual is not None else None,
        baseline_expected=usual.base if usual is not None else None,
        features=tuple(sorted(features, key=lambda f: (-(f.value if f.change is None else f.change), f.feature))),
    )


def _tell(name: str, j: int, now: LossMeans, usual: UsualLosses | None) -> FeatureLoss:
    value, error = float(now.value[j]), float(np.sqrt(now.variance[j] + _of_background(now.draws[j])))
    if usual is None:
        return FeatureLoss(feature=name, value=value, error=error)
    moved = now.draws[j] - usual.draws[j]
    # A window of few rows differs by more than the baseline's do.
    more = max(float(now.variance[j] - usual.variance[j]), 0.0)
    noise = float(np.sqrt(usual.between[j] * (1 + 1 / usual.windows) + more + _of_background(moved)))
    change = float(moved.mean())
    return FeatureLoss(
        feature=name,
        value=value,
        error=error,
        baseline=float(usual.draws[j].mean()),
        deviation=float(np.sqrt(usual.between[j])),
        change=change,
        effect=change / noise if noise > 0 else None,
    )


def _of_background(draws: FloatArray) -> float:
    """The variance of a mean over background rows (b,); 0 of a single one, which says nothing."""
    return float(draws.var() / max(draws.size - 1, 1))


def loss_grounds(told: LossAttribution | None) -> tuple[str, ...]:
    """Which features the loss rose by, in words for a cause's grounds; nothing where there is nothing to compare."""
    if told is None or told.baseline_mean is None:
        return ()
    risen = [f for f in told.features if f.change is not None and f.effect is not None and f.effect >= BEYOND]
    if not risen:
        return (f"no feature's loss attribution rose by more than windows differ by ({told.rows:,} rows explained)",)
    return tuple(
        f"the loss attribution of {f.feature} rose by {f.change:.3g}, from {f.baseline:.3g} to {f.value:.3g}"
        f" ({f.effect:.1f} standard errors; {told.loss} {told.mean:.3g}, was {told.baseline_mean:.3g})"
        for f in risen[:_NAMED]
    )
