"""What is decided at every point of sunk and extra compute around the runs of a growth."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.coordinates import Mask
from analysis.evidence import Noise
from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric
from analysis.surface import Decisions, decide

_GRID = (81, 61)  # points of sunk and extra compute
REACH = 2.0  # times around the runs that is drawn
_SURE = 0.8  # chance of being best below which it is too close to call
Ends = tuple[float, float, float, float]


@dataclass(frozen=True)
class Map:
    """The decisions of one growth on a grid: arrays (extra, sunk)."""

    growth: Arm
    sunk: FloatArray  # (sunk,)
    extra: FloatArray  # (extra,)
    winner: npt.NDArray[np.str_]  # names of arms; "" where nothing can be expected
    margin: FloatArray  # in the metric's own unit
    close: Mask  # whether it is too close to call
    inside: Mask  # whether runs are around
    ahead: dict[str, FloatArray]  # L of the best other arm less that of this one


def mappable(arm: Arm) -> bool:
    """Whether something is expected of it at any sunk and extra compute."""
    known = arm.forecast is not None and not arm.one_budget
    return known and bool((arm.cells["sunk_flops"] > 0).any())


def why_not(grown: list[Arm]) -> str:
    """Why there is no map of any of these arms."""
    if any(arm.one_budget for arm in grown):
        return "one extra budget says nothing about others"
    missing = [arm.missing for arm in grown if arm.forecast is None]
    return missing[0] if missing else "nothing was measured to compare growing with"


def others(arm: Arm, arms: list[Arm]) -> list[Arm]:
    """This growth, training on, and starting over at its size."""
    return [
        each
        for each in arms
        if each.forecast is not None
        and each.which.variant == arm.which.variant
        and (each.which.arm == "continue" or each.which.growth == arm.which.growth)
    ]


def ends(kept: list[Arm]) -> Ends:
    """Least and most sunk, least and most extra compute of any run of growing."""
    cells = pd.concat([arm.cells for arm in kept])
    some = cells["sunk_flops"][cells["sunk_flops"] > 0]
    extra = cells["extra_flops"]
    return float(some.min()), float(some.max()), float(extra.min()), float(extra.max())


def mapped(
    arm: Arm,
    arms: list[Arm],
    metric: Metric,
    noise: Noise,
    around: Ends,
) -> tuple[pd.DataFrame, Map]:
    """The decisions of one growth as a table and as a map, up to REACH times around `around`."""
    sunk = np.geomspace(around[0] / REACH, around[1] * REACH, _GRID[0])
    extra = np.geomspace(around[2] / REACH, around[3] * REACH, _GRID[1])
    points = [each.ravel() for each in np.meshgrid(sunk, extra)]
    decided = decide(others(arm, arms), metric, *points)
    winner = np.array(decided.names())
    winner[~(decided.beyond <= REACH)] = ""
    slack = noise.value if math.isfinite(noise.value) else 0.0
    # Without a second there is nothing to be close to.
    close = (decided.margin <= slack) | (decided.chance < _SURE)
    low, high, least, most = ends([arm])
    # Half a step of the grid more, so that the colour reaches the edge of the box.
    inside = _between(points[0], low, high, sunk) & _between(points[1], least, most, extra)
    inside &= decided.beyond <= 1.05
    shape = len(extra), len(sunk)
    table = pd.DataFrame(
        {
            "variant": arm.which.variant,
            "growth": arm.which.growth,
            "sunk_flops": points[0],
            "extra_flops": points[1],
            "winner": winner,
            "margin": decided.margin * metric.shown,
            "chance": decided.chance,
            "too_close": close,
            "inside": inside,
        }
    )
    return table, Map(
        growth=arm,
        sunk=sunk,
        extra=extra,
        winner=winner.reshape(shape),
        margin=decided.margin.reshape(shape),
        close=close.reshape(shape),
        inside=inside.reshape(shape),
        ahead={name: each.reshape(shape) for name, each in _ahead(decided, metric).items()},
    )


def _between(values: FloatArray, low: float, high: float, grid: FloatArray) -> Mask:
    reach = math.sqrt(grid[1] / grid[0])
    return np.asarray((values >= low / reach) & (values <= high * reach))


def _ahead(decided: Decisions, metric: Metric) -> dict[str, FloatArray]:
    """L of the best other arm less that of each arm: where it is zero, two are equal."""
    falling = np.where(np.isnan(decided.expected), np.inf, metric.falling(decided.expected))
    found = {}
    for index, which in enumerate(decided.options):
        rest = np.delete(falling, index, axis=0).min(axis=0)
        with np.errstate(invalid="ignore"):
            found[which.arm] = np.where(
                np.isinf(rest) | np.isinf(falling[index]), np.nan, rest - falling[index]
            )
    return found
