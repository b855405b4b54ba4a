# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Scaling laws. The class is the hypothesis, its fields are the parameters, an instance is fitted.

A law gives the falling quantity L (a loss, or the shortfall of an accuracy from its top) from
    S   sunk FLOPs, spent before growing, at N1 active parameters
    X   extra FLOPs, spent after it, at N2 active parameters
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from analysis.metrics import FloatArray

# A fitted law holds numbers; the solver holds one column per restart, to try thousands at once.
Value = float | FloatArray
UnitName = Literal["1", "flops", "flops/parameter", "parameters"]
_TINY = 1e-12


@dataclass(frozen=True)
class Design:
    """Where runs are: four arrays of one shape (cells,)."""

    sunk: FloatArray  # FLOPs
    extra: FloatArray  # FLOPs
    source_active: FloatArray  # active parameters before growth
    active: FloatArray  # and after it

    def __getitem__(self, rows: Any) -> "Design":
        return Design(
            self.sunk[rows], self.extra[rows], self.source_active[rows], self.active[rows]
        )

    def __len__(self) -> int:
        return len(self.sunk)

    def per(self, unit: "Unit") -> "Design":
        """The same runs counted in `unit`, where numbers are near one."""
        return Design(
            self.sunk / unit.flops,
            self.extra / unit.flops,
            self.source_active / unit.parameters,
            self.active / unit.parameters,
        )


@dataclass(frozen=True)
class Unit:
    """The measures in which a fit is done: 1e18 FLOPs next to 0.3 is no problem to solve."""

    flops: float
    parameters: float

    @classmethod
    def of(cls, design: Design) -> "Unit":
        """The largest total compute and the smallest source of a design."""
        total = float(np.max(design.sunk + design.extra))
        return cls(flops=total, parameters=float(np.min(design.source_active)))

    def size(self, name: UnitName) -> float:
        """How much one unit called `name` is, in FLOPs and parameters."""
        return {
            "1": 1.0,
            "flops": self.flops,
            "flops/parameter": self.flops / self.parameters,
            "parameters": self.parameters,
        }[name]


def parameter(
    low: float,
    high: float,
    *starts: float,
    unit: UnitName = "1",
    power: str = "",
    says: str = "",
) -> Any:
    """A parameter between `low` and `high`, both in fitting units (see Unit).

    With `starts` it is nonlinear and searched in its logarithm from each of them; without, it
    enters L linearly and is solved for. Its value in FLOPs is the fitted one times `unit`, to the
    power of the parameter named `power` where one is.
    """
    meta = {"low": low, "high": high, "starts": starts, "unit": unit, "power": power, "says": says}
    return field(metadata=meta)


@dataclass(frozen=True)
class Law(ABC):
    """A hypothesis on how L falls. Subclasses add parameters and `predict`, nothing else."""

    name: ClassVar[str]
    formula: ClassVar[str]  # of the right-hand side
    says: ClassVar[str]
    source: ClassVar[str] = ""
    scope: ClassVar[Literal["surface", "extra", "total"]]  # what may vary: S and X, S, or S + X

    @abstractmethod
    def predict(self, design: Design) -> FloatArray:
        """L at every run of the design: (cells,), or (restarts, cells) for columns of values."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The parameters, in order."""
        return tuple(each.name for each in fields(cls))

    @classmethod
    def meta(cls, key: str) -> list[Any]:
        """One property of every parameter, in order."""
        return [each.metadata[key] for each in fields(cls)]

    @classmethod
    def linear(cls) -> list[bool]:
        """Which parameters enter L linearly."""
        return [not starts for starts in cls.meta("starts")]

    def values(self) -> FloatArray:
        """The parameters of a fitted law as an array."""
        return np.array([float(getattr(self, name)) for name in self.names()])

    def rescaled(self, unit: Unit) -> Self:
        """This law with its parameters turned from fitting units into FLOPs and parameters."""
        new = {}
        for each in fields(self):
            exponent = getattr(self, each.metadata["power"]) if each.metadata["power"] else 1.0
            size = unit.size(each.metadata["unit"])
            new[each.name] = getattr(self, each.name) * size**exponent
        return replace(self, **new)


@dataclass(frozen=True)
class SunkLogLinear(Law):
    """At one extra budget every tenfold of sunk compute buys the same."""

    name = "sunk_loglinear"
    formula = "a - b log10(1 + S/S0)"
    says = "every tenfold of sunk compute takes `b` off"
    source = "the correlation of arXiv 2510.08008, with an offset so that S = 0 has a place"
    scope = "extra"

    a: Value = parameter(-20, 20, says="L with nothing sunk")
    b: Value = parameter(-20, 20, says="gain for ten times the sunk compute")
    S0: Value = parameter(
        1e-4, 1e2, 1e-3, 1e-2, 0.1, 1, unit="flops", says="sunk compute that begins to count"
    )

    def predict(self, design: Design) -> FloatArray:
        return np.asarray(self.a - self.b * np.log10(1 + design.sunk / self.S0))


