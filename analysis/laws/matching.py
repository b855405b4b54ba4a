# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Sunk compute is worth what it would have cost the grown model to get as far."""

from dataclasses import dataclass

import numpy as np

from analysis.laws.law import Design, Law, Value, parameter, power
from analysis.metrics import FloatArray, Metric
from orchestrator import text

_LEAST = 1e-9  # in S1: a base run that is worth less would put L beyond what squares can hold


@dataclass(frozen=True)
class LossMatching(Law):
    """The grown model takes its own curve up where the base model's loss meets it.

    Growth keeps the function, so right after it (X = 0) L is the base model's own:
    E + A ((S/S1)^-b + gap). A run that was never grown and has spent C is therefore the point
    (S = C, X = 0) of this law, and where such runs exist they are fitted along: that is what ties
    the worth S1 h of the sunk compute to the base model's curve instead of leaving it free.
    """

    name = "loss_matching"
    formula = "E + A (h + X/S1)^-alpha, h = ((S/S1)^-b + gap)^(-1/alpha)"
    says = "sunk compute S is worth the S1 h(S) in which the grown model would have got as far"
    source = "the base model's loss curve, met by the grown model's"
    scope = "surface"
    with_base = True

    E: Value = parameter(0, 20, says="floor of the grown model")
    A: Value = parameter(0, 1e3, says="what S1 of extra compute leaves above the floor")
    S1: Value = parameter(
        1e-4, 1e2, 0.01, 0.1, 1, unit="flops", says="sunk compute worth as much extra compute"
    )
    alpha: Value = parameter(0.05, 5, 0.2, 0.6, says="exponent of the grown model's curve")
    b: Value = parameter(0.02, 5, 0.2, 0.6, says="exponent of the base model's curve")
    gap: Value = parameter(1e-4, 10, 0.03, says="how far the base model's floor is above, over A")

    def predict(self, design: Design) -> FloatArray:
        total = np.maximum(self._worth(design.sunk) + design.extra / self.S1, _LEAST)
        return np.asarray(self.E + self.A * power(total, -self.alpha))

    def _worth(self, sunk: FloatArray) -> FloatArray:
        """h(S): nothing sunk is worth nothing."""
        ratio = np.where(sunk > 0, sunk, 1.0) / self.S1
        worth = power(power(ratio, -self.b) + self.gap, -1 / self.alpha)
        return np.asarray(np.where(sunk > 0, worth, 0.0))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        some = design.sunk > 0
        logarithm = np.log(np.where(some, design.sunk, 1.0) / self.S1)
        base = np.exp(-self.b * logarithm)
        above = base + self.gap
        worth = np.where(some, power(above, -1 / self.alpha), 0.0)
        total = np.maximum(worth + design.extra / self.S1, _LEAST)
        log_total = np.log(total)
        share = np.exp(-self.alpha * log_total)
        fall = self.A * share
        by_total = -self.alpha * fall / total
        by_gap = by_total * -worth / (self.alpha * above)
        by_scale = by_gap * self.b * base / self.S1 - by_total * design.extra / self.S1**2
        by_alpha = by_total * worth * np.log(above) / self.alpha**2 - fall * log_total
        return 1.0, share, by_scale, by_alpha, -by_gap * base * logarithm, by_gap

    def words(self, middle: Design, metric: Metric) -> str:
        sunk = float(middle.sunk[0])
        worth = float(self.S1) * float(self._worth(middle.sunk)[0])
        cost = worth / sunk if sunk else 0.0
        return (
            f"{text.flops(sunk)} sunk are worth {text.flops(worth)} of extra compute,"
            f" {cost:.2g} of one spent after for each FLOP; {super().words(middle, metric)}"
        )
