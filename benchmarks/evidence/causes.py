"""Is the cause right? Known changes in a model with exact attributions, through the real summaries and the real fold.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/evidence/causes.py

The model is additive with one product of two features, so that its interventional Shapley values have a closed
form. Days differ: every feature's mean and spread, the mix of sites, the number of rows (about 3,000), and the level
of the outcomes have effects of the day. Seed s draws the days; the change begins on the fourth day of production. A
stream is followed until its first page, a shift of the cases for two weeks more, and at most 60 days after its onset.

Finished runs are kept and not repeated as long as the monitors' code stays the same. Results: `causes.csv`, a row a
run, and `causes.md`, the confusion matrix.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cache import HOME, Cache, digest
from scipy.special import expit

from whydrift.monitors.assessment import WindowInput, fold
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.evidence import Thresholds
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.golden import Golden, compare
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.reference import BaselineWindow, Reference, Settings, refer
from whydrift.monitors.summary import (
    Explained,
    Layout,
    Outcomes,
    WindowSummary,
    count_digests,
    merge,
    summarise_outcomes,
)
from whydrift.monitors.verdict import CauseKind, Status, WindowKey

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

START = datetime(2026, 1, 5, tzinfo=UTC)
DAY = timedelta(days=1)
BASELINE, ONSET, LONGEST, AFTER = 56, 3, 60, 14
LAG = 2
ROWS = 3000
BACKGROUND = 100
SITES = {"a": -0.3, "b": 0.0, "c": 0.1, "d": 0.4}
NAMES = ("x1", "x2", "x3", "amount", "x5", "x6", "x7", "site")
DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}
RETRAINED = frozenset({CauseKind.INPUTS_MOVED, CauseKind.JOINT_MOVED, CauseKind.CONCEPT_CHANGED})
INPUTS, JOINT, DATA, MODEL, EXPLAINER, CONCEPT, LABELS = (
    "inputs_moved",
    "joint_moved",
    "data_broken",
    "model_changed",
    "explainer_changed",
    "concept_changed",
    "label_broken",
)


@dataclass(frozen=True)
class Model:
    """Log-odds: base + sum of effects + pair * x1 * x2. `background` is what absent features are drawn from."""

    background: pd.DataFrame
    third: float = 0.6
    pair: float = 0.5

    def effects(self, frame: pd.DataFrame) -> FloatArray:
        """(n, p), the additive part."""
        columns = {
            "x1": 0.5 * frame["x1"],
            "x2": 0.3 * frame["x2"],
            "x3": self.third * frame["x3"],
            "amount": 0.4 * np.log1p(np.maximum(frame["amount"], 0.0)),
            "x5": 0.5 * np.tanh(frame["x5"]),
            "x6": 0.15 * frame["x6"],
            "x7": 0.4 * (frame["x7"] > 0.5),
            "site": frame["site"].map(SITES),
        }
        return np.column_stack([columns[name].to_numpy(float) for name in NAMES])

    def output(self, frame: pd.DataFrame) -> FloatArray:
        product = (frame["x1"] * frame["x2"]).to_numpy(float)
        return np.asarray(-1.5 + self.effects(frame).sum(axis=1) + self.pair * product)

    def explain(self, frame: pd.DataFrame) -> tuple[FloatArray, float]:
        """Attributions (n, p) and base: the mean over both orders in which x1 and x2 can become known."""
        values = self.effects(frame) - self.effects(self.background).mean(axis=0)
        a, b = frame["x1"].to_numpy(float), frame["x2"].to_numpy(float)
        mean_a, mean_b = self.background["x1"].mean(), self.background["x2"].mean()
        both = float((self.background["x1"] * self.background["x2"]).mean())
        values[:, 0] += self.pair * ((a - mean_a) * b + a * mean_b - both) / 2
        values[:, 1] += self.pair * ((b - mean_b) * a + b * mean_a - both) / 2
        return values, float(self.output(self.background).mean())


@dataclass(frozen=True)
class Change:
    """What happens from the onset on. `right` are the causes that are accepted, the first of them the usual name.

    `world` changes what is true before it is served, `served` what the model and its log get to see; both take the
    frame, the days since the onset and a generator. `truth` changes the log-odds of the outcomes, `label` the labels
    (with a flag of those that come at all).
    """

    right: tuple[str, ...]
    features: tuple[str, ...] = ()
    world: Callable[[pd.DataFrame, int, np.random.Generator], pd.DataFrame] | None = None
    served: Callable[[pd.DataFrame, int, np.random.Generator], pd.DataFrame] | None = None
    truth: Callable[[pd.DataFrame, FloatArray], FloatArray] | None = None
    label: Callable[[FloatArray, np.random.Generator], tuple[FloatArray, FloatArray]] | None = None
    third: float = 0.6
    other_background: bool = False
    digests: dict[str, str] = field(default_factory=lambda: DIGESTS)
    logged: Callable[[FloatArray], FloatArray] | None = None
    days: int = 10**6
    watched: int = LONGEST


def add(name: str, by: float, over: int = 0) -> Callable[[pd.DataFrame, int, np.random.Generator], pd.DataFrame]:
    """Shift a feature; over so many days where it is a ramp."""
    return lambda d, day, _: d.assign(**{name: d[name] + by * (min((day + 1) / over, 1.0) if over else 1.0)})


def stretch(name: str, by: float) -> Callable[[pd.DataFrame, int, np.random.Generator], pd.DataFrame]:
    return lambda d, _, __: d.assign(**{name: d[name] * by})


def some(
    name: str, part: float, value: Callable[[pd.Series], Any]
) -> Callable[[pd.DataFrame, int, np.random.Generator], pd.DataFrame]:
    """Replace the feature in a random part of the rows."""
    return lambda d, _, rng: d.assign(**{name: d[name].where(rng.random(len(d)) >= part, value(d[name]))})


def flip_correlation(d: pd.DataFrame, _: int, __: np.random.Generator) -> pd.DataFrame:
    """x2 keeps its distribution given the day; its correlation with x1 changes sign."""
    return d.assign(x2=2 * d["x2"].mean() - d["x2"])


def flip_in_site(d: pd.DataFrame, _: int, __: np.random.Generator) -> pd.DataFrame:
    return d.assign(x5=d["x5"].where(d["site"] != "b", -d["x5"]))


CHANGES: dict[str, Change] = {
    "nothing": Change(("no page",), watched=40),
    "mean +.3 sd": Change((INPUTS,), ("x3",), world=add("x3", 0.3)),
    "mean +.5 sd": Change((INPUTS,), ("x3",), world=add("x3", 0.5)),
    "mean +1 sd": Change((INPUTS,), ("x3",), world=add("x3", 1.0)),
    "mean +.3 sd, of a pair": Change((INPUTS,), ("x1",), world=add("x1", 0.3)),
    "mean +.5 sd, of a pair": Change((INPUTS,), ("x1",), world=add("x1", 0.5)),
    "mean +1 sd, of a pair": Change((INPUTS,), ("x1",), world=add("x1", 1.0)),
    "scale x1.25": Change((INPUTS,), ("x3",), world=stretch("x3", 1.25)),
    "scale x1.5": Change((INPUTS,), ("x3",), world=stretch("x3", 1.5)),
    "correlation flips": Change((JOINT,), ("x1", "x2"), world=flip_correlation),
    "unit error x1000 in 5 %": Change((DATA,), ("amount",), served=some("amount", 0.05, lambda v: v * 1000)),
    "5 % become 0 (amount)": Change((DATA,), ("amount",), served=some("amount", 0.05, lambda _: 0.0)),
    "5 % become the mean (x3)": Change((DATA, INPUTS), ("x3",), served=some("x3", 0.05, lambda _: 0.0)),
    "5 % become the maximum (x6)": Change((DATA,), ("x6",), served=some("x6", 0.05, lambda _: 3.5)),
    "sign flips in a slice": Change((INPUTS, DATA), ("x5",), served=flip_in_site),
    "model swap: predictions": Change((MODEL,), logged=lambda p: expit(1.2 * np.log(p / (1 - p)) + 0.1)),
    "model swap: digest": Change((MODEL,), digests={**DIGESTS, "model": "c" * 64}),
    "model swap: golden rows": Change((MODEL,), third=0.9),
    "explainer change: digest": Change((EXPLAINER,), digests={**DIGESTS, "explainer": "c" * 64}),
    "explainer change: golden rows": Change((EXPLAINER,), other_background=True),
    "concept flips (x3)": Change((CONCEPT,), truth=lambda d, t: t - 1.2 * d["x3"].to_numpy()),
    "concept shifts": Change((CONCEPT,), truth=lambda _, t: t + 0.7),
    "labels inverted": Change((LABELS,), label=lambda y, _: (1 - y, np.ones(y.size))),
    "labels stuck at 0": Change((LABELS,), label=lambda y, _: (0 * y, np.ones(y.size))),
    "half of the labels lost": Change((LABELS,), label=lambda y, rng: (y, rng.random(y.size))),
    "ramp to 1 sd over 30 days": Change((INPUTS,), ("x3",), world=add("x3", 1.0, 30)),
    "ramp to 1 sd over 90 days": Change((INPUTS,), ("x3",), world=add("x3", 1.0, 90)),
    "one-day glitch": Change(("no page",), world=add("x3", 1.0), days=1, watched=AFTER),
    "benign shift, to easier cases": Change((INPUTS,), ("x3",), world=add("x3", 0.7), watched=LONGEST),
    "shift, to harder cases": Change((INPUTS,), ("x3",), world=add("x3", -0.7), watched=LONGEST),
}


class Study:
    """One seed's days, baseline and reference; every change starts from them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        days = [self._inputs(day) for day in range(BASELINE)]
        frame = pd.concat(days, ignore_index=True)
        self.model = Model(frame.sample(BACKGROUND, random_state=seed))
        self.spare: pd.DataFrame = frame.sample(BACKGROUND, random_state=seed + 1000)
        sample = frame.sample(2000, random_state=seed + 2000)
        values, _ = self.model.explain(sample)
        self.layout = Layout(
            task="binary",
            link="logit",
            scale=1.0,
            loss_scale=1.0,
            features=tuple(fit_bins(name, frame[name]) for name in NAMES),
            attributions=tuple(map(fit_attribution_bins, NAMES, values.T)),
            slices=("site",),
        )
        golden = frame.sample(500, random_state=seed + 3000)
        self.golden = Golden(golden, self.model.explain(golden)[0], self.model.output(golden))
        self.level = 0.05 * rng.standard_normal(BASELINE + ONSET + LONGEST + 1)
        self.quiet: dict[int, tuple[WindowSummary, WindowSummary]] = {}
        self.reference = self._refer()

    def _refer(self) -> Reference:
        settings = Settings(
            width=DAY,
            min_rows=200,
            labels=True,
            lag=LAG,
            thresholds=Thresholds(page=90.0, ticket=7.0),
            false_pages=1.0,
            period=timedelta(days=90),
            groups={},
            policy=RetrainingPolicy(RETRAINED, 1000, timedelta(days=14)),
        )
        windows = [BaselineWindow(START + day * DAY, *self._summaries(day, None)) for day in range(BASELINE)]
        return refer(windows, self.layout, settings, DIGESTS)

    def _inputs(self, day: int) -> pd.DataFrame:
        rng = np.random.default_rng([self.seed, day, 1])
        rows = int(ROWS * np.exp(0.2 * rng.standard_normal()))
        centre, spread = 0.05 * rng.standard_normal(6), np.exp(0.02 * rng.standard_normal(6))
        z = rng.standard_normal((rows, 6))
        z[:, 1] = 0.5 * z[:, 0] + np.sqrt(0.75) * z[:, 1]
        z = centre + spread * z
        frame = pd.DataFrame(z, columns=["x1", "x2", "x3", "amount", "x5", "x6"])
        mix = rng.dirichlet(np.array([30.0, 25.0, 25.0, 20.0]) * 20)
        return frame.assign(
            amount=np.exp(3 + 0.6 * frame["amount"]),
            x5=frame["x5"] + 0.8,
            x7=rng.beta(1.0, 1.0 + 0.05 * rng.random(), rows),
            site=rng.choice(list(SITES), size=rows, p=mix),
        )[list(NAMES)]

    def _summaries(self, day: int, change: Change | None) -> tuple[WindowSummary, WindowSummary]:
        """What is stored of a day, and of its labels."""
        since = day - BASELINE - ONSET
        if change is None or not 0 <= since < change.days:
            if day not in self.quiet:
                self.quiet[day] = self._summarise(day, Change(("no page",)), 0)
            return self.quiet[day]
        return self._summarise(day, change, since)

    def _summarise(self, day: int, change: Change, since: int) -> tuple[WindowSummary, WindowSummary]:
        rng = np.random.default_rng([self.seed, day, 2])
        true = self._inputs(day)
        if change.world is not None:
            true = change.world(true, since, rng)
        served = change.served(true, since, rng) if change.served is not None else true
        # The outcomes obey the registered model, but for the level of the day and what changes in the world.
        odds = self.model.output(true) + self.level[day]
        odds = change.truth(true, odds) if change.truth is not None else odds
        live = replace(self.model, third=change.third)
        live = replace(live, background=self.spare) if change.other_background else live
        values, base = live.explain(served)
        output = live.output(served)
        prediction = expit(output) if change.logged is None else change.logged(expit(output))
        label, comes = (rng.random(len(true)) < expit(odds)).astype(float), np.ones(len(true))
        if change.label is not None:
            label, comes = change.label(label, rng)
        weight, there = np.ones(len(true)), comes >= 0.5
        replay = compare(
            self.golden, live.explain(self.golden.features)[0], live.output(self.golden.features), scale=1.0
        )
        explained = Explained(served, prediction, weight, values, output, base)
        outcomes = Outcomes(served[there], prediction[there], weight[there], label[there])
        counted = count_digests(change.digests, len(true))
        return merge([summarise(explained, self.layout), counted, replay]), summarise_outcomes(outcomes, self.layout)

    def windows(self, change: Change) -> Iterator[WindowInput]:
        for day in count(BASELINE):
            start = START + day * DAY
            key = WindowKey(model="m", model_version="1", baseline_id="b", start=start, end=start + DAY)
            yield WindowInput(key, self._summaries(day, change)[0], self._summaries(day - LAG, change)[1])

    def follow(self, name: str) -> dict[str, Any]:
        """The first page after the onset, and whether retraining was asked for."""
        change = CHANGES[name]
        onset = START + (BASELINE + ONSET) * DAY
        found: dict[str, Any] = {"change": name, "seed": self.seed, "cause": "no page", "delay": None, "features": ""}
        found.update(early=False, requested=False)
        for assessed in fold(self.reference, self.windows(change)):
            day = (assessed.window.key.start - onset) // DAY
            found["requested"] |= assessed.retraining.requested and day >= 0
            if assessed.cause is not None and assessed.status is Status.PAGE and found["delay"] is None:
                if day < 0:
                    return {**found, "early": True}  # a false page is no answer to the question asked here
                found.update(cause=assessed.cause.kind.value, delay=day + 1, features=" ".join(assessed.cause.features))
            follow_on = "cases" in name and found["delay"] is not None and day < found["delay"] + AFTER
            if (found["delay"] is not None and not follow_on) or day >= change.watched - 1:
                return found
        raise AssertionError("windows do not end")


