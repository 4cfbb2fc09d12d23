"""Which thresholds of other tools a window crosses: one table for the report (knowledge; no part in any decision).

| threshold                              | of                    | comes from                                          |
|----------------------------------------|-----------------------|-----------------------------------------------------|
| NDCG below 0.90                        | the ranking           | Amazon SageMaker Model Monitor, fixed               |
| Jensen-Shannon divergence from 0.3     | numbers, attributions | Vertex AI Model Monitoring, default (in bits)       |
| largest difference of shares from 0.3  | categories            | the same                                            |
| Wasserstein / deviation from 0.1       | numbers, attributions | Evidently, default beyond 1,000 reference rows      |
| Jensen-Shannon distance from 0.1       | categories            | the same (in nats)                                  |
| PSI from 0.1 and from 0.2              | inputs, attributions  | credit scoring's rule of thumb                      |
| Kolmogorov-Smirnov, p below 0.05       | numbers, attributions | the two-sample test, rows taken as independent      |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whydrift.monitors import peers
from whydrift.monitors.attribution import Moments, cells, logged_rows
from whydrift.monitors.binning import ABOVE, BELOW, FAR, OUTSIDE, FeatureBins
from whydrift.monitors.quality import known
from whydrift.monitors.summary import Layout
from whydrift.monitors.verdict import PeerStatistic

FloatArray = npt.NDArray[np.float64]

MOST_MOVED = 5  # features in the table
_ENOUGH_FOR_EVIDENTLY = 1000  # rows of the baseline; with fewer it tests

_RULE_OF_THUMB, _SAGEMAKER, _VERTEX, _EVIDENTLY = "rule of thumb", "Amazon SageMaker", "Vertex AI", "Evidently"
_KS_TEST = "KS test at 5 %"


@dataclass(frozen=True, slots=True)
class Side:
    """A window's or the baseline's frame and moments."""

    frame: pd.DataFrame
    moments: Moments

    def rows(self, block: str) -> float:
        """The effective rows that a block's distributions are of."""
        return logged_rows(self.frame) if block == "input" else self.moments.rows


def peer_table(now: Side, then: Side, layout: Layout) -> tuple[PeerStatistic, ...]:
    """Statistics of all features together, then of those whose inputs or attributions moved most.

    Numbers that a side does not have, such as the order of categories, are left out.
    """
    if not layout.features:
        return ()
    with np.errstate(over="ignore", invalid="ignore"):  # a baseline's range can be as wide as numbers are
        tables = {
            "attribution": _distances("phi", layout.attributions, now, then),
            "input": _distances("input", layout.features, now, then),
        }
    moved = np.max([table["jensen_shannon_distance"] for table in tables.values()], axis=0)
    rows = list(_of_the_model(now, then, layout))
    for j in np.argsort(-moved, kind="stable")[:MOST_MOVED]:
        for of, table in tables.items():
            numeric = of == "attribution" or layout.features[j].numeric
            found = {name: known(float(values[j])) for name, values in table.items()}
            limits = _limits(*(side.rows(of) for side in (now, then)), numeric=numeric)
            rows += _rows(found, limits, of, layout.names[j])
    return tuple(rows)


def _of_the_model(now: Side, then: Side, layout: Layout) -> Iterator[PeerStatistic]:
    absolute, absolute_then = now.moments.absolute, then.moments.absolute
    means, means_then = cells(now.frame, layout), cells(then.frame, layout)
    ndcg = peers.ndcg(absolute, absolute_then)
    yield PeerStatistic(
        statistic="ndcg",
        of="model",
        value=None if ndcg is None else known(ndcg),
        threshold=peers.NDCG_LIMIT,
        alerts=None if ndcg is None else ndcg < peers.NDCG_LIMIT,
        tool=_SAGEMAKER,
    )
    others = {
        "cosine": peers.cosine(absolute, absolute_then),
        "kendall": peers.kendall(absolute, absolute_then),
        "directions_changed": peers.directions_changed(means.mean, means_then.mean, means_then.weight),
    }
    for name, value in others.items():
        yield PeerStatistic(statistic=name, of="model", value=None if value is None else known(value))


