"""A real log whose scores were never calibrated: hotel bookings, a deployed model's scores, and what became of them.

    python benchmarks/evidence/hotel.py data.parquet

NannyML publishes the log (bookings: Antonio, de Almeida & Nunes 2019, doi 10.1016/j.dib.2018.11.126): a day of arrival
`timestamp`, the score `y_pred_proba`, the outcome `is_canceled`, and 25 inputs. Its `period` says what is reference,
May to September 2016; production follows until August 2017.

1. Calibration of the reference and of each month of production: from sums over 200 scores, and from rows by relplot,
   MAPIE, scikit-learn and model-diagnostics.
2. Each month's performance, estimated without its labels, and as it was by its rows.
3. The streams of labels, with the bias as a regression has it, in days with the reference as baseline, and in weeks
   with the first 28 as baseline: what the detector says of all of them, slices included, and of the model's own, at the
   guaranteed threshold and at the one that is calibrated on the baseline (generator seeded with 0), and where NannyML's
   mean +- 3 sd of the baseline's windows is left by the same values. Nobody knows which alarm is false.

NannyML is its package, in `benchmarks/.venv-peers`. Deterministic; takes a minute. Table: `hotel.csv`, a line a number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from streams import DAY, HORIZON, watch
from tables import markdown

from whydrift.monitors import performance
from whydrift.monitors.binning import fit_bins
from whydrift.monitors.calibration import POINTS, ScoreMesh, brier, brier_variance, corp, cox, smece
from whydrift.monitors.conformal import fit_residual_edges
from whydrift.monitors.evidence import MIN_BASELINE_WINDOWS, Evidence, Observation, Thresholds, fit
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.outcome_streams import list_outcomes, observe_outcomes, score_mesh
from whydrift.monitors.regression_streams import list_regression, observe_regression
from whydrift.monitors.stream_input import StreamInput
from whydrift.monitors.summary import Explained, Layout, Outcomes, summarise_outcomes
from whydrift.monitors.threshold import calibrate

Line = dict[str, object]  # of the table: part, window, what, by, value

NOT_INPUTS = ("y_pred", "y_pred_proba", "is_canceled", "timestamp", "period")
SLICES = ("hotel", "market_segment", "customer_type")
MEASURES = ("smECE", "ECE", "Cox intercept", "Cox slope", "intercept at slope 1", "Brier", "MCB", "DSC", "UNC")
MEASURES += ("rows", "mean score", "base rate")  # of rows only
ECE_BINS = 15  # of equal width
METRICS = {"auroc": "roc_auc", "accuracy": "accuracy", "brier": None}  # and what NannyML calls them
ESTIMATES = ("naive", "cbpe", "pape", "nannyml")
WINDOWS = {"day": "D", "week": "W-SAT"}  # the log begins on a Sunday
QUARTER = HORIZON * DAY  # in which one page may be false; of tickets, one in a week

SAYS = """The scores average .24 and 3 % come true. In production the calibration is as bad as in the reference, and
worse in winter: the scores rise to .32, and but for February no more comes true.

- Sums over 200 scores lose nothing that matters here. The AUROC by CBPE is up to .003 lower than from rows: that is how
  isotonic regression on 200 points differs from that on rows, and hardly the windows' sums.
- Scores trusted as they are miss accuracy and Brier score by 6 and 7 sampling sd, recalibrated ones by less than one.
  AUROC: 2.7 and 1.4; no estimate saw December and January, when the model ranked worse. PAPE is no better than CBPE.
- In days, smECE, loss and bias page on 24 November, and NannyML's rule alarms on them on 9 December. In weeks its alarm
  is of 20 November, as is the calibrated page; the guaranteed one is later. In days, every detector pages between
  April and July as well, for a bias that is near the reference's again: it had learned the winter's.
