"""From findings to a cause: what moved, where, since when, and what to look at next.

The order is that of certainty. A model or explainer that is not the baseline's explains everything after it, so it
comes first; then broken data and broken labels, which are counted and not estimated; only then what the evidence
names:

| evidence of                  | what moved                                                      | cause           |
|------------------------------|-----------------------------------------------------------------|-----------------|
| the window's own streams     | a part of the rows took on one value, the rest is as it was     | data_broken     |
|                              | mostly the inputs themselves (composition)                      | inputs_moved    |
|                              | mostly what the same inputs are answered (response)             | joint_moved     |
| outcomes at equal scores     | labels, if inverted, would fit the scores as well as ever       | label_broken    |
|                              | anything else                                                   | concept_changed |

For a fixed model the response of a feature moves only if what it interacts with does, so where inputs moved some
response is theirs too: the larger of the two decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pandas as pd

from whydrift.monitors.binning import FeatureBins
from whydrift.monitors.calibration import ScoreMesh, cox, smece
from whydrift.monitors.checks import DATA_CHECKS, LABEL_CHECKS
from whydrift.monitors.dense import by_stat
from whydrift.monitors.outcome_streams import OUTCOME_STREAMS, UsualCalibration, score_mesh
from whydrift.monitors.shifts import Atom, Moved, Null, Sums, atoms, interval, moved, pool
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import Cause, CauseKind, Channel, Finding

_MOST = 0.9  # a slice holds the fault if so much of it lies there
_SHOWN = 3
_INVERTED = 0.7  # of the usual slope, that inverted labels have to have
_AS_GOOD = 2.0  # times the usual smooth calibration error, that they may have


@dataclass(frozen=True, slots=True)
class Known:
    """What the baseline says, for a diagnosis."""

    layout: Layout
    null: Null
    calibration: UsualCalibration
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a window offers a diagnosis.

    `frame` is that of its summary and `outcomes` that of its mature cohort's. `recent` holds the sums of the newest
    windows by their start, this one last; it is empty if no row of this window could be judged.
    """

    frame: pd.DataFrame
    outcomes: pd.DataFrame | None
    recent: Sequence[tuple[datetime, Sums]]


def diagnose(findings: Sequence[Finding], seen: Seen, known: Known) -> Cause | None:
    """The cause of a page; None where nothing was found."""
    checks = {f.stream: f for f in findings if f.channel is Channel.CHECK}
    broken = [f for f in findings if f.stream in DATA_CHECKS]
    # A log that lost values which the model was served with makes its predictions differ too; the model did not change.
    model = ("model_digest", "golden_output", *(() if broken else ("prediction_differs",)))
    changed = (
        (CauseKind.MODEL_CHANGED, model, _NEXT_MODEL),
        (CauseKind.EXPLAINER_CHANGED, ("explainer_digest", "golden_attribution", "additivity"), _NEXT_EXPLAINER),
    )
    for kind, streams, next_step in changed:
        if hits := [checks[s] for s in streams if s in checks]:
            return _certain(kind, hits, next_step, (_golden_agrees(seen.frame),))
    if broken:
        return _data_broken(broken, checks.get("prediction_differs"), seen.frame, known.groups)
    if labels := [checks[s] for s in sorted(LABEL_CHECKS) if s in checks]:
        return _certain(CauseKind.LABEL_BROKEN, labels, _NEXT_LABELS)
    return _from_evidence([f for f in findings if f.channel is Channel.EVIDENCE], seen, known)


_NEXT_MODEL = "Compare the deployed model with the registered version; if the change is meant, make a new baseline."
_NEXT_EXPLAINER = "Compare library versions and the background with the baseline's manifest; make a new baseline."
_NEXT_LABELS = "Look at the job that writes the labels, from the system that they come from to the label files."
_NEXT_CONCEPT = "Compare outcomes at equal scores; ask what changed in the world."
_NEXT_JOINT = "The same inputs are answered differently: look at what moves together with them."
_NEXT_INPUTS = "Compare the inputs of these features with the baseline's, at their source."
_NEXT_NOTHING = "No row of this window could be explained; look at the row accounting."
_LOG_ONLY = "{}: the model was served with values that the log does not have"


def _certain(kind: CauseKind, hits: Sequence[Finding], next_step: str, more: Sequence[str | None] = ()) -> Cause:
    grounds = (*(f.message for f in hits), *(text for text in more if text))
    return Cause(kind=kind, sentence=grounds[0], onset=_onset(hits), grounds=grounds, next_step=next_step)


def _golden_agrees(frame: pd.DataFrame) -> str | None:
    """What speaks for a change that does no harm, if golden rows were replayed and none differs."""
    golden = by_stat(frame, "golden", name="")
    rows, differ = golden.get("rows", 0.0), golden.get("outputs", 0.0) + golden.get("attributions", 0.0)
    return f"all {rows:,.0f} golden rows are answered and explained as before" if rows and not differ else None