def _distances(block: str, bins: Sequence[FeatureBins], now: Side, then: Side) -> dict[str, FloatArray]:
    """By statistic, (p,); NaN where categories have no order."""
    width = max(max(len(b.edges) - 1, len(b.categories)) for b in bins) + len(OUTSIDE)
    p, q = (_counts(side.frame, block, bins, width) for side in (now, then))
    positions = np.array([_positions(b, width - len(OUTSIDE)) for b in bins])
    ordered, ordered_then = (_in_order(counts) for counts in (p, q))
    numeric = np.array([b.numeric for b in bins])
    spread = np.maximum(peers.deviation(ordered_then, positions), 1e-3)  # as Evidently keeps it from 0
    psi = peers.psi(p, q)
    found = {
        "psi": psi,
        "psi_excess": psi - peers.psi_null(p, q, now.rows(block), then.rows(block)),
        "jensen_shannon_distance": np.sqrt(np.maximum(peers.jensen_shannon(p, q), 0.0)),
        "hellinger": peers.hellinger(p, q),
    }
    of_numbers = {
        "jensen_shannon_divergence": peers.jensen_shannon(p, q, base=2.0),
        "kolmogorov_smirnov": peers.kolmogorov_smirnov(ordered, ordered_then),
        "wasserstein_deviations": peers.wasserstein(ordered, ordered_then, positions) / spread,
    }
    found |= {name: np.where(numeric, values, np.nan) for name, values in of_numbers.items()}
    found["largest_difference"] = np.where(numeric, np.nan, peers.largest_difference(p, q))
    return found


def _limits(rows: float, rows_then: float, *, numeric: bool) -> dict[str, list[tuple[float, str]]]:
    """By statistic, the thresholds that it comes with, and whose they are."""
    limits = {
        "psi": [(0.1, _RULE_OF_THUMB), (0.2, _RULE_OF_THUMB)],
        "jensen_shannon_divergence": [(0.3, _VERTEX)],
        "largest_difference": [(0.3, _VERTEX)],
        "kolmogorov_smirnov": [(peers.kolmogorov_smirnov_limit(rows, rows_then), _KS_TEST)],
    }
    if rows_then > _ENOUGH_FOR_EVIDENTLY:
        limits["wasserstein_deviations" if numeric else "jensen_shannon_distance"] = [(0.1, _EVIDENTLY)]
    return limits


def _rows(
    found: dict[str, float | None], limits: dict[str, list[tuple[float, str]]], of: str, feature: str
) -> Iterator[PeerStatistic]:
    for name, value in found.items():
        if value is None:
            continue
        if name not in limits:
            yield PeerStatistic(statistic=name, of=of, feature=feature, value=value)
        for limit, tool in limits.get(name, ()):
            yield PeerStatistic(
                statistic=name, of=of, feature=feature, value=value, threshold=limit, alerts=value >= limit, tool=tool
            )


def _counts(frame: pd.DataFrame, block: str, bins: Sequence[FeatureBins], width: int) -> FloatArray:
    """Weights by feature and cell, (p, width); the negative codes lie at the end."""
    chosen = frame[(frame["block"] == block) & (frame["stat"] == "weight")]
    counts = np.zeros((len(bins), width))
    feature = pd.Index([b.name for b in bins]).get_indexer(pd.Index(chosen["name"]))
    counts[feature, chosen["cell"].to_numpy() % width] = chosen["value"].to_numpy()
    return counts


def _in_order(counts: FloatArray) -> FloatArray:
    """The cells of numbers from low to high: below, those that the baseline saw, above, far.

    What lies far off is taken to lie far above: the summary does not say on which side.
    """
    inner = counts[:, : counts.shape[1] - len(OUTSIDE)]
    return np.concatenate([counts[:, [BELOW]], inner, counts[:, [ABOVE]], counts[:, [FAR]]], axis=1)


def _positions(bins: FeatureBins, cells: int) -> list[float]:
    """Where the mass of each cell of `_in_order` is taken to lie: in its middle, and outside as near as can be."""
    if not bins.numeric:
        return [0.0] * (cells + 3)
    edges = np.asarray(bins.edges)
    middle = edges[:-1] / 2 + edges[1:] / 2
    first, last = float(edges[0]), float(edges[-1])
    unused = cells - middle.size
    return [first, *map(float, middle), *[last] * unused, last, last + (last - first)]