def main() -> None:
    parser = argparse.ArgumentParser(description="Name the causes of known changes.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    monitors = [module for name, module in sorted(sys.modules.items()) if name.startswith("whydrift.monitors.")]
    cache = Cache(HOME / "causes.jsonl", digest([*monitors, sys.modules[__name__]]))
    found = {}
    for seed in range(options.seeds):
        keys = {name: f"{name}, {seed}" for name in CHANGES}
        if any(cache.find(key) is None for key in keys.values()):
            study = Study(seed)
            for name, key in keys.items():
                cache.get(key, partial(study.follow, name))
        found.update({(name, seed): cache.find(key) for name, key in keys.items()})
    results = pd.DataFrame([found[name, seed] for name in CHANGES for seed in range(options.seeds)])
    results.to_csv(options.out / "causes.csv", index=False)
    (options.out / "causes.md").write_text(render(results, options.seeds), encoding="utf-8")


def render(results: pd.DataFrame, seeds: int) -> str:
    """The confusion matrix, in Markdown."""
    judged = results[~results["early"]]
    columns = [*(kind.value for kind in CauseKind if (judged["cause"] == kind.value).any()), "no page"]
    left = f"{len(results) - len(judged)} of {len(results)}"
    lines = [
        "# Causes named, by what was done",
        "",
        f"`python benchmarks/evidence/causes.py --seeds {seeds}`: seeds 0 to {seeds - 1}, {BASELINE} baseline days of",
        f"about {ROWS:,} rows, labels after {LAG} days; the script describes the world. Runs with a page before the",
        f"onset ({left}) are left out. Bold: the causes that are accepted. `right`: the first page's cause",
        "is one of them; a change that was not found counts as wrong. `feature`: the first one named is one that",
        "changed. `delay`: median windows to the page. `asks`: runs that asked for retraining until then, and the two",
        f"shifts of the cases for {AFTER} days more.",
        "",
        f"| change | {' | '.join(columns)} | right | feature | delay | asks |",
        f"|---|{'---:|' * (len(columns) + 4)}",
    ]
    rights = []
    for name, change in CHANGES.items():
        rows = judged[judged["change"] == name]
        if rows.empty:
            continue
        right = rows["cause"].isin(change.right)
        first = rows["features"].str.split().str[0].isin(change.features)
        paged = rows["cause"] != "no page"
        delay = pd.to_numeric(rows.loc[paged, "delay"]).median() if paged.any() else float("nan")
        counts = [
            f"**{n}**" if c in change.right else str(n) for c in columns for n in [int((rows["cause"] == c).sum())]
        ]
        named = f"{first[paged].mean():.0%}" if change.features and paged.any() else ""
        asks = int(rows["requested"].sum())
        shown = "" if np.isnan(delay) else f"{delay:g}"
        lines.append(f"| {name} | {' | '.join(counts)} | {right.mean():.0%} | {named} | {shown} | {asks} |")
        if change.right != ("no page",):
            rights.append((right.sum(), len(right), (right & paged).sum(), paged.sum()))
    hit, total, found, pages = np.sum(rights, axis=0)
    lines += ["", f"All changes: {hit} of {total} right ({hit / total:.1%})."]
    lines += [f"Of those found: {found} of {pages} ({found / pages:.1%})."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
