"""A window's summary is the sum of its parts' summaries: bit for bit, whatever the parts, and in any order."""

from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from whydrift.monitors import summary as module
from whydrift.monitors.binning import GRAIN, FeatureBins, slice_names
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import (
    SCHEMA,
    Explained,
    Group,
    Layout,
    Outcomes,
    WindowSummary,
    count_digests,
    count_set_aside,
    merge,
    summarise_outcomes,
)
from whydrift.monitors.summary_terms import BITS, CHUNK, LIMIT, NO_CELL

LAYOUT = Layout(
    task="binary",
    link="logit",
    scale=0.5,
    loss_scale=1.0,
    features=(
        FeatureBins("x", edges=(-1.0, 0.0, 0.5, 1.0)),
        FeatureBins("c", categories=("a", "b")),
        FeatureBins("dead", edges=(0.0, 0.0)),
    ),
    attributions=(
        FeatureBins("x", edges=(-1.0, 0.0, 1.0)),
        FeatureBins("c", edges=(-0.5, 0.25, 0.5, 2.0)),
        FeatureBins("dead", edges=(-GRAIN, GRAIN)),
    ),
    slices=("x", "c"),
    groups=(Group("both", ("x", "c")), Group("x+dead", ("x", "dead"), automatic=True)),
)
REGRESSION = replace(
    LAYOUT,
    task="regression",
    link="identity",
    loss_scale=2.0,
    predictions=FeatureBins("prediction", edges=(0.0, 0.25, 0.5, 1.0)),
)

EDGES = [0.0, -0.0, 1e-300, 5e-324, -1e-300, 2.0**-34, 3 * 2.0**-34, 1e300, -1e300, 1.7e308, -1.7e308]
ABSURD = st.sampled_from([*EDGES, LIMIT / 2, -LIMIT / 2, LIMIT, -LIMIT, LIMIT - 2.0**-10, 0.1, -3.0])
INPUT = st.sampled_from([np.nan, -1.0, 0.0, 0.5, 1.0, -7.0, 1e300, -1e300, 0.25])
CATEGORY = st.sampled_from(["a", "b", "new", "", None])
WEIGHT = st.sampled_from([1.0, 1.0, 0.3, 1e-6, 5e-324, 12.5, 1e300])


def column(draw, element, rows, dtype=float):
    return np.array(draw(st.lists(element, min_size=rows, max_size=rows)), dtype=dtype)


@st.composite
def batches(draw, kind):
    """Up to 30 rows: plain ones, or every column strewn with what should not happen."""
    rows, seed = draw(st.integers(0, 30)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    plain = draw(st.booleans())
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=rows) if plain else column(draw, INPUT, rows),
            "c": pd.Series(column(draw, CATEGORY, rows, object), dtype="str"),
            "dead": column(draw, st.sampled_from([0.0, np.nan, 1.0]), rows),
        }
    )
    prediction = rng.random(rows)
    weight = np.ones(rows) if plain else column(draw, WEIGHT, rows)
    values = rng.normal(size=(rows, 3)) if plain else column(draw, ABSURD, 3 * rows).reshape(rows, 3)
    if kind is Explained:
        with np.errstate(over="ignore"):
            output = np.clip(values.sum(axis=1) - 1.0, -1.7e308, 1.7e308)
        return Explained(frame, prediction, weight, values, output, -1.0)
    label = rng.integers(0, 2, rows).astype(float) if plain else np.abs(values[:, 0])
    return Outcomes(frame, prediction, weight, label)


def take(batch, rows):
    def part(value):
        if isinstance(value, pd.DataFrame):
            return value.iloc[rows]
        return value[rows] if isinstance(value, np.ndarray) else value

    return replace(batch, **{f.name: part(getattr(batch, f.name)) for f in fields(batch)})


def reduce(batch, layout):
    return (summarise if isinstance(batch, Explained) else summarise_outcomes)(batch, layout)


def limbs(summary):
    """Each sum as an exact fraction, by its key."""
    rows = summary.table.to_pylist()
    return {tuple(r[k] for k in module.KEYS): r["hi"] + Fraction(r["lo"], 2**BITS) for r in rows}


ANY_BATCH = st.one_of(batches(Explained), batches(Outcomes))
ANY_LAYOUT = st.sampled_from([LAYOUT, REGRESSION])


def in_domain(batch, layout):
    """Labels of a classifier are probabilities' outcomes; the source lets no others through."""
    if isinstance(batch, Outcomes) and layout.task == "binary":
        return replace(batch, label=np.minimum(batch.label, 1.0))
    return batch


