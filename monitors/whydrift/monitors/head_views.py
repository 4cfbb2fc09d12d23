"""From an assessed window to what its verdict says of the model's outputs: one, or one of each class."""

from __future__ import annotations

import numpy as np

from whydrift.monitors import calibration as cal
from whydrift.monitors.assessment import Assessed, HeadWindow
from whydrift.monitors.attribution import cell_rates
from whydrift.monitors.binning import MISSING
from whydrift.monitors.calibration_multiclass import MeshErrors, multiclass_calibration
from whydrift.monitors.class_sums import read_class_meshes
from whydrift.monitors.outcome_streams import MIN_LABELLED, losses, score_mesh
from whydrift.monitors.reference import HeadReference, Reference
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import CalibrationResult, ClassResult, FeatureAttribution, ScoreShift
from whydrift.monitors.verdict_classes import CalibrationErrors, MulticlassResult

_BAND_SEED = 0  # the bands of equal cohorts are equal


def tell_attribution(reference: Reference, assessed: Assessed) -> tuple[FeatureAttribution, ...]:
    """By share, largest first, summed over classes where there are several.

    The empty tuple where the window could not be judged.
    """
    by_head = [_attribution(head, now) for head, now in zip(reference.heads, assessed.heads, strict=True)]
    if not all(by_head):
        return ()
    if len(by_head) == 1:
        return _by_share(by_head[0])
    now = _parts([own.moments.absolute_total for own in assessed.heads if own.moments is not None])
    then = _parts([head.moments.absolute_total for head in reference.heads])
    return _by_share(tuple(_over_classes(rows, now, then) for rows in zip(*by_head, strict=True)))


def _parts(totals: list[float]) -> list[float]:
    return [total / max(sum(totals), np.finfo(float).tiny) for total in totals]


def _over_classes(rows: tuple[FeatureAttribution, ...], now: list[float], then: list[float]) -> FeatureAttribution:
    """A feature's lines of all classes, each class with its part of all absolute attribution, as one."""
    return FeatureAttribution(
        feature=rows[0].feature,
        share=sum(part * row.share for part, row in zip(now, rows, strict=True)),
        baseline_share=sum(part * row.baseline_share for part, row in zip(then, rows, strict=True)),
        level=sum(row.level for row in rows),
        baseline_level=sum(row.baseline_level for row in rows),
        shift=sum(row.shift for row in rows),
        composition=sum(row.composition for row in rows),
        response=sum(row.response for row in rows),
        missing_rate=rows[0].missing_rate,
        baseline_missing_rate=rows[0].baseline_missing_rate,
    )


def _by_share(rows: tuple[FeatureAttribution, ...]) -> tuple[FeatureAttribution, ...]:
    return tuple(sorted(rows, key=lambda r: (-max(r.share, r.baseline_share), r.feature)))


def _attribution(head: HeadReference, own: HeadWindow) -> tuple[FeatureAttribution, ...]:
    """In the layout's order."""
    now, split, layout = own.moments, own.split, head.layout
    if now is None or split is None:
        return ()
    missing = cell_rates(own.frame, layout, MISSING)
    missing_before = cell_rates(head.frame, layout, MISSING)
    if np.isnan(missing).any():  # no rows of ours lack their inputs: the summary was torn
        return ()
    return tuple(
        FeatureAttribution(
            feature=name,
            share=float(now.share[j]),
            baseline_share=float(head.moments.share[j]),
            level=float(now.value[j] * layout.scale),
            baseline_level=float(head.moments.value[j] * layout.scale),
            shift=float(split.shift[j] * layout.scale),
            composition=float(split.composition[j] * layout.scale),
            response=float(split.response[j] * layout.scale),
            missing_rate=float(missing[j]),
            baseline_missing_rate=float(missing_before[j]),
        )
        for j, name in enumerate(layout.names)
    )


