"""How long the whole of a window takes: `whydrift profile`, and what a user writes today of shap and Evidently.

    python benchmarks/attributions/whole.py [--rounds 3] [--rows 1000000]

The window is a day's log of Parquet files, 50 features, and the model is XGBoost, 500 trees of depth 6. Each system is
a process of its own on all cores, from the files to its result:

- `profile`: to the stored summary, of 10 slices, with `explainer.rows` auto and all;
- `shap, Evidently`: pandas.read_parquet, shap.TreeExplainer, and Evidently's drift report on the features, their
  attributions and the score, beside a reference of 100,000 rows whose attributions are given to it; of all rows, and of
  as many as `auto` explained;
- `Evidently`: the report on the features and the score alone;
- `NannyML`: its univariate drift of the features, fitted to the same reference, in an environment of its own.

Of all rows shap would need most of an hour: it explains 20,000 of them, its time is scaled to all, since rows cost it
the same each, and the report gets these attributions over and over. `seconds` are medians over the rounds, one round
of what needs minutes; `mib` is the largest resident memory, and what shap itself would need for all rows is not in it.
`times` are the seconds over those of the profile that explained as many rows; of NannyML and Evidently, of `auto`.
Table: `whole.csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
TABLE = HERE / "whole.csv"
WORK = HERE.parents[1] / ".cache" / "growth"
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
FEATURES, TREES, SLICES = 50, 500, 10
REFERENCE, SHAP_ROWS = 100_000, 20_000
BOTH, REPORT, NANNY = "shap, Evidently", "Evidently", "NannyML"


def read_day(work: Path, rows: int) -> pd.DataFrame:
    """The features and the score of the last day, or of as many of its rows."""
    home = max((work / "logs").iterdir())
    return pd.read_parquet(home).drop(columns=["event_id", "event_time", "day"], errors="ignore").head(rows)


def explain_and_report(work: Path, rows: int) -> dict[str, float]:
    """Seconds of shap for its rows, and for how many rows these stand."""
    import shap
    import xgboost

    frame, model = read_day(work, rows), xgboost.XGBClassifier()
    model.load_model(work / "model.ubj")
    begun = perf_counter()
    inputs = frame.drop(columns="prediction")
    values = shap.TreeExplainer(model).shap_values(inputs.head(SHAP_ROWS) if rows > 5 * SHAP_ROWS else inputs)
    seconds = perf_counter() - begun
    names = [f"attribution of {name}" for name in inputs]
    attributed = pd.DataFrame(np.resize(values, (len(frame), len(names))), columns=names)
    _report(pd.concat([frame, attributed], axis=1), pd.read_parquet(work / "reference.parquet"))
    return {"shap": seconds, "scale": len(frame) / len(values)}


def report(work: Path, rows: int) -> dict[str, float]:
    frame = read_day(work, rows)
    _report(frame, pd.read_parquet(work / "reference.parquet", columns=list(frame)))
    return {}


def _report(frame: pd.DataFrame, reference: pd.DataFrame) -> None:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    Report([DataDriftPreset()]).run(frame, reference).dict()


def univariate(work: Path, rows: int) -> dict[str, float]:
    import nannyml

    frame = read_day(work, rows).drop(columns="prediction")
    calculator = nannyml.UnivariateDriftCalculator(column_names=list(frame), chunk_number=1)
    calculator.fit(pd.read_parquet(work / "reference.parquet", columns=list(frame)))
    calculator.calculate(frame).to_df()
    return {}


PARTS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    BOTH: explain_and_report,
    REPORT: report,
    NANNY: univariate,
}


def prepare(rows: int) -> list[str]:
    """Write the logs, and explain the reference; the names of the features."""
    import xgboost
    from growth import DAYS, register, write_log

    from whydrift.pipelines.explainers.choose import choose

    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    model, names = register(WORK, FEATURES, TREES)
    for day in DAYS:
        write_log(WORK, day, rows, model, names)
    frame = pd.read_parquet(min((WORK / "logs").iterdir())).drop(columns=["event_id", "event_time"]).head(REFERENCE)
    booster = xgboost.Booster(model_file=model)
    inputs = frame[names].astype(np.float64)
    explainer = choose(
        booster, method="auto", task="binary", background=inputs.head(100), features=names, rows=REFERENCE
    )
    values = pd.DataFrame(explainer.explain(inputs).values, columns=[f"attribution of {name}" for name in names])
    pd.concat([frame, values.astype(np.float32)], axis=1).to_parquet(WORK / "reference.parquet")
    return names


def apart(system: str, rows: int) -> dict[str, float]:
    """A part's measures in a process of its own, with shap's time scaled to the rows that it stands for."""
    from growth import measure

    python = str(PEERS) if system == NANNY else sys.executable
    said = WORK / "said.json"
    found = measure([python, __file__, "--part", system, "--rows", str(rows), "--said", str(said)])
    told: dict[str, float] = json.loads(said.read_text())
    found["seconds"] += told.get("shap", 0.0) * (told.get("scale", 1.0) - 1)
    return {**found, **({"shap": told["shap"] * told["scale"]} if told else {})}


def run(rows: int, rounds: int) -> pd.DataFrame:
    """All systems' measurements."""
    from growth import configure, measure, profile, read_summary

    found: list[dict[str, Any]] = []
    names = prepare(rows)
    for asked in ("auto", "all"):
        config = configure(WORK, names, SLICES, asked)
        for _ in range(rounds):
            one = {"system": "profile", "asked": asked, **measure(profile(config))}
            found.append({**one, "explained": read_summary(WORK, asked)["explained"]})
            print(found[-1], flush=True)
    sampled = next(int(one["explained"]) for one in found if one["asked"] == "auto")
    for system, count, explained in (
        (BOTH, rows, rows),
        (BOTH, sampled, sampled),
        (REPORT, rows, 0),
        (NANNY, rows, 0),
    ):
        asked = "auto" if count < rows or not explained else "all"
        found.append({"system": system, "asked": asked, "explained": explained, **apart(system, count)})
        print(found[-1], flush=True)
    shutil.rmtree(WORK)
    return pd.DataFrame(found)


def write(found: pd.DataFrame, rows: int) -> None:
    made = found.groupby(["system", "asked"], sort=False).median().reset_index()
    own = made[made["system"] == "profile"].set_index("asked")["seconds"]
    made["times"] = made["seconds"] / made["asked"].map(own)
    made["times_auto"] = made["seconds"] / own["auto"]
    made.insert(0, "rows", rows)
    made.round({"seconds": 1, "cpu": 1, "mib": 0, "shap": 1, "times": 1, "times_auto": 1}).to_csv(TABLE, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--said", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        asked.said.write_text(json.dumps(PARTS[asked.part](WORK, asked.rows)))
    else:
        write(run(asked.rows, asked.rounds), asked.rows)


if __name__ == "__main__":
    main()
