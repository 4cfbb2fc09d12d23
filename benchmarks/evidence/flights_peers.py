"""What peers say, as shipped, of the attributions of the flights year.

    python benchmarks/evidence/flights_peers.py rows --work .cache/flights_year        attributions, a file a run
    python benchmarks/evidence/flights_peers.py rules --work .cache/flights_year       thresholds on published formulas
    python benchmarks/evidence/flights_peers.py evidently --work .cache/flights_year   the package
    benchmarks/.venv-peers/bin/python benchmarks/evidence/flights_peers.py nannyml --work .cache/flights_year

The reference is March 2013, a window is a day. Each command adds its lines, a day and a peer each, to a file of its
own in the work folder, and writes the table of all of them: days with an alarm by period.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
BASELINE_END = "2013-04-01"
PERIODS = {  # of the demo's story, days from and to (exclusive)
    "1-21 April, ordinary": ("incident", "2013-04-01", "2013-04-22"),
    "22-28 April, furloughs": ("incident", "2013-04-22", "2013-04-29"),
    "29 April-11 May, ordinary": ("incident", "2013-04-29", "2013-05-12"),
    "12-31 May, feed missing": ("incident", "2013-05-12", "2013-06-01"),
    "April-December, no fault": ("as_it_was", "2013-04-01", "2014-01-01"),
}
FIELDS = ["run", "day", "peer", "alert", "features"]


def main() -> None:
    parser = argparse.ArgumentParser(description="What peers say of the flights year.")
    parser.add_argument("command", choices=["rows", "rules", "evidently", "nannyml", "table"])
    parser.add_argument("--work", type=Path, required=True, help="the work folder of flights_year.py")
    options = parser.parse_args()
    work = options.work.resolve()
    if options.command == "rows":
        write_rows(work)
    elif options.command != "table":
        judges = {"rules": rules, "evidently": evidently, "nannyml": nannyml}
        said = [row for run in ("as_it_was", "incident") for row in judges[options.command](run, read_rows(run, work))]
        pd.DataFrame(said, columns=FIELDS).to_csv(work / f"said_{options.command}.csv", index=False)
    if options.command != "rows":
        table(work).to_csv(HERE / "flights_peers.csv", index=False)


def write_rows(work: Path) -> None:
    """Attributions of every day of both runs, the reference included."""
    sys.path.insert(0, str(HERE))
    import flights_year

    from whydrift.pipelines.window import split

    for run, (end, _) in flights_year.RUNS.items():
        config = flights_year.place(run, work)
        windows = list(split(config.baseline.start, end, config.window.every))
        days = [
            frame.assign(day=f"{window.start:%F}") for window, frame in flights_year.attributed_days(config, windows)
        ]
        pd.concat(days, ignore_index=True).to_parquet(work / f"{run}.parquet")


def read_rows(run: str, work: Path) -> pd.DataFrame:
    return pd.read_parquet(work / f"{run}.parquet").drop(columns="prediction")


def rules(run: str, rows: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Thresholds that are published or the default of a service, on formulas: an alarm is any feature over it."""
    from scipy import stats

    from whydrift.monitors import peers

    past, names = rows[rows["day"] < BASELINE_END], [c for c in rows if c != "day"]
    edges = {n: np.unique(np.quantile(past[n], np.linspace(0, 1, 11)))[1:-1] for n in names}

    def counts(frame: pd.DataFrame) -> np.ndarray:
        cells = [np.bincount(np.searchsorted(edges[n], frame[n], side="right"), minlength=10)[:10] for n in names]
        return np.array(cells, dtype=float)

    then, size_then = counts(past), past[names].abs().mean().to_numpy()
    daily = past.groupby("day")[names].mean()
    low, high = daily.mean() - 3 * daily.std(ddof=0), daily.mean() + 3 * daily.std(ddof=0)
    for day, frame in rows[rows["day"] >= BASELINE_END].groupby("day"):
        now, mean = counts(frame), frame[names].mean()
        ndcg = peers.ndcg(frame[names].abs().mean().to_numpy(), size_then)
        tables = [np.array([a, b])[:, (a + b) > 0] for a, b in zip(now, then, strict=True)]
        p = [stats.chi2_contingency(t).pvalue if t.shape[1] > 1 else 1.0 for t in tables]
        psi = peers.psi(now, then)
        for peer, over in {
            "SageMaker NDCG < .90": np.array([ndcg is not None and ndcg < peers.NDCG_LIMIT]),
            "Vertex AI JSD > .3": peers.jensen_shannon(now, then, base=2) > 0.3,
            "PSI > .1": psi > 0.1,
            "PSI > .2": psi > 0.2,
            "chi-square and BH 5 %": stats.false_discovery_control(p) < 0.05,
            "mean +- 3 sd": ((mean < low) | (mean > high)).to_numpy(),
        }.items():
            yield run, day, peer, int(over.any()), int(over.sum())


def evidently(run: str, rows: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Evidently's preset: a column drifts at its default test, the data set where half of the columns do.

    April and May only: a day takes seconds.
    """
    if run != "incident":
        return
    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [c for c in rows if c != "day"]
    schema = DataDefinition(numerical_columns=names)
    reference = Dataset.from_pandas(rows.loc[rows["day"] < BASELINE_END, names], schema)
    for day, frame in rows[rows["day"] >= BASELINE_END].groupby("day"):
        snapshot = Report([DataDriftPreset()]).run(Dataset.from_pandas(frame[names], schema), reference)
        first = snapshot.dict()["metrics"][0]["value"]
        drifted = int(first["count"])
        yield run, day, "Evidently, any column", int(drifted > 0), drifted
        yield run, day, "Evidently, data set", int(first["share"] >= 0.5), drifted


def nannyml(run: str, rows: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """NannyML's univariate drift, Jensen-Shannon and mean + 3 sd over the reference's days, its defaults."""
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    warnings.simplefilter("ignore")
    import nannyml as nml

    names = [c for c in rows if c != "day"]
    rows = rows.assign(timestamp=pd.to_datetime(rows["day"]))
    calculator = nml.UnivariateDriftCalculator(
        column_names=names,
        timestamp_column_name="timestamp",
        continuous_methods=["jensen_shannon"],
        chunk_period="D",
    )
    calculator.fit(rows[rows["day"] < BASELINE_END])
    found = calculator.calculate(rows[rows["day"] >= BASELINE_END]).to_df()
    alerts = found.xs("alert", axis=1, level=2)
    for day, over in zip(found[("chunk", "chunk", "start_date")], alerts.to_numpy(bool), strict=True):
        yield run, f"{day:%Y-%m-%d}", "NannyML, any column", int(over.any()), int(over.sum())


def table(work: Path) -> pd.DataFrame:
    """Days with an alarm, by period and peer; the tool's own pages beside them."""
    said = [pd.read_csv(path) for path in sorted(work.glob("said_*.csv"))]
    own = pd.read_csv(HERE / "flights_year.csv")
    said += [
        own.assign(peer=f"WhyDrift {status}", alert=(own["status"] == status).astype(int))[FIELDS[:4]]
        for status in ("page", "ticket")
    ]
    everything = pd.concat(said, ignore_index=True)
    lines = []
    for period, (run, start, end) in PERIODS.items():
        part = everything[(everything["run"] == run) & (everything["day"] >= start) & (everything["day"] < end)]
        days = part.groupby("peer")["alert"].agg(["sum", "size"])
        lines += [(peer, period, int(row["sum"]), int(row["size"])) for peer, row in days.iterrows()]
    return pd.DataFrame(lines, columns=["peer", "period", "alarm_days", "days"])


if __name__ == "__main__":
    main()