def _data_broken(
    broken: list[Finding], differs: Finding | None, frame: pd.DataFrame, groups: Mapping[str, Sequence[str]]
) -> Cause:
    features = tuple(dict.fromkeys(f.feature for f in broken if f.feature is not None))
    group = _group(features, groups)
    missing = [f for f in broken if f.stream == "missing_rate"]
    place = _where_missing(frame, [f.feature for f in missing if f.feature]) if missing else None
    if missing:
        worst = max(f.value or 0.0 for f in missing)
        subject = f"the {group} columns ({_list(features)})" if group else _list(features)
        sentence = f"{subject} {'is' if len(features) == 1 and not group else 'are'} missing in {worst:.0%} of the rows"
        sentence += f", nearly all of them {place}" if place else ""
        next_step = f"Look at the job that fills {group or _list(features)}" + (f" for {place}." if place else ".")
    else:
        sentence = broken[0].message
        next_step = "Look at what writes the inference log: the row accounting names the first fault of each row."
        if broken[0].stream == "out_of_range_rate":
            next_step = f"Look at the unit and the decimal point of {_list(features)}, at the source."
    return Cause(
        kind=CauseKind.DATA_BROKEN,
        sentence=sentence,
        onset=_onset(broken),
        features=features,
        group=group,
        slice=place,
        grounds=(*(f.message for f in broken), *([_LOG_ONLY.format(differs.message)] if differs else ())),
        next_step=next_step,
    )


def _from_evidence(evidence: list[Finding], seen: Seen, known: Known) -> Cause | None:
    if not evidence:
        return None
    late = [f for f in evidence if f.stream in OUTCOME_STREAMS]
    named = [f for f in evidence if f.stream not in OUTCOME_STREAMS]
    if not named or _total(late) > _total(named):
        return _from_outcomes(late, seen, known)
    if all(f.stream == "residual" for f in named):  # what an approximate explainer misses of the output, and no more
        return _say(CauseKind.EXPLAINER_CHANGED, named, _NEXT_EXPLAINER, known)
    shift = _shift_since(_onset(named), seen)
    if shift is None:
        return _say(CauseKind.UNKNOWN, named, _NEXT_NOTHING, known)
    size = moved(known.null, shift)
    far = _farthest(known.layout, size)
    leading = sorted((f for f in named if f.feature in far), key=lambda f: far.index(f.feature or "")) or named
    features = list(dict.fromkeys(f.feature for f in leading if f.feature is not None)) or far[:_SHOWN]
    if found := [atom for name, atom in atoms(known.null, shift, known.layout).items() if name in features[:_SHOWN]]:
        return _one_value(found, leading, shift, known)
    kind, next_step = _inputs_or_joint(features, known.layout, size)
    cause = _say(kind, leading, next_step, known, others=len(named) - 1, more=_sizes(features, size, known.layout))
    return replace(cause, features=tuple(features), group=_group(features, known.groups))


def _say(
    kind: CauseKind,
    leading: Sequence[Finding],
    next_step: str,
    known: Known,
    *,
    others: int | None = None,
    more: Sequence[str] = (),
) -> Cause:
    features = tuple(dict.fromkeys(f.feature for f in leading if f.feature is not None))
    return Cause(
        kind=kind,
        sentence=leading[0].message + _with_it(len(leading) - 1 if others is None else others),
        onset=_onset(leading[:1]),
        features=features,
        group=_group(features, known.groups),
        slice=leading[0].slice,
        grounds=(*(f.message for f in leading), *more),
        next_step=next_step,
    )


def _from_outcomes(late: Sequence[Finding], seen: Seen, known: Known) -> Cause:
    """A changed concept, unless the labels show what no change of the world would come to."""
    mesh = score_mesh(seen.outcomes) if seen.outcomes is not None and known.layout.task == "binary" else None
    fit, usual = (cox(mesh) if mesh is not None else None), known.calibration
    if mesh is None or fit is None or usual.slope is None or usual.smece is None:
        return _say(CauseKind.CONCEPT_CHANGED, late, _NEXT_CONCEPT, known)
    slopes = f"the calibration slope is {fit.slope:.2f} and was {usual.slope:.2f}"
    inverted = smece(ScoreMesh(mesh.labelled, mesh.labelled - mesh.positive, mesh.squared_error, mesh.rows))
    error = float(np.sqrt(fit.slope_variance))
    # As right as they were if each label is read as its opposite; the last term is the noise of few labels.
    if (
        fit.slope + 4 * error < 0
        and -fit.slope >= _INVERTED * usual.slope
        and inverted <= _AS_GOOD * usual.smece + error
    ):
        cause = _say(CauseKind.LABEL_BROKEN, late, _NEXT_LABELS, known)
        grounds = f"{slopes}: with every label inverted the scores fit them as before (smooth error {inverted:.3f})"
        return replace(cause, sentence=f"labels are inverted: {slopes}", grounds=(grounds, *cause.grounds))
    rate = float(mesh.positive.sum() / mesh.labelled.sum())
    return _say(CauseKind.CONCEPT_CHANGED, late, _NEXT_CONCEPT, known, more=(f"{slopes}; {rate:.1%} are positive",))


