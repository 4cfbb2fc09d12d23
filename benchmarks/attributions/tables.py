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

All numbers below were had on one machine of two cores with AVX-512. In `families` two measurements ran side by side,
each in one thread, one round each; the other studies had the machine to themselves: three rounds of `growth` and
`spark`, five of `summarise`, one of `whole`. What took more than five minutes was stopped and has no line: woodelf on
the forest (tried on another machine), and on LightGBM against 50,000 rows; CatBoost's own on 100,000 rows against
1,000, and against 50,000.
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
