"""The compiled kernels give the bytes that numpy gives, whatever the rows, and so do any parts and threads."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whydrift.monitors import row_sums, sum_arrays, sum_kernels
from whydrift.monitors.binning import GRAIN, MISSING, FeatureBins, assign
from whydrift.monitors.cell_index import columns, index_cells, place, raw_thresholds
from whydrift.monitors.class_sums import summarise_classes, summarise_explained_classes, summarise_logged_classes
from whydrift.monitors.confusion import Fairness, FairnessColumn
from whydrift.monitors.explained_sums import summarise, summarise_explained
from whydrift.monitors.summary import ClassCells, Explained, Group, Layout, Logged, merge, summarise_logged
from whydrift.monitors.summary_terms import BITS, CHUNK, LIMIT, NO_CELL, held

FEATURES = (
    FeatureBins("x", edges=(-1.0, 0.0, 0.1, 0.5, 1.0)),
    FeatureBins("c", categories=("a", "b")),
    FeatureBins("dead", edges=(0.0, 0.0)),
    FeatureBins("wide", edges=tuple(np.linspace(-2, 2, 21))),
    FeatureBins("count", edges=(0.0, 1.5, 3.0)),
)
OWN = (
    FeatureBins("x", edges=(-1.0, 0.0, 1.0)),
    FeatureBins("c", edges=(-0.5, 0.25, 0.5, 2.0)),
    FeatureBins("dead", edges=(-GRAIN, GRAIN)),
    FeatureBins("wide", edges=tuple(np.linspace(-1, 1, 12))),
    FeatureBins("count", edges=(0.0, 0.0)),
)
BINARY = Layout(
    task="binary",
    link="logit",
    scale=0.5,
    loss_scale=1.0,
    features=FEATURES,
    attributions=OWN,
    slices=("x", "c", "count"),
    groups=(Group("both", ("x", "c")), Group("three", ("dead", "wide", "x"), automatic=True)),
    fairness=Fairness((FairnessColumn(FEATURES[1], 0),), 0.5),
)
REGRESSION = replace(
    BINARY, task="regression", link="identity", scale=3.0, predictions=FeatureBins("p", edges=(0.0, 0.5)), fairness=None
)
CLASSES = replace(
    BINARY, task="multiclass", link="softmax", classes=tuple(ClassCells(name, OWN) for name in "uvw"), fairness=None
)

EDGES = [-0.0, 5e-324, 3 * 2.0**-34, 1e300, -1.7e308, np.inf, -np.inf, LIMIT, LIMIT / 2 - 2.0**-10, -3.0, 2.0**13, 0.1]
INPUTS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 0.1, np.nextafter(1.0, 2), 1.0, 7.0, 7.1, -7.0, -7.1, 1e300, -8.0, 14.0]
WEIGHTS = [1.0, 0.3, 1e-6, 5e-324, 12.5, 1e300, 0.0]


@contextmanager
def limits(**constants):
    """What decides how rows are reduced, and must not show in the bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            module = sum_kernels if name in {"ELEMENTS", "THREADS"} else row_sums
            patch.setattr(module, name, value)
        yield


def compiled(reduce, batch, layout, *, threads=1, elements=2**22):
    with limits(WORTH_COMPILING=0, THREADS=threads, ELEMENTS=elements):
        return reduce(batch, layout)


def draw_rows(rng, rows, layout, dtype, absurd):
    """Rows with all kinds of columns; where `absurd`, a fifth of each number is one that should not happen."""

    def strewn(values, odd, part):
        return np.where(rng.random(values.shape) < (part if absurd else 0), rng.choice(odd, values.shape), values)

    with np.errstate(over="ignore"):
        x = strewn(rng.normal(size=rows), INPUTS, 0.3).astype(dtype)
        frame = pd.DataFrame(
            {
                "x": x,
                "c": pd.Series(rng.choice(np.array(["a", "b", "new", "", None], object), rows), dtype="str"),
                "dead": strewn(np.zeros(rows), [np.nan, 1.0, 0.0], 0.5),
                "wide": strewn(rng.normal(size=rows), INPUTS, 0.3).astype(dtype),
                "count": rng.integers(-1, 12, rows) if dtype == np.float64 else nullable(rng, rows),
            }
        )
        shape = (rows, len(layout.classes), 5) if layout.classes else (rows, 5)
        values = strewn(rng.normal(size=shape), EDGES, 0.2).astype(dtype)
    weight = strewn(np.ones(rows), WEIGHTS, 0.7)
    output = np.clip(np.nan_to_num(values.astype(np.float64)), -1e6, 1e6).sum(axis=-1) - 1.0
    prediction = rng.random(output.shape)
    base = (-1.0, 0.5, 1e300) if layout.classes else -1.0
    error = np.abs(values) if absurd else None
    return Explained(frame, prediction, weight, values, output, base, error)


