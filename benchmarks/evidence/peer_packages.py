"""Other tools' packages on days of rows. `peers` calls it in their own environment, `benchmarks/.venv-peers`.

    python benchmarks/evidence/peer_packages.py ROWS.parquet MODEL.json PACKAGE SCORES.json

The rows have columns `part`, `day`, x0.. and phi0..; the part `baseline` is the reference. For every other part the
result holds a score a day for each of the package's rules, scaled so that its own default alarms at 1 and above.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

Scores = dict[str, dict[str, list[float]]]  # by rule, then by part

REFERENCE_ROWS = 20_000  # what a user keeps of a baseline of many days
SWIFT_ROWS = 5_000
SWIFT_PERMUTATIONS = 200
_START = pd.Timestamp("2026-01-05")


def attributions(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows if name.startswith("phi")]


def days(rows: pd.DataFrame) -> Iterator[tuple[str, list[pd.DataFrame]]]:
    """Every part but the baseline, day by day."""
    for part, own in rows[rows["part"] != "baseline"].groupby("part", sort=False):
        yield str(part), [day for _, day in own.groupby("day")]


def reference(rows: pd.DataFrame, size: int = REFERENCE_ROWS) -> pd.DataFrame:
    return rows[rows["part"] == "baseline"].sample(size, random_state=0)


def evidently(rows: pd.DataFrame, model: Path) -> Scores:  # noqa: ARG001 - the signature of every package
    """Its default for numbers and more than 1,000 rows: normed Wasserstein distance of .1, in one column or in half.

    The package's own function of the test is called: a report of the same columns draws for seconds a day.
    """
    from evidently.legacy.calculations.stattests.wasserstein_distance_norm import _wasserstein_distance_norm as test

    known, names = reference(rows), attributions(rows)
    found: Scores = {"Evidently: a column": {}, "Evidently: half of the columns": {}}
    for part, own in days(rows):
        each = np.array([[test(known[name], day[name], "num", 0.1)[0] / 0.1 for name in names] for day in own])
        each = np.sort(each, axis=1)
        found["Evidently: a column"][part] = each[:, -1].tolist()
        found["Evidently: half of the columns"][part] = each[:, -((len(names) + 1) // 2)].tolist()
    return found


def nannyml(rows: pd.DataFrame, model: Path) -> Scores:  # noqa: ARG001
    """Univariate drift by three of its distances, and multivariate drift, at mean + 3 sd of the baseline's days."""
    import nannyml as nml

    names, methods = attributions(rows), ("jensen_shannon", "wasserstein", "kolmogorov_smirnov")
    stamped = rows.assign(time=_START + pd.to_timedelta(rows["day"], unit="D"))
    known = stamped[stamped["part"] == "baseline"]
    single = nml.UnivariateDriftCalculator(
        column_names=names, timestamp_column_name="time", continuous_methods=list(methods), chunk_period="D"
    ).fit(known)
    several = nml.DataReconstructionDriftCalculator(
        column_names=names, timestamp_column_name="time", chunk_period="D"
    ).fit(known)
    found: Scores = {f"NannyML: {method}": {} for method in methods} | {"NannyML: reconstruction": {}}
    for part, own in stamped[stamped["part"] != "baseline"].groupby("part", sort=False):
        frame = single.calculate(own).to_df()
        for method in methods:
            columns = [_beyond(frame, (name, method)) for name in names]
            found[f"NannyML: {method}"][str(part)] = np.max(columns, axis=0).tolist()
        frame = several.calculate(own).to_df()
        found["NannyML: reconstruction"][str(part)] = _beyond(frame, ("reconstruction_error",), two_sided=True).tolist()
    return found


def _beyond(frame: pd.DataFrame, column: tuple[str, ...], *, two_sided: bool = False) -> np.ndarray:
    """How far each chunk of the analysis lies from the reference's mean, its threshold being at 1."""
    period = frame[("chunk", "period")] if ("chunk", "period") in frame else frame[("chunk", "chunk", "period")]
    own = frame[column]
    centre = own.loc[period == "reference", "value"].mean()
    limit = own.loc[period == "analysis", "upper_threshold"] - centre
    off = own.loc[period == "analysis", "value"] - centre
    return ((off.abs() if two_sided else off) / limit).to_numpy(dtype=float)


