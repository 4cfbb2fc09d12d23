"""The sums over rows by cell, as numpy does them: what `sum_kernels` does faster, to the same bits.

Arrays are of the rows of one part of a window, n of them, and p features. A cell is known by its place, see
`cell_index`. Sums are kept in two limbs, see `summary_terms`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from whydrift.monitors.summary_terms import Weight, add_terms, held, limbs

__all__ = ["ELEMENTS", "STATS", "THREADS", "add_attributions", "add_missing", "add_rows", "add_terms", "find_places"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]

STATS = ("value", "square", "absolute", "cross")
ELEMENTS = 2**19  # rows x features of a part: what is made of them stays in the cache
THREADS = 1  # numpy holds the interpreter's lock while it counts


class Attributed(NamedTuple):
    """What is made of the attributions to one output: `thresholds` and `starts` are those of their own cells.

    `raw` (p, t) are the smallest attributions, before they are put in units, that reach the thresholds, in their dtype.
    The members of group g are `members[bounds[g] : bounds[g + 1]]`. Sums: `high` and `low` (K, 4) by cell of the
    feature, in the order of `STATS`, and `own` (K', 2), high and low, the weight by cell of the attribution.
    """

    thresholds: FloatArray
    raw: npt.NDArray[Any]
    starts: IntArray
    members: IntArray
    bounds: IntArray
    high: IntArray
    low: IntArray
    own: IntArray


class ByRow(NamedTuple):
    """Sums of each row's attributions, in units: of sizes, (n,), of values and the base, (n,), of groups, (g, n)."""

    total: FloatArray
    explained: FloatArray
    grouped: FloatArray


class Kernels(Protocol):
    """What is done to many rows at a time, by this module or by `sum_kernels`."""

    @property
    def ELEMENTS(self) -> int:  # noqa: N802 -- a module's constant
        """Rows x features of a part."""

    @property
    def THREADS(self) -> int:  # noqa: N802
        """Parts at a time."""

    def add_terms(self, terms: FloatArray | IntArray, cells: IntArray | None) -> tuple[IntArray, IntArray]:
        """High and low limb of the terms' sums by cell, from NO_CELL up, or of all."""

    def find_places(
        self, numbers: npt.NDArray[Any], thresholds: npt.NDArray[Any], start: int, missing: int, places: Places
    ) -> None:
        """Each number's place."""

    def add_rows(self, places: Places, weight: Weight, sums: IntArray) -> None:
        """Add to `sums` (K, 3) the rows and both limbs of their weight, by cell."""

    def add_missing(
        self, places: Places, weight: Weight, lacking: IntArray, slices: IntArray, starts: IntArray, sums: IntArray
    ) -> None:
        """Add to `sums` (S, p, 3) rows without a feature, one of `lacking`, by the cell of the features `slices`."""

    def add_attributions(
        self, values: npt.NDArray[Any], unit: float, weight: Weight, places: Places, to: Attributed, rows: ByRow
    ) -> None:
        """Add the attributions, (n, p), and fill `rows`, whose `explained` is the base as yet."""


def find_places(
    numbers: npt.NDArray[Any], thresholds: npt.NDArray[Any], start: int, missing: int, places: Places
) -> None:
    """See `Kernels`."""
    places[:] = np.searchsorted(thresholds[: missing - start - 1], numbers, side="right")
    places += np.uint32(start)
    places[np.isnan(numbers)] = missing


def add_rows(places: Places, weight: Weight, sums: IntArray) -> None:
    """See `Kernels`."""
    sums += _by_place(places.ravel(), weight, np.arange(places.size) % max(places.shape[1], 1), len(sums))


def add_missing(
    places: Places, weight: Weight, lacking: IntArray, slices: IntArray, starts: IntArray, sums: IntArray
) -> None:
    """See `Kernels`."""
    which, row = np.nonzero(places[lacking] == starts[lacking + 1, None] - 1)
    feature, features, at = lacking[which], len(places), 0
    for column in slices:
        first, wide = starts[column], starts[column + 1] - starts[column]
        cell = places[column, row].astype(np.int64) - first
        found = _by_place(cell * features + feature, weight, row, int(wide) * features)
        sums[at : at + wide] += found.reshape(wide, features, 3)
        at += wide


def _by_place(at: npt.NDArray[Any], weight: Weight, row: IntArray, places: int) -> IntArray:
    """Rows and both limbs of their weight by place, (places, 3)."""
    sums = np.zeros((places, 3), dtype=np.int64)
    sums[:, 0] = np.bincount(at, minlength=places)
    if weight.ones:
        sums[:, 1] = sums[:, 0]
    else:
        sums[:, 1] = np.bincount(at, weights=weight.high[row], minlength=places)
        sums[:, 2] = np.bincount(at, weights=weight.low[row], minlength=places)
    return sums


def add_attributions(
    values: npt.NDArray[Any], unit: float, weight: Weight, places: Places, to: Attributed, rows: ByRow
) -> None:
    """See `Kernels`."""
    z = np.ascontiguousarray(held(values, unit).T)
    rows.total[:] = 0
    for phi in z:  # by column: a sum along rows could depend on the memory layout
        rows.total[:] += np.abs(phi)
        rows.explained[:] += phi
    for group in range(len(rows.grouped)):
        rows.grouped[group] = 0
        for member in to.members[to.bounds[group] : to.bounds[group + 1]]:
            rows.grouped[group] += z[member]
    at, cells = places.ravel(), len(to.high)
    for number, terms in enumerate(attribution_terms(weight.held, z, rows.total)):
        with np.errstate(invalid="ignore"):  # whoever calls sees in the totals that there is no number
            high, low = limbs(terms)
        to.high[:, number] += np.bincount(at, weights=high.ravel(), minlength=cells).astype(np.int64)
        to.low[:, number] += np.bincount(at, weights=low.ravel(), minlength=cells).astype(np.int64)
    own = np.empty_like(places)
    for j, phi in enumerate(z):
        find_places(phi, to.thresholds[j], int(to.starts[j]), int(to.starts[j + 1]) - 1, own[j])
    row = np.arange(own.size) % max(own.shape[1], 1)
    to.own[:] += _by_place(own.ravel(), weight, row, len(to.own))[:, 1:]


def attribution_terms(w: FloatArray, phi: FloatArray, total: FloatArray) -> tuple[FloatArray, ...]:
    """The sums from which means, shares and their variances are taken, in the order of `STATS`."""
    size = np.abs(phi)
    return w * phi, w * phi * phi, w * size, w * size * total
