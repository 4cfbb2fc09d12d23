"""A model that asks for an explainer, and what a family of explainers answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import pandas as pd

from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.costs import seconds, sizes
from whydrift.pipelines.explainers.encoding import Encoding, split
from whydrift.pipelines.explainers.forest import Forest
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError
from whydrift.pipelines.explainers.trees import Trees, read_trees

Perturbation = Literal["path_dependent", "interventional"]


# XGBoost computes in float32; what is looked for here is a wrong algorithm, whose errors are of order 1.
TOLERANCE = 1e-4


class Core(Protocol):
    """An explainer of encoded rows, as the final estimator takes them."""

    @property
    def link(self) -> Link: ...

    def explain(self, encoded: Any) -> Explanation: ...


@dataclass(frozen=True)
class Case:
    """What a family of explainers is asked about: a model, the form of its rows, and what for."""

    model: Any
    task: Task
    columns: Columns
    background: pd.DataFrame
    perturbation: Perturbation
    rows: int

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The background in the form of `columns`."""
        return self.columns.frame(self.background)

    @cached_property
    def encoding(self) -> Encoding:
        """The model as encoding and final estimator."""
        return split(self.model, self.columns)

    @cached_property
    def trees(self) -> Trees:
        """The final estimator as trees."""
        return read_trees(self.encoding.estimator, self.task)

    @cached_property
    def forest(self) -> Forest:
        """The trees as arrays; UnsuitedError where the library writes them in another form than we know."""
        try:
            return self.trees.forest()
        except (KeyError, IndexError, ValueError) as error:
            raise UnsuitedError(f"the trees of this {type(self.model).__name__} cannot be read: {error!r}") from error

    @cached_property
    def _sizes(self) -> FloatArray:
        return sizes(self.forest)

    @property
    def interventional(self) -> bool:
        """Whether absent features of trees take the background's values, and not those of the training rows."""
        return self.perturbation == "interventional"

    @cached_property
    def encoded(self) -> FloatArray:
        """The background as the trees' nodes ask it, (b, q)."""
        return self.trees.matrix(self.encoding.encode(self.frame))

    def seconds(self, name: str) -> float:
        """What an explainer in the table of costs is estimated to take for a usual window."""
        return seconds(name, self._sizes, self.rows, len(self.background) if self.interventional else 0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An explainer that may fit: its name, what it is estimated to cost, how it is made, and whose versions matter.

    Its attributions are to add up within `tolerance` of the largest output. Where a call takes long however few rows it
    has, `trial` gives what is tried in its place. `encoding` makes its rows, where that is not the case's own; they are
    no `copy` where only code of ours sees them, which does not write.
    """

    name: str
    seconds: float
    make: Callable[[], Core]
    libraries: tuple[str, ...]
    uses_background: bool
    tolerance: float = TOLERANCE
    trial: Callable[[Core], Core] | None = None
    encoding: Encoding | None = None
    copy: bool = True
