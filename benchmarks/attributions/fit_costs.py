"""Measure what explainers of trees cost, and write the constants of explainers/costs.py.

    .venv/bin/python benchmarks/attributions/fit_costs.py

Every explainer is timed on models of several sizes: what it takes once, and by explained row, which goes to a table
beside this file. What comes with every call counts twice, since an explainer is tried on the background before it
explains a window. Least squares of ratios then give the seconds by each size of the trees (with --measured, from the
table as it is). Seconds are those of the processor, all threads together, since all explainers use all cores; a machine
that does other work as well then measures much the same.
"""

from __future__ import annotations

import gc
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
from scipy.optimize import least_squares
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier

from whydrift.pipelines.explainers.case import Candidate, Case, Perturbation
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.costs import sizes
from whydrift.pipelines.explainers.protocol import UnsuitedError
from whydrift.pipelines.explainers.tree_families import native, shap, shapley

TABLE = Path(__file__).parents[2] / "pipelines/whydrift/pipelines/explainers/cost_table.py"
MEASURED = Path(__file__).with_suffix(".csv")
LONG = 0.15  # seconds that a measurement takes at least
RNG = np.random.default_rng(0)
SIZES = ["one", "path", "leaves", "depth", "squares", "patterns"]
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
    """Seconds once, those of two calls among them, and seconds by row."""
    begin = process_time()
    core = candidate.make()
    once, many = process_time() - begin, 1
    encoded = case.encoding.encode(ROWS)

    def explain(count: int) -> float:
        rows = encoded.iloc[:count] if hasattr(encoded, "iloc") else encoded[:count]
        start = process_time()
        core.explain(rows)
        return process_time() - start

    first = min(explain(1), explain(1))
    while (took := explain(many)) < first + LONG and many < len(ROWS):
        many = min(2 * many, len(ROWS))
    by_row = max(took - first, 1e-7 * many) / max(1, many - 1)
    return once + 2 * max(0.0, first - by_row), by_row


def first_use(name: str) -> float:
    """Seconds until a library and its kernels are loaded, in a process of its own, when both have been compiled."""
    kept = dict(os.environ, PYTHONDONTWRITEBYTECODE="")  # as it is where packages are installed, or used twice

    def child(asked: str) -> float:
        begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, __file__, asked], env=kept, check=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin

    child(name)
    return max(0.0, child(name) - child("nothing"))


def use(name: str) -> None:
    """What a new process does first with an explainer, with the garbage collector paused as `choose` pauses it."""
    gc.disable()
    if name == "nothing":
        return
    model = RandomForestClassifier(2, max_depth=2).fit(ROWS[:100], VALUE[:100] > 0)
    case = ask(model, "interventional" if name.endswith("interventional") else "path_dependent", 10)
    family: Callable[[Case], Candidate] = shap if name.startswith("shap") else shapley
    family(case).make().explain(case.encoding.encode(ROWS[:10]))


def fit(measured: pd.DataFrame, what: str) -> tuple[list[float], list[float]]:
    """Coefficients of the sizes, and of the sizes times background rows, by least squares of the ratios' logarithms."""
    size = measured[SIZES].to_numpy()
    design = np.column_stack([size, size * measured[["background"]].to_numpy()])
    seconds = measured[what].to_numpy()
    used = np.flatnonzero(design.any(axis=0))
    start = np.log(np.median(seconds) / len(used) / np.median(design[:, used], axis=0))
    found = least_squares(lambda x: np.log(design[:, used] @ np.exp(x) / seconds), start, bounds=(-60, 5)).x
    coefficients = np.zeros(design.shape[1])
    coefficients[used] = np.exp(found)
    # What adds less than a hundredth to every estimate is nothing.
    share = design * coefficients / (design @ coefficients)[:, None]
    coefficients[share.max(axis=0) < 0.01] = 0
    print(f"    {what}: estimated by measured {np.round(design @ coefficients / seconds, 2).tolist()}")
    return coefficients[: len(SIZES)].tolist(), coefficients[len(SIZES) :].tolist()


def measure_all() -> pd.DataFrame:
    """A line for each model, explainer and size of the background."""
    for name in ("trees:path_dependent", "trees:interventional", "shap:path_dependent"):
        use(name)  # compiled and loaded; first_use counts that
    lines = []
    for model in models():
        for perturbation, backgrounds in (("path_dependent", (1,)), ("interventional", (20, 100, 1000))):
            for background in backgrounds:
                case = ask(model, perturbation, background)
                for family in (native, shapley, shap):
                    if family is shap and background > 100:
                        continue  # a minute a model, and linear in the background
                    try:
                        candidate = family(case)
                        once, row = measure(case, candidate)
                    except UnsuitedError:
                        continue
                    own = candidate.name.partition(":")[0]
                    name = own if family is native else f"{own}:{perturbation}"
                    used = background if perturbation == "interventional" else 0
                    line = [name, type(model).__name__, used, once, row, *sizes(case.forest)]
                    print(*line[:3], f"once {once:.3f} s, {1 / row:.0f} rows/s")
                    lines.append(line)
    return pd.DataFrame(lines, columns=["explainer", "model", "background", "once", "row", *SIZES])


def main() -> None:
    if "--measured" not in sys.argv:
        measured = measure_all()
        first = {name: first_use(name) if ":" in name else 0.0 for name in measured["explainer"].unique()}
        measured.assign(first_use=measured["explainer"].map(first)).to_csv(MEASURED, index=False, float_format="%.6g")
    text = ['"""Written by benchmarks/attributions/fit_costs.py; what it means is in costs.py."""', "", "SECONDS = {"]
    for name, lines in pd.read_csv(MEASURED).groupby("explainer"):
        print(name)
        (once, background), (row, pair) = fit(lines, "once"), fit(lines, "row")
        once[0] += lines["first_use"].iloc[0]
        parts = (tuple(float(f"{number:.2g}") for number in part) for part in (once, background, row, pair))
        text.append(f'    "{name}": {tuple(parts)},')
    TABLE.write_text("\n".join([*text, "}", ""]), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TABLE)], check=True)


if __name__ == "__main__":
    use(sys.argv[1]) if sys.argv[1:] and sys.argv[1] != "--measured" else main()
