"""How small a change of the rows is found: from rows to the page, through summaries, streams and detector.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/evidence/sensitivity.py --seeds 20

50 features of a model that is linear in its log-odds, so that attributions are exact; coefficients fall off
exponentially, the last is a twenty-fifth of the first. Effects of the day have rho = .001, see `rows`. 56 baseline
days, 7 quiet ones, and then the mean of one feature, by turns one of all 50, is `d` standard deviations of its rows
higher. A run ends with its first page, or 40 days after the onset. Runs are kept in `.cache/evidence/sensitivity.jsonl`
and not repeated; run s of a case draws from a generator seeded with (CRC-32 of the case's name, s). Table:
`sensitivity.csv`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rows
import streams
from cache import HOME, Cache, Row, digest, generator
from rows import draw, explained, first_page, judge, lay_out, reduce_day
from streams import DETECTOR

from whydrift.monitors import attribution, attribution_streams, distances, model_streams, summary
from whydrift.monitors.summary import Explained, WindowSummary

FEATURES, BASELINE, QUIET, FOLLOWED = 50, 56, 7, 40
RHO = 1e-3
BASE = -1.0
COEFFICIENTS = 0.5 * np.exp(-np.arange(FEATURES) / 15.0)
CODE: Sequence[Any] = (
    *DETECTOR,
    attribution,
    attribution_streams,
    distances,
    model_streams,
    summary,
    rows,
    streams,
)


@dataclass(frozen=True, slots=True)
class Case:
    """Rows a day, and by how many of its standard deviations one feature's mean moves."""

    rows: int
    d: float

    @property
    def name(self) -> str:
        return f"n={self.rows}|d={self.d:g}"

    def run(self, seed: int) -> Row:
        rng = generator(self.name, seed)
        moved = (7 * seed) % FEATURES
        first = [self._day(rng) for _ in range(2)]
        layout = lay_out(first)
        baseline = [reduce_day(self._day(rng), layout) for _ in range(BASELINE)]
        found = first_page(judge(baseline, layout, self._days(rng, layout, moved)), QUIET)
        leads = found.features[:1] == (f"f{moved}",)
        return {"early": found.early, "delay": found.delay, "moved": moved, "leads": leads}

    def _days(self, rng: np.random.Generator, layout: summary.Layout, moved: int) -> Iterator[WindowSummary]:
        for day in range(QUIET + FOLLOWED):
            yield reduce_day(self._day(rng, moved if day >= QUIET else None), layout)

    def _day(self, rng: np.random.Generator, moved: int | None = None) -> Explained:
        inputs = draw(rng, self.rows, FEATURES, RHO)
        if moved is not None:
            inputs[:, moved] += self.d
        frame = pd.DataFrame(inputs, columns=[f"f{j}" for j in range(FEATURES)])
        return explained(frame, inputs * COEFFICIENTS, BASE)


CASES = (Case(5_000, 0.2), Case(5_000, 0.1), Case(5_000, 0.05), Case(100_000, 0.2), Case(100_000, 0.1))


def line(case: Case, runs: Sequence[Row]) -> dict[str, object]:
    counted = [run for run in runs if not run["early"]]
    delays = np.array([np.inf if run["delay"] is None else run["delay"] for run in counted], dtype=float)
    named = [run["leads"] for run in counted if run["delay"] is not None]
    return {
        "rows": case.rows,
        "d": case.d,
        "runs": len(runs),
        "paged_before": len(runs) - len(counted),
        "median": np.quantile(delays, 0.5, method="higher"),
        "q90": np.quantile(delays, 0.9, method="higher"),
        "missed": round(float(np.isinf(delays).mean()), 3),
        "right_feature_first": round(float(np.mean(named)), 3) if named else None,
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="The smallest change of rows that is found.")
    parser.add_argument("--seeds", type=int, default=20, help="runs of every case")
    parser.add_argument("--cache", type=Path, default=HOME)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    cache = Cache(options.cache / "sensitivity.jsonl", digest(CODE))
    lines = []
    for case in CASES:
        runs = [cache.get(f"{case.name}|{seed}", lambda seed=seed: case.run(seed)) for seed in range(options.seeds)]  # noqa: B023
        lines.append(line(case, runs))
        print(lines[-1], flush=True)
    pd.DataFrame(lines).to_csv(options.out / "sensitivity.csv", index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
