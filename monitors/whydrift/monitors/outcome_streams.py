"""What labels say of a model once they are mature: losses by slice, and calibration.

| stream                | of         | value                              | sides | question   |
|-----------------------|------------|------------------------------------|-------|------------|
| calibration_intercept | the model  | calibration in the large, log-odds | two   | validation |
| calibration_slope     | the model  | Cox's slope, 1 if calibrated       | two   | validation |
| smece                 | the model  | smooth calibration error           | up    | validation |
| loss                  | each slice | mean squared error                 | up    | diagnosis  |

They speak of an earlier cohort whose labels are mature by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from whydrift.monitors.binning import slice_names
from whydrift.monitors.calibration import MESH, ScoreMesh, brier, cox, smece
from whydrift.monitors.dense import by_stat, dense
from whydrift.monitors.evidence import Stream
from whydrift.monitors.stream_input import StreamInput, Values
from whydrift.monitors.summary import Layout

OUTCOME_STREAMS = frozenset(
    {"calibration_intercept", "calibration_slope", "smece", "bias", "coverage", "loss"}
    | {"gap_tpr", "gap_fpr", "gap_calibration"}
)
MIN_LABELLED = 30  # in a slice, and in the model's cohort, for its mean to be near normal


@dataclass(frozen=True, slots=True)
class Loss:
    """A slice's mature labels in a window: mean loss and its sampling variance.

    `effective` is the number of equally weighted rows that tell as much (Kish 1965).
    """

    rows: int
    effective: float
    positives: int
    mean: float
    variance: float


def list_outcomes(layout: Layout) -> tuple[Stream, ...]:
    """Calibration of a classifier, then the loss of all rows, of each configured slice, and of each that was found."""
    calibration = [Stream("calibration_intercept"), Stream("calibration_slope"), Stream("smece", one_sided=True)]
    slices = [Stream("loss", slice=name or None, one_sided=True) for name in ["", *all_slices(layout)]]
    found = [Stream("loss", slice=cell.name, one_sided=True, automatic=True) for cell in layout.promoted]
    return (*(calibration if layout.task == "binary" else ()), *slices, *found)


def observe_outcomes(window: StreamInput, layout: Layout) -> Values:
    """The mature cohort's values, in the order of `list_outcomes`."""
    late = _observe(window.outcomes, layout)
    return np.array([value for value, _ in late]), np.array([variance for _, variance in late])


def all_slices(layout: Layout) -> list[str]:
    """The names of the configured slices."""
    return [name for bins in layout.features if bins.name in layout.slices for name in slice_names(bins)]


def _observe(outcomes: pd.DataFrame | None, layout: Layout) -> list[tuple[float, float]]:
    unseen = (np.nan, np.nan)
    found = losses(outcomes) if outcomes is not None else {}
    late = []
    if layout.task == "binary":
        everything = found.get("")
        enough = outcomes is not None and everything is not None and everything.effective >= MIN_LABELLED
        mesh = score_mesh(outcomes) if outcomes is not None and enough else None
        fit = cox(mesh) if mesh is not None else None
        late = [
            (fit.intercept_at_slope_one, fit.intercept_at_slope_one_variance) if fit is not None else unseen,
            (fit.slope, fit.slope_variance) if fit is not None else unseen,
            # Needs no fit: a day without positives, on which there is none, is not left out.
            (smece(mesh), mesh.squared_error / max(mesh.labelled.sum(), 1.0) / mesh.rows) if mesh else unseen,
        ]
    for name in ["", *all_slices(layout), *(cell.name for cell in layout.promoted)]:
        loss = found.get(name)
        late.append((loss.mean, loss.variance) if loss is not None and loss.effective >= MIN_LABELLED else unseen)
    return late


def losses(outcomes: pd.DataFrame) -> dict[str, Loss]:
    """Mean loss by slice, the empty name for all rows together."""
    of_loss = outcomes["slice"].array.take(np.flatnonzero(outcomes["block"] == "loss"))
    names = sorted(set(of_loss))
    sums = dense(outcomes, "loss", names, ("rows", "positives", "weight", "weight2", "loss", "loss2"), of="slice")
    found = {}
    for name, of_slice in zip(names, sums[:, :, 0].T.tolist(), strict=True):
        rows, positives, weight, weight2, loss, loss2 = of_slice
        if weight <= 0:
            continue
        mean = loss / weight
        found[name] = Loss(
            rows=round(rows),
            effective=weight**2 / weight2 if weight2 > 0 else 0.0,
            positives=round(positives),
            mean=mean,
            variance=max(loss2 / weight - mean**2, 0.0) * weight2 / weight**2,
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
    labelled, positive = dense(outcomes, "outcome", ("",), ("labelled", "positive"), MESH)[:, 0]
    whole = by_stat(outcomes, "loss", slice="")
    weight, weight2 = (whole.get(stat, 0.0) for stat in ("weight", "weight2"))
    if not labelled.any() or weight <= 0 or weight2 <= 0:
        return None
    return ScoreMesh(
        labelled=labelled,
        positive=positive,
        squared_error=whole.get("loss", 0.0),
        rows=weight**2 / weight2,
    )
