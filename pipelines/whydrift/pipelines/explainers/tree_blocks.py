"""Which leaves of a tree share a table.

A block is a node and all leaves below it. Its pattern has one bit for each distinct feature of the path to the node
(does the row meet all conditions of the feature there), and one for each distinct condition below the node. What a
row gets from the block's leaves is a function of the pattern alone, see tree_tables.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from whydrift.monitors.compiled import kernel
from whydrift.pipelines.explainers.forest import Forest, IntArray
from whydrift.pipelines.explainers.protocol import FloatArray

MOST_BITS = 20  # of a pattern, hence of distinct features on a path: the table of one leaf takes 176 MB then

ByteArray = npt.NDArray[np.uint8]


class Trees(NamedTuple):
    """A forest as the kernels take it, T trees of N nodes.

    Tree t is the nodes `first[t]:first[t + 1]` and adds to the outputs `head[t, 0]:head[t, 1]`. `end` (N,) is the
    first node after a node's subtree, `share` (N,) the part of its parent's cover that it got. `condition` (N,) counts
    the distinct conditions of a tree, -1 of a leaf; those of tree t are asked by the nodes
    `asker[asked[t]:asked[t + 1]]`.
    """

    first: IntArray
    feature: IntArray
    threshold: FloatArray
    missing_left: ByteArray
    category: IntArray
    left: IntArray
    right: IntArray
    parent: IntArray
    end: IntArray
    share: FloatArray
    value: FloatArray
    head: IntArray
    condition: IntArray
    asked: IntArray
    asker: IntArray
    offsets: IntArray
    words: npt.NDArray[np.uint64]


class Blocks(NamedTuple):
    """The blocks of a forest, one after the other.

    Block k stands on node `node[k]` of tree `tree[k]`, its bits are `bit[k]:bit[k + 1]`, the features that it adds to
    `output[out[k]:out[k + 1]]`. A bit is set where all of its literals `literal[bits[b]:bits[b + 1]]` hold: twice the
    tree's condition, and 1 more where it is to be false.
    """

    tree: IntArray
    node: IntArray
    bit: IntArray
    bits: IntArray
    literal: IntArray
    out: IntArray
    output: IntArray


def lay_out(forest: Forest) -> Trees:
    """Make a forest ready for the kernels.

    Raises:
        ValueError: the nodes of a tree are not in depth-first order.
    """
    count = forest.feature.size
    left, right = _ints(forest.left), _ints(forest.right)
    first = np.append(_ints(forest.roots), count)
    inner = np.flatnonzero(left >= 0)
    parent = np.full(count, -1, dtype=np.int64)
    parent[left[inner]] = inner
    parent[right[inner]] = inner
    end = _ends(left, right)
    near, far = np.minimum(left, right)[inner], np.maximum(left, right)[inner]
    in_order = np.array_equal(near, inner + 1) and np.array_equal(far, end[near])
    if not in_order or not np.array_equal(np.flatnonzero(parent < 0), first[:-1]):
        raise ValueError("the nodes of each tree have to stand together, in depth-first order, the root first")
    feature, threshold, category = _ints(forest.feature), _floats(forest.threshold), _ints(forest.category)
    missing_left = np.require(forest.missing_left, np.uint8, ["C", "W"])
    width = int(feature.max(initial=-1)) + 1
    condition, asked, asker = _conditions(first, feature, threshold, missing_left, category, width)
    value = _floats(forest.value)
    return Trees(
        first=first,
        feature=feature,
        threshold=threshold,
        missing_left=missing_left,
        category=category,
        left=left,
        right=right,
        parent=parent,
        end=end,
        share=_shares(_floats(forest.cover), parent),
        value=value,
        head=_heads(value, first),
        condition=condition,
        asked=asked,
        asker=asker,
        offsets=_ints(forest.offsets),
        words=np.require(forest.words, np.uint64, ["C", "W"]),
    )


def _ints(numbers: npt.ArrayLike) -> IntArray:
    return np.require(numbers, np.int64, ["C", "W"])


def _floats(numbers: npt.ArrayLike) -> FloatArray:
    return np.require(numbers, np.float64, ["C", "W"])


def _shares(cover: FloatArray, parent: IntArray) -> FloatArray:
    """A node's part of its parent's cover, 1 of a root; where no training row came, both sides get the half."""
    whole = np.where(parent >= 0, cover[parent], cover)
    empty = whole <= 0
    return np.where(empty, np.where(parent >= 0, 0.5, 1.0), cover / np.where(empty, 1.0, whole))


def _heads(value: FloatArray, first: IntArray) -> IntArray:
    """The range of outputs that each tree adds to, (T, 2): one class of many where each class has trees of its own."""
    used = np.logical_or.reduceat(value != 0, first[:-1], axis=0)
    heads = np.column_stack([used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)])
    heads[~used.any(axis=1)] = 0
    return _ints(heads)


@kernel
def _ends(left: IntArray, right: IntArray) -> IntArray:
    end = np.empty(left.size, np.int64)
    for node in range(left.size - 1, -1, -1):
        end[node] = node + 1 if left[node] < 0 else end[max(left[node], right[node])]
    return end


@kernel
def _conditions(
    first: IntArray,
    feature: IntArray,
    threshold: FloatArray,
    missing_left: ByteArray,
    category: IntArray,
    width: int,
) -> tuple[IntArray, IntArray, IntArray]:
    """Number the distinct conditions of each tree. Those of one feature are a chain, from the latest to the first."""
    condition = np.full(feature.size, -1, np.int64)
    asked = np.zeros(first.size, np.int64)
    asker = np.empty(feature.size, np.int64)
    before = np.empty(feature.size, np.int64)
    count = 0
    for tree in range(first.size - 1):
        latest = np.full(width, -1, np.int64)
        for node in range(first[tree], first[tree + 1]):
            if feature[node] < 0:
                continue
            known = latest[feature[node]]
            while known >= 0:
                other = asker[known]
                same = category[node] >= 0 or threshold[node] == threshold[other]
                if same and category[node] == category[other] and missing_left[node] == missing_left[other]:
                    break
                known = before[known]
            if known < 0:
                known = count
                asker[count] = node
                before[count] = latest[feature[node]]
                latest[feature[node]] = count
                count += 1
            condition[node] = known - asked[tree]
        asked[tree + 1] = count
    return condition, asked, asker[:count].copy()


@kernel
def path_features(trees: Trees, node: int, found: IntArray) -> int:
    """Write the distinct features of the path to a node, as they come; their number, -1 if there is no room."""
    path = np.empty(found.size, np.int64)
    count = 0
    at = trees.parent[node]
    while at >= 0:  # from the node up, so a feature that comes again moves to the place of where it came first
        feature = trees.feature[at]
        place = 0
        while place < count and path[place] != feature:
            place += 1
        if place == count:
            if count == found.size:
                return -1
            count += 1
        for i in range(place, count - 1):
            path[i] = path[i + 1]
        path[count - 1] = feature
        at = trees.parent[at]
    for i in range(count):
        found[i] = path[count - 1 - i]
    return count


@kernel
def add_conditions(trees: Trees, node: int, found: IntArray, count: int) -> int:
    """Append the conditions below a node that are not yet found, as they come; their number, -1 if there is no room."""
    for at in range(node, trees.end[node]):
        condition = trees.condition[at]
        if condition < 0:
            continue
        place = 0
        while place < count and found[place] != condition:
            place += 1
        if place == count:
            if count == found.size:
                return -1
            found[count] = condition
            count += 1
    return count


@kernel
def _whole(trees: Trees, limit: int, most: int) -> IntArray:
    """Bits of each node's pattern if all that is below it is one block, -1 where it is not to be.

    Leaves are joined as long as the pattern has at most `limit` bits, and where that takes no bit more than they have.
    """
    bits = np.full(trees.feature.size, -1, np.int64)
    found = np.empty(most, np.int64)
    for node in range(trees.feature.size - 1, -1, -1):
        left, right = trees.left[node], trees.right[node]
        room = most
        if left >= 0:
            room = min(most, max(limit, bits[left], bits[right]))
            if bits[left] < 0 or bits[right] < 0:
                continue
        known = path_features(trees, node, found)
        asked = add_conditions(trees, node, found, 0)
        if known >= 0 and asked >= 0 and known + asked <= room:
            bits[node] = known + asked
    return bits


@kernel
def _tops(trees: Trees, bits: IntArray) -> IntArray:
    """The highest nodes that make a block; a leaf that makes none is met here as -1 minus the leaf."""
    tops = np.empty(trees.feature.size, np.int64)
    count, node = 0, 0
    while node < trees.feature.size:
        if bits[node] >= 0:
            tops[count] = node
            count += 1
            node = trees.end[node]
            continue
        if trees.left[node] < 0:
            tops[count] = -1 - node
            count += 1
        node += 1
    return tops[:count].copy()


@kernel
def _literals(trees: Trees, node: int, feature: int, found: IntArray) -> int:
    """What a row must meet of one feature on the path to a node; `found` may be empty, to count."""
    count = 0
    while trees.parent[node] >= 0:
        parent = trees.parent[node]
        if trees.feature[parent] == feature:
            if count < found.size:
                found[count] = 2 * trees.condition[parent] + (trees.right[parent] == node)
            count += 1
        node = parent
    return count


@kernel
def _write(trees: Trees, tops: IntArray, most: int) -> Blocks:
    asked, known = np.empty(most, np.int64), np.empty(most, np.int64)
    owner = np.empty(tops.size, np.int64)
    bit = np.zeros(tops.size + 1, np.int64)
    out = np.zeros(tops.size + 1, np.int64)
    room = 0
    for k in range(tops.size):
        count = path_features(trees, tops[k], known)
        more = add_conditions(trees, tops[k], asked, 0)
        bit[k + 1] = bit[k] + count + more
        room += more
        for i in range(count):
            room += _literals(trees, tops[k], known[i], asked[:0])
    bits = np.zeros(bit[-1] + 1, np.int64)
    literal = np.empty(room, np.int64)
    output = np.empty(bit[-1], np.int64)
    tree = 0
    for k in range(tops.size):
        while tops[k] >= trees.first[tree + 1]:
            tree += 1
        owner[k] = tree
        count = path_features(trees, tops[k], known)
        at = bit[k]
        for i in range(count):
            output[out[k] + i] = known[i]
            bits[at + 1] = bits[at] + _literals(trees, tops[k], known[i], literal[bits[at] :])
            at += 1
        more = add_conditions(trees, tops[k], asked, 0)
        for i in range(more):
            literal[bits[at]] = 2 * asked[i]
            bits[at + 1] = bits[at] + 1
            at += 1
            feature = trees.feature[trees.asker[trees.asked[tree] + asked[i]]]
            place = 0
            while place < count and known[place] != feature:
                place += 1
            if place == count:
                known[count] = feature
                output[out[k] + count] = feature
                count += 1
        out[k + 1] = out[k] + count
    return Blocks(owner, tops, bit, bits, literal, out, output[: out[-1]].copy())


def find_blocks(trees: Trees, limit: int, most: int) -> tuple[Blocks, IntArray]:
    """Split trees into blocks with patterns of up to `limit` bits, or as many as single leaves need.

    Leaves whose paths ask more than `most` distinct features are in no block, and come beside them.
    """
    tops = _tops(trees, _whole(trees, limit, most))
    return _write(trees, tops[tops >= 0], most), -1 - tops[tops < 0]


def leaf_blocks(trees: Trees, leaves: IntArray, most: int) -> Blocks:
    """A block for each of some leaves, whose paths ask up to `most` distinct features."""
    return _write(trees, leaves, most)
