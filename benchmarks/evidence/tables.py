"""Write benchmarks/README.md from the studies' docstrings and tables.

python benchmarks/evidence/tables.py
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from streams import NULLS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"

INTRODUCTION = """# Benchmarks of the evidence

`make bench-evidence` runs what is missing, from nothing about a day of one core, and writes this page; it may be killed
and started again at any time. All numbers are also in the CSV file beside the study that made them.
"""


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub reads it: numbers to the right, nothing where a number is not known."""
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    lines = [list(table), ["--:" if right else "---" for right in numeric]]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        if np.isnan(value):
            return ""
        return "never" if np.isinf(value) else f"{value:g}"
    return str(value)


def null() -> str:
    found = pd.read_csv(HERE / "null.csv")
    found["cell"] = [f"m={m}, D={d}" for m, d in found[["streams", "baseline"]].to_numpy()]
    found["shown"] = [f"{p:.2f} [{a:.2f}, {b:.2f}]" for p, a, b in found[["pages", "lower", "upper"]].to_numpy()]
    parts = ["The nulls:", markdown(pd.DataFrame([asdict(null) for null in NULLS]))]
    for threshold, own in found.groupby("threshold", sort=False):
        wide = own.pivot_table(index="null", columns="cell", values="shown", aggfunc="first", sort=False)
        runs, pages, tickets = (own[name] for name in ("runs", "pages", "tickets_a_week"))
        worst = own.loc[own["upper"].idxmax()]
        head = f"False pages in 90 windows [95 %], {threshold} threshold, {runs.min()} to {runs.max()} runs a cell:"
        foot = (
            f"From {pages.min():.2f} to {pages.max():.2f}. The largest upper limit is {worst['upper']:.2f}: "
            f"{worst['null']}, m={worst['streams']}, D={worst['baseline']}. Median thresholds: "
            f"{own['median_threshold'].min():g} to {own['median_threshold'].max():g}. False tickets a week, with a "
            f"budget of one: {tickets.min():.2f} to {tickets.max():.2f}."
        )
        parts += [head, markdown(wide.reset_index()), foot]
    return "\n\n".join(parts)


def delay() -> str:
    found = pd.read_csv(HERE / "delay.csv")
    parts = []
    found["shown"] = [f"{_cell(m)} [{_cell(q)}]" for m, q in found[["median", "q90"]].to_numpy()]
    for background, own in found.groupby("background", sort=False):
        keys = ["system", "limit", "false_alarms"]
        wide = own.pivot_table(index=keys, columns="change", values="shown", aggfunc="first", sort=False)
        parts.append(f"Background **{background}**: median delay [90 % quantile].\n\n{markdown(wide.reset_index())}")
    named = found[found["system"] == "whydrift, guaranteed"]
    wide = named.pivot_table(index="background", columns="change", values="top1", aggfunc="first", sort=False)
    parts.append(f"The page leads with a stream that moved (guaranteed):\n\n{markdown(wide.reset_index())}")
    return "\n\n".join([*parts, _ratios(found)])


def _ratios(found: pd.DataFrame) -> str:
    """The tuned detector's mean delay by those of the tuned rules: of few whole windows medians say too little."""
    means = found.pivot_table(
        index=["background", "change"], columns="system", values="mean", aggfunc="first", sort=False
    )
    own = means["whydrift, tuned"]
    rules = [name for name in means if " tuned, " in name]
    ratios = pd.DataFrame({f"by {name}": (own / means[name]).round(2) for name in rules}).reset_index()
    head = (
        "Mean delay of the detector, tuned, divided by that of each rule, tuned; what was missed counts as 120 windows."
    )
    return f"{head}\n\n{markdown(ratios)}"


def sensitivity() -> str:
    return markdown(pd.read_csv(HERE / "sensitivity.csv"))


def peers() -> str:
    found = pd.read_csv(HERE / "peers.csv")
    changes = [name for name in found if f"{name}: delay" in found]
    for name in changes:
        pairs = zip(found[name], found[f"{name}: delay"], strict=True)
        found[name] = [f"{share:.0%} ({_cell(later)})" for share, later in pairs]
    keys = ["rule", "setting", "limit", "seeds", "alarm_days", "alarms"]
    head = "Of each change: how many runs were found within 14 days (median delay of all, in days)."
    if absent := [name for name in ("Evidently", "SWIFT") if not found["rule"].str.contains(name).any()]:
        head += f" Not run yet, because it takes hours: {' and '.join(absent)}."
    return f"{head}\n\n{markdown(found[keys + changes])}"


STUDIES: dict[str, Callable[[], str]] = {"null": null, "delay": delay, "sensitivity": sensitivity, "peers": peers}
OTHERS = ("causes", "carloan", "hotel", "flights_year", "flights_peers")


def section(study: str) -> str:
    """A study's docstring, its first sentence as the heading, and its tables."""
    text = ast.get_docstring(ast.parse((HERE / f"{study}.py").read_text(encoding="utf-8"))) or study
    head, _, rest = text.partition("\n\n")
    shown = STUDIES[study]() if study in STUDIES else "\n".join(_files(study))
    return f"## {study}.py\n\n{head}\n\n{rest}\n\n{shown}\n"


def _files(study: str) -> list[str]:
    return [f"- [{path.name}](evidence/{path.name})" for path in sorted(HERE.glob(f"{study}*.[cm][sd]*"))]


def page() -> str:
    """The studies whose tables there are."""
    parts = [section(study) for study in [*STUDIES, *OTHERS] if _files(study)]
    return "\n".join([INTRODUCTION, *parts])


def main() -> None:
    README.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
