"""The hard channel: deterministic checks that page at once and spend no false-alarm budget.

Limits on rates come from the baseline's own windows: the largest rate seen, three standard deviations between
windows, two percentage points, and four standard errors of the window at hand. So a feed that is patchy by nature
is judged by its own patchiness.

Two checks read labels: whether records get one at all, and whether one class is all there is. What a model's golden
rows are answered today is compared with what they were answered when the baseline was made; there any difference
fails, because nothing about it is random.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.attribution import cell_rates, logged_rows
from whydrift.monitors.binning import FAR, MISSING, UNSEEN
from whydrift.monitors.calibration import POINTS
from whydrift.monitors.class_sums import as_seen_by, head_names
from whydrift.monitors.dense import by_stat
from whydrift.monitors.outcome_streams import score_mesh
from whydrift.monitors.summary import Layout
from whydrift.monitors.summary_terms import NO_CELL
from whydrift.monitors.verdict import Channel, Finding, Status

FloatArray = npt.NDArray[np.float64]

SLACK = 0.02
_CHANCE = 20.0  # expected and not one came: e**-20 by chance
_SHOWN = 3
LABEL_CHECKS = frozenset({"label_coverage", "label_class"})
DATA_CHECKS = frozenset({"missing_rate", "unseen_rate", "out_of_range_rate", "set_aside"})
_LABEL_REASONS = {"label_without_record", "bad_label", "label_of_no_class"}
HARMLESS = {"duplicate", "other_model_version", "unreadable_file", *_LABEL_REASONS}


@dataclass(frozen=True, slots=True)
class Limit:
    """What the baseline allows of a rate: `largest` over its windows and the `deviation` between them."""

    largest: float
    deviation: float

    def at(self, rows: float) -> float:
        """The limit for a window of so many rows."""
        p = min(max(self.largest, SLACK), 1 - SLACK)
        return min(self.largest + 3 * self.deviation + SLACK + 4 * sqrt(p * (1 - p) / rows), 1.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits and digests that a baseline fixes."""

    missing: tuple[Limit, ...]
    unseen: tuple[Limit, ...]
    far: tuple[Limit, ...]
    set_aside: Limit
    differs: Limit
    labelled: Limit
    unlabelled: Limit
    digests: dict[str, str]


def fit_limits(
    frames: Sequence[pd.DataFrame],
    layout: Layout,
    digests: dict[str, str],
    outcomes: Sequence[pd.DataFrame | None] = (),
) -> Limits:
    """Limits from the frames of the baseline's window summaries and, in the same order, of their own outcomes."""
    coverage = [
        whole_loss(late).get("rows", 0.0) / rows
        for frame, late in zip(frames, outcomes, strict=False)
        if late is not None and (rows := kept_rows(frame)) > 0
    ]

    def per_feature(cell: int) -> tuple[Limit, ...]:
        rates = np.array([cell_rates(f, layout, cell) for f in frames])
        return tuple(_limit(rates[:, j]) for j in range(rates.shape[1]))

    return Limits(
        missing=per_feature(MISSING),
        unseen=per_feature(UNSEEN),
        far=per_feature(FAR),
        set_aside=_limit([_set_aside_rate(f) for f in frames]),
        differs=_limit([_quality_rate(f, "prediction_differs") for f in frames]),
        labelled=_limit(coverage),
        unlabelled=_limit([1 - rate for rate in coverage]),
        digests=digests,
    )


def check(frame: pd.DataFrame, layout: Layout, limits: Limits, min_rows: int) -> list[Finding]:
    """The checks that fail in a window. Rates of fewer than `min_rows` rows are not judged."""
    found = [*_check_digests(frame, limits), *_check_golden(frame)]
    seen, explained = rows_seen(frame), _stat(frame, "quality", "explained")
    if seen >= min_rows:
        rate, limit = _set_aside_rate(frame), limits.set_aside.at(seen)
        if rate > limit:
            found.append(_finding("set_aside", rate, limits.set_aside.largest, limit, _why_set_aside(frame, rate)))
    if kept_rows(frame) >= min_rows:
        found += _check_cells(frame, layout, limits, max(logged_rows(frame), 1.0))
    if explained >= min_rows:
        found += _check_quality(frame, limits, explained)
    if (files := _stat(frame, "set_aside", "rows", name="unreadable_file")) > 0:
        text = f"{files:.0f} log file(s) of the window could not be read; their rows are not in this verdict"
        found.append(_finding("unreadable_file", files, 0.0, 0.0, text, status=Status.TICKET))
    return found


