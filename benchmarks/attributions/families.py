"""How long explaining takes, by model family, rows and background, beside shap and the libraries' own attributions.

    python benchmarks/attributions/families.py [--rounds 1] [--family NAME] [--system NAME]

A family, a background and a system are a process of their own, in one thread, that loads a model and explains windows
of each size; ours are a process for each size, since its `auto` chooses by it. `first` has the set-up in it, as the
first window of a job has, `again` is what a further window costs, the median of as many calls as fit half a second,
and `peak` is the largest resident memory of the process up to then. Systems take turns, and the medians over rounds
are written. Where a window would take shap or a library more than ten seconds, `explained` of its rows are, and the
time is scaled to all, since rows cost these the same each; CatBoost's own, woodelf and ours are timed on all rows, but
for the network. A process is stopped after five minutes, and what it has measured by then is kept. shap is told to take
the whole background; an array alone it samples down to 100 rows. `other / this` is, of ours, what the fastest other
system needs, over ours: above 1 ours is faster. Table: `families.csv`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from models import FAMILIES, FEATURES, draw, train

HERE = Path(__file__).parent
TABLE = HERE / "families.csv"
WORK = HERE.parents[1] / ".cache" / "attributions"
PATH_DEPENDENT = 0  # background rows
ROWS = (1_000, 10_000, 100_000)
BACKGROUNDS = (PATH_DEPENDENT, 100, 1_000, 50_000)
LIMIT = 10.0  # seconds of a window
PATIENCE = 300.0  # seconds of a system
ENOUGH = 0.5  # seconds that a further window is timed for: one of milliseconds says little
PILOT_PAIRS = 20_000  # rows x background rows whose time says how many fit, at most 200 rows
KEYS = ["family", "background", "rows", "system"]
NETWORK = "mlp"  # which is sampled: the background is 100 rows

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
        if background is None:
            background = draw(1_000, seed=2, gaps=False)[0]
        if type(model.steps[-1][1]).__name__ == "MLPClassifier":
            walks = package.PermutationExplainer(lambda rows: model.predict_proba(rows)[:, 1], background, seed=0)
            return lambda rows: walks(rows, max_evals=2 * len(FEATURES) + 1, silent=True)
        linear = package.LinearExplainer(model.steps[-1][1], model[:-1].transform(background))
        return lambda rows: linear.shap_values(model[:-1].transform(rows))
    if background is None:
        trees = package.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    else:  # an array alone it samples down to 100 rows
        masker = package.maskers.Independent(background, max_samples=len(background))
        trees = package.TreeExplainer(model, data=masker, feature_perturbation="interventional")
    return lambda rows: trees.shap_values(rows, check_additivity=False)


def native(model: Any, background: pd.DataFrame | None, _: int) -> Explain | None:
    kind = type(model).__name__
    if kind == "CatBoostClassifier":
        import catboost

        def pool(rows: pd.DataFrame) -> Any:  # beside a reference it asks for labels, of which it makes no use
            return catboost.Pool(rows, label=None if background is None else np.arange(len(rows)) % 2)

        reference = None if background is None else pool(background)
        return lambda rows: model.get_feature_importance(
            pool(rows), type="ShapValues", reference_data=reference, thread_count=1
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


def measure(family: str, background: int, system: str, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """One system's times in this process, for windows of growing sizes; none where it cannot."""
    path, gaps = WORK / f"{family}.skops", FAMILIES[family][1]
    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))  # this benchmark's own
    behind = draw(background, seed=2, gaps=gaps)[0] if background else None
    start = perf_counter()
    explain = SYSTEMS[system](model, behind, sizes[0])
    made = perf_counter() - start
    if explain is None:
        return
    frame, _ = draw(sizes[-1], seed=3, gaps=gaps)
    timed, fits = 0, len(frame)
    # Its set-up comes with every call, by shap as well unless there is a background.
    own_catboost = "catboost" in family and (system == "native" or not background)
    if (system in {"shap", "native"} and not own_catboost) or family == NETWORK:
        pilot = min(max(PILOT_PAIRS // max(background, 1), 1), 200)
        explain(frame.head(min(pilot, 2)))  # compiles, imports, makes tables
        start = perf_counter()
        explain(frame.head(pilot))
        fits = max(pilot, int(LIMIT * pilot / (perf_counter() - start)))
    seconds = 0.0
    for rows in sizes:
        count = min(rows, fits)
        if count > timed:
            seconds, timed = _time(explain, frame.head(count)) / count, count
        # Of a system that has run its pilot the set-up that comes with the first rows is left out, to its advantage.
        again = seconds * rows if count < rows or seconds * rows > LIMIT else _time_again(explain, frame.head(count))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        first = made + (seconds * rows if rows == sizes[0] else again)
        yield {"rows": rows, "explained": count, "first": first, "again": again, "peak": peak}


def _time(explain: Explain, rows: pd.DataFrame) -> float:
    start = perf_counter()
    explain(rows)
    return perf_counter() - start


def _time_again(explain: Explain, rows: pd.DataFrame) -> float:
    times = [_time(explain, rows)]
    while sum(times) < ENOUGH:
        times.append(_time(explain, rows))
    return float(np.median(times))


def run(family: str, background: int, system: str, sizes: list[int]) -> list[dict[str, Any]]:
    """The same in a process of its own, which is stopped where it takes too long, and what it has found by then."""
    one = dict(os.environ, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    command = [sys.executable, __file__, "--one", json.dumps([family, background, system, sizes])]
    with subprocess.Popen(command, env=one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, said = process.communicate()
            said += f"stopped after {PATIENCE:g} seconds"
    if process.returncode:
        print(family, background, system, said[-500:], file=sys.stderr)
    chosen = [line.removeprefix("chosen: ") for line in said.splitlines() if line.startswith("chosen: ")]
    about = {"family": family, "background": background, "system": system, "explainer": (chosen or [""])[0]}
    return [{**about, **json.loads(line)} for line in out.splitlines() if line.startswith('{"rows"')]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--family", choices=list(FAMILIES))
    parser.add_argument("--system", choices=list(SYSTEMS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        for one in measure(*json.loads(asked.one)):
            print(json.dumps(one), flush=True)
        return
    WORK.mkdir(parents=True, exist_ok=True)
    for family in [asked.family] if asked.family else FAMILIES:
        path = WORK / f"{family}.skops"
        if not path.exists():
            skops.io.dump(train(family), path)
        for background in BACKGROUNDS[1:2] if family == NETWORK else BACKGROUNDS:
            turns = [("whydrift", [rows]) for rows in ROWS] + [(name, [*ROWS]) for name in list(SYSTEMS)[1:]]
            turns = [turn for turn in turns if asked.system in {None, turn[0]}]
            found = pd.DataFrame([one for turn in turns * asked.rounds for one in run(family, background, *turn)])
            if len(found):
                _write(found)


def _write(found: pd.DataFrame) -> None:
    """The medians, in place of those that the table had of the same measurements, and how ours compare."""
    numbers = ["explained", "first", "again", "peak"]
    how = {**dict.fromkeys(numbers, "median"), "explainer": "first"}
    made = found.groupby(KEYS, sort=False).agg(how).reset_index()
    made[numbers] = made[numbers].apply(lambda column: column.map(lambda value: float(f"{value:.3g}")))
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        kept = old[~old[KEYS].apply(tuple, axis=1).isin(set(made[KEYS].apply(tuple, axis=1)))]
        made = pd.concat([kept, made], ignore_index=True)
    own = made["system"] == "whydrift"
    for column in ("first", "again"):
        best = made[column].where(~own).groupby([made[key] for key in KEYS[:3]]).transform("min")
        made[f"other / this, {column}"] = (best / made[column]).where(own).round(2)
    made.to_csv(TABLE, index=False)
    print(made.tail(len(found)).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
