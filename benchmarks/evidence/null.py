"""Nothing happened: how often does it page? False pages per 90 windows, in every null, with a budget of one.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/evidence/null.py --seeds 1000 --calibrations 60

Run s of a cell draws its windows from a generator seeded with (CRC-32 of the cell's name, s). Every run has a baseline
of D windows, of which nothing is left out. At the guaranteed threshold 90 windows follow; at the calibrated one, which
each run fits to its own baseline in a minute's simulation, 360 follow, and their pages are divided by four. The 95 %
interval of the mean is the wider, at each end, of the exact one of a Poisson count (Garwood 1936) and of a bootstrap
over the runs. Results are kept in `.cache/evidence/null-*.jsonl` with a digest of the detector's code and not
repeated. Table: `null.csv`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import streams
from cache import HOME, Cache, Row, digest, generator
from scipy.stats import chi2
from streams import DAY, DETECTOR, GUARANTEED, HORIZON, NULLS, Null, Simulated, prepare, simulate, watch

from whydrift.monitors import threshold
from whydrift.monitors.evidence import Thresholds

_BLOCK = 20  # seeds of a cell before the next cell's turn, so that an unfinished study says something of every cell
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Cell:
    """A null, the number of streams, the length of the baseline, and how the threshold is set."""

    null: Null
    streams: int
    baseline: int
    calibrated: bool = False

    @property
    def name(self) -> str:
        return f"{self.null.name}|m={self.streams}|D={self.baseline}"

    @property
    def periods(self) -> int:
        return 4 if self.calibrated else 1

    def run(self, seed: int) -> Row:
        """The pages and tickets of one run, its largest evidence, and its threshold."""
        simulated = simulate(
            self.null, self.streams, self.baseline + self.periods * HORIZON, generator(self.name, seed)
        )
        thresholds = self._calibrate(simulated, seed) if self.calibrated else GUARANTEED
        detector = prepare(simulated, self.baseline, thresholds)
        found = watch(detector, simulated.observations()[self.baseline :])
        return {
            "pages": found[-1].pages,
            "tickets": sum(now.ticket for now in found),
            "peak": round(max(now.model for now in found), 3),
            "threshold": round(thresholds.page, 3),
        }

    def _calibrate(self, simulated: Simulated, seed: int) -> Thresholds:
        found = threshold.calibrate(
            simulated.streams(),
            simulated.observations()[: self.baseline],
            DAY,
            1.0,
            HORIZON * DAY,
            generator(f"{self.name}|calibrate", seed),
        )
        return Thresholds(page=found.threshold, ticket=GUARANTEED.ticket)


GUARANTEED_CELLS = tuple(Cell(*cell) for cell in product(NULLS, (10, 100, 400), (28, 56)))
CALIBRATED_CELLS = tuple(Cell(*cell, calibrated=True) for cell in product(NULLS, (10, 100), (56,)))


def study(cache: Cache, seeds: int, cells: Sequence[Cell]) -> None:
    """Run what is missing, in blocks of seeds."""
    for first in range(0, seeds, _BLOCK):
        block = range(first, min(first + _BLOCK, seeds))
        for cell, seed in product(cells, block):
            cache.get(f"{cell.name}|{seed}", lambda cell=cell, seed=seed: cell.run(seed))
        print(f"{block.stop} seeds of {len(cells)} cells", flush=True)


def table(cache: Cache, seeds: int, cells: Sequence[Cell]) -> pd.DataFrame:
    """A row a cell that has runs."""
    rows = []
    for cell in cells:
        runs = [row for seed in range(seeds) if (row := cache.find(f"{cell.name}|{seed}")) is not None]
        if not runs:
            continue
        pages, tickets, limits = (np.array([run[what] for run in runs]) for what in ("pages", "tickets", "threshold"))
        lower, upper = interval(pages)
        rows.append(
            {
                "threshold": "calibrated" if cell.calibrated else "guaranteed",
                "null": cell.null.name,
                "streams": cell.streams,
                "baseline": cell.baseline,
                "runs": len(runs),
                "pages": round(pages.mean() / cell.periods, 3),
                "lower": round(lower / cell.periods, 3),
                "upper": round(upper / cell.periods, 3),
                "any_page": round((pages > 0).mean(), 3),
                "tickets_a_week": round(tickets.mean() * 7 / HORIZON / cell.periods, 3),
                "median_threshold": round(float(np.median(limits)), 1),
            }
        )
    return pd.DataFrame(rows)


def interval(pages: np.ndarray) -> tuple[float, float]:
    """95 % limits of the mean of counts (n,): Garwood's, or a percentile bootstrap's where that is wider."""
    total, runs = pages.sum(), pages.size
    exact = (chi2.ppf(0.025, 2 * total) / 2 / runs if total else 0.0, chi2.ppf(0.975, 2 * total + 2) / 2 / runs)
    drawn = np.random.default_rng(0).choice(pages, size=(_RESAMPLES, runs)).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(min(exact[0], low)), float(max(exact[1], high))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="False pages while nothing happens.")
    parser.add_argument("--seeds", type=int, default=1000, help="runs of every cell at the guaranteed threshold")
    parser.add_argument("--calibrations", type=int, default=60, help="runs of every cell at the calibrated one")
    parser.add_argument("--cache", type=Path, default=HOME)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--table-only", action="store_true", help="write the table of the runs there are")
    options = parser.parse_args(arguments)
    studies = (
        (Cache(options.cache / "null-guaranteed.jsonl", digest([*DETECTOR, streams])), options.seeds, GUARANTEED_CELLS),
        (
            Cache(options.cache / "null-calibrated.jsonl", digest([*DETECTOR, streams, threshold])),
            options.calibrations,
            CALIBRATED_CELLS,
        ),
    )
    for part in () if options.table_only else studies:
        study(*part)
    tables = [table(*part) for part in studies]
    pd.concat(tables, ignore_index=True).to_csv(options.out / "null.csv", index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
