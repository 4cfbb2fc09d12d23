"""The score shift is the sum of the attributions' shifts: of the sums as they are stored, not about as large."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from whydrift.monitors.binning import FeatureBins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import BITS, Explained, Layout

FEATURES = 4
BINS = tuple(FeatureBins(f"x{j}", edges=(-2.0, -1.0, 0.0, 1.0, 2.0)) for j in range(FEATURES))
SCALE = 0.5


def identity(values, base, seed):
    """Sum over features and rows of attributions + base - output, in units of 2**-32, an integer."""
    rng = np.random.default_rng(seed)
    rows = len(values)
    inputs = pd.DataFrame(rng.normal(size=(rows, FEATURES)), columns=[b.name for b in BINS])
    output, one = values.sum(axis=1) + base, np.ones(rows)
    layout = Layout("regression", "identity", SCALE, 1.0, BINS, BINS, ())
    table = summarise(Explained(inputs, output, one, values, output, base), layout).table.to_pylist()
    sums = {}
    for row in table:
        key = (row["block"], row["stat"])
        sums[key] = sums.get(key, 0) + (row["hi"] << BITS) + row["lo"]
    total = [sums.get(key, 0) for key in (("attribution", "value"), ("total", "base"), ("total", "output"))]
    return total[0] + total[1] - total[2]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32))
def test_numbers_that_need_no_rounding_add_up_to_nothing_at_all(rows, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-(2**12), 2**12, size=(rows, FEATURES)) / 2**10
    assert identity(values, 0.375, seed) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_others_within_the_rounding_of_each_term(rows, seed, size):
    rng = np.random.default_rng(seed)
    values = size * rng.normal(size=(rows, FEATURES))
    # Half a unit of 2**-32 for each of p + 2 terms of a row, and the rounding of the model's own float64 sum.
    allowed = rows * ((FEATURES + 2) / 2 + 2**BITS * FEATURES * 16 * size * 2**-52 / SCALE)
    assert abs(identity(values, 0.3 * size, seed)) <= allowed