def shap_monitor(rows: pd.DataFrame, model: Path) -> Scores:  # noqa: ARG001
    """Its PSI of each attribution; its command line warns from .1 and alerts from .25."""
    from shapmonitor.analysis.metrics import population_stability_index

    known, names = reference(rows), attributions(rows)
    largest = {
        part: np.array([max(population_stability_index(known[n], day[n]) for n in names) for day in own])
        for part, own in days(rows)
    }
    return {
        f"shap-monitor: PSI {limit:g}": {part: (psi / limit).tolist() for part, psi in largest.items()}
        for limit in (0.1, 0.25)
    }


def swift(rows: pd.DataFrame, model: Path) -> Scores:
    """Its permutation test with Benjamini-Hochberg at 5 %, and its scores above its bootstrap thresholds.

    The score of the test is the logarithm of the smallest adjusted p-value, relative to that of 5 %.
    """
    import xgboost
    from swift import SWIFTMonitor
    from swift.threshold import bootstrap_threshold

    booster = xgboost.Booster()
    booster.load_model(model)
    inputs = [name for name in rows if name.startswith("x")]
    known = reference(rows, SWIFT_ROWS)[inputs]
    monitor = SWIFTMonitor(model=booster, n_permutations=SWIFT_PERMUTATIONS).fit(known)
    size = int((rows["part"] == "baseline").sum() / rows.loc[rows["part"] == "baseline", "day"].nunique())
    usual = bootstrap_threshold(known, monitor.bucket_sets_, size, n_bootstrap=SWIFT_PERMUTATIONS)
    found: Scores = {"SWIFT: permutation test": {}, "SWIFT: bootstrap threshold": {}}
    for part, own in days(rows):
        results = [monitor.test(day[inputs]).feature_results for day in own]
        p = np.sort([[feature.p_value for feature in result] for result in results], axis=1)
        adjusted = (p * len(inputs) / np.arange(1, len(inputs) + 1)).min(axis=1)
        found["SWIFT: permutation test"][part] = (np.log(adjusted) / np.log(0.05)).tolist()
        found["SWIFT: bootstrap threshold"][part] = [
            max(f.swift_score / max(usual[f.feature_name], 1e-12) for f in result) for result in results
        ]
    return found


def validanytime(rows: pd.DataFrame, model: Path) -> Scores:  # noqa: ARG001
    """Its page tier and its CUSUM on each attribution's daily mean, and on that of its absolute value.

    The configuration is what it suggests from the baseline. A score of the page tier is a monitor's evidence by its
    limit; the CUSUM begins anew after an alarm, and its score is 1 on the day of one.
    """
    from validanytime_detectors import cusum_events, replay_series, suggest_config

    names = attributions(rows)
    series = {
        part: np.hstack([own.groupby("day")[names].mean(), own[names].abs().groupby(own["day"]).mean()])
        for part, own in rows.groupby("part", sort=False)
    }
    first = series.pop("baseline")
    found: Scores = {"validanytime: page tier": {}, "validanytime: CUSUM": {}}
    for part, own in series.items():
        page, warn = np.zeros(len(own)), np.zeros(len(own))
        for j in range(first.shape[1]):
            values = np.concatenate([first[:, j], own[:, j]]).tolist()
            for monitor in replay_series(values, suggest_config(first[:, j].tolist())).monitors:
                page = np.maximum(page, np.array(monitor.log_stat)[len(first) :] / monitor.threshold)
            events = cusum_events(values, train=len(first)).events
            warn[[event - 1 - len(first) for event in events if event > len(first)]] = 1.0
        found["validanytime: page tier"][part] = page.tolist()
        found["validanytime: CUSUM"][part] = warn.tolist()
    return found


PACKAGES: dict[str, Callable[[pd.DataFrame, Path], Scores]] = {
    "nannyml": nannyml,
    "shap-monitor": shap_monitor,
    "validanytime-detectors": validanytime,
    "evidently": evidently,
    "swift-monitoring": swift,
}


def main(arguments: list[Any]) -> None:
    rows, model, package, scores = arguments
    found = PACKAGES[package](pd.read_parquet(rows), Path(model))
    Path(scores).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
