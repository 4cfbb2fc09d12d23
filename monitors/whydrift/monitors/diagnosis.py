"""From findings to a cause: what moved, where, since when, and what to look at next.

The order is that of certainty. A model or explainer that is not the baseline's explains everything after it, so it
comes first; then broken data, which is counted and not estimated; only then what the evidence names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.attribution import Split
from whydrift.monitors.streams import OUTCOME_STREAMS
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import Cause, CauseKind, Channel, Finding

FloatArray = npt.NDArray[np.float64]

_SIZE_Z = 4.0  # of a split's sizes over the baseline's windows
_MOST = 0.9  # a slice holds the fault if so much of it lies there
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SplitNull:
    """Means and deviations of a split's sizes over the baseline's own windows, shapes (p,)."""

    composition: FloatArray
    composition_deviation: FloatArray
    response: FloatArray
    response_deviation: FloatArray


def fit_split_null(splits: Sequence[Split], features: int) -> SplitNull:
    """What the sizes come to where nothing moved; from fewer than two splits nothing is known."""
    if len(splits) < 2:
        zero, unknown = np.zeros(features), np.full(features, np.inf)
        return SplitNull(zero, unknown, zero, unknown)
    composition = np.array([s.composition_size for s in splits])
    response = np.array([s.response_size for s in splits])
    return SplitNull(
        composition.mean(axis=0),
        np.maximum(composition.std(axis=0, ddof=1), 1e-12),
        response.mean(axis=0),
        np.maximum(response.std(axis=0, ddof=1), 1e-12),
    )


def diagnose(
    findings: Sequence[Finding],
    frame: pd.DataFrame,
    layout: Layout,
    split: Split | None,
    null: SplitNull,
    groups: Mapping[str, Sequence[str]],
) -> Cause | None:
    """The cause of a page; None where nothing was found."""
    checks = {f.stream: f for f in findings if f.channel is Channel.CHECK}
    broken = [f for f in findings if f.stream in {"missing_rate", "unseen_rate", "set_aside"}]
    # A log that lost values which the model was served with makes its predictions differ too; the model did not change.
    model = ("model_digest",) if broken else ("model_digest", "prediction_differs")
    changed = (
        (CauseKind.MODEL_CHANGED, model, _NEXT_MODEL),
        (CauseKind.EXPLAINER_CHANGED, ("explainer_digest", "additivity"), _NEXT_EXPLAINER),
    )
    for kind, streams, next_step in changed:
        hits = [checks[s] for s in streams if s in checks]
        if hits:
            grounds = tuple(f.message for f in hits)
            return Cause(kind=kind, sentence=grounds[0], onset=_onset(hits), grounds=grounds, next_step=next_step)
    if broken:
        return _data_broken(broken, checks.get("prediction_differs"), frame, groups)
    return _from_evidence([f for f in findings if f.channel is Channel.EVIDENCE], layout, split, null, groups)


_NEXT_MODEL = "Compare the deployed model with the registered version; if the change is meant, make a new baseline."
_LOG_ONLY = "{}: the model was served with values that the log does not have"
_NEXT_EXPLAINER = "Compare library versions and the background with the baseline's manifest; make a new baseline."


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


def _from_evidence(
    evidence: list[Finding],
    layout: Layout,
    split: Split | None,
    null: SplitNull,
    groups: Mapping[str, Sequence[str]],
) -> Cause | None:
    if not evidence:
        return None
    late = [f for f in evidence if f.stream in OUTCOME_STREAMS]
    named = [f for f in evidence if f.stream not in OUTCOME_STREAMS]
    if not named or _total(late) > _total(named):
        leading = named = late
        kind, next_step = CauseKind.CONCEPT_CHANGED, "Compare outcomes at equal scores; ask what changed in the world."
    else:
        leading = _own_first(named, layout, split, null)
        kind, next_step = _inputs_or_joint([f.feature for f in leading if f.feature], layout, split, null)
    features = tuple(dict.fromkeys(f.feature for f in leading if f.feature is not None))
    return Cause(
        kind=kind,
        sentence=leading[0].message + _with_it(len(named) - 1),
        onset=_onset(leading[:1]),
        features=features,
        group=_group(features, groups),
        slice=leading[0].slice,
        grounds=tuple(f.message for f in leading),
        next_step=next_step,
    )


def _total(findings: Sequence[Finding]) -> float:
    return sum(f.evidence or 0.0 for f in findings)


def _own_first(leading: list[Finding], layout: Layout, split: Split | None, null: SplitNull) -> list[Finding]:
    """The findings of features whose own attributions moved, most moved first; all findings where none did.

    Shares sum to 1: where one feature moves, all shares do, and strong evidence is alike in all of them.
    """
    if split is None:
        return leading
    composition = split.composition_size - null.composition - _SIZE_Z * null.composition_deviation
    moved = np.maximum(composition, 0.0) + _response_excess(split, null)
    size = dict(zip(layout.names, moved, strict=True))
    own = [f for f in leading if f.feature is not None and size[f.feature] > 0]
    return sorted(own, key=lambda f: -size[f.feature or ""]) or leading


def _response_excess(split: Split, null: SplitNull) -> FloatArray:
    """The response beyond that of the baseline's own windows, shape (p,)."""
    return np.maximum(split.response_size - null.response - _SIZE_Z * null.response_deviation, 0.0)


def _with_it(others: int) -> str:
    return f", and {others} more stream{'s' if others > 1 else ''} with it" if others else ""


def _inputs_or_joint(
    features: list[str], layout: Layout, split: Split | None, null: SplitNull
) -> tuple[CauseKind, str]:
    if split is None:
        return CauseKind.UNKNOWN, "No row of this window could be explained; look at the row accounting."
    rows = [layout.names.index(f) for f in features]
    if (_response_excess(split, null)[rows] > split.composition_size[rows]).any():
        return CauseKind.JOINT_MOVED, "The same inputs are answered differently: look at what moves together with them."
    return CauseKind.INPUTS_MOVED, "Compare the inputs of these features with the baseline's, at their source."


def _where_missing(frame: pd.DataFrame, features: list[str]) -> str | None:
    """The slice that holds nearly all rows which miss the features, if one does and is itself nearly all missing."""
    missing = frame[(frame["block"] == "missing") & frame["name"].isin(features)]
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
