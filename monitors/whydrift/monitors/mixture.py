"""The mixture that an e-detector is: its signs and lambdas, their weights, and what its parts say.

Weights are over streams (m,), signs (2,) and lambdas (K,), and sum to 1 over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from whydrift.monitors.stream import Stream

FloatArray = npt.NDArray[np.float64]

LAMBDA = np.array([0.5, 1.0, 2.0, 3.0])
SIGNS = np.array([1.0, -1.0])
CLIP = 3.5  # one odd window can hardly page alone; total breakage is for the deterministic checks

_AUTOMATIC_SHARE = 0.1  # so that slices which nobody asked for cannot eat the power of the rest
_NAMED_SHARE = 0.9


def page_weights(streams: Sequence[Stream]) -> FloatArray:
    """Weights (m,) in the evidence that pages: streams of the page tier only."""
    return _normalised(streams, np.array([stream.tier == "page" for stream in streams], dtype=np.bool_))


def ticket_weights(streams: Sequence[Stream]) -> FloatArray:
    """Weights (m,) in the evidence that tickets: all streams."""
    return _normalised(streams, np.ones(len(streams), dtype=np.bool_))


def _normalised(streams: Sequence[Stream], member: npt.NDArray[np.bool_]) -> FloatArray:
    """Sum 1, of which the automatic streams have a tenth at most: also where there are no others."""
    weights = np.where(member, np.array([stream.weight for stream in streams], dtype=np.float64), 0.0)
    total = weights.sum()
    if not total:
        return weights
    automatic = np.array([stream.automatic for stream in streams], dtype=np.bool_)
    weights /= total
    found = float(weights[automatic].sum())
    if found <= _AUTOMATIC_SHARE:
        return weights
    rest = max(1 - found, np.finfo(float).tiny)
    return np.asarray(weights * np.where(automatic, _AUTOMATIC_SHARE / found, (1 - _AUTOMATIC_SHARE) / rest))


def mixture(streams: Sequence[Stream]) -> FloatArray:
    """Equal weights (m, 2, K) over signs and lambdas; a one-sided stream has no negative sign."""
    sides = np.array([[1.0, 0.0] if stream.one_sided else [0.5, 0.5] for stream in streams]).reshape(-1, 2)
    return np.repeat(sides[:, :, None], LAMBDA.size, axis=2) / LAMBDA.size


def log_mgf(q: FloatArray) -> FloatArray:
    """psi_k, (K,): log E exp(lambda_k q) of the clipped baseline q of either sign, at least the Gaussian's."""
    gaussian = LAMBDA**2 / 2
    if not q.size:
        return gaussian
    clipped = np.clip(q, -CLIP, CLIP)
    both = np.concatenate([clipped, -clipped])
    return np.asarray(np.maximum(gaussian, np.log(np.exp(np.multiply.outer(both, LAMBDA)).mean(axis=0))))


def leading(weighted: FloatArray) -> tuple[int, ...]:
    """The fewest streams that make up 90 % of the evidence, strongest first.

    >>> leading(np.array([1.0, 0.0, 12.0, 3.0]))
    (2, 3)
    """
    order = np.argsort(-weighted, kind="stable")
    before = np.cumsum(weighted[order]) - weighted[order]
    enough = (before < _NAMED_SHARE * weighted.sum()) & (weighted[order] > 0)
    return tuple(order[enough].tolist())


def confirmed(weighted: FloatArray, threshold: float) -> frozenset[int]:
    """The largest k streams whose weakest part of M is at least threshold / k (weighted e-BH).

    >>> sorted(confirmed(np.array([50.0, 1.0, 46.0]), threshold=90.0))
    [0, 2]
    """
    order = np.argsort(-weighted, kind="stable")
    rank = np.arange(1, order.size + 1)
    passed = np.flatnonzero(rank * weighted[order] >= threshold)
    return frozenset(order[: passed[-1] + 1].tolist()) if passed.size else frozenset()
