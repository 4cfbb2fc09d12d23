"""Other tools on the same rows: as they are shipped, and tuned to one false alarm a quarter.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/evidence/peers.py --seeds 20 --slow-seeds 3

A boosted-tree model of ten inputs, two of which correlate by .6 and act on each other; 2,000 rows a day; effects of
the day with rho = .001, see `rows`; attributions are XGBoost's own SHAP values, in log-odds. 56 baseline days, then 90
days on which nothing happens, and, each from the same baseline, 28 days of each change. Every tool gets the same rows.

A tool's score of a day is scaled so that its default alarms at 1. `alarm_days` are the quiet days, of 90, at the limit
or above, `alarms` those after a day below. `tuned`: the lowest limit that one quiet day in 90 reaches, over all seeds;
of evidence that stays high, that it comes to reach. Packages run as they come from the package index, see `peers.txt`;
SageMaker's, Vertex's and the textbook rules are formulas. The detector is not tuned: its threshold is the guaranteed
one, and a page is its alarm.

Scores are kept in `.cache/evidence/peers.jsonl` and not repeated. Seed s draws from a generator seeded with
(CRC-32 of "peers", s). Table: `peers.csv`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache as remembered
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peer_packages
import rows
import sensitivity
from cache import HOME, Cache, Row, digest, generator
from rows import draw, explained, judge, lay_out, reduce_day
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp
from streams import HORIZON, FloatArray

from whydrift.monitors import peers as formulas
from whydrift.monitors.summary import Explained

FEATURES, ROWS, RHO = 10, 2_000, 1e-3
BASELINE, FOLLOWED, SOON = 56, 28, 14
NAMES = [f"x{j}" for j in range(FEATURES)]
PEERS_PYTHON = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"
SLOW = ("evidently", "swift-monitoring")
UNTUNED = ("whydrift", "validanytime: CUSUM")  # what they add up depends on their limit
ACCUMULATE = ("validanytime: page tier",)

_CORRELATION = 0.6
_COEFFICIENTS = np.array([0.9, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1])
_DECILES = np.linspace(0, 1, 11)[1:-1]
_P_FLOOR = 1e-300


def _mean(d: float) -> Callable[[FloatArray], FloatArray]:
    return lambda x: x + d * np.eye(FEATURES)[0]


def _dies(x: FloatArray) -> FloatArray:
    return np.where(np.arange(FEATURES) == 0, 0.0, x)


def _flipped(x: FloatArray) -> FloatArray:
    """x0 and x1 correlate the other way round; each is as it was."""
    changed = x.copy()
    changed[:, 1] -= 2 * _CORRELATION * x[:, 0]
    return changed


def _scaled(x: FloatArray) -> FloatArray:
    return x * np.where(np.arange(FEATURES) == 0, 1.25, 1.0)


CHANGES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean +.05 sd": _mean(0.05),
    "mean +.1 sd": _mean(0.1),
    "mean +.2 sd": _mean(0.2),
    "mean +.5 sd": _mean(0.5),
    "top feature dies": _dies,
    "correlation flips": _flipped,
    "scale x1.25": _scaled,
}


def train(folder: Path) -> Any:
    """The model, the same for all seeds, also as a file that older releases of XGBoost can read."""
    import xgboost

    rng = generator("peers model", 0)
    x = inputs(rng, 30_000, 0.0)
    logit = -1.0 + np.tanh(x) @ _COEFFICIENTS + 0.4 * x[:, 0] * x[:, 1]
    label = (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(float)
    settings = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.1, "base_score": 0.5, "nthread": 1, "seed": 0}
    booster = xgboost.train(settings, xgboost.DMatrix(x, label, feature_names=NAMES), num_boost_round=60)
    saved = json.loads(booster.save_raw("json"))
    saved["learner"]["learner_model_param"]["base_score"] = "5E-1"
    (folder / "model.json").write_text(json.dumps(saved), encoding="utf-8")
    return booster


def inputs(rng: np.random.Generator, count: int, rho: float) -> FloatArray:
    x = draw(rng, count, FEATURES, rho)
    x[:, 1] = _CORRELATION * x[:, 0] + np.sqrt(1 - _CORRELATION**2) * x[:, 1]
    return x


def explain(booster: Any, x: FloatArray) -> Explained:
    import xgboost

    values = booster.predict(xgboost.DMatrix(x, feature_names=NAMES), pred_contribs=True).astype(float)
    return explained(pd.DataFrame(x, columns=NAMES), values[:, :-1], float(values[0, -1]))


def make(seed: int, folder: Path) -> dict[str, list[Explained]]:
    """Every part's days."""
    rng, booster = generator("peers", seed), train(folder)

    def days(count: int, change: Callable[[FloatArray], FloatArray] = lambda x: x) -> list[Explained]:
        return [explain(booster, change(inputs(rng, ROWS, RHO))) for _ in range(count)]

    quiet = {"baseline": days(BASELINE), "nothing": days(HORIZON)}
    return quiet | {name: days(FOLLOWED, change) for name, change in CHANGES.items()}


