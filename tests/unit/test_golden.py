"""Golden rows: rounding is no difference, and everything else is one."""

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors.golden import Golden, compare
from whydrift.monitors.summary import merge

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(50, 3))
GOLDEN = Golden(pd.DataFrame(RNG.normal(size=(50, 3)), columns=list("abc")), VALUES, VALUES.sum(axis=1))


def counted(values=VALUES, output=GOLDEN.output, scale=1.0, error=None):
    """Counts of the whole, and by feature."""
    frame = compare(GOLDEN, values, output, scale=scale, error=error).frame()
    assert set(frame["block"]) == {"golden"}
    return {
        (name or stat): value for name, stat, value in zip(frame["name"], frame["stat"], frame["value"], strict=True)
    }


def changed(rows, column, by):
    values = VALUES.copy()
    values[rows, column] += by
    return values


def test_the_same_answers():
    assert counted() == {"rows": 50}
    assert counted(values=VALUES * (1 + 1e-9), output=GOLDEN.output + 1e-8) == {"rows": 50}


def test_other_attributions_are_counted_by_row_and_by_feature():
    values = changed(slice(0, 7), 0, 1e-4)
    values[5:9, 2] -= 0.1
    assert counted(values) == {"rows": 50, "attributions": 9, "a": 7, "c": 4}


def test_other_outputs():
    assert counted(output=np.where(np.arange(50) < 3, 0.0, GOLDEN.output)) == {"rows": 50, "outputs": 3}


def test_the_tolerance_is_one_of_the_scale():
    values = changed(slice(None), 1, 1e-4)
    assert counted(values)["b"] == 50
    assert counted(values, scale=1000.0) == {"rows": 50}


def test_sampled_attributions_may_differ_by_their_error():
    values = changed(slice(0, 10), 1, 0.2)
    assert counted(values, error=np.full_like(VALUES, 0.05)) == {"rows": 50}
    assert counted(values, error=np.full_like(VALUES, 0.03))["b"] == 10


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_differs(odd):
    values = changed(slice(0, 1), 0, odd)
    assert counted(values) == {"rows": 50, "attributions": 1, "a": 1}
    same = Golden(GOLDEN.features, values, GOLDEN.output)
    assert compare(same, values, GOLDEN.output, scale=1.0).table.num_rows == 1


def test_replays_add_up():
    once = compare(GOLDEN, changed(slice(0, 7), 0, 1.0), GOLDEN.output, scale=1.0)
    frame = merge([once] * 24).frame()
    assert dict(zip(frame["name"] + frame["stat"], frame["value"], strict=True)) == {
        "rows": 24 * 50,
        "attributions": 24 * 7,
        "adiffers": 24 * 7,
    }
