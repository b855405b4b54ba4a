# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Laws of the sunk compute S alone, for runs of one extra budget."""

import math
from dataclasses import dataclass, replace

import numpy as np

from analysis.laws.law import Design, Law, Value, gain, parameter, place, power
from analysis.metrics import FloatArray, Metric
from orchestrator import text


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

    def slopes(self, design: Design) -> tuple[Value, ...]:
        return log_slopes(design.sunk, self.b, self.S0)

    def words(self, middle: Design, metric: Metric) -> str:
        return (
            f"ten times the sunk compute takes {metric.text(float(self.b))} {metric.unit} off"
            f" (well above {text.flops(float(self.S0))})"
        )


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
        return np.asarray(self.E + self.A * power(1 + design.sunk / self.S0, -self.beta))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        return power_slopes(design.sunk, self.A, self.S0, self.beta)

    def words(self, middle: Design, metric: Metric) -> str:
        twice = replace(middle, sunk=2 * middle.sunk)
        left = metric.text(float(self.predict(middle)[0]) - float(self.E))
        return (
            f"twice the sunk compute takes {gain(self, middle, twice, metric)} off,"
            f" and no amount of it more than {left} (at {place(middle)})"
        )


def log_slopes(compute: FloatArray, b: Value, offset: Value) -> tuple[Value, ...]:
    """Derivatives of a - b log10(1 + compute/offset) by a, b and offset."""
    ratio = compute / offset
    return 1.0, -np.log10(1 + ratio), b / math.log(10) * ratio / (1 + ratio) / offset


def power_slopes(compute: FloatArray, A: Value, offset: Value, beta: Value) -> tuple[Value, ...]:
    """Derivatives of E + A (1 + compute/offset)^-beta by E, A, offset and beta."""
    ratio = compute / offset
    logarithm = np.log1p(ratio)
    share = np.exp(-beta * logarithm)
    fall = A * share
    return 1.0, share, fall * beta * ratio / (1 + ratio) / offset, -fall * logarithm
