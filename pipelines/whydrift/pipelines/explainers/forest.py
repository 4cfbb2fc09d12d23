"""Decision trees of any library in one form, which explainers of trees compute from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from whydrift.pipelines.explainers.protocol import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
WordArray = npt.NDArray[np.uint64]


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
    missing_left: BoolArray
    category: IntArray
    left: IntArray
    right: IntArray
    cover: FloatArray
    value: FloatArray
    base: FloatArray
    offsets: IntArray
    words: WordArray

    @property
    def outputs(self) -> int:
        """C, how many numbers the trees add up to."""
        return self.base.size

    def predict(self, rows: FloatArray) -> FloatArray:
        """What the trees add up to for rows (n, q), one tree after the other: (n,), or (n, C) where C > 1.

        Plain numpy, for tests and checks.
        """
        total = np.tile(self.base, (len(rows), 1))
        for root in self.roots:
            total += self.value[self._leaves(rows, int(root))]
        return total[:, 0] if self.outputs == 1 else total

    def _leaves(self, rows: FloatArray, root: int) -> IntArray:
        """The leaf that each row reaches in one tree, (n,)."""
        node = np.full(len(rows), root, dtype=np.int64)
        going = np.flatnonzero(self.left[node] >= 0)
        while going.size:
            here = node[going]
            x = rows[going, self.feature[here]]
            goes_left = np.where(self.category[here] >= 0, self._in_set(here, x), x < self.threshold[here])
            goes_left = np.where(np.isnan(x), self.missing_left[here], goes_left)
            node[going] = np.where(goes_left, self.left[here], self.right[here])
            going = going[self.left[node[going]] >= 0]
        return node

    def _in_set(self, nodes: IntArray, x: FloatArray) -> BoolArray:
        """Whether bit int(x) is set in a node's set, (n,); False of nodes without one."""
        if not self.words.size:
            return np.zeros(nodes.size, dtype=np.bool_)
        number = np.maximum(self.category[nodes], 0)
        begin, end = self.offsets[number], self.offsets[number + 1]
        inside = (self.category[nodes] >= 0) & (x >= 0) & (x < 64.0 * (end - begin))
        code = np.where(inside, x, 0).astype(np.int64)
        word = self.words[np.where(inside, begin + code // 64, 0)]
        bit = word >> (code % 64).astype(np.uint64) & np.uint64(1)
        return np.asarray(inside & bit.astype(np.bool_))

    def levels(self) -> Iterator[IntArray]:
        """The nodes of all trees by depth, from the roots on."""
        level = self.roots
        while level.size:
            yield level
            inner = level[self.left[level] >= 0]
            level = np.concatenate([self.left[inner], self.right[inner]])

    def arranged(self) -> Forest:
        """The same trees with each tree's nodes in depth-first order, left before right; unreachable nodes go.

        The trees may be of any depth: sizes are summed level by level from below, places given from above.
        """
        levels = list(self.levels())
        size = np.ones(self.feature.size, dtype=np.int64)
        for level in reversed(levels):
            inner = level[self.left[level] >= 0]
            size[inner] += size[self.left[inner]] + size[self.right[inner]]
        place = np.full(self.feature.size, -1, dtype=np.int64)
        place[self.roots] = np.cumsum(size[self.roots]) - size[self.roots]
        for level in levels:
            inner = level[self.left[level] >= 0]
            place[self.left[inner]] = place[inner] + 1
            place[self.right[inner]] = place[inner] + 1 + size[self.left[inner]]
        order = np.empty(int((place >= 0).sum()), dtype=np.int64)
        order[place[place >= 0]] = np.flatnonzero(place >= 0)
        names = ("feature", "threshold", "missing_left", "category", "cover", "value")
        children = {
            side: np.where(nodes < 0, -1, place[nodes])[order]
            for side, nodes in (("left", self.left), ("right", self.right))
        }
        moved = {name: np.ascontiguousarray(getattr(self, name)[order]) for name in names}
        return replace(self, roots=place[self.roots], **moved, **children)


def at_most(threshold: FloatArray) -> FloatArray:
    """The t' with x < t' exactly where x <= t, for finite x: the next number.

    >>> at_most(np.array([1.0]))[0] > 1
    np.True_
    """
    return np.nextafter(threshold, np.inf)


def pack(sets: Iterable[IntArray]) -> tuple[IntArray, WordArray]:
    """Sets of small codes as `offsets` and `words` of a forest.

    >>> pack([np.array([0, 2]), np.array([64])])
    (array([0, 1, 3]), array([5, 0, 1], dtype=uint64))
    """
    sets = list(sets)
    sizes = [0 if codes.size == 0 else int(codes.max()) // 64 + 1 for codes in sets]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    words = np.zeros(int(offsets[-1]), dtype=np.uint64)
    for begin, codes in zip(offsets[:-1], sets, strict=True):
        np.bitwise_or.at(words, begin + codes // 64, np.uint64(1) << (codes % 64).astype(np.uint64))
    return offsets, words


def chain(trees: Sequence[Sized]) -> tuple[IntArray, IntArray]:
    """Trees put one after the other: the first node of each, (T,), and that of the tree of each node, (N,)."""
    sizes = np.array([len(tree) for tree in trees], dtype=np.int64)
    roots = np.cumsum(sizes) - sizes
    return roots, np.repeat(roots, sizes)