@settings(max_examples=150, deadline=None)
@given(ANY_BATCH, ANY_LAYOUT, st.data())
def test_any_split_in_any_order_is_byte_identical(batch, layout, data):
    batch = in_domain(batch, layout)
    rows = len(batch.features)
    order = np.array(data.draw(st.permutations(range(rows))), dtype=int)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5)))
    parts = [reduce(take(batch, piece), layout) for piece in np.split(order, cuts)]
    shuffled = data.draw(st.permutations(parts))
    whole = reduce(batch, layout)
    assert merge(shuffled).to_bytes() == whole.to_bytes()
    assert merge(shuffled) == whole


@settings(max_examples=60, deadline=None)
@given(batches(Explained), batches(Explained), batches(Outcomes))
def test_merge_is_commutative_and_associative_with_a_zero(first, second, third):
    a, b, c = (reduce(in_domain(x, LAYOUT), LAYOUT) for x in (first, second, third))
    assert merge([a, b]).to_bytes() == merge([b, a]).to_bytes()
    assert merge([merge([a, b]), c]).to_bytes() == merge([a, merge([b, c])]).to_bytes()
    assert merge([a, WindowSummary.zero()]).to_bytes() == a.to_bytes()
    assert merge([a]).to_bytes() == a.to_bytes()


@settings(max_examples=60, deadline=None)
@given(ANY_BATCH, ANY_LAYOUT)
def test_the_table_is_canonical_and_survives_its_bytes(batch, layout):
    summary = reduce(in_domain(batch, layout), layout)
    again = WindowSummary.from_bytes(summary.to_bytes())
    assert again == summary
    assert again.to_bytes() == summary.to_bytes()
    assert again.table.schema == SCHEMA
    frame = summary.table.to_pandas()
    keys = list(frame[list(module.KEYS)].itertuples(index=False, name=None))
    assert keys == sorted(set(keys))
    assert ((frame["lo"] >= 0) & (frame["lo"] < 2**BITS)).all()
    assert ((frame["hi"] != 0) | (frame["lo"] != 0)).all()
    assert np.isfinite(summary.frame()["value"].to_numpy(float)).all()


@settings(max_examples=60, deadline=None)
@given(batches(Explained))
def test_sums_are_those_of_the_rows_but_for_one_rounding_a_term(batch):
    sums, rows = limbs(summarise(batch, LAYOUT)), len(batch.features)
    unit = Fraction(LAYOUT.scale)

    def held(value, unit=Fraction(1)):
        return min(max(Fraction(float(value)) / unit, Fraction(-LIMIT)), Fraction(LIMIT))

    weights = [held(w) for w in batch.weight]
    expected = {
        ("rows", "rows"): [Fraction(1)] * rows,
        ("rows", "weight"): weights,
        ("total", "output"): [w * held(o, unit) for w, o in zip(weights, batch.output, strict=True)],
        ("total", "base"): [w * held(batch.base, unit) for w in weights],
    }
    for (block, stat), terms in expected.items():
        kept = [held(t) for t in terms]  # a float product's own rounding is at most 2**-53 of it
        slack = rows * Fraction(1, 2**33) + sum((abs(t) for t in terms if abs(t) < LIMIT), Fraction(0)) / 2**52
        found = sums.get((block, "", "", NO_CELL, stat), Fraction(0))
        assert abs(found - sum(kept, Fraction(0))) <= slack, (block, stat)
    for j, bins in enumerate(LAYOUT.features):
        terms = [w * held(v, unit) for w, v in zip(weights, batch.values[:, j], strict=True)]
        slack = rows * Fraction(1, 2**33) + sum((abs(t) for t in terms if abs(t) < LIMIT), Fraction(0)) / 2**52
        found = sum((v for k, v in sums.items() if k[0] == "attribution" and k[2] == bins.name and k[4] == "value"), 0)
        assert abs(found - sum(map(held, terms), Fraction(0))) <= slack


def test_an_empty_batch_is_the_zero():
    none = Explained(
        pd.DataFrame({"x": [], "c": pd.Series([], dtype="str"), "dead": []}),
        np.empty(0),
        np.empty(0),
        np.empty((0, 3)),
        np.empty(0),
        0.0,
    )
    assert summarise(none, LAYOUT) == WindowSummary.zero()
    assert WindowSummary.from_bytes(WindowSummary.zero().to_bytes()) == WindowSummary.zero()
    assert merge([]).frame().empty


