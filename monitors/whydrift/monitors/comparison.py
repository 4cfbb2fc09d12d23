"""Candidate against champion on the same rows: is the new model right for the same reasons, and not worse?

Validation. The window is the replicate here too: every statistic is of sums over windows, its standard error is
the jackknife's over windows (Efron & Tukey), and a check passes if the one-sided confidence bound keeps the margin
(non-inferiority). The confidence is shared by all checks (Bonferroni). What the owner expects of the model is asked of
the candidate alone, on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan, sqrt

import numpy as np
import numpy.typing as npt
from scipy import stats

from whydrift.monitors.calibration import ScoreMesh, smece
from whydrift.monitors.contract_sums import Sums, pool
from whydrift.monitors.expectations import Expectation, measure, say
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """One model's sums over a window: absolute attribution, and of the labelled rows the mesh and losses.

    Attributions are by feature, (p,), and by class of several ones, (p C,).
    """

    absolute: FloatArray
    mesh: ScoreMesh | None
    loss: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PairedWindow:
    """Both models on one window's rows; `weight` and `rows` of labelled rows by slice, "" for all.

    `reasons` are the candidate's sums of all rows, under None, and of the slices that expectations name.
    """

    champion: Side
    candidate: Side
    weight: Mapping[str, float]
    rows: Mapping[str, int]
    reasons: Mapping[str | None, Sums] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contracts:
    """What is expected of the candidate, and the layout that its sums have."""

    expectations: Sequence[Expectation]
    layout: Layout


@dataclass(frozen=True, slots=True)
class Margins:
    """What the candidate must keep; the fields are those of the configuration's `gate`."""

    min_share_cosine: float
    max_brier_increase: float
    max_smece_increase: float
    max_slice_loss_ratio: float
    confidence: float
    min_windows: int
    min_slice_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One comparison. `bound` is the confidence bound that is held against `limit`; `passed` is None if not judged."""

    name: str
    passed: bool | None
    value: float | None
    bound: float | None
    limit: float
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All checks. `passed` is true only if every check ran and passed, None if one could not run and none failed.

    `too_small` names slices below the floor of rows: listed, and by the owner's floor not judged.
    """

    checks: tuple[GateCheck, ...]
    too_small: tuple[str, ...]

    @property
    def passed(self) -> bool | None:
        results = {c.passed for c in self.checks}
        if False in results:
            return False
        return None if None in results or not results else True


_Statistic = Callable[[Sequence[PairedWindow]], float]


def compare(
    windows: Sequence[PairedWindow], margins: Margins, *, classifier: bool, contracts: Contracts | None = None
) -> Comparison:
    """Run every check."""
    rows: dict[str, int] = {}
    for window in windows:
        for name, count in window.rows.items():
            rows[name] = rows.get(name, 0) + count
    judged = [name for name in sorted(rows) if name and rows[name] >= margins.min_slice_rows]
    plan: list[tuple[str, _Statistic, float, int]] = [("share_cosine", _cosine, margins.min_share_cosine, -1)]
    if classifier:
        plan.append(("brier_increase", _loss_increase, margins.max_brier_increase, 1))
        plan.append(("smece_increase", _smece_increase, margins.max_smece_increase, 1))
    else:
        plan.append(("loss_ratio", _loss_ratio(""), margins.max_slice_loss_ratio, 1))
    plan += [(f"loss_ratio:{name}", _loss_ratio(name), margins.max_slice_loss_ratio, 1) for name in judged]
    expected = contracts.expectations if contracts is not None else ()
    level = 1 - (1 - margins.confidence) / (len(plan) + len(expected))
    checks = [
        _check(
            name, statistic, windows if name == "share_cosine" else _with(windows, name), limit, side, level, margins
        )
        for name, statistic, limit, side in plan
    ]
    if contracts is not None:
        checks += [_check_expectation(e, contracts.layout, windows, level, margins) for e in expected]
    return Comparison(tuple(checks), tuple(name for name in sorted(rows) if name and name not in judged))


def _with(windows: Sequence[PairedWindow], check: str) -> list[PairedWindow]:
    """The windows that have labels of the check's slice."""
    name = check.partition(":")[2]
    return [w for w in windows if w.rows.get(name, 0) > 0]


def _check(
    name: str,
    statistic: _Statistic,
    windows: Sequence[PairedWindow],
    limit: float,
    side: int,
    level: float,
    margins: Margins,
) -> GateCheck:
    """`side` is 1 where the limit is a maximum, -1 where it is a minimum."""
    if len(windows) < margins.min_windows:
        text = f"{name}: {len(windows)} windows have what it takes, {margins.min_windows} are needed"
        return GateCheck(name=name, passed=None, value=None, bound=None, limit=limit, message=text)
    value = statistic(windows)
    count = len(windows)
    left_out = np.array([statistic([*windows[:i], *windows[i + 1 :]]) for i in range(count)])
    error = sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))
    bound = value + side * float(stats.t.ppf(level, count - 1)) * error
    if not np.isfinite(bound):
        text = f"{name}: not defined on these rows"
        return GateCheck(name=name, passed=None, value=None, bound=None, limit=limit, message=text)
    passed = bool(side * bound <= side * limit)
    relation = "at most" if side > 0 else "at least"
    text = f"{name} is {value:.4g}, with confidence {relation} {bound:.4g}; the gate asks for {relation} {limit:.4g}"
    return GateCheck(name=name, passed=passed, value=value, bound=bound, limit=limit, message=text)


def _check_expectation(
    expectation: Expectation, layout: Layout, windows: Sequence[PairedWindow], level: float, margins: Margins
) -> GateCheck:
    """Whether the candidate keeps an expectation in all windows with such rows, taken together."""

    def value(some: Sequence[PairedWindow]) -> float:
        found = measure(expectation, pool([w.reasons[expectation.slice] for w in some]), layout)
        return found.value if found is not None else nan

    told = [w for w in windows if expectation.slice in w.reasons]
    side = 1 if expectation.asks == "at most" else -1
    name = f"expectation:{expectation.name}"
    check = _check(name, value, told, expectation.limit, side, level, margins)
    if check.value is None:
        return check
    text = f"{name}: {say(expectation, check.value)}; with confidence {expectation.asks} {check.bound:.4g}"
    return replace(check, message=text)


def _cosine(windows: Sequence[PairedWindow]) -> float:
    a = np.sum([w.champion.absolute for w in windows], axis=0)
    b = np.sum([w.candidate.absolute for w in windows], axis=0)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else nan


def _loss_increase(windows: Sequence[PairedWindow]) -> float:
    difference = sum(w.candidate.loss[""] - w.champion.loss[""] for w in windows)
    return difference / sum(w.weight[""] for w in windows)


def _loss_ratio(name: str) -> _Statistic:
    def ratio(windows: Sequence[PairedWindow]) -> float:
        champion = sum(w.champion.loss[name] for w in windows)
        return sum(w.candidate.loss[name] for w in windows) / champion if champion else nan

    return ratio


def _smece_increase(windows: Sequence[PairedWindow]) -> float:
    return _pooled_smece([w.candidate for w in windows]) - _pooled_smece([w.champion for w in windows])


def _pooled_smece(sides: Sequence[Side]) -> float:
    meshes = [s.mesh for s in sides if s.mesh is not None]
    if not meshes:
        return nan
    return smece(
        ScoreMesh(
            labelled=np.sum([m.labelled for m in meshes], axis=0),
            positive=np.sum([m.positive for m in meshes], axis=0),
            squared_error=sum(m.squared_error for m in meshes),
            rows=sum(m.rows for m in meshes),
        )
    )
