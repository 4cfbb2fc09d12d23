"""Label-free estimates on NannyML's car loan log, beside the estimates that NannyML publishes for it.

    python benchmarks/evidence/carloan.py data.parquet published_values.csv

50,000 reference and 50,000 production rows, in chunks of 5,000 as NannyML's own example cuts them. `data.parquet` has
the columns of that example, `period`, `timestamp`, `repaid` and `y_pred_proba` among them, `published_values.csv` the
chunks' `roc_auc|value`. The truth is that of the rows. Deterministic; takes seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from whydrift.monitors.binning import fit_bins
from whydrift.monitors.calibration import MESH, split
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.performance import (
    expect,
    most_moved,
    read_joint,
    recalibrate,
    reweigh,
    summarise_joint,
    x_cells,
)
from whydrift.monitors.summary import Explained, Layout, Outcomes

CHUNK = 5000
INPUTS = [
    "car_value",
    "salary_range",
    "debt_to_income_ratio",
    "loan_length",
    "repaid_loan_on_prev_car",
    "size_of_downpayment",
    "driver_tenure",
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate without labels, and compare with the labels.")
    parser.add_argument("data", type=Path, help="the car loan log, Parquet")
    parser.add_argument("published", type=Path, help="NannyML's published chunk values, CSV")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the tables")
    options = parser.parse_args()
    chunks = estimate(pd.read_parquet(options.data))
    chunks["auroc_nannyml"] = pd.read_csv(options.published)["roc_auc|value"]
    chunks.round(6).to_csv(options.out / "carloan.csv", index=False)
    text = report(chunks)
    (options.out / "carloan.md").write_text(text, encoding="utf-8")
    print(text)


def estimate(log: pd.DataFrame) -> pd.DataFrame:
    """A row a production chunk: truth and estimates of each metric."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    log = log.sort_values("timestamp", kind="stable", ignore_index=True)
    reference = log[log["period"] == "reference"].reset_index(drop=True)
    production = log[log["period"] == "production"].reset_index(drop=True)
    layout = Layout(
        task="binary",
        link="identity",
        scale=1.0,
        loss_scale=1.0,
        features=tuple(fit_bins(name, inputs(reference)[name]) for name in INPUTS),
        attributions=tuple(fit_bins(name, pd.Series([0.0])) for name in INPUTS),
        slices=(),
    )
    joint = read_joint(summarise_joint(outcomes(reference), layout).frame(), layout)
    p, y = scores(reference)
    rate = recalibrate(mesh(p), mesh(p, y))
    before = x_cells(window(reference, layout), layout)
    rows = []
    for start in range(0, len(production), CHUNK):
        chunk = production.iloc[start : start + CHUNK]
        p, y = scores(chunk)
        now = x_cells(window(chunk, layout), layout)
        moved = most_moved(now, before)
        truth = {
            "auroc": roc_auc_score(y, p),
            "accuracy": float(((p >= 0.5) == (y > 0)).mean()),
            "brier": brier_score_loss(y, p),
        }
        estimates = {
            "cbpe": expect(mesh(p), rate),
            "pape": expect(mesh(p), reweigh(rate, joint, moved, now[moved])),
            "pape_rows": expect(mesh(p), by_rows(reference, chunk)),
        }
        rows.append(
            {
                "chunk": f"{start}-{start + len(chunk) - 1}",
                **{f"{metric}_truth": value for metric, value in truth.items()},
                **{f"{metric}_{name}": getattr(e, metric) for name, e in estimates.items() for metric in truth},
                "pape_feature": INPUTS[moved],
            }
        )
    return pd.DataFrame(rows)


def by_rows(reference: pd.DataFrame, chunk: pd.DataFrame) -> np.ndarray:
    """Rates by PAPE as it was published: reference rows weighted by a classifier that tells them from the chunk's."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = pd.concat([numbers(reference), numbers(chunk)], ignore_index=True)
    domain = np.repeat([0, 1], [len(reference), len(chunk)])
    odds = HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(x, domain).predict_proba(x)[: len(reference)]
    p, y = scores(reference)
    weight = odds[:, 1] / odds[:, 0]
    return recalibrate(mesh(p, weight), mesh(p, weight * y))


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[INPUTS].apply(lambda c: c.cat.codes if isinstance(c.dtype, pd.CategoricalDtype) else c.astype(float))


def inputs(frame: pd.DataFrame) -> pd.DataFrame:
    strings = [c for c in INPUTS if not pd.api.types.is_float_dtype(frame[c])]
    return frame[INPUTS].astype(dict.fromkeys(strings, "string"))


def scores(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame["y_pred_proba"].to_numpy(float), frame["repaid"].to_numpy(float)


def outcomes(frame: pd.DataFrame) -> Outcomes:
    p, y = scores(frame)
    return Outcomes(inputs(frame), p, np.ones(p.size), y)


def window(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    p, _ = scores(frame)
    nothing = np.zeros((p.size, len(INPUTS)))
    return summarise(Explained(inputs(frame), p, np.ones(p.size), nothing, p, 0.0), layout).frame()


def mesh(p: np.ndarray, amount: np.ndarray | float = 1.0) -> np.ndarray:
    low, upper = split(p)
    weight = np.broadcast_to(amount, p.shape)
    return np.bincount(low, weight * (1 - upper), MESH) + np.bincount(low + 1, weight * upper, MESH)


def report(chunks: pd.DataFrame) -> str:
    """Mean absolute errors, in Markdown."""
    lines = [
        "# Car loan: performance estimated without labels",
        "",
        f"Mean absolute error over {len(chunks)} production chunks of {CHUNK:,} rows; the inputs move after the fifth.",
        "",
        "| metric | CBPE from the mesh | PAPE from sums, one feature | PAPE from rows | NannyML's CBPE, published |",
        "|---|---|---|---|---|",
    ]
    for metric in ("auroc", "accuracy", "brier"):
        errors = [
            f"{(chunks[name] - chunks[f'{metric}_truth']).abs().mean():.5f}" if name in chunks else "–"
            for name in (f"{metric}_{name}" for name in ("cbpe", "pape", "pape_rows", "nannyml"))
        ]
        lines.append(f"| {metric} | {' | '.join(errors)} |")
    gap = (chunks["auroc_cbpe"] - chunks["auroc_nannyml"]).abs().max()
    lines += [
        "",
        f"CBPE from sums over 200 scores and NannyML's from rows are at most {gap:.1g} apart in any chunk's AUROC.",
        "PAPE is worse on this log, from rows too: after the fifth chunk the same scores and inputs come true at other",
        "rates than in the reference period, which no method without labels can know.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