def _total(findings: Sequence[Finding]) -> float:
    return sum(f.evidence or 0.0 for f in findings)


def _shift_since(onset: datetime, seen: Seen) -> Sums | None:
    """The windows since the onset taken together, and this one in any case: noise of single days averages out."""
    if not seen.recent:
        return None
    return pool([shift for start, shift in seen.recent[:-1] if start >= onset] + [seen.recent[-1][1]])


def _farthest(layout: Layout, size: Moved) -> list[str]:
    """The features whose own attributions moved, most moved first.

    Shares sum to 1: where one feature moves, all shares do, and strong evidence is alike in all of them.
    """
    excess = size.composition_excess + size.response_excess
    return [layout.names[j] for j in np.argsort(-excess, kind="stable") if excess[j] > 0]


def _with_it(others: int) -> str:
    return f", and {others} more stream{'s' if others > 1 else ''} with it" if others else ""


def _inputs_or_joint(features: Sequence[str], layout: Layout, size: Moved) -> tuple[CauseKind, str]:
    rows = [layout.names.index(f) for f in features] or list(range(len(layout.names)))
    if size.response_excess[rows].max(initial=0.0) > size.composition_excess[rows].max(initial=0.0):
        return CauseKind.JOINT_MOVED, _NEXT_JOINT
    return CauseKind.INPUTS_MOVED, _NEXT_INPUTS


def _sizes(features: Sequence[str], size: Moved, layout: Layout) -> list[str]:
    """The split of the leading features, beside what it comes to where nothing moved."""
    grounds = []
    for name in features[:_SHOWN]:
        j, unit = layout.names.index(name), layout.scale
        grounds.append(
            f"{name}, over {size.windows} window(s): its own inputs moved its attributions by"
            f" {size.composition[j] * unit:.3g} ({size.composition_null[j] * unit:.3g} where nothing moved), the same"
            f" inputs are answered differently by {size.response[j] * unit:.3g} ({size.response_null[j] * unit:.3g})"
        )
    return grounds


def _one_value(found: Sequence[Atom], leading: Sequence[Finding], shift: Sums, known: Known) -> Cause:
    bins: dict[str, FeatureBins] = {b.name: b for b in known.layout.features}
    grounds = [
        f"{atom.share:.1%} of the rows have a value of {atom.feature} {interval(bins[atom.feature], atom.cell)}, and"
        f" {atom.usual:.1%} had in the baseline, while all other values keep their proportions"
        f" ({shift.rows:,.0f} rows of {shift.windows} window(s))"
        for atom in found
    ]
    features = tuple(atom.feature for atom in found)
    return Cause(
        kind=CauseKind.DATA_BROKEN,
        sentence=grounds[0],
        onset=_onset(leading[:1]),
        features=features,
        group=_group(features, known.groups),
        grounds=(*grounds, *(f.message for f in leading)),
        next_step=f"Look for a default, a sign or a unit at the source of {_list(features)}: one value took from all.",
    )


def _where_missing(frame: pd.DataFrame, features: list[str]) -> str | None:
    """The slice that holds nearly all rows which miss the features, if one does and is itself nearly all missing."""
    missing = frame[(frame["block"] == "missing") & (frame["stat"] == "rows") & frame["name"].isin(features)]
    rows = frame[(frame["block"] == "slice") & (frame["stat"] == "rows")].set_index("slice")["value"]
    whole = frame[(frame["block"] == "input") & (frame["stat"] == "rows") & (frame["cell"] == -1)]
    total = whole[whole["name"].isin(features)]["value"].sum()
    by_slice = missing.groupby("slice")["value"].sum()
    for name, count in by_slice.sort_values(ascending=False).items():
        if count >= _MOST * total and count >= _MOST * rows.get(name, np.inf) * len(features):
            return str(name)
    return None


def _group(features: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str | None:
    """The smallest configured group that holds all of them, if they are several."""
    holding = [name for name, members in groups.items() if len(features) > 1 and set(features) <= set(members)]
    return min(holding, key=lambda name: len(groups[name])) if holding else None


def _onset(findings: Sequence[Finding]) -> datetime:
    return min(f.onset for f in findings if f.onset is not None)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
