"""The published rule of thumb for when to grow: a reference line, fitted to nothing here."""

from dataclasses import dataclass

import numpy as np

from analysis.metrics import FloatArray


@dataclass(frozen=True)
class GrowthTiming:
    """Tokens before growth, by the size of the grown model and the whole compute.

    After "Stacking Your Transformers" (arXiv 2405.15319), for dense models that are stacked to
    four times their depth and more, with C = 6 N D.
    """

    a: float = 0.88
    b: float = 163.27
    c: float = -5.74

    name = "growth_timing"
    formula = "log10 d = a log10 N + b / log10 C + c"

    def tokens(self, parameters: float | FloatArray, flops: float | FloatArray) -> FloatArray:
        """Tokens d before growth for N `parameters` after it and C `flops` in all."""
        by_size = self.a * np.log10(parameters)
        return np.asarray(10.0 ** (by_size + self.b / np.log10(flops) + self.c))

    def sunk_flops(
        self, source: float, parameters: float | FloatArray, flops: float | FloatArray
    ) -> FloatArray:
        """The same in FLOPs of a source of `source` parameters, at most the whole."""
        return np.asarray(np.minimum(6 * source * self.tokens(parameters, flops), flops))