def check_labels(
    outcomes: pd.DataFrame, layout: Layout, limits: Limits, rows: float | None, min_rows: int
) -> list[Finding]:
    """What labels cannot do unless something breaks on their way: the checks that fail in a mature cohort.

    Args:
        outcomes: frame of the cohort's outcomes.
        layout: of the baseline.
        limits: the baseline's.
        rows: the cohort's rows, None where its own window is not there.
        min_rows: rates of fewer rows are not judged.
    """
    whole = whole_loss(outcomes)
    found, labelled = [], whole.get("rows", 0.0)
    if rows is not None and rows >= min_rows:
        rate, usual = labelled / rows, limits.labelled.largest
        few, many = 1 - limits.unlabelled.at(rows), limits.labelled.at(rows)
        text = f"{rate:.1%} of the records have a label; "
        if rate < few:
            usual = 1 - limits.unlabelled.largest
            text += f"in the baseline's windows it were at least {usual:.1%}"
            found.append(_finding("label_coverage", rate, usual, few, text))
        elif rate > many:
            text += f"in the baseline's windows it were at most {usual:.1%}"
            found.append(_finding("label_coverage", rate, usual, many, text))
    if labelled >= min_rows:
        for name, own in zip(head_names(layout), as_seen_by(outcomes, layout), strict=True):
            found += _check_class(own, labelled, whole_loss(own).get("positives", 0.0), name)
    return found


def _check_class(outcomes: pd.DataFrame, rows: float, positives: float, name: str | None) -> Iterator[Finding]:
    """One class only, where the scores expect so many of the other that chance does not leave them out.

    Of several classes each is looked at by itself: none or all of the labels are `name`.
    """
    mesh = score_mesh(outcomes) if positives in {0.0, rows} else None
    if mesh is None:
        return
    expected = float(mesh.labelled @ POINTS) / float(mesh.labelled.sum()) * rows
    for label, there, absent in ((0, rows - positives, expected), (1, positives, rows - expected)):
        if there == rows and absent >= _CHANCE:
            told, what = f"all {there:,.0f} labels are {label}", "are not"
            if name is not None and label == 0:
                told, what = f"none of {there:,.0f} labels is class {name}", "are"
            elif name is not None:
                told = f"all {there:,.0f} labels are class {name}"
            text = f"{told}, and the scores expect {absent:,.0f} that {what}"
            yield replace(_finding("label_class", 1.0, exp(-absent), None, text), class_name=name)


def kept_rows(frame: pd.DataFrame) -> float:
    """Rows of a window that fit the contract, explained or not."""
    return _stat(frame, "rows", "rows")


def whole_loss(outcomes: pd.DataFrame) -> dict[str, float]:
    """The sums of a cohort's loss block over all its rows."""
    return by_stat(outcomes, "loss", slice="")


def rows_seen(frame: pd.DataFrame) -> float:
    """Rows in the log: kept and set aside."""
    aside = sum(n for reason, n in set_aside(frame).items() if reason not in {"unreadable_file", *_LABEL_REASONS})
    return kept_rows(frame) + aside


def set_aside(frame: pd.DataFrame) -> dict[str, int]:
    """Rows set aside by reason."""
    block = frame[frame["block"] == "set_aside"]
    return {str(n): round(v) for n, v in zip(block["name"], block["value"], strict=True)}


def _check_digests(frame: pd.DataFrame, limits: Limits) -> Iterator[Finding]:
    names = frame.loc[frame["block"] == "digest", "name"]
    for kind in ("model", "explainer"):
        expected = limits.digests[kind]
        seen = {n.removeprefix(f"{kind}=") for n in names if n.startswith(f"{kind}=")}
        if seen - {expected}:
            other = ", ".join(sorted(d[:12] for d in seen - {expected}))
            text = f"the {kind} ({other}) is not the one that the baseline was made with ({expected[:12]})"
            yield _finding(f"{kind}_digest", None, None, None, text)


