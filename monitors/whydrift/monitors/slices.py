"""Where the model is wrong more often than elsewhere: a search over all one- and two-way cells.

A cell's loss is held against that of all other rows of the same windows, as the log of the ratio of the two means.
Diagnosis: slices whose ratio is above the baseline's, so that they became worse. Knowledge: slices that were and are
worse than the rest. The variance of a log ratio is the delta method's; rows of one cell and window share effects,
and how much so is estimated from the baseline's windows by moments (Rao and Scott 1981, doi 10.2307/2287815), each
cell's own excess moderated towards what all cells show (Smyth 2004, doi 10.2202/1544-6115.1027). All cells with
enough rows are tested, and Benjamini and Hochberg's procedure (1995) bounds the expected share of false ones. So many
looks carry no budget: what is found is in the report and pages nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from whydrift.monitors.binning import MISSING, slice_names
from whydrift.monitors.cell_sums import CellSums, Grid, UsualCells, lay_out, moments
from whydrift.monitors.grid import SliceCell, coarsen, size
from whydrift.monitors.residuals import MIN_HISTORY, moderate
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict_slices import SearchedSlice, SliceSearch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MIN_SHOWN_ROWS = 10  # a smaller cell might be about somebody
MOST_SHOWN = 20
_MIN_COMPARED = 30  # baseline rows, for a log ratio to be near normal
_PROMISING = 1.645  # deviations of the ratio over both periods
_MIN_WATCHED = 60  # rows a window, so that nearly all windows have the labels that a stream needs


@dataclass(frozen=True, slots=True)
class SearchRules:
    """What is worth telling: rows over all windows, by how much a ratio has to have risen, and the share of false
    discoveries.
    """

    min_rows: int = 200
    min_effect: float = 1.2
    false_discoveries: float = 0.05


@dataclass(frozen=True, slots=True)
class Searched:
    """Cells of the trailing windows, and of the baseline."""

    now: CellSums
    usual: UsualCells


def search_columns(
    whole: pd.DataFrame, layout: Layout, share: FloatArray, columns: Sequence[str] | Literal["auto"], most: int
) -> Layout:
    """The layout with the coarse cells of the columns that are searched.

    Args:
        whole: frame of all baseline rows' summary.
        layout: without them.
        share: of each feature in the attributions, (p,).
        columns: features by name; "auto" takes the configured slices, then the features by share.
        most: how many at most.
    """
    by_share = [layout.names[j] for j in np.argsort(-share, kind="stable")]
    names = [*layout.slices, *by_share] if columns == "auto" else columns
    inputs = whole[(whole["block"] == "input") & (whole["stat"] == "rows") & (whole["cell"] >= MISSING)]
    found = []
    for name in dict.fromkeys(names):
        bins = layout.features[layout.names.index(name)]
        rows = inputs[inputs["name"] == name]
        counts = np.zeros(size(bins))
        counts[rows["cell"].to_numpy()] = rows["value"].to_numpy()  # MISSING is the last
        if np.count_nonzero(counts) > 1:
            found.append(coarsen(bins, counts[: max(len(bins.edges) - 1, len(bins.categories))]))
    return replace(layout, searched=tuple(found[:most]))


def promote(usual: UsualCells, layout: Layout, rules: SearchRules, most: int) -> Layout:
    """The layout with the slices that the baseline found, at most `most` of them: worse than the rest, in every window.

    Cells that are configured slices already are left out.
    """
    grid, cells = lay_out(layout), usual.sums
    ratio = _ratio(cells, usual)
    enough = cells.sums.of("rows") >= _MIN_WATCHED * max(cells.windows, 1)
    error = np.sqrt(ratio.variance)
    p = stats.t.sf(ratio.log / error, ratio.freedom)
    found = _discover(ratio.log, error, p, ratio.freedom, ratio.known & enough, rules)
    names = [describe(grid, layout, int(at)) for at in _unrelated(found.order, grid)]
    fresh = [cell for cell in names if len(cell.columns) > 1 or cell.columns[0] not in layout.slices]
    return replace(layout, promoted=tuple(fresh[:most]))


def search(searched: Searched, layout: Layout, rules: SearchRules) -> SliceSearch:
    """What the trailing windows show; at most `MOST_SHOWN` slices, those that became worse first."""
    grid, now, usual = lay_out(layout), searched.now, searched.usual
    after, before = _ratio(now, usual), _ratio(usual.sums, usual)
    enough = after.known & (now.sums.of("rows") >= max(rules.min_rows, MIN_SHOWN_ROWS))
    compared = before.known & (usual.sums.sums.of("rows") >= _MIN_COMPARED)
    worse = _became_worse(after, before, enough, compared, rules)
    always = _was_worse(after, before, enough & compared, rules)
    news = _unrelated(worse.order, grid)[:MOST_SHOWN]
    old = [at for at in _unrelated(always.order, grid) if not _related(at, news, grid)][: MOST_SHOWN - len(news)]
    unit = layout.loss_scale**2

    def tell(at: int, found: _Found, question: Literal["diagnosis", "knowledge"]) -> SearchedSlice:
        return SearchedSlice(
            slice=describe(grid, layout, at).name,
            question=question,
            rows=round(float(now.sums.of("rows")[at])),
            loss=float(after.mean[at]) * unit,
            rest_loss=float(after.rest[at]) * unit,
            ratio=float(np.exp(after.log[at])),
            baseline_ratio=float(np.exp(before.log[at])) if compared[at] else None,
            change=float(np.exp(after.log[at] - before.log[at])) if compared[at] else None,
            interval=_interval(found, at),
            p_value=float(found.p[at]),
        )

    return SliceSearch(
        columns=tuple(bins.name for bins in layout.searched),
        windows=now.windows,
        cells=int(np.count_nonzero(now.sums.of("rows"))),
        tested=int(np.count_nonzero(enough)),
        min_rows=rules.min_rows,
        min_effect=rules.min_effect,
        false_discoveries=rules.false_discoveries,
        found=(*(tell(at, worse, "diagnosis") for at in news), *(tell(at, always, "knowledge") for at in old)),
        watched=tuple(cell.name for cell in layout.promoted),
    )


def _became_worse(after: _Ratio, before: _Ratio, enough: BoolArray, compared: BoolArray, rules: SearchRules) -> _Found:
    """The change of the ratio, or the ratio itself where the baseline hardly had such rows.

    Half of the level is kept for cells that are worse than the rest in both periods taken together: there are few,
    and a change makes most slices one (weighted p values: Genovese, Roeder and Wasserman 2006,
    doi 10.1093/biomet/93.3.509). That weighted mean is independent of the change, as long as its weights do not hang
    on each period's own losses: both take the relative spread of the two periods together.
    """
    unit = after.unit * before.inverse_rows + before.unit * after.inverse_rows
    unit = unit / (after.inverse_rows + before.inverse_rows)
    own, old = unit * after.inverse_rows, unit * before.inverse_rows
    together = (after.log / own + before.log / old) / np.sqrt(1 / own + 1 / old)
    change = np.where(compared, after.log - before.log, after.log)
    error = np.sqrt(np.where(compared, own + old, after.variance))
    promising = enough & compared & (together > _PROMISING)
    weight = 0.5 + 0.5 * promising * enough.sum() / max(promising.sum(), 1)
    p = stats.t.sf(change / error, after.freedom)
    return _discover(change, error, p, after.freedom, enough, rules, weight)


def _was_worse(after: _Ratio, before: _Ratio, tested: BoolArray, rules: SearchRules) -> _Found:
    """Worse than the rest in the baseline and in the trailing windows: the larger p value is that of both."""
    error = np.sqrt(after.variance)
    both = [stats.t.sf(side.log / np.sqrt(side.variance), side.freedom) for side in (after, before)]
    return _discover(after.log, error, np.maximum(*both), after.freedom, tested, rules)


@dataclass(frozen=True, slots=True)
class _Ratio:
    """Each cell's mean loss by that of all other rows, (K,) each: its log and the variance and degrees of freedom of
    that, the two means, and where it is known. The variance is `unit`, that of a row, by the effective number of rows.
    """

    log: FloatArray
    unit: FloatArray
    inverse_rows: FloatArray
    freedom: FloatArray
    mean: FloatArray
    rest: FloatArray
    known: BoolArray

    @property
    def variance(self) -> FloatArray:
        return np.asarray(self.unit * self.inverse_rows)


def _ratio(cells: CellSums, usual: UsualCells) -> _Ratio:
    own, other = [
        (weight, of("weight2"), *moments(weight, of("loss"), of("loss2")))
        for of in (cells.sums.of, cells.sums.rest)
        for weight in [of("weight")]
    ]
    rows, others = cells.sums.of("rows"), cells.sums.rest("rows")
    known = (rows > 0) & (own[0] > 0) & (own[2] > 0) & (others >= MIN_SHOWN_ROWS) & (other[0] > 0) & (other[2] > 0)
    (weight, weight2, mean, spread), (weight_o, weight2_o, mean_o, spread_o) = [
        [np.where(known, part, 1.0) for part in side] for side in (own, other)
    ]
    # Squares of tiny weights round to 0; equal weights tell the most.
    inverse = np.maximum(weight2 / weight**2, 1 / np.maximum(rows, 1)) + usual.correlation * cells.concentration
    variance = spread / mean**2 * inverse + spread_o / mean_o**2 * weight2_o / weight_o**2
    dispersion, freedom = _dispersion(usual)
    unit = np.maximum(variance, 1e-12) * dispersion / inverse
    return _Ratio(np.log(mean / mean_o), unit, inverse, freedom, mean, mean_o, known)


def _dispersion(usual: UsualCells) -> tuple[FloatArray, FloatArray]:
    """How far each cell's windows differ beyond expectation, at least 1, and the degrees of freedom of that."""
    df = np.maximum(usual.sums.seen - 1, 0).astype(np.int64)
    group = np.zeros(df.size, dtype=np.int64)
    variance, freedom = moderate(usual.dispersion, df, np.ones(df.size), group)
    known = df >= MIN_HISTORY
    return np.where(known, np.maximum(variance, 1.0), 1.0), np.where(known, freedom, float(MIN_HISTORY))


