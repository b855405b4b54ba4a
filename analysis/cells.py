"""What a law is fitted to, the loss that is minimised, and where that ended."""

from dataclasses import dataclass

import numpy as np

from analysis.coordinates import Mask
from analysis.laws import Design
from analysis.metrics import FloatArray

_LEAST = 1e-6  # of L where its logarithm is taken: a law may say zero on its way


@dataclass(frozen=True)
class Cells:
    """What a law is fitted to, in fitting units."""

    design: Design
    falling: FloatArray  # (cells,)
    relative: bool = False  # whether errors are of log L

    def errors(self, model: FloatArray) -> FloatArray:
        """Model less data of each restart: (restarts, cells)."""
        if self.relative:
            return np.asarray(np.log(np.maximum(model, _LEAST) / self.falling))
        return np.asarray(model - self.falling)

    def tilted(self, slopes: FloatArray, model: FloatArray) -> FloatArray:
        """Derivatives of the errors, from those of L: (restarts, parameters, cells)."""
        return slopes * (1 / np.maximum(model, _LEAST))[:, None] if self.relative else slopes


def huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Huber's loss of each residual: half its square, linear beyond `delta`."""
    size = np.abs(residuals)
    if np.isinf(delta):
        return np.asarray(0.5 * size**2)
    inside = np.minimum(size, delta)
    return np.asarray(inside * (size - 0.5 * inside))


@dataclass(frozen=True)
class Solutions:
    """One row per restart."""

    inner: FloatArray  # (restarts, parameters): logarithms of the positive nonlinear ones
    objective: FloatArray  # (restarts,): the summed Huber loss
    converged: Mask  # (restarts,)


def distinct(solutions: Solutions, count: int) -> FloatArray:
    """Up to `count` solutions that lie apart from one another, the best one first.

    They are where the replicates of a bootstrap begin: from the best alone many of them miss a
    lower minimum.
    """
    order = np.argsort(solutions.objective, kind="stable")
    kept: list[FloatArray] = []
    for row in solutions.inner[order]:
        if all(np.max(np.abs(row - other)) > 0.05 for other in kept):
            kept.append(row)
        if len(kept) == count:
            break
    return np.array(kept)
