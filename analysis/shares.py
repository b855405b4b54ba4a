"""When to grow, had one the choice: shares of a total that are spent before growing."""

import math
from dataclasses import replace

import numpy as np

from analysis.answer import Timing
from analysis.fit import GROWTH_POINTS
from analysis.forecast import Arm, ByLaws, ByOffset
from analysis.metrics import FloatArray

REACH = 2.0  # times the measured range beyond which nothing is searched, nor answers given
_SHARES = np.linspace(0, 0.98, 99)
_SLACK = 1.05


def searched(arm: Arm, total: float) -> FloatArray:
    """Shares of a total before growing: those in the measured range, else those near it."""
    beyond = arm.beyonds(_SHARES * total, (1 - _SHARES) * total)
    within = beyond <= _SLACK
    # Pairs at few growth points say nothing about others.
    inside = within.sum() >= 3 or isinstance(arm.forecast, ByOffset)
    return np.asarray(_SHARES[within if inside else beyond <= REACH])


def best_split(arm: Arm, total: float) -> list[tuple[float, float]]:
    """Sunk and extra FLOPs of the best way for an arm to spend a total; none if it has none."""
    if arm.which.arm == "continue":
        return [(total, 0.0)]
    found = searched(arm, total)
    if not len(found) or not isinstance(arm.forecast, ByLaws | ByOffset) or arm.one_budget:
        return []
    expected = arm.forecast.point(arm.design(found * total, (1 - found) * total))
    share = float(found[np.argmin(expected)])
    return [(share * total, (1 - share) * total)]


def timing(arm: Arm, total: float | None, noise: float) -> Timing | None:
    """The best share of a total to spend before growing, and the shares about as good.

    `noise` is a standard deviation of one run, in the metric's unit. None where no law says
    anything about it: laws of one extra budget do not, nor do fewer than 3 growth points.
    """
    by = arm.forecast
    if arm.which.arm != "grow" or total is None or not isinstance(by, ByLaws) or arm.one_budget:
        return None
    found = searched(arm, total)
    if arm.cells["sunk_flops"].nunique() < GROWTH_POINTS or len(found) < 3:
        return None
    design = arm.design(found * total, (1 - found) * total)
    expected, draws = by.point(design), by.draws(design)
    close = found[expected <= expected.min() + (noise if math.isfinite(noise) else 0.0)]
    low, high = np.quantile(found[np.argmin(draws, axis=1)], [0.05, 0.95])
    laws = [(law.law.name, replace(by, laws=(law,)).point(design)) for law in by.laws]
    return Timing(
        which=arm.which,
        total_flops=total,
        share=float(found[np.argmin(expected)]),
        near_equal=(float(close.min()), float(close.max())),
        interval=(float(low), float(high)),
        searched=(float(found.min()), float(found.max())),
        by_law=tuple((name, float(found[np.argmin(level)])) for name, level in laws),
    )