@dataclass(frozen=True, slots=True)
class _Found:
    """`order`: the discovered cells, strongest first; one-sided p values `p`, log effects and half widths, (K,)."""

    order: IntArray
    p: FloatArray
    effect: FloatArray
    half: FloatArray


def _discover(
    effect: FloatArray,
    error: FloatArray,
    p: FloatArray,
    freedom: FloatArray,
    tested: BoolArray,
    rules: SearchRules,
    weight: FloatArray | float = 1.0,
) -> _Found:
    """Benjamini and Hochberg over the tested cells; of the discoveries those with the least effect or more.

    The weights are by what p values are divided, and have a mean of at most 1.
    """
    kept = np.zeros(p.size, dtype=bool)
    if tested.any():
        weighted = np.minimum(p / weight, 1.0)
        kept[tested] = stats.false_discovery_control(weighted[tested]) <= rules.false_discoveries
    hits = np.flatnonzero(kept & (effect >= np.log(rules.min_effect)))
    return _Found(hits[np.argsort(p[hits], kind="stable")], p, effect, stats.t.ppf(0.975, freedom) * error)


def _interval(found: _Found, at: int) -> tuple[float, float]:
    """95 %, of the ratio that was tested."""
    low, high = (float(np.exp(found.effect[at] + side * found.half[at])) for side in (-1, 1))
    return low, high


