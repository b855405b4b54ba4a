# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Laws of un-grown runs: of all compute C = S + X, and of the size they are trained at."""

from dataclasses import dataclass, replace

import numpy as np

from analysis.laws.law import Design, Law, Value, gain, parameter, power
from analysis.laws.sunk import log_slopes, power_slopes
from analysis.metrics import FloatArray, Metric
from orchestrator import text


def _doubled(law: Law, middle: Design, metric: Metric) -> str:
    twice = replace(middle, sunk=2 * middle.sunk, extra=2 * middle.extra)
    at = text.flops(float((middle.sunk + middle.extra)[0]))
    return f"twice the compute takes {gain(law, middle, twice, metric)} off (at {at})"


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

    def slopes(self, design: Design) -> tuple[Value, ...]:
        return log_slopes(design.sunk + design.extra, self.b, self.C0)

    def words(self, middle: Design, metric: Metric) -> str:
        return _doubled(self, middle, metric)


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
        return np.asarray(self.E + self.A * power(1 + total / self.C0, -self.alpha))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        return power_slopes(design.sunk + design.extra, self.A, self.C0, self.alpha)

    def words(self, middle: Design, metric: Metric) -> str:
        return _doubled(self, middle, metric)


@dataclass(frozen=True)
class Chinchilla(Law):
    """Un-grown runs of several sizes: size and tokens each have their own power law."""

    name = "chinchilla"
    formula = "E + A N^-alpha + B D^-beta, D = (S + X)/N, N = N2"
    says = "size and tokens each remove their own part"
    source = "arXiv 2203.15556, approach 3, with active parameters and D in FLOPs per parameter"
    scope = "sizes"
    relative = True

    E: Value = parameter(0, 20, says="floor")
    A: Value = parameter(0, 1e3, unit="parameters", power="alpha", says="what size can remove")
    B: Value = parameter(
        0, 1e3, unit="flops/parameter", power="beta", says="what tokens can remove"
    )
    alpha: Value = parameter(0.02, 3, 0.15, 0.5, says="exponent of size")
    beta: Value = parameter(0.02, 3, 0.15, 0.5, says="exponent of tokens")

    def predict(self, design: Design) -> FloatArray:
        tokens = (design.sunk + design.extra) / design.active
        size, seen = power(design.active, -self.alpha), power(tokens, -self.beta)
        return np.asarray(self.E + self.A * size + self.B * seen)

    def slopes(self, design: Design) -> tuple[Value, ...]:
        logs = np.log(design.active), np.log((design.sunk + design.extra) / design.active)
        size, seen = np.exp(-self.alpha * logs[0]), np.exp(-self.beta * logs[1])
        return 1.0, size, seen, -self.A * size * logs[0], -self.B * seen * logs[1]

    def best_size(self, flops: float) -> float:
        """Active parameters at which `flops` of training reach the lowest L."""
        alpha, beta = float(self.alpha), float(self.beta)
        ratio = alpha * float(self.A) / (beta * float(self.B))
        return float((ratio * flops**beta) ** (1 / (alpha + beta)))

    def words(self, middle: Design, metric: Metric) -> str:
        total = float((middle.sunk + middle.extra)[0])
        if not (float(self.A) > 0 and float(self.B) > 0):
            return "these runs do not tell size from tokens"
        share = float(self.beta) / (float(self.alpha) + float(self.beta))
        return (
            f"starting over, {text.flops(total)} are best spent at {self.best_size(total):.2g}"
            f" active parameters, a size that grows as compute to the {share:.2f}"
        )
