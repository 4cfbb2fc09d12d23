"""Measure what explainers of trees cost, and write the constants of explainers/costs.py.

    .venv/bin/python benchmarks/attributions/fit_costs.py

Every explainer is timed on models of several sizes: what it takes once, and by explained row. Non-negative least
squares of the relative errors give the seconds by each size of the trees. Seconds are those of the processor, all
threads together, since all of them use all cores; a machine that does other work as well then measures much the same.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other count as work

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from scipy.optimize import nnls
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier

from whydrift.pipelines.explainers.case import Candidate, Case, Perturbation
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.costs import Cost, sizes
from whydrift.pipelines.explainers.tree_families import native, shap, shapley

TABLE = Path(__file__).parents[2] / "pipelines/whydrift/pipelines/explainers/cost_table.py"
LONG = 0.3  # seconds that a measurement takes at least
RNG = np.random.default_rng(0)
NAMES = [f"f{i}" for i in range(20)]
ROWS = pd.DataFrame(RNG.normal(size=(20_000, 20)), columns=NAMES).mask(RNG.random((20_000, 20)) < 0.02)
VALUE = (ROWS.fillna(0) @ RNG.normal(size=20) + 3 * ROWS["f0"].fillna(0) * ROWS["f1"].fillna(0)).to_numpy()


def models() -> Iterator[Any]:
    """Models of several shapes, small to middling."""
    for trees, depth in ((50, 3), (100, 6), (300, 6), (60, 9)):
        yield xgboost.XGBRegressor(n_estimators=trees, max_depth=depth).fit(ROWS, VALUE)
        yield catboost.CatBoostRegressor(iterations=trees, depth=depth, verbose=0, allow_writing_files=False).fit(
            ROWS, VALUE
        )
    for trees, leaves in ((50, 8), (200, 31), (200, 63), (60, 200)):
        yield lightgbm.LGBMRegressor(n_estimators=trees, num_leaves=leaves, verbose=-1).fit(ROWS, VALUE)
    for trees, leaves in ((50, 15), (200, 31)):
        yield HistGradientBoostingRegressor(max_iter=trees, max_leaf_nodes=leaves).fit(ROWS, VALUE)
    for trees, depth in ((30, 6), (30, 9), (20, 12)):
        yield RandomForestClassifier(trees, max_depth=depth, random_state=0).fit(ROWS, VALUE > 0)


def ask(model: Any, perturbation: Perturbation, background: int) -> Case:
    """The case of a model of `ROWS`."""
    task = "binary" if hasattr(model, "predict_proba") else "regression"
    frame = ROWS.head(background)
    return Case(model, task, Columns.of(frame, NAMES), frame, perturbation, 0)


def measure(case: Case, candidate: Candidate) -> tuple[float, float]:
    """Seconds once, and seconds by row."""
    begin = process_time()
    core = candidate.make()
    once, few, many = process_time() - begin, 1, 1
    encoded = [case.encoding.encode(ROWS)]

    def explain(count: int) -> float:
        rows = encoded[0].iloc[:count] if hasattr(encoded[0], "iloc") else encoded[0][:count]
        start = process_time()
        core.explain(rows)
        return process_time() - start

    explain(1)
    while (took := explain(many)) < LONG and many < len(ROWS):
        many *= 2
    many = min(many, len(ROWS))
    first = min(explain(few), explain(few))
    by_row = max(took - first, 1e-9) / max(1, many - few)
    return once + max(0.0, first - by_row), by_row


def first_use(name: str) -> float:
    """Seconds until a library is loaded and its kernels are compiled, in a process of its own, the second time."""

    def child(asked: str) -> float:
        begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, __file__, asked], check=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin

    child(name)
    return max(0.0, child(name) - child("nothing"))


def use(name: str) -> None:
    """What a new process does first with an explainer."""
    if name == "nothing":
        return
    model = RandomForestClassifier(2, max_depth=2).fit(ROWS[:100], VALUE[:100] > 0)
    case = ask(model, "interventional" if name.endswith("interventional") else "path_dependent", 10)
    family: Callable[[Case], Candidate] = shap if name.startswith("shap") else shapley
    family(case).make().explain(case.encoding.encode(ROWS[:10]))


def fit(measured: list[tuple[np.ndarray, int, float]]) -> tuple[list[float], list[float]]:
    """Coefficients of the sizes, and of the sizes times background rows, from (sizes, background rows, seconds)."""
    design = np.array([np.concatenate([size, background * size]) for size, background, _ in measured])
    seconds = np.maximum([found for *_, found in measured], 1e-9)
    relative = design / seconds[:, None]
    scale = np.where(relative.any(axis=0), relative.max(axis=0), 1.0)
    found = nnls(relative / scale, np.ones(len(seconds)))[0] / scale
    misfit = design @ found / seconds
    print(f"    estimated by measured: {', '.join(f'{ratio:.2f}' for ratio in misfit)}")
    half = design.shape[1] // 2
    return found[:half].tolist(), found[half:].tolist()


def main() -> None:
    once: dict[str, list[tuple[np.ndarray, int, float]]] = {}
    by_row: dict[str, list[tuple[np.ndarray, int, float]]] = {}
    for name in ("trees:path_dependent", "trees:interventional", "shap:path_dependent"):
        use(name)  # compiled and loaded; first_use counts that
    for model in models():
        for perturbation, backgrounds in (("path_dependent", (1,)), ("interventional", (20, 100, 1000))):
            for background in backgrounds:
                case = ask(model, perturbation, background)
                for family in (native, shapley, shap):
                    if family is shap and background > 100:
                        continue  # a minute a model, and linear in the background
                    try:
                        candidate = family(case)
                        took = measure(case, candidate)
                    except Exception as error:  # noqa: BLE001 - whatever a family refuses is not measured
                        print(f"  {type(model).__name__} {family.__name__} {perturbation}: {error}")
                        continue
                    name = candidate.name.partition(":")[0]
                    key = name if family is native else f"{name}:{perturbation}"
                    used = background if perturbation == "interventional" else 0
                    size = sizes(case.forest)
                    once.setdefault(key, []).append((size, used, took[0]))
                    by_row.setdefault(key, []).append((size, used, took[1]))
                    print(
                        f"  {type(model).__name__:30} {key:25} {used:5} once {took[0]:.3f} s, {1 / took[1]:9.0f} rows/s"
                    )
    lines = ['"""Written by benchmarks/attributions/fit_costs.py; what it means is in costs.py."""', "", "SECONDS = {"]
    for key in sorted(once):
        print(key)
        setting, by_background = fit(once[key])
        row, pair = fit(by_row[key])
        setting[0] += 0.0 if ":" not in key else first_use(key)
        cost = Cost(*(tuple(float(f"{number:.3g}") for number in part) for part in (setting, by_background, row, pair)))
        lines.append(f'    "{key}": {tuple(getattr(cost, part) for part in ("once", "background", "row", "pair"))},')
    TABLE.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TABLE)], check=True)


if __name__ == "__main__":
    use(sys.argv[1]) if sys.argv[1:] else main()
