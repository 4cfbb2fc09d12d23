"""How long reducing rows to a summary takes, without explaining them, beside reading their memory once.

    python benchmarks/attributions/summarise.py [--rounds 5] [--case ROWS FEATURES SLICES]

Inputs and attributions are float32 columns, five values of slices a text column, and one input in five lacks a value
in 50; 101 columns with the score at 50 features. `read` sums these arrays in two threads: what the memory allows.
All blocks of a summary are made. Evidently's drift report is of the same columns, with half the rows again as
reference, of the case with 100,000 rows and 50 features only: it needs minutes of more.

A case is a process of its own in which systems take turns; `seconds` and `cpu` are medians over the rounds, and
`times_read` and `times` are ratios of them, to `read` and to the compiled kernels in two threads. `first` is the first
call in a process of its own, numba imported and its cache filled, and `peak_mb` what that adds to the process's memory.
Table: `summarise.csv`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from whydrift.monitors import row_sums
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import Explained, Group, Layout

TABLE = Path(__file__).with_suffix(".csv")
PEERS_CASE = (100_000, 50, 10)
CASES = [
    (1_000, 50, 10),
    (1_000, 400, 50),
    PEERS_CASE,
    (1_000_000, 10, 10),
    (1_000_000, 50, 1),
    (1_000_000, 50, 10),
    (1_000_000, 50, 50),
    (100_000, 400, 50),
]
VALUES = 5  # slices a text column
MIN_MEASURED = 0.2  # seconds: shorter calls are repeated within a round
READ, BEST, EVIDENTLY = "read", "numba, 2 threads", "evidently"


def draw(rows: int, features: int, slices: int) -> tuple[Explained, Layout]:
    """Rows, and a layout fitted to the first of them."""
    rng = np.random.default_rng(0)
    texts = np.array([f"k{i}" for i in range(VALUES)], dtype=object)
    columns: dict[str, Any] = {}
    for j in range(features):
        if j < -(-slices // VALUES):
            columns[f"f{j:03d}"] = pd.array(texts[rng.integers(0, min(slices, VALUES), rows)], dtype="str")
            continue
        x = rng.standard_normal(rows, dtype=np.float32)
        if j % 5 == 0:
            x[rng.random(rows) < 0.02] = np.nan
        columns[f"f{j:03d}"] = x
    frame = pd.DataFrame(columns)
    values = rng.standard_normal((rows, features), dtype=np.float32)
    output = values.sum(axis=1, dtype=np.float64)
    names, head = list(frame), slice(0, 20_000)
    layout = Layout(
        task="binary",
        link="logit",
        scale=1.9,
        loss_scale=1.0,
        features=tuple(fit_bins(name, frame[name].iloc[head]) for name in names),
        attributions=tuple(
            fit_attribution_bins(name, values[head, j].astype(np.float64) / 1.9) for j, name in enumerate(names)
        ),
        slices=tuple(names[: -(-slices // VALUES)]),
        groups=(Group("three", tuple(names[-3:])),),
    )
    return Explained(frame, expit(output), np.ones(rows), values, output, 0.0), layout


def read(batch: Explained) -> None:
    """The sum of every array that has numbers in it."""
    frame = batch.features
    arrays = [frame[name].to_numpy() for name in frame if frame[name].dtype == np.float32]
    arrays += [*np.array_split(batch.values.ravel(), 8), batch.prediction]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(np.sum, arrays))


def compiled(batch: Explained, layout: Layout, threads: int) -> None:
    from whydrift.monitors import sum_kernels

    row_sums.WORTH_COMPILING, sum_kernels.THREADS = 0, threads
    summarise(batch, layout)


def plain(batch: Explained, layout: Layout) -> None:
    row_sums.WORTH_COMPILING = sys.maxsize
    summarise(batch, layout)


def evidently(batch: Explained) -> None:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    names = [f"attribution of {name}" for name in batch.features]
    frame = pd.concat([batch.features, pd.DataFrame(batch.values, columns=names)], axis=1)
    frame["score"] = batch.prediction
    Report([DataDriftPreset()]).run(frame, frame.iloc[: len(frame) // 2])


def systems(case: tuple[int, int, int]) -> dict[str, Callable[[], None]]:
    batch, layout = draw(*case)
    return {
        READ: partial(read, batch),
        BEST: partial(compiled, batch, layout, 2),
        "numba, 1 thread": partial(compiled, batch, layout, 1),
        "numpy": partial(plain, batch, layout),
        **({EVIDENTLY: partial(evidently, batch)} if case == PEERS_CASE else {}),
    }


def timed(system: Callable[[], None], repeats: int = 1) -> tuple[float, float]:
    """Seconds and processor seconds of a call."""
    begun, used = perf_counter(), process_time()
    for _ in range(repeats):
        system()
    return (perf_counter() - begun) / repeats, (process_time() - used) / repeats


def measure_turns(case: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, float]]] = {}
    runs = systems(case)
    repeats = {name: _repeats(run) if name != EVIDENTLY else 1 for name, run in runs.items()}
    for k in range(rounds):
        for name, run in runs.items():
            if name != EVIDENTLY or k == 0:  # half a minute; one is enough
                found.setdefault(name, []).append(timed(run, repeats[name]))
    return {name: np.median(times, axis=0).tolist() for name, times in found.items()}


def _repeats(run: Callable[[], None]) -> int:
    run()
    return max(round(MIN_MEASURED / timed(run)[0]), 1)


def measure_first(case: tuple[int, int, int], system: str) -> dict[str, Any]:
    run = systems(case)[system]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, _ = timed(run)
    return {"first": seconds, "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def apart(case: tuple[int, int, int], *arguments: str) -> dict[str, Any]:
    """What a process of its own prints."""
    command = [sys.executable, __file__, "--case", *map(str, case), *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def table(rounds: int) -> pd.DataFrame:
    rows = []
    for case in CASES:
        turns = apart(case, "--rounds", str(rounds), "--turns")
        for system, (seconds, cpu) in turns.items():
            rows.append(
                {
                    **dict(zip(("rows", "features", "slices"), case, strict=True)),
                    "system": system,
                    "seconds": round(seconds, 4),
                    "cpu": round(cpu, 4),
                    "times_read": round(seconds / turns[READ][0], 1),
                    "times": round(seconds / turns[BEST][0], 2),
                    **{k: round(v, 2) for k, v in apart(case, "--first", system).items()},
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", type=int, nargs=3, metavar=("ROWS", "FEATURES", "SLICES"))
    parser.add_argument("--turns", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.first:
        print(json.dumps(measure_first(tuple(asked.case), asked.first)))
    elif asked.case:
        print(json.dumps(measure_turns(tuple(asked.case), asked.rounds)))
    else:
        table(asked.rounds).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
