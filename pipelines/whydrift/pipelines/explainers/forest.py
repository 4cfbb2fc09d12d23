"""Decision trees of any library in one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whydrift.pipelines.explainers.protocol import FloatArray

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Forest:
    """Decision trees as arrays, N nodes, the trees one after the other, each in depth-first order with its root first.

    `roots` (T,) are the trees' first nodes. `feature` (N,) is the encoded column that a node asks, -1 of a leaf. A row
    goes left where x < `threshold` (N,), where x is missing by `missing_left` (N,), and where `category` (N,) >= 0
    instead: where bit int(x) of the set number `category` is set; set k is the words `words[offsets[k]:offsets[k+1]]`
    (uint64) of a bit field, and what lies outside it goes right. `left` and `right` (N,) are nodes, -1 of a leaf;
    `cover` (N,) is the training weight that reached a node; `value` (N, C) float64 is what a leaf adds to each of C
    outputs, `base` (C,) what all rows start from (learning rates, averaging over trees are already in `value`).
    """

    roots: IntArray
    feature: IntArray
    threshold: FloatArray
    missing_left: npt.NDArray[np.bool_]
    category: IntArray
    left: IntArray
    right: IntArray
    cover: FloatArray
    value: FloatArray
    base: FloatArray
    offsets: IntArray
    words: npt.NDArray[np.uint64]
