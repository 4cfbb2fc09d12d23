"""Attributions of PyTorch networks from their gradients, by captum.

    deep_lift             DeepLift's rescale rule from every background row, averaged (DeepLiftShap)
                          Shrikumar et al. 2017, arXiv 1704.02685; Lundberg and Lee 2017, arXiv 1705.07874
    gradient_shap         integrated gradients from every background row, averaged (expected gradients)
                          Erion et al. 2021, doi:10.1038/s42256-021-00343-w
    integrated_gradients  along the straight line from one reference, the mean of the background
                          Sundararajan et al. 2017, arXiv 1703.01365

Nothing is drawn at random. captum's own GradientShap draws a background row and a point of the line for each sample;
here all background rows are taken and the points are the middles of equal steps, the same for all rows. The steps are
doubled until the row's attributions add up to its output within 5e-4 of the output's spread, up to a limit.

Each row is one call, of one fixed shape: BLAS rounds differently not only for other numbers of rows but also for
other places of a row among them. For the same reason it all runs on one thread, and in float64 from the float32
numbers that the module is deployed with, so that neither sums nor golden rows hang on rounding.

Each background row gives attributions of its own, which add up to the difference of the two outputs; their mean is
the attribution and their spread its standard error, as a background is a sample. From one reference there is no error.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.network import Network, inputs, is_torch, one_thread
from whydrift.pipelines.explainers.protocol import Explanation, FloatArray, Link, Task, UnsuitedError, as_base

Algorithm = Literal["deep_lift", "gradient_shap", "integrated_gradients"]

TOLERANCE = 1e-3  # of integrals, relative to the largest output; DeepLift adds up to rounding
_CLOSE = 5e-4  # of the outputs' standard deviation, where the steps are enough
_POINTS = 64, 65_536  # of one row at first and at most, on all its lines together
_AT_ONCE = 16_384  # points held in memory


@dataclass(frozen=True, slots=True)
class GradientExplainer:
    """Explains the K scores of a network from `references` (b, q), in float64; `start` (b, K) are its scores there.

    Integrals are close enough where they add up within `close` (K,).
    """

    network: Network
    algorithm: Algorithm
    references: FloatArray
    start: FloatArray
    close: FloatArray

    @classmethod
    def of(cls, model: Any, task: Task, background: pd.DataFrame, algorithm: Algorithm) -> GradientExplainer:
        """Read a module; `background` (b, q) in the order of its inputs.

        Raises:
            UnsuitedError: the model is no PyTorch module, or does not work in float64.
            ModelError: captum is not installed, or a feature is text.
        """
        if not is_torch(model):
            raise UnsuitedError(f"{type(model).__name__} is no PyTorch module")
        _captum()
        rows = inputs(background).astype(np.float64)
        if not np.isfinite(rows).all():
            raise UnsuitedError("there is no straight line from or to a missing value, and the background has some")
        references = rows.mean(axis=0, keepdims=True) if algorithm == "integrated_gradients" else rows
        try:
            network = Network.of(model, task, background)
            network.scores.double()
            close = _CLOSE * network.outputs(rows).std(axis=0)
            return cls(network, algorithm, references, network.outputs(references), close)
        except ValueError as error:
            raise UnsuitedError(str(error)) from error

    @property
    def link(self) -> Link:
        return self.network.link

    def explain(self, encoded: Any) -> Explanation:
        """Attributions of a frame of the module's inputs, row by row; ValueError for rows with missing values."""
        rows = inputs(encoded).astype(np.float64)
        if not np.isfinite(rows).all():
            raise ValueError("a network takes no missing or infinite values; impute them before they are logged")
        heads = self.start.shape[1]
        values, errors = np.empty((len(rows), heads, rows.shape[1])), np.empty((len(rows), heads, rows.shape[1]))
        output = np.empty((len(rows), heads))
        with one_thread():
            for i in range(len(rows)):
                output[i] = self.network.outputs(rows[i : i + 1])[0]
                for head in range(heads):
                    from_each = self._attribute(rows[i], head, float(output[i, head]))
                    values[i, head] = from_each.mean(axis=0)
                    errors[i, head] = from_each.std(axis=0) / np.sqrt(max(len(from_each) - 1, 1))
        base = self.start.mean(axis=0)
        kept = errors if len(self.references) > 1 else None
        if heads > 1:
            return Explanation(values, as_base(base), output, kept)
        return Explanation(values[:, 0], float(base[0]), output[:, 0], None if kept is None else kept[:, 0])

    def _attribute(self, row: FloatArray, head: int, output: float) -> FloatArray:
        """Attributions from each reference, (b, q)."""
        if self.algorithm == "deep_lift":
            return _deep_lift(self.network.scores, row, self.references, head)
        count = len(self.references)
        expected = output - self.start[:, head].mean()
        steps = max(2, _POINTS[0] // count)
        while True:
            found = _integrate(self.network.scores, row, self.references, head, steps)
            if abs(found.mean(axis=0).sum() - expected) <= self.close[head] or 2 * steps * count > _POINTS[1]:
                return found
            steps *= 2


def _deep_lift(module: Any, row: FloatArray, references: FloatArray, head: int) -> FloatArray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)  # on a copy of the model
        return _attributed(_captum().DeepLift(module), row, references, head)


def _integrate(module: Any, row: FloatArray, references: FloatArray, head: int, steps: int) -> FloatArray:
    lines = _captum().IntegratedGradients(module)
    # The middles of equal steps: nodes of Gauss and Legendre come from LAPACK, which rounds as its threads like it.
    grid = {"n_steps": steps, "method": "riemann_middle", "internal_batch_size": max(_AT_ONCE, len(references))}
    return _attributed(lines, row, references, head, **grid)


def _attributed(captum: Any, row: FloatArray, references: FloatArray, head: int, **grid: Any) -> FloatArray:
    """What one row's features add to a score, from each reference, (b, q)."""
    import torch

    rows = torch.from_numpy(np.broadcast_to(row, references.shape).copy()).requires_grad_()
    try:
        found = captum.attribute(rows, torch.from_numpy(references), target=head, **grid)
    except (RuntimeError, AssertionError, AttributeError) as error:  # what has no gradient, or takes no hooks
        raise ValueError(f"captum cannot explain this network: {error}") from error
    return np.asarray(found.detach().numpy(), dtype=np.float64)


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError as error:
        raise ModelError("explaining PyTorch models needs captum: pip install 'whydrift[neural]'") from error
    return captum.attr