def test_negative_sums_and_the_bound():
    """A sum below zero borrows from its high limb; a term beyond the bound counts as the bound."""
    frame = pd.DataFrame({"x": [0.1, 0.2], "c": ["a", "a"], "dead": [0.0, 0.0]})
    values = np.array([[-0.75, 1e300, 0.0], [-1.0, 1e300, 0.0]])
    output = np.array([-1.75, -1.0])
    batch = Explained(frame, np.array([0.2, 0.3]), np.ones(2), values, output, 0.0)
    sums = limbs(summarise(batch, LAYOUT))
    assert sums["attribution", "", "x", 1, "value"] == Fraction(-7, 2)
    assert sums["attribution", "", "x", 1, "absolute"] == Fraction(7, 2)
    assert sums["attribution", "", "c", 0, "value"] == 2 * LIMIT
    assert sums["attribution", "", "c", 0, "square"] == 2 * LIMIT
    assert ("attribution", "", "dead", 0, "value") not in sums
    assert sums["total", "", "", NO_CELL, "output"] == Fraction(-11, 2)


def test_huge_and_zero_attributions_in_one_row_stay_numbers():
    """The total is infinite in floats, and 0 times it would be no number."""
    frame = pd.DataFrame({"x": [0.1], "c": ["a"], "dead": [0.0]})
    values = np.array([[1.7e308, 1.7e308, 0.0]])
    batch = Explained(frame, np.array([1.0]), np.array([0.5]), values, np.array([-1e3]), 0.0)
    sums = limbs(summarise(batch, LAYOUT))
    assert ("attribution", "", "dead", 0, "cross") not in sums
    assert sums["attribution", "", "x", 1, "cross"] == LIMIT
    assert sums["quality", "", "", NO_CELL, "not_additive"] == 1
    assert sums["quality", "", "", NO_CELL, "prediction_differs"] == 1


def test_what_the_blocks_count():
    frame = pd.DataFrame(
        {"x": [0.1, np.nan, 1.5, -9.0, 1.0], "c": ["a", "a", "new", None, "b"], "dead": [0.0, 0.0, np.nan, 0.0, 1.0]}
    )
    values, base = np.array([[-0.3, 0.1, 0.0], [0.3, 0.1, 0.0], [0.3, 0.9, 0.1], [0.6, -0.9, 0.0], [0, 0, 0]]), -1.0
    weight, output = np.array([1.0, 2.0, 1.0, 1.0, 0.5]), base + values.sum(axis=1)
    batch = Explained(frame, 1 / (1 + np.exp(-output)), weight, values, output, base)
    sums = limbs(summarise(batch, LAYOUT))
    rows = {k[2:4]: v for k, v in sums.items() if k[0] == "input" and k[4] == "rows"}
    assert rows == {
        ("x", 1): 1, ("x", -1): 1, ("x", -3): 1, ("x", -5): 1, ("x", 2): 1,
        ("c", 0): 2, ("c", -4): 1, ("c", -1): 1, ("c", 1): 1,
        ("dead", 0): 3, ("dead", -1): 1, ("dead", -3): 1,
    }  # fmt: skip
    slices = {k[1]: v for k, v in sums.items() if k[0] == "slice" and k[4] == "rows"}
    assert slices == {"x=[0, 0.5)": 1, "x=[0.5, 1]": 1, "c=a": 2, "c=b": 1}
    missing = {(*k[1:3], k[4]): v for k, v in sums.items() if k[0] == "missing"}
    assert missing == {("c=a", "x", "rows"): 1, ("c=a", "x", "weight"): 2}
    phi = {k[2:4]: v for k, v in sums.items() if k[0] == "phi"}
    assert phi == {
        ("x", 0): 1, ("x", 1): Fraction(7, 2), ("x", -3): 1,
        ("c", 0): Fraction(7, 2), ("c", 2): 1, ("c", -2): 1,
        ("dead", 0): Fraction(9, 2), ("dead", -5): 1,
    }  # fmt: skip
    weights = {k[4]: v for k, v in sums.items() if k[0] == "rows"}
    assert weights == {"rows": 5, "weight": Fraction(11, 2), "weight2": Fraction(29, 4)}
    quality = {k[4]: v for k, v in sums.items() if k[0] == "quality"}
    assert quality == {"explained": 5}  # and no residual: what explanations miss rounds to 0


def test_a_group_is_the_sum_of_its_members_in_each_row():
    """Attributions that cancel leave a group without any, whatever its members have."""
    frame = pd.DataFrame({"x": [0.1, 0.2], "c": ["a", "a"], "dead": [0.0, 0.0]})
    values = np.array([[0.5, -0.5, 0.25], [-0.5, 0.5, 0.25]])
    output = values.sum(axis=1)
    weight = np.array([1.0, 3.0])
    sums = limbs(summarise(Explained(frame, 1 / (1 + np.exp(-output)), weight, values, output, 0.0), LAYOUT))
    group = {k[2:]: v for k, v in sums.items() if k[0] == "group"}
    z = 2 * values[:, 0] + 2 * values[:, 2]
    expected = {"value": z, "square": z**2, "absolute": np.abs(z), "cross": np.abs(z) * 2.5}
    assert group == {
        ("x+dead", NO_CELL, stat): Fraction(float(weight @ terms)) for stat, terms in expected.items() if weight @ terms
    }


