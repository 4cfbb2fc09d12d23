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
study only. In `families` all is of the second machine, which is slower and has no AVX-512, but for CatBoost
interventionally, the forest path-dependent, and woodelf on LightGBM against 1,000 rows, which took the second machine
more than five minutes. Two measurements ran side by side, each in one thread, one round each; two or three of ours for
LightGBM and HistGradientBoosting, and of CatBoost path-dependent. `summarise` had the second machine to itself, where
two threads get the worth of one core or of two from one minute to the next; `whole` and `growth` of 10 M rows are one
round each on it. `spark` is one round of the first machine beside other work, of a million rows a sample of about
10,000 that an earlier baseline asked for. Not measured: the forest interventionally but for one window of 1,000 rows
against 100, for which woodelf was stopped after five minutes; LightGBM with woodelf against 50,000 rows, stopped
likewise; `growth` at other sizes; `spark` of a million rows with all explained.
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