- With slices, two that seldom have enough rows to be judged open a page on 31 December. It stays open for 43 days, and
  no other can open in January, the worst month."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores that were never calibrated.")
    parser.add_argument("data", type=Path, help="the log, Parquet")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the tables")
    parser.add_argument("--nannyml", type=Path, help="folder, where the script calls itself in NannyML's environment")
    options = parser.parse_args()
    log = pd.read_parquet(options.data)
    if options.nannyml:
        (options.nannyml / "said.json").write_text(json.dumps(nannyml(log, options.nannyml)), encoding="utf-8")
        return
    layout = lay_out(log[log["period"] == "reference"])
    watched = [follow(log, layout, every) for every in WINDOWS]
    said = ask_nannyml(options.data, watched)
    lines = [*calibration(log, layout), *estimates(log, layout, said), *alarms(watched, said)]
    table = pd.DataFrame(lines, columns=["part", "window", "what", "by", "value"])
    table["value"] = table["value"].astype(float).round(6)
    table.to_csv(options.out / "hotel.csv", index=False)
    parts = [
        "# Hotel bookings: scores that were never calibrated",
        SAYS,
        "## Calibration, by sums over 200 scores",
        *tell_calibration(table[table["part"] == "calibration"]),
        "## Performance without labels",
        *tell_estimates(table[table["part"] == "estimate"]),
        *(part for one in watched for part in tell_alarms(table[table["part"] == one.every], one)),
    ]
    (options.out / "hotel.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def lay_out(reference: pd.DataFrame) -> Layout:
    """As a baseline of a classifier does, with the residuals' quantiles that a regression has, for the bias."""
    x, (p, y) = inputs(reference), scores(reference)
    return Layout(
        task="binary",
        link="identity",
        scale=1.0,
        loss_scale=1.0,
        features=tuple(fit_bins(name, x[name]) for name in x),
        attributions=tuple(fit_bins(name, pd.Series([0.0])) for name in x),
        slices=SLICES,
        residual_edges=fit_residual_edges(y - p, np.ones(p.size)),
    )


def inputs(frame: pd.DataFrame) -> pd.DataFrame:
    own = frame.drop(columns=list(NOT_INPUTS))
    numbers = own.select_dtypes("number").columns
    return own.astype({name: "float64" if name in numbers else "string" for name in own})


def scores(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame["y_pred_proba"].to_numpy(float), frame["is_canceled"].to_numpy(float)


def labelled(frame: pd.DataFrame) -> Outcomes:
    p, y = scores(frame)
    return Outcomes(inputs(frame), p, np.ones(p.size), y)


def outcomes(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    return summarise_outcomes(labelled(frame), layout).frame()


def unlabelled(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The summary of rows without their labels, and without attributions."""
    p, nothing = scores(frame)[0], np.zeros((len(frame), len(layout.features)))
    return summarise(Explained(inputs(frame), p, np.ones(p.size), nothing, p, 0.0), layout).frame()


def periods(log: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The reference, then each month of production."""
    month = log["timestamp"].dt.strftime("%Y-%m").where(log["period"] == "production", "reference")
    yield from ((str(period), frame.reset_index(drop=True)) for period, frame in log.groupby(month, sort=False))


def calibration(log: pd.DataFrame, layout: Layout) -> Iterator[Line]:
    for period, frame in periods(log):
        p, y = scores(frame)
        told = {"mesh": from_mesh(score_mesh(outcomes(frame, layout))), "rows": from_rows(p, y)}
        told["rows"] += (p.size, p.mean(), y.mean())
        for by, values in told.items():
            own = {"part": "calibration", "window": period, "by": by}
            yield from ({**own, "what": what, "value": value} for what, value in zip(MEASURES, values, strict=False))


def from_mesh(mesh: ScoreMesh) -> tuple[float, ...]:
    told = cox(mesh)
    logistic = (told.intercept, told.slope, told.intercept_at_slope_one)
    return smece(mesh), ece(mesh), *logistic, brier(mesh), *corp(mesh)


def ece(mesh: ScoreMesh) -> float:
    """The expected calibration error as it is commonly computed (Naeini et al. 2015), of points instead of rows."""
    bins = np.minimum((POINTS * ECE_BINS).astype(int), ECE_BINS - 1)
    gap = np.bincount(bins, mesh.labelled * POINTS - mesh.positive)
    return float(np.abs(gap).sum() / mesh.labelled.sum())


def from_rows(p: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """The same by other packages, each on the rows."""
    import relplot
    from mapie.metrics.calibration import expected_calibration_error
    from model_diagnostics.scoring import SquaredError, decompose
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss

    odds, binned = logit(p), expected_calibration_error(y, p, num_bins=ECE_BINS, split_strategy="uniform")
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], y)
    large = brentq(lambda shift: float((expit(shift + odds) - y).sum()), -30, 30, xtol=1e-12)
    parts = decompose(y, p, scoring_function=SquaredError()).row(0, named=True)
    logistic = (fitted.intercept_[0], fitted.coef_[0, 0], large)
    names = ("miscalibration", "discrimination", "uncertainty")
    return relplot.smECE(p, y), binned, *logistic, brier_score_loss(y, p), *(parts[name] for name in names)


def estimates(log: pd.DataFrame, layout: Layout, said: dict[str, Any]) -> Iterator[Line]:
    """Of each month: from its scores as they are, recalibrated, and recalibrated on reweighted rows; NannyML's too."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    (_, reference), *months = periods(log)
    rate = performance.usual_rates([outcomes(reference, layout)])
    joint = performance.read_joint(performance.summarise_joint(labelled(reference), layout).frame(), layout)
    before = performance.x_cells(unlabelled(reference, layout), layout)
    for month, frame in months:
        p, y = scores(frame)
        summary = unlabelled(frame, layout)
        weight, now = performance.mesh_of(summary, "score", "weight"), performance.x_cells(summary, layout)
        moved = performance.most_moved(now, before)
        pape = performance.reweigh(rate, joint, moved, now[moved])
        told = {by: performance.expect(weight, r) for by, r in {"naive": POINTS, "cbpe": rate, "pape": pape}.items()}
        truth = (roc_auc_score(y, p), ((p >= 0.5) == (y > 0)).mean(), brier_score_loss(y, p))
        error = {"sampling sd": np.sqrt(brier_variance(score_mesh(outcomes(frame, layout))))}
        for (metric, their_name), value in zip(METRICS.items(), truth, strict=True):
            values = {"truth": value, **{by: getattr(each, metric) for by, each in told.items()}}
            values |= said["cbpe"][their_name][month] if their_name else error
            own = {"part": "estimate", "window": month, "what": metric}
            yield from ({**own, "by": by, "value": value} for by, value in values.items())
        yield {"part": "estimate", "window": month, "what": f"reweighted by {layout.names[moved]}", "by": "pape"}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a detector over some of the streams, by number, says of every window after the baseline."""

    name: str
    streams: tuple[int, ...]
    page: float
    said: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """All windows of the log, a row of values each, by date; the first `baseline` of them are in the baseline."""

    every: str
    baseline: int
    values: pd.DataFrame
    rules: tuple[Rule, ...]

    @property
    def after(self) -> list[str]:
        return list(self.values.index[self.baseline :])


def follow(log: pd.DataFrame, layout: Layout, every: str) -> Watched:
    width = DAY if every == "day" else 7 * DAY
    streams = (*list_outcomes(layout), *(s for s in list_regression(layout) if s.kind == "bias"))
    labels = (*(f"{s.kind} of {s.slice}" if s.slice else s.kind for s in streams), "auroc", "accuracy")
    whole = int((log["timestamp"].max() - log["timestamp"].min() + DAY) / width)  # the last week is torn
    windows = list(observe(log, layout, every))[:whole]
    reference = log.loc[log["period"] == "reference", "timestamp"].nunique()
    baseline = reference if every == "day" else MIN_BASELINE_WINDOWS
    own = [j for j, stream in enumerate(streams) if stream.slice is None]
    rules = []
    for which, chosen in {"all streams": list(range(len(streams))), "the model's own": own}.items():
        some = [streams[j] for j in chosen]
        seen = [Observation(w.start, w.values[chosen], w.variances[chosen]) for w in windows]
        lowest = calibrate(some, seen[:baseline], width, 1.0, QUARTER, np.random.default_rng(0)).threshold
        for kind, page in {"guaranteed": QUARTER / width, "calibrated": lowest}.items():
            detector = fit(some, seen[:baseline], width, Thresholds(page=page, ticket=7 * DAY / width))
            rules.append(Rule(f"{which}, {kind}", tuple(chosen), page, tuple(watch(detector, seen[baseline:]))))
    values = pd.DataFrame([w.values for w in windows], columns=labels, index=[f"{w.start:%F}" for w in windows])
    return Watched(every, baseline, values, tuple(rules))


def observe(log: pd.DataFrame, layout: Layout, every: str) -> Iterator[Observation]:
    """Each window's values of the streams that labels feed, which are there at once; then AUROC and accuracy."""
    for window, frame in log.groupby(log["timestamp"].dt.to_period(WINDOWS[every])):
        own = outcomes(frame, layout)
        start = window.start_time.tz_localize("UTC").to_pydatetime()
        seen = StreamInput(start, own, None, own, None)  # of labels alone, which need no baseline
        late, (bias, noise) = observe_outcomes(seen, layout), observe_regression(seen, layout)
        whole = performance.realised([own], performance.THRESHOLD)
        values = np.array([*late[0], bias[0], whole.auroc, whole.accuracy], dtype=float)
        yield Observation(start, values, np.array([*late[1], noise[0], 0.0, 0.0]))


def ask_nannyml(data: Path, watched: Sequence[Watched]) -> dict[str, Any]:
    """What `nannyml` says in its own environment, which has whydrift's monitors lent."""
    from peers import PEERS_PYTHON

    lent = str(Path(__file__).resolve().parents[2] / "monitors")
    with tempfile.TemporaryDirectory() as folder:
        for one in watched:
            known = np.arange(len(one.values)) < one.baseline
            one.values.assign(known=known).to_parquet(Path(folder) / f"{one.every}.parquet")
        command = [PEERS_PYTHON, __file__, data, "--nannyml", folder]
        subprocess.run([str(part) for part in command], check=True, env={**os.environ, "PYTHONPATH": lent})
        return json.loads((Path(folder) / "said.json").read_text(encoding="utf-8"))


def nannyml(log: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """CBPE of each month, and the windows that are off by the rule of its thresholds, with their defaults."""
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    warnings.simplefilter("ignore")
    import nannyml as nml

    names = [name for name in METRICS.values() if name]
    columns = ("y_pred_proba", "is_canceled", "classification_binary", "y_pred", "timestamp")
    cbpe = nml.CBPE(names, *columns, chunk_period="M").fit(log[log["period"] == "reference"])
    found = cbpe.estimate(log[log["period"] == "production"].drop(columns="is_canceled")).filter(period="analysis")
    shown = found.to_df().set_index(("chunk", "key"))
    theirs = {"value": "nannyml", "sampling_error": "sampling sd"}
    estimated = {name: shown[name][[*theirs]].rename(columns=theirs).astype(float).T.to_dict() for name in names}
    off = {}
    for every in WINDOWS:
        values = pd.read_parquet(folder / f"{every}.parquet")
        known, rule = values.pop("known"), nml.thresholds.StandardDeviationThreshold()
        limits = {name: rule.thresholds(values.loc[known, name].to_numpy()) for name in values}
        rest = values[~known]
        off[every] = {n: rest.index[(rest[n] < low) | (rest[n] > high)].tolist() for n, (low, high) in limits.items()}
    return {"cbpe": estimated, "off": off}


def alarms(watched: Sequence[Watched], said: dict[str, Any]) -> Iterator[Line]:
    """The evidence of every window, and a line of value 1 for each alarm."""
    for one in watched:
        for rule in one.rules:
            for start, evidence in zip(one.after, rule.said, strict=True):
                own = {"part": one.every, "window": start, "by": rule.name}
                yield {**own, "what": "evidence", "value": evidence.model}
                flags = {"page": evidence.page, "open": evidence.firing, "ticket": evidence.ticket}
                yield from ({**own, "what": what, "value": 1} for what, flag in flags.items() if flag)
        for name, starts in said["off"][one.every].items():
            own = {"part": one.every, "what": name, "by": "nannyml", "value": 1}
            yield from ({**own, "window": start} for start in starts)


def tell_calibration(lines: pd.DataFrame) -> Iterator[str]:
    wide = lines.pivot_table(index="window", columns=["by", "what"], values="value", sort=False)
    mesh, rows = wide["mesh"], wide["rows"]
    shown = rows[["rows", "mean score", "base rate"]].join(mesh).round(4)
    yield markdown(shown.astype({"rows": int}).reset_index(names="period"))
    error = (mesh - rows[mesh.columns]).abs()
    both = pd.DataFrame({"reference": error.loc["reference"], "at most": error.max()})
    yield "How far from what the other packages say of the rows, in the reference and at most:"
    yield markdown(both.map(lambda value: float(f"{value:.1e}")).reset_index(names="measure"))
    least = (rows["mean score"] - rows["base rate"]).abs() - 1e-5
    below = [f"{int((told['smECE'] < least).sum())} of {len(least)}" for told in (rows, mesh)]
    yield f"smECE is at least the mean score less the base rate; below: relplot's {below[0]}, that of sums {below[1]}."


def tell_estimates(lines: pd.DataFrame) -> Iterator[str]:
    wide = lines.dropna(subset="value").pivot_table(index="window", columns=["what", "by"], values="value", sort=False)
    rows = []
    for metric in METRICS:
        own = wide[metric]
        off = {by: own[by] - own["truth"] for by in ESTIMATES if by in own}
        told = {by: f"{gap.abs().mean():.4f} ({gap.mean():+.4f})" for by, gap in off.items()}
        truth = f"{own['truth'].min():.3f} to {own['truth'].max():.3f}"
        rows.append({"metric": metric, "truth": truth, **dict.fromkeys(ESTIMATES, "–"), **told})
        rows[-1]["sampling sd"] = f"{own['sampling sd'].mean():.4f}"
    yield f"Mean absolute error (mean error) over {len(wide)} months of production; `sampling sd` is that of a truth:"
    yield markdown(pd.DataFrame(rows))
    yield "AUROC:\n\n" + markdown(wide["auroc"].drop(columns="sampling sd").round(4).reset_index(names="month"))
    gap = (wide["auroc"]["cbpe"] - wide["auroc"]["nannyml"]).abs().max()
    moved = lines.loc[lines["value"].isna(), "what"].str.removeprefix("reweighted by ").value_counts()
    yield f"The AUROC by CBPE from sums and by NannyML's from rows is at most {gap:.1e} apart."
    yield f"PAPE reweighted by what moved most: {', '.join(f'{n} in {count} months' for n, count in moved.items())}."


def tell_alarms(lines: pd.DataFrame, one: Watched) -> Iterator[str]:
    every, months = one.every, sorted({start[:7] for start in one.after})
    yield f"## Streams of labels, in {every}s: {one.baseline} in the baseline, {len(one.after)} after it"
    off = lines[lines["by"] == "nannyml"]
    *streams, auroc, accuracy = one.values.columns
    own = [streams[j] for j in one.rules[-1].streams]
    some = {"the model's own": own, "all streams": streams, "AUROC": [auroc], "accuracy": [accuracy]}
    found = {rule.name: lines[(lines["by"] == rule.name) & (lines["what"] == "open")] for rule in one.rules}
    found |= {f"NannyML, {name}": off[off["what"].isin(labels)] for name, labels in some.items()}
    counts = {name: said.groupby(said["window"].str[:7])["window"].nunique() for name, said in found.items()}
    table = pd.DataFrame(counts, index=months).fillna(0).astype(int)
    table.loc["all"] = table.sum()
    yield f"{every.capitalize()}s with an open page, and with an alarm of NannyML's:"
    yield markdown(table.reset_index(names="month"))
    for rule in one.rules:
        pages = [f"- {tell_page(one, rule, at)}" for at, evidence in enumerate(rule.said) if evidence.page]
        tickets = [start for start, e in zip(one.after, rule.said, strict=True) if e.ticket and not e.page]
        head = f"Pages, {rule.name} (evidence of {rule.page:.3g}):\n"
        yield "\n".join([head, *pages, f"- tickets: {', '.join(tickets)}"])
    theirs = [f"- {name}: {', '.join(off.loc[off['what'] == name, 'window']) or 'none'}" for name in own]
    yield "\n".join(["NannyML, the model's own:\n", *theirs])
    there = one.values.notna()
    rare = there.loc[:, there.mean() < 0.5]
    counted = [f"{n} ({had[: one.baseline].sum()} and {had[one.baseline :].sum()})" for n, had in rare.items()]
    yield f"Too few rows in most {every}s (with a value in the baseline, and after): {', '.join(counted)}."


def tell_page(one: Watched, rule: Rule, at: int) -> str:
    """When, for how long, and the streams that it names."""
    evidence = rule.said[at]
    lasts = next((n for n, later in enumerate(rule.said[at:]) if not later.firing), len(rule.said) - at)
    named = [
        f"{one.values.columns[rule.streams[j]]} {'up' if evidence.effect[j] > 0 else 'down'} since {onset:%F}"
        for j in evidence.named
        if (onset := evidence.onset[j]) is not None
    ]
    more = f"; {len(named) - 3} more" if len(named) > 3 else ""
    return f"{one.after[at]}, open for {lasts} {one.every}s: {'; '.join(named[:3])}{more}"


if __name__ == "__main__":
    main()
