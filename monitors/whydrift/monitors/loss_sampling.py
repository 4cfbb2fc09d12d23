"""Which labelled rows have their loss explained: each row for itself, by a hash of its event id.

A row's fate hangs on nothing but its id, so that any split of a cohort samples the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RANGE = 2**64


@dataclass(frozen=True, slots=True)
class LossSampling:
    """What a baseline fixes of loss attributions.

    `loss` is the loss's name, `scale` (a power of two near its standard deviation over rows) the unit of its sums.
    Rows are taken with the chance `rate`, and each is compared with `draws` background rows.
    """

    loss: str
    scale: float
    rate: float
    draws: int


def drawn(event_ids: Iterable[str], rate: float) -> npt.NDArray[np.bool_]:
    """Which events are in the sample that takes each with the chance `rate`; a smaller sample lies in a larger one.

    >>> drawn(["a", "b", "c", "d"], 0.5).tolist()
    [True, False, False, True]
    """
    limit = int(rate * _RANGE)
    hashed = (hashlib.sha256(f"loss:{event}".encode()).digest()[:8] for event in event_ids)
    return np.fromiter((int.from_bytes(head, "big") < limit for head in hashed), dtype=np.bool_)
