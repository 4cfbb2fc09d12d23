"""Reason contracts: what the owner says that the model must, and must not, rely on.

Validation: is the model right for the right reasons? An expectation asserts one thing of every window's rows, of all
or of those in one slice:

| assertion | value                                                              | limit       |
|-----------|--------------------------------------------------------------------|-------------|
| Share     | a feature's, or group's, share of all absolute attribution         | either side |
| Largest   | the largest share of a single feature                              | at most     |
| Direction | rank correlation of a feature's cells and their mean attributions  | 0           |
| Monotone  | distance of these means from the nearest monotone ones / range     | at most     |

What is asserted is certain, but a window is a sample, so a breach needs three standard errors of sampling: the value
and the end of its interval that speaks most for the model both lie on the wrong side. One window is enough, there is
no wait for a second. By chance alone fewer than 1 in 700 windows breach if the model just keeps its limit.

Expectations that hold for all rows are read from the attributions' sums, which every summary has. Those of a slice
need sums of their own, which `summarise_contracts` adds for the named slices, features and groups only:

| block                | slice | name    | cell    | stats                                                    |
|----------------------|-------|---------|---------|----------------------------------------------------------|
| contract_total       | s     |         |         | weight, weight2, absolute, absolute2                     |
| contract_attribution | s     | feature |         | absolute, square, cross: of features with a share        |
| contract_cells       | s     | feature | x-cell  | weight, value, square: of features with a direction      |
| contract_group       | s     | group   |         | absolute, square, cross: of the members' sum             |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from whydrift.monitors.binning import assign, slice_names
from whydrift.monitors.contract_sums import (
    FloatArray,
    Measured,
    Sums,
    direction,
    largest,
    monotone,
    read_sums,
    share,
)
from whydrift.monitors.summary import Explained, Layout, WindowSummary, chunks, collect, merge
from whydrift.monitors.summary_terms import Rows, held, term
from whydrift.monitors.verdict import Cause, CauseKind, Channel, Finding, Status
from whydrift.monitors.verdict_validation import ExpectationResult

EXPECTATION = "expectation"  # the stream of the findings


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a feature, or of a group taken as one summed attribution, is at least or at most `limit`."""

    limit: float
    asks: Literal["at least", "at most"]
    feature: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Largest:
    """No single feature has a share above `limit`."""

    limit: float


@dataclass(frozen=True, slots=True)
class Direction:
    """A higher value of a numeric feature goes with a higher output, or with a lower one if not `positive`."""

    feature: str
    positive: bool


@dataclass(frozen=True, slots=True)
class Monotone:
    """The mean attribution rises with the value of a numeric feature, or falls, up to `slack` times its range."""

    feature: str
    rising: bool
    slack: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """One assertion of the rows of a slice, or of all; who hears of its breach is the `tier`."""

    name: str
    asserts: Share | Largest | Direction | Monotone
    slice: str | None = None
    tier: Literal["page", "ticket"] = "page"

    @property
    def asks(self) -> Literal["at least", "at most"]:
        if isinstance(self.asserts, Share):
            return self.asserts.asks
        return "at least" if isinstance(self.asserts, Direction) and self.asserts.positive else "at most"

    @property
    def limit(self) -> float:
        if isinstance(self.asserts, Direction):
            return 0.0
        return self.asserts.slack if isinstance(self.asserts, Monotone) else self.asserts.limit


def measure(expectation: Expectation, sums: Sums, layout: Layout) -> Measured | None:
    """What the rows say of an expectation; None if they do not."""
    asserts = expectation.asserts
    if isinstance(asserts, Largest):
        return largest(sums, layout.names)
    if isinstance(asserts, Direction):
        return direction(sums, layout, asserts.feature)
    if isinstance(asserts, Monotone):
        return monotone(sums, layout, asserts.feature, rising=asserts.rising)
    if asserts.feature is not None:
        return share(sums, sums.features[:, layout.names.index(asserts.feature)])
    return share(sums, sums.groups[:, [g.name for g in layout.groups].index(asserts.group or "")])


