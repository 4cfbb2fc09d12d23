"""Features that move together.

Explanations move credit among correlated features: each one's attributions may change a lot where their sum hardly
does. So such features are also watched as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from whydrift.monitors.summary import Group

CORRELATION = 0.7  # above it, in absolute value, two features belong to one group
_NAMED = 3


def find_groups(configured: Mapping[str, Sequence[str]], rows: pd.DataFrame) -> tuple[Group, ...]:
    """The configured groups, then those of features that move together, unless one of the former is the same."""
    named = tuple(Group(name, tuple(members)) for name, members in configured.items())
    known = {frozenset(group.members) for group in named}
    return (*named, *(group for group in correlated_groups(rows) if frozenset(group.members) not in known))


def correlated_groups(rows: pd.DataFrame) -> tuple[Group, ...]:
    """The connected components of the numeric columns' Pearson correlations above `CORRELATION`, named by members.

    Rows where one of two columns is missing do not count for the pair; a constant column belongs to no group.

    >>> x = np.array([0.0, 1.0, 2.0, 3.0])
    >>> [g.name for g in correlated_groups(pd.DataFrame({"a": x, "b": -x, "c": x % 2, "d": 1.0}))]
    ['a+b']
    """
    numbers = rows.select_dtypes("number").astype(np.float64)
    if numbers.shape[1] < 2:
        return ()
    linked = np.abs(numbers.corr().to_numpy()) > CORRELATION
    _, component = connected_components(linked, directed=False)
    members = pd.Series(numbers.columns.astype(str)).groupby(component).agg(tuple)
    return tuple(Group(_name(m), m, automatic=True) for m in members if len(m) > 1)


def _name(members: tuple[str, ...]) -> str:
    """Different groups share no member, so that the first ones tell them apart.

    >>> _name(("a", "b", "c", "d", "e"))
    'a+b+c and 2 more'
    """
    more = len(members) - _NAMED
    return "+".join(members[:_NAMED]) + (f" and {more} more" if more > 0 else "")
