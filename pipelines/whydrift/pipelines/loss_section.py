"""The section of a configuration file that says which loss is explained, and of how many rows."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from whydrift.pipelines.sections import Section

_LOSSES = {
    "binary": ("brier", "log_loss"),
    "multiclass": ("brier", "log_loss"),
    "regression": ("squared_error", "absolute_error", "pinball"),
}
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class LossAttribution(Section):
    """Which feature makes the model wrong, once labels are mature; it shows and does not page.

    The chance of a row and the loss are fixed when the baseline is made.
    """

    loss: str = Field(
        "auto",
        description="brier or log_loss of a classifier; squared_error, absolute_error or pinball of a regression; auto"
        " is the first of them. Or a function of your own, package.module:function, of labels (n,) and predictions (n,)"
        " or (n, classes), that gives each row's loss.",
    )
    quantile: float = Field(0.5, gt=0, lt=1, description="That the model predicts, of the pinball loss.")
    rows: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="Labelled rows a window, about; each costs 40 predictions of the model a feature. auto: 200, or as"
        " many as 400,000 predictions allow. 0 explains none.",
    )

    @field_validator("loss")
    @classmethod
    def _is_a_loss(cls, loss: str) -> str:
        known = ["auto", *dict.fromkeys(name for names in _LOSSES.values() for name in names)]
        if loss not in known and not _FUNCTION.fullmatch(loss):
            raise ValueError(f"{loss!r} is none of {', '.join(known)}, and no package.module:function")
        return loss

    def loss_for(self, task: str) -> str:
        """The name of the loss; of `auto` the task's own."""
        return _LOSSES[task][0] if self.loss == "auto" else self.loss

    def full_name(self, task: str) -> str:
        """The loss with all that it depends on; two that differ are not comparable."""
        name = self.loss_for(task)
        return f"pinball at {self.quantile:g}" if name == "pinball" else name

    def fits(self, task: str) -> bool:
        """Whether the loss is one of the task."""
        return ":" in self.loss or self.loss_for(task) in _LOSSES[task]
