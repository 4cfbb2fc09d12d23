"""From summaries to the numbers that are watched.

| stream                | of          | value                                        | sides | question   |
|-----------------------|-------------|----------------------------------------------|-------|------------|
| share                 | feature     | log of its share of all absolute attribution | two   | validation |
| level                 | feature     | mean attribution / its baseline deviation    | two   | diagnosis  |
| calibration_intercept | the model   | calibration in the large, log-odds           | two   | validation |
| smece                 | the model   | smooth calibration error                     | up    | validation |
| loss                  | each slice  | mean squared error                           | up    | diagnosis  |

Attribution streams speak of the window itself, the others of an earlier cohort whose labels are mature by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.attribution import Moments
from whydrift.monitors.calibration import MESH, ScoreMesh, brier, cox, smece
from whydrift.monitors.evidence import Observation, Stream
from whydrift.monitors.summary import Layout, slice_names

FloatArray = npt.NDArray[np.float64]

OUTCOME_STREAMS = frozenset({"calibration_intercept", "smece", "loss"})
MIN_LABELLED = 30  # in a slice, and in the model's cohort, for its mean to be near normal


@dataclass(frozen=True, slots=True)
class Loss:
    """A slice's mature labels in a window: mean loss and its sampling variance."""

    rows: int
    positives: int
    mean: float
    variance: float


def list_streams(layout: Layout, *, labels: bool) -> tuple[Stream, ...]:
    """Every stream of a model, in the order in which `observe` gives their values."""
    attribution = [Stream(kind, feature=name) for kind in ("share", "level") for name in layout.names]
    if not labels:
        return tuple(attribution)
    calibration = [Stream("calibration_intercept"), Stream("smece", one_sided=True)] if layout.task == "binary" else []
    slices = [Stream("loss", slice=name or None, one_sided=True) for name in ["", *all_slices(layout)]]
    return (*attribution, *calibration, *slices)


def all_slices(layout: Layout) -> list[str]:
    """The names of the configured slices."""
    return [name for bins in layout.features if bins.name in layout.slices for name in slice_names(bins)]


def observe(
    start: datetime,
    now: Moments | None,
    outcomes: pd.DataFrame | None,
    layout: Layout,
    deviation: FloatArray,
    *,
    labels: bool,
) -> Observation:
    """A window's stream values; NaN where it has none.

    Args:
        start: of the window.
        now: its moments, None where it was too small to be judged.
        outcomes: frame of the mature cohort's summary, None where there is none.
        layout: the baseline's.
        deviation: shape (p,), the baseline's standard deviations of the attributions.
        labels: whether the model has labels at all.
    """
    p = len(layout.features)
    if now is None:
        values, variances = np.full(2 * p, np.nan), np.full(2 * p, np.nan)
    else:
        values = np.concatenate([now.log_share, now.value / deviation])
        variances = np.concatenate([now.log_share_variance, now.variance / deviation**2 / now.rows])
    if not labels:
        return Observation(start, values, variances)
    late = _observe_outcomes(outcomes, layout)
    return Observation(
        start,
        np.concatenate([values, [value for value, _ in late]]),
        np.concatenate([variances, [variance for _, variance in late]]),
    )


def _observe_outcomes(outcomes: pd.DataFrame | None, layout: Layout) -> list[tuple[float, float]]:
    unseen = (np.nan, np.nan)
    found = losses(outcomes) if outcomes is not None else {}
    late = []
    if layout.task == "binary":
        everything = found.get("")
        mesh = score_mesh(outcomes) if outcomes is not None and everything else None
        fit = cox(mesh) if mesh is not None and everything and everything.rows >= MIN_LABELLED else None
        if mesh is None or fit is None:
            late += [unseen, unseen]
        else:
            late += [
                (fit.intercept_at_slope_one, fit.intercept_at_slope_one_variance),
                (smece(mesh), mesh.squared_error / max(mesh.labelled.sum(), 1.0) / mesh.rows),
            ]
    for name in ["", *all_slices(layout)]:
        loss = found.get(name)
        late.append((loss.mean, loss.variance) if loss is not None and loss.rows >= MIN_LABELLED else unseen)
    return late


def losses(outcomes: pd.DataFrame) -> dict[str, Loss]:
    """Mean loss by slice, the empty name for all rows together."""
    block = outcomes[outcomes["block"] == "loss"]
    table = block.pivot_table(index="slice", columns="stat", values="value", aggfunc="sum", fill_value=0.0)
    table = table.reindex(columns=["rows", "positives", "weight", "weight2", "loss", "loss2"], fill_value=0.0)
    found = {}
    for name, row in table[table["weight"] > 0].iterrows():
        mean = row["loss"] / row["weight"]
        spread = max(row["loss2"] / row["weight"] - mean**2, 0.0)
        found[str(name)] = Loss(
            rows=round(row["rows"]),
            positives=round(row["positives"]),
            mean=float(mean),
            variance=float(spread * row["weight2"] / row["weight"] ** 2),
        )
    return found


@dataclass(frozen=True, slots=True)
class UsualCalibration:
    """Means over the baseline's windows; None where no window could be judged."""

    intercept: float | None
    slope: float | None
    smece: float | None
    brier: float | None


def usual_calibration(outcomes: Sequence[pd.DataFrame]) -> UsualCalibration:
    """What calibration comes to in windows where nothing moved."""
    meshes = [mesh for frame in outcomes if (mesh := score_mesh(frame)) is not None]
    fits = [fit for mesh in meshes if (fit := cox(mesh)) is not None]

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return UsualCalibration(
        intercept=mean([fit.intercept_at_slope_one for fit in fits]),
        slope=mean([fit.slope for fit in fits]),
        smece=mean([smece(mesh) for mesh in meshes]),
        brier=mean([brier(mesh) for mesh in meshes]),
    )


def score_mesh(outcomes: pd.DataFrame) -> ScoreMesh | None:
    """The calibration mesh of a cohort; None without labels."""
    block = outcomes[outcomes["block"] == "outcome"]
    mesh = {stat: np.zeros(MESH) for stat in ("labelled", "positive")}
    for stat, values in mesh.items():
        rows = block[block["stat"] == stat]
        values[rows["cell"].to_numpy()] = rows["value"].to_numpy()
    whole = outcomes[(outcomes["block"] == "loss") & (outcomes["slice"] == "")].set_index("stat")["value"]
    if not mesh["labelled"].any() or whole.get("weight2", 0.0) <= 0:
        return None
    return ScoreMesh(
        labelled=mesh["labelled"],
        positive=mesh["positive"],
        squared_error=float(whole.get("loss", 0.0)),
        rows=float(whole["weight"] ** 2 / whole["weight2"]),
    )