def own_scores(parts: dict[str, list[Explained]]) -> peer_packages.Scores:
    """The detector: 1 in a window that opens a page. From what is stored of the days, the layout included."""
    layout = lay_out(parts["baseline"][:10])
    stored = {part: [reduce_day(day, layout) for day in days] for part, days in parts.items()}
    baseline = stored.pop("baseline")
    pages = {
        part: [float(assessed.evidence.page) for assessed in judge(baseline, layout, days)]
        for part, days in stored.items()
    }
    return {"whydrift": pages}


def formula_scores(parts: dict[str, list[Explained]]) -> peer_packages.Scores:
    """The rules that need no package."""
    known = np.concatenate([day.values for day in parts["baseline"]])
    edges = np.quantile(known, _DECILES, axis=0)
    before, sizes = _counts(known, edges), np.abs(known).mean(axis=0)
    daily = np.array([_scalars(day) for day in parts["baseline"]])
    centre, spread = daily.mean(axis=0), daily.std(axis=0)
    sample = known[np.random.default_rng(0).choice(len(known), peer_packages.REFERENCE_ROWS, replace=False)]
    found: dict[str, dict[str, list[float]]] = {}
    for part, days in parts.items():
        for day in days if part != "baseline" else ():
            now = _counts(day.values, edges)
            ndcg = formulas.ndcg(np.abs(day.values).mean(axis=0), sizes)
            psi = float(formulas.psi(now, before).max())
            chi2 = [chi2_contingency([a, b]).pvalue for a, b in zip(now, before, strict=True)]
            ks = [ks_2samp(day.values[:, j], sample[:, j]).pvalue for j in range(FEATURES)]
            scores = {
                "SageMaker: NDCG .90": (1 - ndcg) / (1 - formulas.NDCG_LIMIT) if ndcg is not None else 0.0,
                "Vertex: JSD .3": float(formulas.jensen_shannon(now, before, base=2).max()) / 0.3,
                "PSI .1": psi / 0.1,
                "PSI .2": psi / 0.2,
                "chi2 + BH 5 %": _adjusted(chi2),
                "KS + BH 5 %": _adjusted(ks),
                "mean +- 3 sd of daily means": float(np.max(np.abs(_scalars(day) - centre) / spread)) / 3,
            }
            for name, score in scores.items():
                found.setdefault(name, {}).setdefault(part, []).append(score)
    return found


def _counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Rows in each of ten cells, (features, 10)."""
    cells = [np.searchsorted(edges[:, j], values[:, j]) for j in range(FEATURES)]
    return np.array([np.bincount(own, minlength=10) for own in cells], dtype=float)


def _scalars(day: Explained) -> FloatArray:
    """Each feature's mean attribution, and its share of all absolute attribution, (2 features,)."""
    size = np.abs(day.values).mean(axis=0)
    return np.concatenate([day.values.mean(axis=0), size / size.sum()])


def _adjusted(p: Sequence[float]) -> float:
    """Smallest adjusted p-value on a scale on which 5 % is 1 and smaller ones are more."""
    smallest = false_discovery_control(np.maximum(p, _P_FLOOR)).min()
    return float(np.log(smallest) / np.log(0.05))


def package_scores(parts: dict[str, list[Explained]], package: str, folder: Path) -> peer_packages.Scores:
    """Those of a package, in its own environment."""
    table = folder / "rows.parquet"
    if not table.exists():
        _frame(parts).to_parquet(table)
    scores = folder / "scores.json"
    command = [PEERS_PYTHON, peer_packages.__file__, table, folder / "model.json", package, scores]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    found: peer_packages.Scores = json.loads(scores.read_text(encoding="utf-8"))
    return found


