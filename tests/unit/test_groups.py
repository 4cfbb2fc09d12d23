"""Features that move together are found, and watched as one."""

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors.groups import CORRELATION, correlated_groups, find_groups


def correlated(rho, rows=4000, seed=0):
    rng = np.random.default_rng(seed)
    x, other = rng.normal(size=(2, rows))
    return x, rho * x + np.sqrt(1 - rho**2) * other


@pytest.mark.parametrize(("rho", "found"), [(0.65, False), (0.75, True), (-0.75, True)])
def test_groups_begin_at_the_limit(rho, found):
    x, y = correlated(rho)
    assert (abs(np.corrcoef(x, y)[0, 1]) > CORRELATION) == found
    groups = correlated_groups(pd.DataFrame({"temp": x, "dewp": y}))
    assert [(g.name, g.members, g.automatic) for g in groups] == [("temp+dewp", ("temp", "dewp"), True)] * found


def test_a_chain_of_correlations_is_one_group():
    x, y = correlated(0.8)
    z = 0.8 * y + 0.6 * np.random.default_rng(5).normal(size=y.size)
    assert abs(np.corrcoef(x, z)[0, 1]) < CORRELATION
    assert [g.members for g in correlated_groups(pd.DataFrame({"x": x, "y": y, "z": z}))] == [("x", "y", "z")]


def test_columns_that_have_no_correlation():
    """Constants, text, and numbers of which too few are there belong to no group; missing values count for no pair."""
    x, y = correlated(0.9)
    gaps = np.where(np.arange(x.size) % 3 == 0, np.nan, y)
    frame = pd.DataFrame({"x": x, "gaps": gaps, "one": 1.0, "never": np.nan, "text": "a"})
    frame["maybe"] = pd.Series(np.arange(x.size) % 2, dtype="Int64").where(np.arange(x.size) % 5 > 0)
    assert [g.members for g in correlated_groups(frame)] == [("x", "gaps")]
    assert correlated_groups(frame[["text", "x"]]) == ()
    assert correlated_groups(frame.iloc[:0]) == ()


def test_large_groups_have_short_names():
    x, _ = correlated(0.9)
    frame = pd.DataFrame({f"f{i}": x * (i + 1) for i in range(6)})
    assert [g.name for g in correlated_groups(frame)] == ["f0+f1+f2 and 3 more"]


def test_a_configured_group_keeps_its_name():
    x, y = correlated(0.9)
    frame = pd.DataFrame({"temp": x, "dewp": y, "humid": np.random.default_rng(1).normal(size=x.size)})
    both = find_groups({"weather": ["dewp", "temp"]}, frame)
    assert [(g.name, g.automatic) for g in both] == [("weather", False)]
    other = find_groups({"weather": ["dewp", "humid"]}, frame)
    assert [(g.name, g.automatic) for g in other] == [("weather", False), ("temp+dewp", True)]
