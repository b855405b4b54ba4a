# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Laws of growing over sunk compute S and extra compute X, from the sizes before and after."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.laws.law import Design, Law, Value, parameter, power
from analysis.metrics import FloatArray

_TINY = 1e-12


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
        tokens, size = _average(design)
        seen = self.B * power(1 + tokens / self.D0, -self.beta)
        return np.asarray(self.E + self.A * power(size, -self.alpha) + seen)

    def slopes(self, design: Design) -> tuple[Value, ...]:
        tokens, size = _average(design)
        ratio, log_size = tokens / self.D0, np.log(size)
        logarithm = np.log1p(ratio)
        small, seen = np.exp(-self.alpha * log_size), np.exp(-self.beta * logarithm)
        by_offset = self.B * self.beta * seen * ratio / (1 + ratio) / self.D0
        by_alpha, by_beta = -self.A * small * log_size, -self.B * seen * logarithm
        return 1.0, small, seen, by_offset, by_alpha, by_beta


def _average(design: Design) -> tuple[FloatArray, FloatArray]:
    """Tokens up to a constant, and the token-average of active parameters."""
    tokens = design.sunk / design.source_active + design.extra / design.active
    return tokens, (design.sunk + design.extra) / np.maximum(tokens, _TINY)


@dataclass(frozen=True)
class Upcycling(Law):
    """Tokens before and after growth each have their own power law, and these multiply."""

    name = "upcycling"
    formula = "E + A (1 + D1/T1)^-a (1 + D2/T2)^-b, D1 = S/N1, D2 = X/N2"
    says = "tokens before and after growth multiply"
    source = "arXiv 2502.03009, without its interaction; offsets give zero tokens a place"
    scope = "surface"

    E: Value = parameter(0, 20, says="floor")
    A: Value = parameter(0, 50, says="what tokens can remove")
    T1: Value = parameter(
        1e-4, 1e2, 0.01, 0.1, unit="flops/parameter", says="tokens before that begin to count"
    )
    T2: Value = parameter(
        1e-4, 1e2, 0.01, 0.1, unit="flops/parameter", says="tokens after that begin to count"
    )
    a: Value = parameter(0.01, 5, 0.1, 0.5, says="exponent of tokens before")
    b: Value = parameter(0.01, 5, 0.1, 0.5, says="exponent of tokens after")

    def predict(self, design: Design) -> FloatArray:
        before, after = self._logs(design)
        return np.asarray(self.E + self.A * np.exp(-self.a * before - self.b * after))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        before, after = self._logs(design)
        share = np.exp(-self.a * before - self.b * after)
        fall = self.A * share
        # d log(1 + D/T) / dT = -(1 - 1/(1 + D/T)) / T
        by_first = -fall * self.a * np.expm1(-before) / self.T1
        by_second = -fall * self.b * np.expm1(-after) / self.T2
        return 1.0, share, by_first, by_second, -fall * before, -fall * after

    def _logs(self, design: Design) -> tuple[FloatArray, FloatArray]:
        before = np.log(1 + design.sunk / design.source_active / self.T1)
        after = np.log(1 + design.extra / design.active / self.T2)
        return np.asarray(before), np.asarray(after)


@dataclass(frozen=True)
class UpcyclingInteraction(Upcycling):
    """The same, where tokens before growth change what those after it are worth."""

    name = "upcycling_interaction"
    formula = "E + A (1 + D1/T1)^-a (1 + D2/T2)^(-b + c log(1 + D1/T1)), D1 = S/N1, D2 = X/N2"
    says = "tokens before growth make those after it worth less, or more where `c` is negative"
    source = "arXiv 2502.03009; offsets give zero tokens a place"

    c: Value = parameter(-0.5, 0.5, 0.0, 0.05, says="interaction; one grid seldom tells its sign")

    def predict(self, design: Design) -> FloatArray:
        before, after = self._logs(design)
        return np.asarray(self.E + self.A * np.exp(self._exponent(before, after)))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        before, after = self._logs(design)
        share = np.exp(self._exponent(before, after))
        fall = self.A * share
        by_first = -fall * (self.a - self.c * after) * np.expm1(-before) / self.T1
        by_second = -fall * (self.b - self.c * before) * np.expm1(-after) / self.T2
        by_both = fall * before * after
        return 1.0, share, by_first, by_second, -fall * before, -fall * after, by_both

    def _exponent(self, before: FloatArray, after: FloatArray) -> FloatArray:
        return np.asarray(-self.a * before - self.b * after + self.c * before * after)


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
        ratio = design.sunk / self.C0
        some = ratio > 0
        worth = self.rho * np.where(some, power(np.where(some, ratio, 1.0), self.gamma), 0.0)
        total = 1 + design.extra / self.C0 + worth
        return np.asarray(self.E + self.A * power(total, -self.alpha))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        ratio = design.sunk / self.C0
        logarithm = np.log(np.where(ratio > 0, ratio, 1.0))
        worth = np.where(ratio > 0, np.exp(self.gamma * logarithm), 0.0)
        total = 1 + design.extra / self.C0 + self.rho * worth
        log_total = np.log(total)
        share = np.exp(-self.alpha * log_total)
        fall = self.A * share
        by_total = -self.alpha * fall / total
        by_offset = -(design.extra / self.C0 + self.gamma * self.rho * worth) / self.C0
        by_gamma = by_total * self.rho * worth * logarithm
        return 1.0, share, by_total * by_offset, by_total * worth, by_gamma, -fall * log_total


@dataclass(frozen=True)
class LogLinearInteraction(Law):
    """Every tenfold of either compute buys the same, less what the other has bought already."""

    name = "loglinear_interaction"
    formula = "a - b u - c v + d u v, u = log10(1 + S/S0), v = log10(1 + X/X0)"
    says = "tenfolds of sunk and of extra compute take `b` and `c` off, and overlap by `d`"
    scope = "surface"

    a: Value = parameter(-20, 20, says="L with nothing spent")
    b: Value = parameter(-20, 20, says="gain for ten times the sunk compute")
    c: Value = parameter(-20, 20, says="gain for ten times the extra compute")
    d: Value = parameter(-20, 20, says="how much the two gains overlap")
    S0: Value = parameter(
        1e-4, 1e2, 1e-3, 0.03, 1, unit="flops", says="sunk compute that begins to count"
    )
    X0: Value = parameter(
        1e-4, 1e2, 1e-3, 0.03, 1, unit="flops", says="extra compute that begins to count"
    )

    def predict(self, design: Design) -> FloatArray:
        u, v = np.log10(1 + design.sunk / self.S0), np.log10(1 + design.extra / self.X0)
        return np.asarray(self.a - self.b * u - self.c * v + self.d * u * v)

    def slopes(self, design: Design) -> tuple[Value, ...]:
        sunk, extra = design.sunk / self.S0, design.extra / self.X0
        u, v = np.log10(1 + sunk), np.log10(1 + extra)
        by_sunk = -(self.d * v - self.b) * sunk / (1 + sunk) / self.S0 / math.log(10)
        by_extra = -(self.d * u - self.c) * extra / (1 + extra) / self.X0 / math.log(10)
        return 1.0, -u, -v, u * v, by_sunk, by_extra
