"""Which shifts are more than the baseline's windows show among themselves, over the windows since an onset.

The sizes of Kitagawa's split are sums of absolute terms, so they are above 0 where nothing moved: each cell's term
has the variance S (1 / n + 1 / N) + T (1 / w + 1 / D), sampling over n rows and what differs between windows over w of
them, beside the baseline's own N rows in D windows; and the mean absolute value of a normal variable is sqrt(2 / pi)
of its deviation. S follows from the baseline's rows, T from the spread of its windows. So a window of any size, and
any number of windows together, is held against its own null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors.attribution import Cells, cells, split_cells
from whydrift.monitors.binning import OUTSIDE, FeatureBins
from whydrift.monitors.summary import Layout

FloatArray = npt.NDArray[np.float64]

_SIZE_Z = 4.0  # of a split's size over its null
_MIN_SPREAD = 0.05  # of a size, relative to its null
_RARE = 1e-12  # of the rows
_ABSOLUTE = float(np.sqrt(2 / np.pi))

_ATOM = 0.02  # of the rows, and so many deviations more than usual, is one value that many rows took on
_ATOM_Z = 5.0
_ATOM_PART = 0.85  # of the change of the feature's distribution, that it has to explain
_ATOM_CELLS = 8  # with fewer, any change is mostly one cell's
_ATOM_USUAL = 2.0  # times its equal part: a cell that holds more was a favoured value before


@dataclass(frozen=True, slots=True)
class Sums:
    """Explained rows of one or several windows: `weight` and `value` by feature and cell, (p, cells).

    `rows` is the effective number of rows. Sums of windows are the sums of their parts.
    """

    weight: FloatArray
    value: FloatArray
    rows: float
    windows: int = 1

    @property
    def cells(self) -> Cells:
        mean = np.full_like(self.value, np.nan)
        return Cells(self.weight, np.divide(self.value, self.weight, out=mean, where=self.weight > 0))

    @property
    def share(self) -> FloatArray:
        """Of each cell, (p, cells); a feature's sum to 1."""
        total: FloatArray = np.maximum(self.weight.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.asarray(self.weight / total)


def sums(window: Cells, rows: float) -> Sums:
    """Of one window with so many effective rows."""
    return Sums(window.weight, np.nan_to_num(window.mean) * window.weight, rows)


def pool(windows: Sequence[Sums]) -> Sums:
    """Of several windows together."""
    return reduce(
        lambda a, b: Sums(a.weight + b.weight, a.value + b.value, a.rows + b.rows, a.windows + b.windows), windows
    )


@dataclass(frozen=True, slots=True)
class Null:
    """What a baseline says of shifts. Arrays (p, cells), the spreads (p,).

    `within` is the variance of an attribution inside a cell, `*_between` the variance between windows of the cells'
    shares and of their response terms, `*_spread` the deviation of the sizes between windows, relative to their null.
    `rows` and `windows` are the baseline's.
    """

    cells: Cells
    within: FloatArray
    share_between: FloatArray
    response_between: FloatArray
    composition_spread: FloatArray
    response_spread: FloatArray
    rows: float
    windows: int


def fit_null(whole: pd.DataFrame, layout: Layout, windows: Sequence[Sums]) -> Null:
    """From the frame of all baseline rows, and the baseline's windows; fewer than two windows say nothing."""
    baseline = cells(whole, layout)
    within = _within(whole, layout, baseline)
    nothing, unknown = np.zeros_like(within), np.full(len(layout.names), np.inf)
    null = Null(baseline, within, nothing, nothing, unknown, unknown, np.inf, max(len(windows), 1))
    if len(windows) < 2:
        return null
    usual = sums(baseline, 1.0).share
    squares = (
        np.array([(w.share - usual) ** 2 for w in windows]),
        np.array([split_cells(baseline, w.cells)[1] ** 2 for w in windows]),
    )
    noise = np.array([_sampling(null, w) for w in windows]).mean(axis=0)
    own = 1 - 1 / len(windows)  # a window is part of the mean that it is held against
    between = [np.maximum(s.mean(axis=0) / own - n, 0.0) for s, n in zip(squares, noise, strict=True)]
    rows = sum(w.rows for w in windows)
    null = replace(null, share_between=between[0], response_between=between[1], rows=rows)
    sizes = np.array([_sizes(null, w) for w in windows])
    relative = sizes[:, :2] / np.maximum(sizes[:, 2:], np.finfo(float).tiny)
    spread = np.maximum(relative.std(axis=0, ddof=1), _MIN_SPREAD)
    return replace(null, composition_spread=spread[0], response_spread=spread[1])


@dataclass(frozen=True, slots=True)
class Moved:
    """Each feature's shift over some windows, arrays (p,) in units of `Layout.scale`.

    `composition` and `response` are the sizes of Kitagawa's split, `*_null` what they come to where nothing moved,
    and `*_excess` what they are above it, 0 where that is not more than some window of the baseline may show.
    """

    composition: FloatArray
    response: FloatArray
    composition_null: FloatArray
    response_null: FloatArray
    composition_excess: FloatArray
    response_excess: FloatArray
    windows: int
    rows: float


def moved(null: Null, now: Sums) -> Moved:
    """How far the features moved in windows taken together."""
    composition, response, composition_null, response_null = _sizes(null, now)

    def excess(size: FloatArray, usual: FloatArray, spread: FloatArray) -> FloatArray:
        most = usual * (1 + _SIZE_Z * np.where(np.isinf(spread), 0.0, spread))
        return np.where(np.isfinite(spread) & (size > most), size - usual, 0.0)

    return Moved(
        composition,
        response,
        composition_null,
        response_null,
        excess(composition, composition_null, null.composition_spread),
        excess(response, response_null, null.response_spread),
        now.windows,
        now.rows,
    )


@dataclass(frozen=True, slots=True)
class Atom:
    """One cell of a numeric feature that suddenly holds a part of all rows, while the rest is as it was."""

    feature: str
    cell: int
    share: float
    usual: float


def atoms(null: Null, now: Sums, layout: Layout) -> dict[str, Atom]:
    """Features of which a part of the rows took on one value, as when a default replaces what is missing.

    If a part d of the rows moves into one cell, its share grows to q + d (1 - q), and the others keep their
    proportions. A shift or a scale changes those as well. What cannot be told from it is a segment of the rows that
    grew and lies in one cell, which the outermost ones are wide enough for.
    """
    usual, share = sums(null.cells, 1.0).share, now.share
    variance = _sampling(null, now)[0] + null.share_between * _over(null, now)
    found = {}
    for j, bins in enumerate(layout.features):
        cells_of = len(bins.edges) - 1 if bins.numeric else 0
        if cells_of < _ATOM_CELLS:
            continue
        own = [*range(cells_of), *(code % usual.shape[1] for code in OUTSIDE)]
        q, p, v = usual[j, own], share[j, own], variance[j, own]
        b = int(np.argmax(np.where(q <= _ATOM_USUAL / cells_of, p - q, -np.inf)))
        part = (p[b] - q[b]) / (1 - q[b])
        if part < _ATOM or p[b] - q[b] < _ATOM_Z * np.sqrt(v[b]) or p[b] > 1 - _ATOM:
            continue
        noise = float(np.divide(v, q, out=np.zeros_like(q), where=q > 0).sum())
        rest = np.arange(len(own)) != b
        whole = 4 * float(((np.sqrt(p) - np.sqrt(q)) ** 2).sum())
        left = 4 * float(((np.sqrt(p[rest] / (1 - p[b])) - np.sqrt(q[rest] / (1 - q[b]))) ** 2).sum())
        if left - noise <= (1 - _ATOM_PART) * (whole - noise):
            cell = b if b < cells_of else OUTSIDE[b - cells_of]
            found[bins.name] = Atom(bins.name, cell, float(p[b]), float(q[b]))
    return found


def interval(bins: FeatureBins, cell: int) -> str:
    """A cell in words.

    >>> interval(FeatureBins("x", edges=(0.0, 1.5, 3.0)), 1)
    'in [1.5, 3]'
    >>> interval(FeatureBins("x", edges=(0.0, 1.5, 3.0)), -3)
    'above 3'
    """
    if cell >= 0:
        return f"in [{bins.edges[cell]:.4g}, {bins.edges[cell + 1]:.4g}{']' if cell == len(bins.edges) - 2 else ')'}"
    words = ("missing", f"below {bins.edges[0]:.4g}", f"above {bins.edges[-1]:.4g}", "unseen", "far out of range")
    return dict(zip(OUTSIDE, words, strict=True))[cell]


def _within(whole: pd.DataFrame, layout: Layout, baseline: Cells) -> FloatArray:
    block = whole[(whole["block"] == "attribution") & (whole["stat"] == "square")]
    square = np.zeros_like(baseline.weight)
    at = pd.Index(layout.names).get_indexer(pd.Index(block["name"])), block["cell"].to_numpy() % square.shape[1]
    square[at] = block["value"].to_numpy()
    mean = np.divide(square, baseline.weight, out=np.zeros_like(square), where=baseline.weight > 0)
    return np.asarray(np.maximum(mean - np.nan_to_num(baseline.mean) ** 2, 0.0))


def _sampling(null: Null, now: Sums) -> tuple[FloatArray, FloatArray]:
    """Sampling variances (p, cells) of a cell's share and of its response term, of these rows and the baseline's."""
    usual, share = sums(null.cells, 1.0).share, now.share
    own, before = (
        1 / (now.rows * np.maximum(share, 1 / now.rows)),
        1 / np.maximum(null.rows * np.maximum(usual, _RARE), 1.0),
    )
    response = ((usual + share) / 2) ** 2 * null.within * (own + before)
    return usual * (1 - usual) * (1 / now.rows + 1 / null.rows), response


def _over(null: Null, now: Sums) -> float:
    """What a variance between windows comes to in the difference of their mean from the baseline's."""
    return 1 / now.windows + 1 / null.windows


def _sizes(null: Null, now: Sums) -> FloatArray:
    """Sizes of composition and response, and then what they come to where nothing moved, (4, p)."""
    composition, response = split_cells(null.cells, now.cells)
    share, noise = _sampling(null, now)
    between, level = _over(null, now), np.nan_to_num(null.cells.mean)
    expected = (
        np.abs(level) * np.sqrt(share + null.share_between * between),
        np.sqrt(noise + null.response_between * between),
    )
    found = (np.abs(composition), np.abs(response), *(_ABSOLUTE * e for e in expected))
    return np.array([terms.sum(axis=1) for terms in found])
