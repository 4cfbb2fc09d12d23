"""How long explaining takes, by model family, rows and background, beside shap and the libraries' own attributions.

    python benchmarks/attributions/families.py [--rounds 3] [--family NAME]

Every measurement is a process of its own that loads a model and rows and explains them twice: `first` has the set-up
in it, as the first window of a job has, `again` is what a further window costs, and `peak` is the largest resident
memory of the process. Systems take turns, and the medians over rounds are written. All run in one thread. Where a
system would need longer than two minutes it explains fewer rows, and its time is scaled to all, since rows cost it
the same each: `explained` says how many. Table: `families.csv`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from models import FAMILIES, FEATURES, draw, train

HERE = Path(__file__).parent
WORK = HERE.parents[1] / ".cache" / "attributions"
PATH_DEPENDENT = 0  # background rows
ROWS = (1_000, 10_000, 100_000)
BACKGROUNDS = (PATH_DEPENDENT, 100, 1_000, 50_000)
LIMIT = 120.0  # seconds
PILOT = 200  # rows whose time says how many more fit
KEYS = ["family", "background", "rows", "system"]

Explain = Callable[[pd.DataFrame], Any]


def whydrift(model: Any, background: pd.DataFrame | None, rows: int) -> Explain:
    from whydrift.pipelines.explainers.choose import choose

    explainer = choose(
        model,
        method="auto",
        task="binary",
        background=draw(100, seed=2, gaps=_gaps(model))[0] if background is None else background,
        features=FEATURES,
        perturbation="path_dependent" if background is None else "interventional",
        rows=rows,
    )
    print(f"chosen: {explainer.name}", file=sys.stderr)
    return explainer.explain


def shap(model: Any, background: pd.DataFrame | None, _: int) -> Explain:
    import shap as package

    if hasattr(model, "steps"):
        scaled = model[:-1].transform(draw(1_000, seed=2, gaps=False)[0] if background is None else background)
        linear = package.LinearExplainer(model.steps[-1][1], scaled)
        return lambda rows: linear.shap_values(model[:-1].transform(rows))
    kind = "tree_path_dependent" if background is None else "interventional"
    trees = package.TreeExplainer(model, data=background, feature_perturbation=kind)
    return lambda rows: trees.shap_values(rows, check_additivity=False)


def native(model: Any, background: pd.DataFrame | None, _: int) -> Explain | None:
    kind = type(model).__name__
    if kind == "CatBoostClassifier":
        import catboost

        reference = None if background is None else catboost.Pool(background)
        return lambda rows: model.get_feature_importance(
            catboost.Pool(rows), type="ShapValues", reference_data=reference, thread_count=1
        )
    if background is not None:
        return None
    if kind == "XGBClassifier":
        import xgboost

        booster = model.get_booster()
        booster.set_param({"nthread": 1})
        return lambda rows: booster.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True)
    if kind == "LGBMClassifier":
        return lambda rows: model.booster_.predict(rows, pred_contrib=True, num_threads=1)
    return None


def woodelf(model: Any, background: pd.DataFrame | None, _: int) -> Explain | None:
    if hasattr(model, "steps"):
        return None
    from woodelf import WoodelfExplainer

    trees = WoodelfExplainer(model, background)
    return lambda rows: trees.shap_values(rows, verbose=False)


SYSTEMS = {"whydrift": whydrift, "shap": shap, "native": native, "woodelf": woodelf}


def _gaps(model: Any) -> bool:
    return type(model).__name__ not in {"RandomForestClassifier", "Pipeline"}


def measure(family: str, background: int, rows: int, system: str) -> dict[str, Any] | None:
    """One system's times in this process; None where it cannot."""
    model = pickle.loads((WORK / f"{family}.pickle").read_bytes())
    frame, _ = draw(rows, seed=3, gaps=FAMILIES[family][1])
    behind = draw(background, seed=2, gaps=FAMILIES[family][1])[0] if background else None
    start = perf_counter()
    explain = SYSTEMS[system](model, behind, rows)
    if explain is None:
        return None
    made = perf_counter() - start
    count = rows
    if system in {"shap", "native"} and rows > PILOT:  # whose rows cost the same each
        start = perf_counter()
        explain(frame.head(PILOT))
        count = min(rows, max(PILOT, int(LIMIT * PILOT / (perf_counter() - start))))
    start = perf_counter()
    explain(frame.head(count))
    first = perf_counter() - start
    again = first
    if first < LIMIT / 4:
        start = perf_counter()
        explain(frame.head(count))
        again = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scale = rows / count
    return {"explained": count, "first": made + first * scale, "again": again * scale, "peak": peak}


def run(family: str, background: int, rows: int, system: str) -> dict[str, Any]:
    """The same in a process of its own."""
    one = dict(os.environ, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    command = [sys.executable, __file__, "--one", json.dumps([family, background, rows, system])]
    start = perf_counter()
    done = subprocess.run(command, env=one, capture_output=True, text=True, check=False)
    whole = perf_counter() - start
    found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    if done.returncode:
        print(family, background, rows, system, done.stderr[-500:], file=sys.stderr)
    chosen = [line.removeprefix("chosen: ") for line in done.stderr.splitlines() if line.startswith("chosen: ")]
    return {**(found or {}), "process": whole, "explainer": chosen[0] if chosen else ""} if found else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", choices=list(FAMILIES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(*json.loads(asked.one))))
        return
    WORK.mkdir(parents=True, exist_ok=True)
    for family in [asked.family] if asked.family else FAMILIES:
        path = WORK / f"{family}.pickle"
        if not path.exists():
            path.write_bytes(pickle.dumps(train(family)))
        for background in BACKGROUNDS:
            for rows in ROWS if background in {PATH_DEPENDENT, 1_000} else ROWS[1:]:
                found = [
                    {"family": family, "background": background, "rows": rows, "system": system, **one}
                    for _ in range(asked.rounds)
                    for system in SYSTEMS
                    if (one := run(family, background, rows, system))
                ]
                _write(pd.DataFrame(found))


def _write(found: pd.DataFrame) -> None:
    """The medians, in place of those that the table had of the same measurements."""
    path = HERE / "families.csv"
    numbers = ["explained", "first", "again", "process", "peak"]
    made = found.groupby(KEYS, sort=False).agg({**dict.fromkeys(numbers, "median"), "explainer": "first"}).reset_index()
    theirs = made.merge(made[made["system"] != "whydrift"], on=KEYS[:3], suffixes=("", "_other"))
    best = theirs[theirs["system"] == "whydrift"].groupby(KEYS[:3])["first_other"].min()
    made["best other / this"] = [
        round(float(best.get((f, b, r), np.nan)) / first, 2) if system == "whydrift" else np.nan
        for f, b, r, system, first in made[[*KEYS, "first"]].itertuples(index=False)
    ]
    made[numbers] = made[numbers].apply(lambda column: column.map(lambda value: float(f"{value:.3g}")))
    if path.exists():
        old = pd.read_csv(path)
        same = old[KEYS].apply(tuple, axis=1).isin(set(made[KEYS].apply(tuple, axis=1)))
        made = pd.concat([old[~same], made])
    made.to_csv(path, index=False)
    print(made.tail(len(SYSTEMS)).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