def _check_golden(frame: pd.DataFrame) -> Iterator[Finding]:
    """The golden rows, answered again by the live model and explainer: any difference fails."""
    block = frame[frame["block"] == "golden"]
    whole = by_stat(frame, "golden", name="")
    rows, outputs, attributions = (whole.get(stat, 0.0) for stat in ("rows", "outputs", "attributions"))
    if outputs > 0:
        text = f"{outputs:,.0f} of {rows:,.0f} golden rows are not answered as they were when the baseline was made"
        yield _finding("golden_output", outputs / rows, 0.0, 0.0, text)
    if attributions > 0:
        by_feature = block[block["stat"] == "differs"].sort_values(["value", "name"], ascending=[False, True])
        most = [f"{n} in {v:,.0f}" for n, v in zip(by_feature["name"], by_feature["value"], strict=True)][:_SHOWN]
        text = (
            f"{attributions:,.0f} of {rows:,.0f} golden rows are explained differently; most of all {', '.join(most)}"
        )
        yield _finding("golden_attribution", attributions / rows, 0.0, 0.0, text)


def _check_cells(frame: pd.DataFrame, layout: Layout, limits: Limits, rows: float) -> Iterator[Finding]:
    for stream, cell, allowed, words in (
        ("missing_rate", MISSING, limits.missing, "is missing in"),
        ("unseen_rate", UNSEEN, limits.unseen, "has categories that the baseline never saw in"),
        ("out_of_range_rate", FAR, limits.far, "lies further from the baseline's range than three times its width in"),
    ):
        for name, rate, limit in zip(layout.names, cell_rates(frame, layout, cell), allowed, strict=True):
            most = limit.at(rows)
            if rate > most:
                text = f"{name} {words} {rate:.1%} of the rows; the baseline's windows had at most {limit.largest:.1%}"
                yield _finding(stream, float(rate), limit.largest, most, text, feature=name)


def _check_quality(frame: pd.DataFrame, limits: Limits, rows: float) -> Iterator[Finding]:
    failures = _stat(frame, "quality", "not_additive")
    if failures > 0:
        text = f"{failures:.0f} of {rows:,.0f} explanations do not add up to the model's output"
        yield _finding("additivity", failures / rows, 0.0, 0.0, text)
    rate, limit = _quality_rate(frame, "prediction_differs"), limits.differs.at(rows)
    if rate > limit:
        of = "" if rows == kept_rows(frame) else f" {rows:,.0f} explained of {kept_rows(frame):,.0f}"
        text = f"{rate:.1%} of the{of} logged predictions are not those of the registered model"
        yield _finding("prediction_differs", rate, limits.differs.largest, limit, text)


def _finding(
    stream: str,
    value: float | None,
    baseline: float | None,
    threshold: float | None,
    message: str,
    *,
    feature: str | None = None,
    status: Status = Status.PAGE,
) -> Finding:
    effect = None if value is None or baseline is None else value - baseline
    return Finding(
        channel=Channel.CHECK,
        stream=stream,
        status=status,
        message=message,
        feature=feature,
        value=value,
        baseline=baseline,
        effect=effect,
        threshold=threshold,
        confirmed=True,
    )


def _why_set_aside(frame: pd.DataFrame, rate: float) -> str:
    reasons = {r: n for r, n in set_aside(frame).items() if r not in HARMLESS}
    most = max(sorted(reasons), key=lambda r: reasons[r])
    return f"{rate:.1%} of the rows do not fit the contract, most of them for {most} ({reasons[most]} rows)"


def _set_aside_rate(frame: pd.DataFrame) -> float:
    seen = rows_seen(frame)
    return sum(n for r, n in set_aside(frame).items() if r not in HARMLESS) / seen if seen else 0.0


def _quality_rate(frame: pd.DataFrame, stat: str) -> float:
    explained = _stat(frame, "quality", "explained")
    return _stat(frame, "quality", stat) / explained if explained else 0.0


def _stat(frame: pd.DataFrame, block: str, stat: str, *, name: str = "") -> float:
    chosen = (frame["block"] == block) & (frame["stat"] == stat) & (frame["cell"] == NO_CELL) & (frame["name"] == name)
    return float(frame.loc[chosen, "value"].sum())


def _limit(rates: Iterable[float]) -> Limit:
    present = np.array([r for r in rates if not np.isnan(r)])
    if not present.size:
        return Limit(1.0, 0.0)
    return Limit(float(present.max()), float(present.std(ddof=1)) if present.size > 1 else 0.0)