@dataclass(frozen=True)
class SunkSaturating(Law):
    """At one extra budget sunk compute has diminishing returns."""

    name = "sunk_saturating"
    formula = "E + A (1 + S/S0)^-beta"
    says = "sunk compute can take at most `A` off"
    scope = "extra"

    E: Value = parameter(0, 20, says="floor at this extra budget")
    A: Value = parameter(0, 20, says="what sunk compute can remove")
    S0: Value = parameter(
        1e-4, 1e2, 1e-3, 1e-2, 0.1, 1, unit="flops", says="sunk compute that begins to count"
    )
    beta: Value = parameter(0.02, 5, 0.1, 0.3, 1, says="how fast it is removed")

    def predict(self, design: Design) -> FloatArray:
        return np.asarray(self.E + self.A * (1 + design.sunk / self.S0) ** -self.beta)


@dataclass(frozen=True)
class AverageParams(Law):
    """A grown run is like one of its token-average size: only tokens and that average matter."""

    name = "average_params"
    formula = "E + A N^-alpha + B (1 + D/D0)^-beta, D = S/N1 + X/N2, N = (S + X)/D"
    says = "L depends on all tokens and on the token-average of active parameters"
    source = "arXiv 2501.12486"
    scope = "surface"

    E: Value = parameter(0, 20, says="floor")
    A: Value = parameter(0, 20, unit="parameters", power="alpha", says="what size can remove")
    B: Value = parameter(0, 50, says="what tokens can remove")
    D0: Value = parameter(
        1e-4, 1e2, 0.01, 0.1, unit="flops/parameter", says="tokens that begin to count"
    )
    alpha: Value = parameter(0.02, 3, 0.3, 1, says="exponent of size")
    beta: Value = parameter(0.02, 5, 0.15, 0.5, 1.5, says="exponent of tokens")

    def predict(self, design: Design) -> FloatArray:
        tokens = design.sunk / design.source_active + design.extra / design.active
        size = (design.sunk + design.extra) / np.maximum(tokens, _TINY)
        seen = self.B * (1 + tokens / self.D0) ** -self.beta
        return np.asarray(self.E + self.A * size**-self.alpha + seen)


@dataclass(frozen=True)
class EffectiveCompute(Law):
    """A sunk FLOP counts as some number of extra ones, and L falls with their sum."""

    name = "effective_compute"
    formula = "E + A (1 + X/C0 + rho (S/C0)^gamma)^-alpha"
    says = "sunk compute S is worth rho C0 (S/C0)^gamma of extra compute"
    source = "after arXiv 2102.01293"
    scope = "surface"

    E: Value = parameter(0, 20, says="floor")
    A: Value = parameter(0, 50, says="what compute can remove")
    C0: Value = parameter(1e-4, 1e2, 0.01, 0.1, unit="flops", says="compute that begins to count")
    rho: Value = parameter(1e-3, 1e2, 0.1, 1, says="worth of a sunk FLOP at S = C0")
    gamma: Value = parameter(0.1, 2, 0.7, says="how that worth scales")
    alpha: Value = parameter(0.02, 5, 0.15, 0.5, 1.5, says="exponent of compute")

    def predict(self, design: Design) -> FloatArray:
        worth = self.rho * (design.sunk / self.C0) ** self.gamma
        return np.asarray(self.E + self.A * (1 + design.extra / self.C0 + worth) ** -self.alpha)


@dataclass(frozen=True)
class TotalLogLinear(Law):
    """Without growth only the total counts, and every tenfold of it buys the same."""

    name = "total_loglinear"
    formula = "a - b log10(1 + C/C0), C = S + X"
    says = "every tenfold of compute takes `b` off"
    scope = "total"

    a: Value = parameter(-20, 20, says="L with nothing spent")
    b: Value = parameter(-20, 20, says="gain for ten times the compute")
    C0: Value = parameter(
        1e-4, 1e2, 1e-3, 1e-2, 0.1, 1, unit="flops", says="compute that begins to count"
    )

    def predict(self, design: Design) -> FloatArray:
        total = design.sunk + design.extra
        return np.asarray(self.a - self.b * np.log10(1 + total / self.C0))


@dataclass(frozen=True)
class TotalSaturating(Law):
    """Without growth only the total counts, with diminishing returns."""

    name = "total_saturating"
    formula = "E + A (1 + C/C0)^-alpha, C = S + X"
    says = "a power law of all compute"
    source = "the compute law of arXiv 2001.08361, with a floor and an offset"
    scope = "total"

    E: Value = parameter(0, 20, says="floor")
    A: Value = parameter(0, 50, says="what compute can remove")
    C0: Value = parameter(
        1e-4, 1e2, 1e-3, 1e-2, 0.1, 1, unit="flops", says="compute that begins to count"
    )
    alpha: Value = parameter(0.02, 5, 0.1, 0.3, 1, says="exponent of compute")

    def predict(self, design: Design) -> FloatArray:
        total = design.sunk + design.extra
        return np.asarray(self.E + self.A * (1 + total / self.C0) ** -self.alpha)


LAWS: dict[str, type[Law]] = {
    law.name: law
    for law in (
        SunkLogLinear,
        SunkSaturating,
        AverageParams,
        EffectiveCompute,
        TotalLogLinear,
        TotalSaturating,
    )
}
