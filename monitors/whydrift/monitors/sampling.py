"""Which rows are explained, and how many: sized by statistics, not by traffic.

A row is explained if u < pi, where u is a hash of its event id in [0, 1) and pi its chance: Poisson sampling (Hajek
1964, doi 10.1214/aoms/1177700375). Its weight in the sums over explained rows is weight / pi, so that they stand for
all rows. The chances are constants that the baseline fixes, so that a row is in or out by itself: hours add up to the
day, and the partitions of a distributed job to the whole, bit for bit. What is not an attribution uses every row.

The baseline's pilot explains about `FLOOR` rows of each window and takes every page-tier stream that is read from
explained rows: the variance s2 that sampling gives it, which goes as 1 / pi, and the variance t2 between windows. The
chance is the smallest for which s2 <= `PART` t2 in all of them. The means and standard errors that streams are made
of are those of a ratio of weighted sums, with the sample's effective rows (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.binning import assign, slice_names
from whydrift.monitors.class_sums import as_seen_by
from whydrift.monitors.dense import by_stat
from whydrift.monitors.distances import counts, response, shape
from whydrift.monitors.evidence import Observation, Stream
from whydrift.monitors.hashing import hash64, uniform
from whydrift.monitors.reference import BaselineWindow, Reference
from whydrift.monitors.summary import Layout, Sampling, WindowSummary

FloatArray = npt.NDArray[np.float64]
Why = Literal["floor", "stream", "cap", "quiet", "configured"]

FLOOR = 2_000  # explained rows of a usual window
CAP = 50_000
SLICE_FLOOR = 200  # explained rows of each slice
PART = 0.1  # of the variance between windows, that sampling may add
_SAVES = 0.5  # a larger sample than this saves too little: then all rows are explained
_QUIET = 0.01  # of the rows of a usual window; a window with fewer is an outage
_ENOUGH = 2.0  # times `min_rows` in a quiet window, because the number of rows drawn varies
_LEAST = 1 / 32_000  # squares of larger weights would not be held by sums, see `summary_terms.LIMIT`
_EXPLAINED = frozenset({"share", "level", "group_share", "group_level", "score_mean", "effective_features", "residual"})


@dataclass(frozen=True, slots=True)
class Usual:
    """What the log says of the reference windows, before any is explained.

    `rows` (d,) are the windows' rows, `weight` the root mean square of a row's weight, `slices` the mean rows of each
    slice in a window.
    """

    rows: FloatArray
    weight: float
    slices: dict[str, float]

    @property
    def typical(self) -> float:
        """Rows of a usual window: the median of those that have any."""
        there = self.rows[self.rows > 0]
        return float(np.median(there)) if there.size else 0.0


def chances(sampling: Sampling | None, layout: Layout, features: pd.DataFrame) -> FloatArray:
    """The chance of each row to be explained, (n,), from the values of the slice columns."""
    found = np.full(len(features), 1.0 if sampling is None else sampling.rate)
    raised = dict(sampling.slices) if sampling is not None else {}
    for bins in layout.features if raised else ():
        own = np.array([raised.get(name, 0.0) for name in slice_names(bins)]) if bins.name in layout.slices else None
        if own is not None and own.any():
            cells = assign(bins, features[bins.name])
            known = cells >= 0
            found[known] = np.maximum(found[known], own[cells[known]])
    return found


def draw(layout: Layout, rows: pd.DataFrame) -> FloatArray:
    """The chance of each row that is explained, and 0 of the others, (n,); `rows` have features and `event_id`."""
    if layout.sampling is None:
        return np.ones(len(rows))
    chance = chances(layout.sampling, layout, rows)
    return np.where(uniform(hash64(rows["event_id"])) < chance, chance, 0.0)


def usual(rows: Sequence[int], sample: WindowSummary) -> Usual:
    """From the rows of each reference window, and what the log says of some of them (`summary.summarise_logged`)."""
    frame = sample.frame()
    inside = frame[(frame["block"] == "slice") & (frame["stat"] == "rows")]
    whole = by_stat(frame, "rows")
    size = whole.get("rows", 0.0)
    mean = sum(rows) / max(sum(n > 0 for n in rows), 1)
    slices = {name: n / size * mean for name, n in zip(inside["slice"], inside["value"], strict=True)}
    return Usual(np.array(rows, dtype=np.float64), float(np.sqrt(whole.get("weight2", 0.0) / max(size, 1.0))), slices)


def configured(asked: int, known: Usual) -> Sampling | None:
    """As many rows of a usual window as the owner asks for; None where that is all of them."""
    return _sampling(float(asked), "configured", None, known)


def pilot(known: Usual, min_rows: int) -> Sampling | None:
    """The smallest sample that is ever taken; None where that is all rows.

    A quiet window has to keep rows enough to be judged at all, so the floor may be higher for it.
    """
    there = known.rows[(known.rows >= min_rows) & (known.rows >= _QUIET * known.typical)]
    quiet = _ENOUGH * min_rows / float(there.min()) * known.typical if there.size else 0.0
    return _sampling(max(FLOOR, quiet), "quiet" if quiet > FLOOR else "floor", None, known)


def size(tried: Sampling, reference: Reference, windows: Sequence[BaselineWindow], known: Usual) -> Sampling | None:
    """The sample that the streams ask for, from the windows as they are with the pilot `tried`; None for all rows."""
    asked = needed(reference, windows)
    if not asked:
        return tried
    stream, times = max(asked, key=lambda pair: pair[1])
    rows = tried.rate * known.typical
    if times <= 1 or rows >= CAP:
        return tried
    return _sampling(min(rows * times, CAP), "cap" if rows * times > CAP else "stream", stream, known)


def needed(reference: Reference, windows: Sequence[BaselineWindow]) -> list[tuple[str, float]]:
    """By page-tier stream that explained rows tell of, how many times as many rows it asks for; inf without end."""
    detector, names = reference.detector, len(reference.layout.names)
    between, found = detector.scale.between, []
    for number, stream in enumerate(detector.streams):
        if detector.weights[number] > 0 and stream.kind in _EXPLAINED:
            found.append((describe(stream), _times(1 - between[number], between[number])))
    frames = [as_seen_by(window.summary.frame(), reference.layout) for window in windows]
    for number, head in enumerate(reference.heads):
        whole, fixed = head.streams.counts, head.streams
        own = [counts(views[number], head.layout) for views in frames]
        pairs = [(one, whole.without(one)) for one in own if one.rows > 0]
        for kind, excess, distances in (
            ("shape", fixed.shape_excess, [shape(a.phi, b.phi, a.rows, b.rows) for a, b in pairs]),
            ("response", fixed.response_excess, [response(a, b) for a, b in pairs]),
        ):
            sampling = np.array([d.sampling for d in distances]).reshape(len(pairs), names)
            known = np.isfinite(sampling)
            mean = np.where(known, sampling, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
            for j, name in enumerate(reference.layout.names):
                stream = Stream(kind, feature=name, class_name=head.name)
                found.append((describe(stream), _times(mean[j], excess[j])))
    return found


@dataclass(frozen=True, slots=True)
class Bought:
    """What more rows would do for the stream that sampling blurs most.

    `part` of its variance is sampling; its standard deviation, and with it the smallest shift that can be found, would
    be `tenfold` and `all` times what it is.
    """

    stream: Stream
    part: float
    tenfold: float
    all: float


def more_rows(reference: Reference, observation: Observation, explained: float) -> Bought | None:
    """For a window of which the part `explained` was; None where it has no stream of the page tier to tell by."""
    detector = reference.detector
    between = detector.scale.between * detector.scale.unit**2
    noise = observation.variances
    kinds = np.array([stream.kind in _EXPLAINED for stream in detector.streams], dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        part = np.where(kinds & (detector.weights > 0) & (noise > 0), noise / (noise + between), np.nan)
    if np.isnan(part).all():
        return None
    top = int(np.nanargmax(part))

    def shrunk(rest: float) -> float:
        return float(np.sqrt(1 - part[top] * (1 - rest)))

    least = min(explained, 1.0)
    return Bought(detector.streams[top], float(part[top]), shrunk(max(0.1, least)), shrunk(least))


def describe(stream: Stream) -> str:
    """A stream in words.

    >>> describe(Stream("share", feature="age"))
    'share of age'
    """
    of = stream.feature or stream.group
    return stream.kind + (f" of {of}" if of else "") + (f" for class {stream.class_name}" if stream.class_name else "")


def _times(sampling: float, between: float) -> float:
    if sampling <= 0:
        return 0.0
    return float(sampling / (PART * between)) if between > 0 else float("inf")


def _sampling(rows: float, why: Why, stream: str | None, known: Usual) -> Sampling | None:
    """So many rows of a usual window, and the floor of each slice."""
    rate = max(rows / known.typical if known.typical else 1.0, _LEAST * max(known.weight, 1.0))
    if rate >= _SAVES:
        return None
    slices = {name: SLICE_FLOOR / n for name, n in known.slices.items() if n > 0 and SLICE_FLOOR / n > rate}
    return Sampling(
        rate=_rounded(rate),
        slices=tuple((name, min(_rounded(rate), 1.0)) for name, rate in sorted(slices.items())),
        why=why,
        stream=stream,
    )


def _rounded(rate: float) -> float:
    """To six digits: the last ones of a baseline's variances may be another machine's."""
    return float(f"{rate:.6g}")