def tell_score(head: HeadReference, own: HeadWindow) -> ScoreShift | None:
    """The head's mean output; None where the window could not be judged."""
    now, before, scale = own.moments, head.moments, head.layout.scale
    if now is None:
        return None
    return ScoreShift(
        mean=now.output * scale,
        baseline_mean=before.output * scale,
        shift=(now.output - before.output) * scale,
        base_shift=(now.base - before.base) * scale,
        unit=_unit(head.layout),
    )


def _unit(layout: Layout) -> str:
    if layout.link != "identity":
        return {"logit": "log-odds", "softmax": "margin of the class"}[layout.link]
    return "probability" if layout.task == "binary" else "value of the prediction"


def tell_calibration(reference: Reference, assessed: Assessed, number: int) -> CalibrationResult | None:
    """Of the newest mature cohort as a head sees it; None for a regression, or where its labels are too few."""
    head, outcomes = reference.heads[number], assessed.heads[number].outcomes
    if outcomes is None or head.layout.task != "binary":
        return None
    everything, mesh = losses(outcomes).get(""), score_mesh(outcomes)
    fit = cal.cox(mesh) if mesh is not None else None
    if everything is None or mesh is None or fit is None or everything.effective < MIN_LABELLED:
        return None
    settings, key, usual = reference.settings, assessed.window.key, head.calibration
    return CalibrationResult(
        cohort_start=key.start - settings.lag * settings.width,
        cohort_end=key.end - settings.lag * settings.width,
        rows=everything.rows,
        positives=everything.positives,
        intercept=fit.intercept_at_slope_one,
        slope=fit.slope,
        smece=cal.smece(mesh),
        brier=cal.brier(mesh),
        baseline_intercept=usual.intercept,
        baseline_slope=usual.slope,
        baseline_smece=usual.smece,
        baseline_brier=usual.brier,
        diagram=cal.reliability(mesh, np.random.default_rng(_BAND_SEED)),
    )


def tell_classes(reference: Reference, assessed: Assessed) -> tuple[ClassResult, ...]:
    """Every class, in the order of the model's outputs; empty of a model without classes."""
    if not reference.layout.classes:
        return ()
    return tuple(
        ClassResult(
            class_name=str(head.name),
            attribution=_by_share(_attribution(head, own)),
            score=tell_score(head, own),
            calibration=tell_calibration(reference, assessed, number),
        )
        for number, (head, own) in enumerate(zip(reference.heads, assessed.heads, strict=True))
    )


def tell_multiclass(reference: Reference, assessed: Assessed) -> MulticlassResult | None:
    """Of the newest mature cohort of a multiclass model; None of others, or where its labels are too few."""
    if not reference.layout.classes or assessed.outcomes is None:
        return None
    whole, meshes = losses(assessed.outcomes).get(""), read_class_meshes(assessed.outcomes, reference.layout)
    if whole is None or meshes is None or whole.effective < MIN_LABELLED:
        return None
    found = multiclass_calibration(meshes)
    usual = multiclass_calibration(reference.meshes) if reference.meshes is not None else None
    settings, key = reference.settings, assessed.window.key
    before = reference.losses.get("")
    return MulticlassResult(
        cohort_start=key.start - settings.lag * settings.width,
        cohort_end=key.end - settings.lag * settings.width,
        rows=whole.rows,
        brier=whole.mean,
        baseline_brier=before.mean if before is not None else None,
        top=_errors(found.top),
        baseline_top=_errors(usual.top) if usual is not None else None,
        mean=_errors(found.mean),
        baseline_mean=_errors(usual.mean) if usual is not None else None,
        largest=_errors(found.largest),
        baseline_largest=_errors(usual.largest) if usual is not None else None,
        worst_class=str(reference.heads[found.worst].name),
    )


def _errors(errors: MeshErrors) -> CalibrationErrors:
    return CalibrationErrors(smece=errors.smece, brier=errors.brier, l2=errors.l2)
