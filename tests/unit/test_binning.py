"""A baseline's cells hold its own rows evenly, and whatever comes later falls into exactly one of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whydrift.monitors.binning import ABOVE, BELOW, CELLS, FAR, MISSING, OUTSIDE, UNSEEN, FeatureBins, assign, fit_bins


def test_cells_of_a_continuous_column_hold_equal_mass():
    values = pd.Series(np.random.default_rng(0).lognormal(size=10_000))
    bins = fit_bins("x", values)
    counts = np.bincount(assign(bins, values))
    assert counts.size == CELLS
    np.testing.assert_allclose(counts, 500, atol=1)
    assert bins.edges[0] == values.min()
    assert bins.edges[-1] == values.max()


@pytest.mark.parametrize("distinct", [[3.0], [0.0, 1.0], [1.0, 2.0, 5.0], list(range(20))])
def test_few_distinct_values_get_a_cell_each(distinct):
    values = pd.Series(np.repeat(distinct, 7))
    counts = np.bincount(assign(fit_bins("x", values), values))
    assert counts.tolist() == [7] * len(distinct)


def test_a_column_that_is_mostly_one_value_keeps_its_tail():
    values = pd.Series([0.0] * 990 + list(np.linspace(1, 50, 60)))
    bins = fit_bins("rain", values)
    assert list(bins.edges) == sorted(set(bins.edges))
    assert (assign(bins, values) >= 0).all()
    assert assign(bins, pd.Series([0.0, 50.0])).tolist() == [0, len(bins.edges) - 2]


def test_cells_agree_with_numpy_and_with_pandas_cut():
    values = pd.Series(np.random.default_rng(1).normal(size=500))
    bins = fit_bins("x", values)
    edges = np.array(bins.edges)
    assert (np.bincount(assign(bins, values), minlength=CELLS) == np.histogram(values, edges)[0]).all()
    half_open = pd.cut(values, [*edges[:-1], np.inf], right=False, labels=False)
    assert (assign(bins, values) == half_open).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0])), max_size=60),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=20),
)
def test_every_value_has_a_cell(baseline, later):
    baseline, later = pd.Series(baseline, dtype=float), pd.Series(later, dtype=float)
    bins = fit_bins("x", baseline)
    assert list(bins.edges) == sorted(bins.edges)
    known = assign(bins, baseline)
    assert ((known == MISSING) == baseline.isna()).all()
    assert (known[baseline.notna()] >= 0).all()
    cells = assign(bins, later)
    reach = 3 * (bins.edges[-1] - bins.edges[0]) or np.inf
    far = (later < bins.edges[0] - reach) | (later > bins.edges[-1] + reach)
    assert ((cells == FAR) == far).all()
    assert ((cells == BELOW) == (later < bins.edges[0]) & ~far).all()
    assert ((cells == ABOVE) == (later > bins.edges[-1]) & ~far).all()
    assert np.isin(cells, [*OUTSIDE, *range(len(bins.edges) - 1)]).all()


@pytest.mark.parametrize("dtype", ["object", "str", "category", "string"])
def test_categories_of_every_pandas_type(dtype):
    values = pd.Series(["b", "a", None, "b"], dtype=dtype)
    bins = fit_bins("c", values)
    assert bins.categories == ("a", "b")
    assert assign(bins, values).tolist() == [1, 0, MISSING, 1]
    assert assign(bins, pd.Series(["z", "", "a", None], dtype=dtype)).tolist() == [UNSEEN, UNSEEN, 0, MISSING]


@pytest.mark.parametrize("dtype", ["bool", "int8", "Int64", "boolean", "float32", "Float64", "uint64"])
def test_numbers_of_every_pandas_type(dtype):
    values = pd.Series([0, 1, 1, 0], dtype=dtype)
    assert assign(fit_bins("x", values), values).tolist() == [0, 1, 1, 0]
    if dtype in {"Int64", "boolean", "Float64"}:
        assert assign(fit_bins("x", values), pd.Series([None, 1], dtype=dtype)).tolist() == [MISSING, 1]


def test_a_column_that_the_baseline_never_had():
    assert fit_bins("x", pd.Series([np.nan, np.nan])).edges == (0.0, 0.0)
    assert assign(FeatureBins("x", edges=(0.0, 0.0)), pd.Series([0.0, 1.0, -1.0])).tolist() == [0, ABOVE, BELOW]
    bins = fit_bins("c", pd.Series([None, None], dtype="str"))
    assert not bins.numeric
    assert assign(bins, pd.Series(["a", None])).tolist() == [UNSEEN, MISSING]
    assert assign(bins, pd.Series([None, None], dtype="str")).tolist() == [MISSING, MISSING]
    assert assign(bins, pd.Series([], dtype="str")).size == 0