def nullable(rng, rows):
    return pd.array(np.where(rng.random(rows) < 0.2, None, rng.integers(-1, 12, rows)), dtype="Int64")


LAYOUTS = st.sampled_from([BINARY, REGRESSION, CLASSES])
DTYPES = st.sampled_from([np.float32, np.float64])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1100), LAYOUTS, DTYPES, st.booleans())
def test_compiled_sums_are_byte_identical(seed, rows, layout, dtype, absurd):
    batch = draw_rows(np.random.default_rng(seed), rows, layout, dtype, absurd)
    logged = Logged(batch.features, batch.prediction, batch.weight)
    whole, explained, of_log = (
        (summarise_classes, summarise_explained_classes, summarise_logged_classes)
        if layout.classes
        else (summarise, summarise_explained, summarise_logged)
    )
    plain = whole(batch, layout)
    assert compiled(whole, batch, layout).to_bytes() == plain.to_bytes()
    apart = [compiled(explained, batch, layout, elements=200, threads=2), compiled(of_log, logged, layout)]
    assert merge(apart).to_bytes() == plain.to_bytes()
    assert merge([explained(batch, layout), of_log(logged, layout)]).to_bytes() == plain.to_bytes()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), DTYPES)
def test_every_row_is_placed_in_the_cell_that_it_is_assigned(seed, dtype):
    batch = draw_rows(np.random.default_rng(seed), 700, BINARY, dtype, absurd=True)
    index = index_cells(FEATURES)
    for kernels in (sum_arrays, sum_kernels):
        places = place(index, columns(batch.features, index), slice(3, 699), kernels)
        for j, bins in enumerate(FEATURES):
            cells = assign(bins, batch.features[bins.name].iloc[3:699])
            assert (index.codes[places[j]] == cells).all(), bins.name
            assert ((places[j] >= index.starts[j]) & (places[j] < index.starts[j + 1])).all()


def test_single_precision_meets_an_edge_that_it_cannot_hold():
    """A float32 just below a double edge is below it, also where rounding the edge would say otherwise."""
    x = np.array([0.1], dtype=np.float32)
    for edge in (float(x[0]), np.nextafter(float(x[0]), 1), np.nextafter(float(x[0]), 0), 0.1, 1e39, 1e-60):
        bins = FeatureBins("x", edges=(-1e300, edge, 1e300))
        index = index_cells((bins,))
        for kernels in (sum_arrays, sum_kernels):
            at = place(index, [x], slice(0, 1), kernels)[0]
            assert index.codes[at] == assign(bins, pd.Series(x)) == int(float(x[0]) >= edge)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1100), st.sampled_from([0.0, 0.01, 0.5]), st.booleans())
def test_terms_add_up_to_the_same_sums(seed, rows, odd, by_cell):
    rng = np.random.default_rng(seed)
    scale = rng.choice([1e-9, 1.0, 2.0**13, 2.0**20])
    held_edges = held(np.array(EDGES), 1.0)
    terms = np.where(rng.random(rows) < odd, rng.choice(held_edges, rows), scale * rng.normal(size=rows))
    cells = rng.integers(NO_CELL, 7, rows) if by_cell else None
    high, low = sum_kernels.add_terms(terms, cells)
    expected = sum_arrays.add_terms(terms, cells)
    np.testing.assert_array_equal(high + (low >> BITS), expected[0] + (expected[1] >> BITS))
    np.testing.assert_array_equal(low % 2**BITS, expected[1] % 2**BITS)