def _unrelated(order: IntArray, grid: Grid) -> list[int]:
    """The strongest first, without those that a stronger one contains or is contained in: they say the same again."""
    taken: list[int] = []
    for at in map(int, order):
        if not _related(at, taken, grid):
            taken.append(at)
    return taken


def _related(at: int, others: Sequence[int], grid: Grid) -> bool:
    mine = set(_conditions(grid, at))
    return any(mine <= set(other) or mine >= set(other) for other in (_conditions(grid, o) for o in others))


def _conditions(grid: Grid, at: int) -> list[tuple[int, int]]:
    """The columns and their codes that a cell stands for."""
    some = int(np.searchsorted(grid.starts, at, side="right")) - 1
    columns, code = grid.columns[some], at - grid.starts[some]
    if len(columns) == 1:
        return [(columns[0], code)]
    first, second = divmod(code, grid.sizes[columns[1]])
    return [(columns[0], first), (columns[1], second)]


def describe(grid: Grid, layout: Layout, at: int) -> SliceCell:
    """The cell with the name that people read."""
    conditions = _conditions(grid, at)
    labels = []
    for column, code in conditions:
        bins = layout.searched[column]
        names = [*slice_names(bins), f"{bins.name}=(missing)", f"{bins.name}=(elsewhere)"]
        labels.append(names[code])
    return SliceCell(
        " & ".join(labels), tuple(layout.searched[c].name for c, _ in conditions), tuple(code for _, code in conditions)
    )
