"""Write benchmarks/attributions/README.md from the docstrings of what measures, and its tables.

python benchmarks/attributions/tables.py
"""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
from models import FAMILIES

HERE = Path(__file__).parent

INTRODUCTION = """# Benchmarks of attributions

`make bench-attributions` runs all of them, which takes some hours of an idle machine, and writes this page. All numbers
are also in the CSV file beside the script that made them. What carries over to other machines is ratios.

How the numbers below were had, on two machines of two cores each, so that absolute times compare within a family and a
study only. In `families`, CatBoost path-dependent and the logistic model (three rounds each), the network, and LightGBM
interventionally (but for woodelf, and for ours of 100,000 rows against 100) are of the second machine, which is slower
and has no AVX-512; the rest of `families` (one round), `whole`, `growth` and `spark` are of the first. Two measurements
ran side by side, each in one thread. `summarise` had the second machine to itself, where two threads got the worth of
one core or of two from one minute to the next: 1 M rows of 50 features and 10 slices took 12 to 18 times as long as
reading. `spark` is one round beside other work, of a million rows a sample of about 10,000 that an earlier baseline
asked for. Not measured: the forest with woodelf, and interventionally but for one window of 1,000 rows against 100;
LightGBM with woodelf against 50,000 rows, which was stopped after some minutes; `growth` at other sizes; `spark` of a
million rows with all explained. `whole` and `growth` are from before reading held less of a Parquet file: profiled
again since, the million rows of `whole` took 11.4 s and 909 MiB under `auto`.

A further window of 10,000 rows of the logistic model takes 3.5 ms where the process has had larger arrays before, as
with 50,000 background rows, and 8.5 ms where it has not: then each window's arrays are fetched from the system anew.
"""


def families() -> pd.DataFrame:
    """Ours in seconds, and the others in times of ours."""
    found = pd.read_csv(HERE / "families.csv")
    found["family"] = pd.Categorical(found["family"], [*FAMILIES])
    found = found.sort_values(["family", "background", "rows"], kind="stable").astype({"family": str})
    keys = ["family", "background", "rows"]
    first = found.pivot_table(index=keys, columns="system", values="first", sort=False)
    own = found[found["system"] == "whydrift"].set_index(keys)
    others = first.drop(columns="whydrift").div(first["whydrift"], axis=0).add_prefix("x ").round(1)
    shown = own[["explainer", "first", "again", "peak"]].rename(columns={"peak": "peak MiB"})
    return shown.join(others).reset_index()


def read(name: str) -> pd.DataFrame:
    return families() if name == "families" else pd.read_csv(HERE / f"{name}.csv")


def section(name: str) -> str:
    said = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text()))
    found = read(name).astype(object)
    table = found.where(found.notna(), "").to_markdown(index=False, floatfmt="g")
    return f"## {name}.py\n\n{said}\n\n{table}\n"


def main() -> None:
    parts = [section(name) for name in ("families", "whole", "growth", "summarise", "spark")]
    (HERE / "README.md").write_text("\n".join([INTRODUCTION, *parts]))


if __name__ == "__main__":
    main()