def summarise_contracts(batch: Explained, layout: Layout, expectations: Sequence[Expectation]) -> WindowSummary:
    """Reduce explained rows to the sums of the slices that expectations name."""
    named = {e.slice for e in expectations} - {None}
    if not named:
        return WindowSummary.zero()
    return merge(collect(_terms(part, layout, expectations)) for part in chunks(batch))


def _terms(batch: Explained, layout: Layout, expectations: Sequence[Expectation]) -> Iterator[Rows]:
    for bins in layout.features:
        names = slice_names(bins) if bins.name in layout.slices else []
        wanted = {name: [e for e in expectations if e.slice == name] for name in names}
        if not any(wanted.values()):
            continue
        cells = assign(bins, batch.features[bins.name])
        for cell, name in enumerate(names):
            if wanted[name]:
                inside = cells == cell
                z, w = held(batch.values[inside], layout.scale), held(batch.weight[inside], 1.0)
                yield from _slice_terms(name, z, w, batch.features[inside], layout, wanted[name])


def _slice_terms(
    name: str,
    z: FloatArray,
    w: FloatArray,
    features: pd.DataFrame,
    layout: Layout,
    expectations: Sequence[Expectation],
) -> Iterator[Rows]:
    """The sums of one slice's rows: attributions `z` (n, p) and weights `w` (n,)."""
    total = np.zeros_like(w)
    for j in range(z.shape[1]):  # by column: a sum along rows could depend on the memory layout
        total += np.abs(z[:, j])
    for stat, amount in {"weight": w, "weight2": w * w, "absolute": w * total, "absolute2": w * total * total}.items():
        yield term("contract_total", stat, amount, slice_=name)
    shared, grouped, curved = _needed(layout, expectations)
    for j, bins in enumerate(layout.features):
        phi = np.ascontiguousarray(z[:, j])
        if bins.name in shared:
            yield from _sizes("contract_attribution", name, bins.name, phi, w, total)
        if bins.name in curved:
            cells = assign(bins, features[bins.name])
            for stat, amount in {"weight": w, "value": w * phi, "square": w * phi * phi}.items():
                yield term("contract_cells", stat, amount, slice_=name, name=bins.name, cells=cells)
    for group in layout.groups:
        if group.name in grouped:
            phi = np.zeros_like(w)
            for member in group.members:
                phi += z[:, layout.names.index(member)]
            yield from _sizes("contract_group", name, group.name, phi, w, total)


def _needed(layout: Layout, expectations: Sequence[Expectation]) -> tuple[set[str], set[str], set[str]]:
    """Names of features with a share, of groups with one, and of features with a direction."""
    asserted = [e.asserts for e in expectations]
    shared = {a.feature for a in asserted if isinstance(a, Share) and a.feature is not None}
    if any(isinstance(a, Largest) for a in asserted):
        shared = set(layout.names)
    grouped = {a.group for a in asserted if isinstance(a, Share) and a.group is not None}
    return shared, grouped, {a.feature for a in asserted if isinstance(a, Direction | Monotone)}


def _sizes(block: str, slice_: str, name: str, phi: FloatArray, w: FloatArray, total: FloatArray) -> Iterator[Rows]:
    size = np.abs(phi)
    for stat, amount in {"absolute": w * size, "square": w * phi * phi, "cross": w * size * total}.items():
        yield term(block, stat, amount, slice_=slice_, name=name)


def measure_all(
    expectations: Sequence[Expectation], frame: pd.DataFrame, layout: Layout, min_rows: int
) -> dict[str, Measured | str]:
    """Each expectation's value in a summary's frame, by name, or why it has none."""
    by_slice = {name: read_sums(frame, layout, name) for name in {e.slice for e in expectations}}
    found: dict[str, Measured | str] = {}
    for expectation in expectations:
        sums = by_slice[expectation.slice]
        if sums is None or sums.rows < min_rows:
            found[expectation.name] = _too_few(frame, expectation, sums, min_rows)
        else:
            found[expectation.name] = measure(expectation, sums, layout) or "no row has what it takes to judge it"
    return found


def _too_few(frame: pd.DataFrame, expectation: Expectation, sums: Sums | None, min_rows: int) -> str:
    there = frame[(frame["block"] == "slice") & (frame["stat"] == "rows") & (frame["slice"] == expectation.slice)]
    rows = float(there["value"].sum())
    if sums is None and rows > 0:
        return f"none of its {rows:,.0f} rows was explained, or not with this slice in mind; profile the window again"
    return f"{sums.rows if sums is not None else 0:,.0f} effective rows, {min_rows} are needed"


