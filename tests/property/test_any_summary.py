"""Whatever a window holds, its verdict is sound, or the error is one that was meant."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.special import expit

from soundness import sound
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import Explained, Outcomes, WindowSummary, merge, summarise_outcomes
from whydrift.monitors.summary_terms import SIGNED

WINDOWS = 8
EXAMPLES = int(os.environ.get("WHYDRIFT_EXAMPLES", "80"))  # times WINDOWS; 1250 make ten thousand, and take minutes


@dataclass(frozen=True)
class Recipe:
    """How a window is made up: everything random in it follows from these."""

    seed: int
    rows: int
    column: str
    weight: str
    answer: str
    label: str
    tampered: str


_ROWS = st.sampled_from([0, 1, 2, 29, 120, 400])
_RECIPE = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    rows=_ROWS,
    column=st.sampled_from(["usual", "missing", "constant", "huge", "tiny", "one_missing", "unseen"]),
    weight=st.sampled_from(["one", "huge", "tiny", "mixed", "zero"]),
    answer=st.sampled_from(["usual", "none", "all", "dead", "giant"]),
    label=st.sampled_from(["usual", "none", "one", "zero", "few"]),
    tampered=st.sampled_from(["no", "no", "no", "blocks", "zeros", "scaled", "halved"]),
)

_COLUMN = {
    "usual": lambda rng, n: rng.standard_normal(n),
    "missing": lambda _, n: np.full(n, np.nan),
    "constant": lambda _, n: np.full(n, 0.3),
    "huge": lambda rng, n: 1e100 * rng.standard_normal(n),
    "tiny": lambda rng, n: 1e-300 * rng.standard_normal(n),
    "one_missing": lambda rng, n: np.where(np.arange(n) == 0, np.nan, rng.standard_normal(n)),
    "unseen": lambda rng, n: rng.standard_normal(n) + 50,
}
_WEIGHT = {
    "one": lambda _, n: np.ones(n),
    "huge": lambda _, n: np.full(n, 1e9),
    "tiny": lambda _, n: np.full(n, 1e-9),
    "mixed": lambda rng, n: np.exp(15 * rng.standard_normal(n)),
    "zero": lambda _, n: np.zeros(n),
}
_ANSWER = {
    "usual": lambda x: x,
    "none": lambda x: np.full_like(x, -800.0),
    "all": lambda x: np.full_like(x, 800.0),
    "dead": np.zeros_like,
    "giant": lambda x: 1e200 * x,
}
_LABEL = {
    "usual": lambda rng, p: rng.random(p.size) < p,
    "none": lambda _, p: np.zeros(0),
    "one": lambda _, p: np.ones(p.size),
    "zero": lambda _, p: np.zeros(p.size),
    "few": lambda rng, p: (rng.random(p.size) < p)[:3],
}


def _made(recipe: Recipe, world) -> tuple[WindowSummary, WindowSummary]:
    rng, n, layout = np.random.default_rng(recipe.seed), recipe.rows, world.layout
    frame = pd.DataFrame({f"x{i}": _COLUMN["usual"](rng, n) for i in (1, 2, 3)})
    frame["x1"] = _COLUMN[recipe.column](rng, n)
    frame["carrier"] = "never seen" if recipe.column == "unseen" else rng.choice(["a", "b", "c"], n)
    values = np.column_stack([np.clip(np.nan_to_num(frame[f"x{i}"]), -1e90, 1e90) for i in (1, 2, 3)] + [np.ones(n)])
    values = _ANSWER[recipe.answer](values)
    output = values.sum(axis=1) - 1.0
    prediction = expit(output) if layout.task == "binary" else output
    weight = _WEIGHT[recipe.weight](rng, n)
    label = np.asarray(_LABEL[recipe.label](rng, expit(output)), dtype=float)
    explained = Explained(frame, prediction, weight, values, output, -1.0)
    outcomes = Outcomes(frame[: label.size], prediction[: label.size], weight[: label.size], label)
    pair = summarise(explained, layout), summarise_outcomes(outcomes, layout)
    return tuple(_tampered(summary, recipe.tampered, rng) for summary in pair)


def _tampered(summary: WindowSummary, how: str, rng: np.random.Generator) -> WindowSummary:
    """A table that no rows can give, as a faulty disk or writer might leave it, where it can be read back."""
    table = summary.table
    if how == "no" or not table.num_rows:
        return summary
    if how == "blocks":
        blocks = table["block"].to_pandas()
        kept = rng.choice(blocks.unique(), size=2)
        return WindowSummary(table.filter(pa.array(blocks.isin(kept))))
    chosen = rng.random(table.num_rows) < 0.3
    hi = table["hi"].to_numpy()
    if how == "halved":
        return WindowSummary(table.filter(pa.array(~chosen)))
    changed = np.where(
        chosen, 0 if how == "zeros" else np.clip(hi, -(2**40), 2**40) * rng.choice([-1, 1000, 2**20]), hi
    )
    torn = merge([WindowSummary(table.set_column(5, "hi", pa.array(changed)))])
    below = torn.frame().query("value < 0")
    if set(below["stat"]) <= SIGNED:
        return WindowSummary.from_bytes(torn.to_bytes())
    with pytest.raises(ValueError, match="below zero"):
        WindowSummary.from_bytes(torn.to_bytes())
    return summary


class Watched:
    """A world with its reference. Not a dataclass: a failing example would print all that it holds."""

    def __init__(self, world) -> None:
        self.world, self.reference = world, world.refer()


@pytest.fixture(scope="module", params=["binary", "regression"])
def watched(request, make_world) -> Watched:
    return Watched(make_world(task=request.param))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(
    max_examples=EXAMPLES // 2,  # for each of the two tasks
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a recipe names its window; to shrink eight of them takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(recipes=st.lists(_RECIPE, min_size=WINDOWS, max_size=WINDOWS))
def test_any_window_has_a_sound_verdict(watched: Watched, recipes: list[Recipe]) -> None:
    world, reference = watched.world, watched.reference
    windows = [
        replace(window, summary=summary, outcomes=outcomes)
        for window, (summary, outcomes) in zip(
            world.windows(WINDOWS), (_made(recipe, world) for recipe in recipes), strict=True
        )
    ]
    verdicts = world.verdicts(reference, windows)
    assert len(verdicts) == WINDOWS
    tampered = any(recipe.tampered != "no" for recipe in recipes)
    sound(verdicts) if not tampered else [_finite(v) for v in verdicts]


def _finite(verdict) -> None:
    from soundness import walk

    walk(verdict)


@pytest.mark.parametrize("label", [np.nan, np.inf])
def test_an_outcome_that_is_no_number_is_refused(world, label: float) -> None:
    frame = pd.DataFrame({"x1": [0.0], "x2": [0.0], "x3": [0.0], "carrier": ["a"]})
    one = np.ones(1)
    with pytest.raises(ValueError, match="label"):
        summarise_outcomes(Outcomes(frame, one / 2, one, np.array([label])), world.layout)