def _frame(parts: dict[str, list[Explained]]) -> pd.DataFrame:
    """Days count from the baseline's first; every part follows the baseline."""
    frames = []
    for part, days in parts.items():
        for i, day in enumerate(days):
            phi = pd.DataFrame(day.values, columns=[f"phi{j}" for j in range(FEATURES)])
            frame = pd.concat([day.features, phi], axis=1)
            frames.append(frame.assign(part=part, day=i if part == "baseline" else BASELINE + i))
    return pd.concat(frames, ignore_index=True)


def collect(cache: Cache, seed: int, systems: Sequence[str]) -> peer_packages.Scores:
    """The scores of all rules of these systems on one seed's rows, which are made if something is missing."""
    found: peer_packages.Scores = {}
    with tempfile.TemporaryDirectory() as name:
        folder, parts = Path(name), remembered(lambda: make(seed, Path(name)))
        for system in systems:
            found |= cache.get(f"{system}|{seed}", lambda s=system: _scores(s, parts(), folder))
    return found


def _scores(system: str, parts: dict[str, list[Explained]], folder: Path) -> Row:
    if system == "whydrift":
        return own_scores(parts)
    return formula_scores(parts) if system == "formulas" else package_scores(parts, system, folder)


def begins(scores: FloatArray, limit: float) -> np.ndarray:
    """Whether each day (seeds, days) is at the limit or above and the day before was not."""
    over = scores >= limit
    return over & ~np.pad(over, ((0, 0), (1, 0)))[:, :-1]


def tuned(quiet: FloatArray, *, accumulates: bool) -> float:
    """The lowest limit that (seeds, 90) quiet days reach on one day a seed at most.

    A score that accumulates stays where it is for days: there, the lowest that is reached anew once a seed at most.
    """
    descending = np.sort(quiet, axis=None)[::-1]
    if not accumulates:
        return float(np.nextafter(descending[len(quiet)], np.inf))
    return float(list(takewhile(lambda limit: begins(quiet, limit).sum() <= len(quiet), descending))[-1])


def lines(rule: str, by_seed: Sequence[dict[str, list[float]]]) -> Iterator[dict[str, object]]:
    """A row for the rule as shipped, and one as tuned."""
    quiet = np.array([scores["nothing"] for scores in by_seed])
    settings = {"as shipped": 1.0}
    if rule not in UNTUNED:
        settings["tuned"] = tuned(quiet, accumulates=rule in ACCUMULATE)
    for setting, limit in settings.items():
        found: dict[str, object] = {
            "rule": rule,
            "setting": setting,
            "limit": round(limit, 3),
            "seeds": len(by_seed),
            "alarm_days": round(float((quiet >= limit).sum(axis=1).mean()), 2),
            "alarms": round(float(begins(quiet, limit).sum(axis=1).mean()), 2),
        }
        for change in CHANGES:
            after = np.array([scores[change] for scores in by_seed]) >= limit
            delay = np.where(after.any(axis=1), after.argmax(axis=1) + 1.0, np.inf)
            found[change] = round(float((delay <= SOON).mean()), 2)
            found[f"{change}: delay"] = float(np.quantile(delay, 0.5, method="higher"))
        yield found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Other tools on the same rows.")
    parser.add_argument("--seeds", type=int, default=20, help="runs of every system but the slow ones")
    parser.add_argument("--slow-seeds", type=int, default=3, help=f"runs of {' and '.join(SLOW)}")
    parser.add_argument("--cache", type=Path, default=HOME)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args(arguments)
    cache = Cache(options.cache / "peers.jsonl", digest([*sensitivity.CODE, rows, peer_packages, formulas]))
    by_rule: dict[str, list[dict[str, list[float]]]] = {}
    for seed in range(options.seeds):
        left_out = () if seed < options.slow_seeds else SLOW
        systems = ["whydrift", "formulas", *(name for name in peer_packages.PACKAGES if name not in left_out)]
        for rule, scores in collect(cache, seed, systems).items():
            by_rule.setdefault(rule, []).append(scores)
        print(f"seed {seed}", flush=True)
    table = [line for rule, by_seed in by_rule.items() for line in lines(rule, by_seed)]
    pd.DataFrame(table).to_csv(options.out / "peers.csv", index=False)


if __name__ == "__main__":
    main(sys.argv[1:])
