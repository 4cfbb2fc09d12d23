"""SHAP interaction values of tree ensembles, for the page of a window: on demand, of some rows, path-dependent."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pandas as pd

from whydrift.pipelines.explainers.case import Case
from whydrift.pipelines.explainers.protocol import FloatArray, UnsuitedError

_MEMORY = 2**28  # numbers, 2 GiB


def most_rows(case: Case) -> int:
    """How many rows fit into memory, with the encoded columns that the trees ask."""
    width: int = max(case.encoded.shape[1], len(case.columns.names))
    return max(1, _MEMORY // width**2)


def explain_interactions(case: Case, rows: pd.DataFrame) -> FloatArray:
    """Interaction values (n, p, p) of rows: symmetric, each half of a pair's joint effect on the trees' output.

    Raises:
        UnsuitedError: the model is no tree ensemble of one output that can be read, or numba is not installed.
    """
    if find_spec("numba") is None:
        raise UnsuitedError("interaction values need numba: pip install 'whydrift[fast]'")
    if case.forest.base.size > 1:
        raise UnsuitedError("interaction values are of models with one output")
    from whydrift.pipelines.explainers.shapley_trees import ShapleyTrees

    trees, owners = case.trees, case.encoding.owners
    found = ShapleyTrees.path_dependent(case.forest).interactions(
        trees.matrix(case.encoding.encode(case.columns.frame(rows)))
    )
    width = len(case.columns.names)
    values = np.zeros((len(found), width, width))
    for one, first in enumerate(owners):
        for other, second in enumerate(owners):
            values[:, first, second] += found[:, one, other]
    return values