def test_what_explanations_miss_of_the_output():
    frame = pd.DataFrame({"x": [0.1, 0.2], "c": ["a", "a"], "dead": [0.0, 0.0]})
    values, weight = np.array([[0.5, 0.0, 0.0], [0.25, 0.0, 0.0]]), np.array([1.0, 2.0])
    sums = limbs(summarise(Explained(frame, np.full(2, 0.5), weight, values, np.array([0.5, 0.5]), 0.25), LAYOUT))
    quality = {k[4]: v for k, v in sums.items() if k[0] == "quality"}
    assert (quality["residual"], quality["residual2"]) == (Fraction(1, 2), Fraction(1, 4))
    assert quality["not_additive"] == 1


def test_predictions_of_a_regression_are_counted_by_cells():
    frame = pd.DataFrame({"x": [0.1] * 4, "c": ["a"] * 4, "dead": [0.0] * 4})
    prediction, weight = np.array([0.0, 0.3, 0.4, 7.0]), np.array([1.0, 2.0, 0.5, 1.0])
    sums = limbs(summarise(Explained(frame, prediction, weight, np.zeros((4, 3)), prediction, 0.0), REGRESSION))
    score = {k[3]: v for k, v in sums.items() if k[0] == "score"}
    assert score == {0: 1, 1: Fraction(5, 2), -5: 1}


def test_outcomes_count_losses_by_slice():
    frame = pd.DataFrame({"x": [0.1, 0.7, np.nan], "c": ["a", "b", "a"], "dead": 0.0})
    batch = Outcomes(frame, np.array([0.5, 0.25, 0.0]), np.array([1.0, 2.0, 1.0]), np.array([1.0, 0.0, 1.0]))
    sums = limbs(summarise_outcomes(batch, LAYOUT))
    loss = {k[1]: v for k, v in sums.items() if k[0] == "loss" and k[4] == "loss"}
    assert loss == {
        "": Fraction(11, 8),
        "c=a": Fraction(5, 4),
        "c=b": Fraction(1, 8),
        "x=[0, 0.5)": Fraction(1, 4),
        "x=[0.5, 1]": Fraction(1, 8),
    }
    positives = {k[1]: v for k, v in sums.items() if k[0] == "loss" and k[4] == "positives"}
    assert positives == {"": 2, "c=a": 2, "x=[0, 0.5)": 1}
    mesh = [v for k, v in sums.items() if k[0] == "outcome" and k[4] == "labelled"]
    assert abs(sum(mesh) - 4) <= 6 * Fraction(1, 2**33)


def test_counts_without_rows():
    sums = limbs(merge([count_set_aside({"duplicate": 3, "never": 0}), count_digests({"model": "ab"}, 7)]))
    assert sums == {
        ("set_aside", "", "duplicate", NO_CELL, "rows"): 3,
        ("digest", "", "model=ab", NO_CELL, "rows"): 7,
    }


def test_slices_of_close_edges_keep_their_own_names():
    bins = FeatureBins("pay", edges=(1_000_000.25, 1_000_000.5, 1_000_000.75, 1_000_001.0))
    names = slice_names(bins)
    assert len(set(names)) == 3
    assert names[0] == "pay=[1000000.2, 1000000.5)"


def test_more_rows_than_a_chunk():
    """Beyond 2**20 rows a float64 could not hold the sum of the limbs: parts are added as integers."""
    rows = CHUNK + 5
    rng = np.random.default_rng(0)
    layout = replace(LAYOUT, features=LAYOUT.features[:1], attributions=LAYOUT.attributions[:1], slices=(), groups=())
    values = np.where(rng.random((rows, 1)) < 0.5, LIMIT - 2.0**-22, -0.1) * layout.scale
    frame = pd.DataFrame({"x": rng.uniform(-1, 1, rows)})
    batch = Explained(frame, np.full(rows, 0.5), np.ones(rows), values, values[:, 0], 0.0)
    whole = summarise(batch, layout)
    middle = rows // 3
    parts = [take(batch, slice(middle, None)), take(batch, slice(None, middle))]
    assert merge([summarise(p, layout) for p in parts]).to_bytes() == whole.to_bytes()
    big = int((values > 0).sum())
    exact = big * (Fraction(LIMIT) - Fraction(1, 2**22)) + (rows - big) * Fraction(round(-0.1 * 2**32), 2**32)
    assert limbs(whole)["total", "", "", NO_CELL, "output"] == exact
