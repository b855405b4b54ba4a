"""Which cells a fit is for, and what could as well have been fitted to them."""

from dataclasses import dataclass

import numpy as np

from analysis import coordinates
from analysis.laws import Design, Law, Unit
from analysis.metrics import FloatArray

LEVEL = 0.90  # of every interval
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)  # the quantiles that it lies between


@dataclass(frozen=True, order=True)
class Which:
    """The cells that enter one fit: one arm of one variant, and never two growths at once."""

    variant: str
    arm: str
    growth: str
    extra_flops: float | None = None  # only the cells of this extra budget

    def label(self) -> str:
        """As people name it."""
        name = self.arm if self.growth == "-" else f"{self.arm}, {self.growth}"
        return f"{name} ({self.variant})" if self.variant else name


@dataclass(frozen=True)
class Sample:
    """What could as well have been fitted: parameter sets and how draws are made of them."""

    law: type[Law]
    unit: Unit
    inner: FloatArray  # (parameters,), the fit, in the solver's coordinates
    others: FloatArray  # (sets, parameters)
    mix: FloatArray | None  # (draws, sets), or None where each set is a draw
    # (clusters + splits, parameters): without each cluster, and each split of an extrapolation
    deleted: FloatArray

    @property
    def replicates(self) -> int:
        """How many draws there are."""
        return len(self.others if self.mix is None else self.mix)

    def predict(self, inner: FloatArray, design: Design) -> FloatArray:
        """L in the metric's own unit by each row of parameters: (rows, cells)."""
        found = coordinates.predict(self.law, inner, design.per(self.unit))
        return np.asarray(found * self.unit.falling)

    def point(self, design: Design) -> FloatArray:
        """L by the fit itself: (cells,)."""
        return np.asarray(self.predict(self.inner[None], design)[0])

    def centre(self, design: Design) -> FloatArray:
        """L in the middle of the draws: (cells,).

        A jackknife's draws lie evenly about the fit. Replicates need not: their median is inside
        any interval of them, where the fit may be outside and their mean be that of a few that
        went astray.
        """
        return np.median(self.draws(design), axis=0) if self.mix is None else self.point(design)

    def draws(self, design: Design) -> FloatArray:
        """L by each draw: (draws, cells)."""
        sets = self.predict(self.others, design)
        if self.mix is None:
            return sets
        return np.asarray(self.point(design) + self.mix @ (sets - sets.mean(axis=0)))

    def parameters(self) -> FloatArray:
        """Parameters of each draw, in FLOPs: (draws, parameters)."""
        inner = self.others
        if self.mix is not None:
            inner = self.inner + self.mix @ (self.others - self.others.mean(axis=0))
        inner = np.clip(inner, *coordinates.bounds(self.law))
        columns = self.law(*coordinates.outer(self.law, inner).T).rescaled(self.unit)
        return np.stack([getattr(columns, name) for name in self.law.names()], axis=1)


def in_flops(law: type[Law], inner: FloatArray, unit: Unit) -> Law:
    """A fitted law from the solver's coordinates."""
    values = coordinates.outer(law, inner)
    return law(*(float(value) for value in values)).rescaled(unit)