def check_expectations(
    expectations: Sequence[Expectation],
    frame: pd.DataFrame,
    layout: Layout,
    min_rows: int,
    usual: Mapping[str, Measured | str],
) -> tuple[ExpectationResult, ...]:
    """Hold a window against every expectation; `usual` is what `measure_all` found in the baseline."""
    if not expectations:
        return ()
    found = measure_all(expectations, frame, layout, min_rows)
    return tuple(_result(e, found[e.name], usual.get(e.name)) for e in expectations)


def _result(expectation: Expectation, found: Measured | str, usual: Measured | str | None) -> ExpectationResult:
    asserts = expectation.asserts
    about = ExpectationResult(
        name=expectation.name,
        asks=expectation.asks,
        limit=expectation.limit,
        tier=expectation.tier,
        passed=None,
        message=f"{expectation.name}: not judged: {found}",
        baseline=usual.value if isinstance(usual, Measured) else None,
        feature=getattr(asserts, "feature", None),
        group=asserts.group if isinstance(asserts, Share) else None,
        slice=expectation.slice,
    )
    if isinstance(found, str):
        return about
    bound = found.high if expectation.asks == "at least" else found.low
    return replace(
        about,
        passed=keeps(expectation, bound),
        message=f"{expectation.name}: {say(expectation, found.value, found.what)}",
        value=found.value,
        bound=bound,
        interval=(found.low, found.high),
        feature=found.what or about.feature,
    )


def keeps(expectation: Expectation, bound: float) -> bool:
    """Whether a number is on the right side of the limit."""
    return bound >= expectation.limit if expectation.asks == "at least" else bound <= expectation.limit


def say(expectation: Expectation, value: float, what: str | None = None) -> str:
    """The value and what was expected, in words."""
    asserts, where = expectation.asserts, f" where {expectation.slice}" if expectation.slice else ""
    if isinstance(asserts, Direction):
        side = "positive" if asserts.positive else "negative"
        return f"{asserts.feature} has rank correlation {value:+.2f} with its attribution{where}; {side} is expected"
    if isinstance(asserts, Monotone):
        side = "increasing" if asserts.rising else "decreasing"
        return (
            f"the response to {asserts.feature} is {value:.1%} of its range from {side}{where};"
            f" at most {asserts.slack:.1%} is expected"
        )
    subject = (
        (what or "one feature") if isinstance(asserts, Largest) else asserts.feature or f"{asserts.group} together"
    )
    return (
        f"{subject} has {value:.1%} of all absolute attribution{where};"
        f" {expectation.asks} {expectation.limit:.1%} is expected"
    )


def contract_findings(results: Sequence[ExpectationResult]) -> list[Finding]:
    """A finding of each breach."""
    return [
        Finding(
            channel=Channel.CHECK,
            stream=EXPECTATION,
            status=Status(result.tier),
            message=result.message,
            feature=result.feature,
            slice=result.slice,
            group=result.group,
            value=result.value,
            baseline=result.baseline,
            effect=None if result.value is None or result.baseline is None else result.value - result.baseline,
            interval=result.interval,
            threshold=result.limit,
            confirmed=True,
        )
        for result in results
        if result.passed is False
    ]


_NEXT = "Decide whether the contract or the model is wrong: a breach says that they differ, and not which to change."


def broken_contract(findings: Sequence[Finding]) -> Cause | None:
    """What is said where a broken contract is all that is known of a page; None if none is broken."""
    broken = [f for f in findings if f.stream == EXPECTATION and f.status is Status.PAGE]
    if not broken:
        return None
    return Cause(
        kind=CauseKind.UNKNOWN,
        sentence=broken[0].message,
        onset=min(f.onset for f in broken if f.onset is not None),
        features=tuple(dict.fromkeys(f.feature for f in broken if f.feature is not None)),
        group=broken[0].group,
        slice=broken[0].slice,
        grounds=tuple(f.message for f in broken),
        next_step=_NEXT,
    )