POSITIVE = st.floats(1e-30, 1e30, allow_subnormal=False)
THRESHOLDS = st.one_of(
    st.floats(-3, 3), st.floats(-2 * LIMIT, 2 * LIMIT), st.sampled_from([0.0, LIMIT, -LIMIT, 5e-324])
)


@settings(max_examples=500, deadline=None)
@given(THRESHOLDS, POSITIVE, DTYPES)
def test_an_attribution_reaches_a_threshold_from_its_raw_threshold_on(threshold, unit, dtype):
    raw = raw_thresholds(np.array([threshold, np.nan]), unit, np.dtype(dtype))
    assert raw.dtype == dtype
    assert np.isnan(raw[1])
    infinity = dtype(np.inf)
    if threshold > LIMIT:  # which is more than anything is held at
        assert np.isnan(raw[0])
    else:
        assert held(raw[:1], unit)[0] >= threshold
        with np.errstate(over="ignore"):
            below = np.nextafter(raw[:1], -infinity)
        assert raw[0] == -infinity or held(below, unit)[0] < threshold


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_threads_and_parts_do_not_show(order):
    rng = np.random.default_rng(5)
    batch = draw_rows(rng, 5000, BINARY, np.float32, absurd=True)
    plain = summarise(batch, BINARY).to_bytes()
    other = replace(batch, values=np.asarray(batch.values, order=order), features=batch.features.copy())
    for threads, elements in ((1, 2**22), (2, 4000), (3, 1)):
        rows = 5000 if elements > 1 else 300
        expected = plain if rows == 5000 else summarise(cut(batch, rows), BINARY).to_bytes()
        assert compiled(summarise, cut(other, rows), BINARY, threads=threads, elements=elements).to_bytes() == expected


def cut(batch, rows):
    return replace(
        batch,
        features=batch.features.iloc[:rows],
        **{name: getattr(batch, name)[:rows] for name in ("prediction", "weight", "values", "output", "error")},
    )


@pytest.mark.parametrize("size", [2.0**6.99, 2.0**7.9, 2.0**12, LIMIT - 2.0**-22])
def test_large_terms_overflow_no_limb(size):
    """A part's small terms share a limb, which larger ones would overflow."""
    rows = CHUNK + 5
    z = np.where(np.arange(rows) % 5000 < 4000, size, -0.1)[:, None]
    layout = replace(BINARY, features=FEATURES[:1], attributions=OWN[:1], slices=(), groups=(), fairness=None)
    frame = pd.DataFrame({"x": np.zeros(rows)})
    batch = Explained(frame, np.full(rows, 0.5), np.ones(rows), z * layout.scale, np.zeros(rows), 0.0)
    assert compiled(summarise, batch, layout).to_bytes() == summarise(batch, layout).to_bytes()


@pytest.mark.parametrize("reduce", [summarise, lambda b, o: compiled(summarise, b, o)])
@pytest.mark.parametrize("field", ["values", "weight"])
def test_what_is_not_a_number_is_refused(reduce, field):
    batch = draw_rows(np.random.default_rng(0), 600, BINARY, np.float64, absurd=False)
    getattr(batch, field)[500] = np.nan
    with pytest.raises(ValueError, match="is not a number"):
        reduce(batch, BINARY)


CATEGORIES = ["a", "b", "new", "", None, "a", "NaN"]


@pytest.mark.parametrize(
    "dtype",
    [
        "str",
        object,
        "category",
        "string[python]",
        pd.ArrowDtype(pa.string()),
        pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_a_category_is_known_by_its_text_however_it_is_kept(dtype):
    cells = assign(FeatureBins("c", categories=("", "a", "b")), pd.Series(CATEGORIES, dtype=dtype))
    assert cells.tolist() == [1, 2, -4, 0, MISSING, 1, -4]


def test_numbers_as_categories():
    bins = FeatureBins("c", categories=("1", "2"))
    assert assign(bins, pd.Series([2, 1, 3])).tolist() == [1, 0, -4]
    assert assign(bins, pd.Series([2, 1, 3], dtype="category")).tolist() == [1, 0, -4]
    assert assign(bins, pd.Series([2, None], dtype="Int64")).tolist() == [1, MISSING]
