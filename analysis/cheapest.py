"""The search for the cheapest way to a target, along lines of rising extra compute."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import checkpoints, rules
from analysis.advice import Grounds, unfinished
from analysis.caveats import caveats
from analysis.coordinates import Mask
from analysis.evidence import levels
from analysis.forecast import Arm, ByOffset
from analysis.metrics import FloatArray
from analysis.question import Question
from analysis.shares import REACH
from analysis.ways import Way, Ways

_SLACK = 1.05  # of the measured range, for rounding
_SOURCES, _BUDGETS = 40, 80  # points of a grid of sunk and extra compute, on a log scale


@dataclass(frozen=True)
class _Search:
    """One arm's costs: of the point and of each draw, and where the point's is."""

    arm: Arm
    cost: float
    costs: FloatArray  # (draws,)
    sunk: float
    extra: float
    closest: float  # the least L
    at_most: bool


def ways(made: Grounds, question: Question) -> Ways:
    """Answer what a target costs."""
    assert question.target is not None
    goal = float(made.metric.falling(np.array(question.target)))
    found = [
        each
        for arm in made.arms
        if arm.forecast is not None and (each := _search(made, arm, question.sunk, goal))
    ]
    named = [each.arm for each in found]
    missing = [
        f"{arm.which.label()}: {arm.missing or 'nothing was measured near this checkpoint'}"
        for arm in made.arms
        if arm not in named
    ]
    chances = _cheapest(found)
    listed = [_way(made, each, chance) for each, chance in zip(found, chances, strict=True)]
    listed.sort(key=lambda way: (way.cost_flops, -way.chance_reached, way.which))
    best = next((way for way in listed if math.isfinite(way.cost_flops)), None)
    sunk = question.sunk if question.sunk is not None else best.sunk_flops if best else None
    whole = best.sunk_flops + best.extra_flops if best else None
    seen = rules.Seen(made.frame, made.metric, made.arms, (), (), sunk, whole)
    bases = {each.arm.forecast.basis for each in found if each.arm.forecast}
    return Ways(
        question=question,
        metric=made.metric,
        ways=tuple(listed),
        noise=made.noise,
        laws=tuple(sorted(bases)),
        rules=rules.held_against(seen),
        missing=tuple(missing),
        caveats=(*unfinished(made), *caveats(made.frame, made.metric, made.arms, named, (), {})),
    )


def _way(made: Grounds, each: _Search, chance: float) -> Way:
    reached = math.isfinite(each.cost)
    low, high = np.quantile(each.costs, [0.05, 0.95], method="nearest")
    known = checkpoints.at(made.names, each.sunk) if each.arm.which.arm == "grow" else None
    return Way(
        which=each.arm.which,
        cost_flops=each.cost,
        interval=(float(low), float(high)),
        sunk_flops=each.sunk if reached else math.nan,
        extra_flops=each.extra if reached else math.nan,
        chance_reached=float(np.mean(np.isfinite(each.costs))),
        chance_cheapest=chance,
        closest=float(made.metric.rising(np.array(each.closest))),
        at_most=each.at_most,
        beyond=each.arm.beyond(each.sunk, each.extra) if reached else math.nan,
        checkpoint=known.words() if known else "",
    )


def _cheapest(found: Sequence[_Search]) -> list[float]:
    """How often each is the cheapest of those that reach the target in a draw."""
    if not found:
        return []
    costs = np.stack([each.costs for each in found])
    least = np.argmin(costs, axis=0)
    some = np.isfinite(costs.min(axis=0))
    return [float(np.mean((least == index) & some)) for index in range(len(found))]


def _search(made: Grounds, arm: Arm, sunk: float | None, goal: float) -> _Search | None:
    """Costs of the goal along lines of rising extra compute, one for each source."""
    assert arm.forecast is not None
    sources, extra = _lines(made, arm, sunk)
    where = np.repeat(sources, len(extra)), np.tile(extra, len(sources))
    shape = len(sources), len(extra)
    # Pairs at few growth points say nothing about others.
    reach = _SLACK if isinstance(arm.forecast, ByOffset) else REACH
    there = (arm.reaches(*where) & (arm.beyonds(*where) <= reach)).reshape(shape)
    if not there.any():
        return None
    design = arm.design(*where)
    point = arm.forecast.point(design).reshape(1, *shape)
    draws = arm.forecast.draws(design).reshape(-1, *shape)
    spent = np.zeros(len(sources)) if sunk is not None else sources
    needed, first = _crossing(point, there, extra, goal)
    cost = needed[0] + spent
    at = int(np.argmin(cost))
    return _Search(
        arm=arm,
        cost=float(cost[at]),
        costs=np.asarray((_crossing(draws, there, extra, goal)[0] + spent).min(axis=1)),
        sunk=float(sources[at]),
        extra=float(needed[0, at]),
        closest=float(point[0][there].min()),
        at_most=bool(first[0, at] and len(extra) > 1),
    )


def _lines(made: Grounds, arm: Arm, sunk: float | None) -> tuple[FloatArray, FloatArray]:
    """Sources and extra budgets to search: (sources,), (budgets,)."""
    cells = arm.cells[arm.cells["total_flops"] > 0]
    if arm.which.arm != "grow":
        start = 0.0 if arm.which.arm == "scratch" else (sunk or 0.0)
        low, high = cells["total_flops"].min() / REACH, cells["total_flops"].max() * REACH
        least = max(low - start, made.frame["extra_flops"].replace(0, np.nan).min() / REACH)
        return np.array([start]), np.geomspace(least, max(high - start, least), _BUDGETS)
    levels_of = np.unique(levels(cells["extra_flops"]))
    extra = np.geomspace(levels_of[0] / REACH, levels_of[-1] * REACH, _BUDGETS)
    if arm.one_budget:
        extra = levels_of[-1:]
    if sunk is not None:
        return np.array([sunk]), extra
    own = cells["sunk_flops"]
    some = own[own > 0]
    if some.empty:
        return np.array([0.0]), extra
    spread = np.geomspace(some.min() / REACH, some.max() * REACH, _SOURCES)
    zero = [0.0] if (own == 0).any() else []
    # Sources that exist can be grown; one between them could only have been.
    return np.unique([*zero, *spread, *own.unique()]), extra


def _crossing(
    falling: FloatArray, there: Mask, extra: FloatArray, goal: float
) -> tuple[FloatArray, Mask]:
    """The least budget at which L is down at the goal: (rows, sources), infinite where none is.

    `falling` is (rows, sources, budgets). Between two budgets linear in the logarithm. The second
    value says where the first budget that may be searched was enough.
    """
    down = (falling <= goal) & there
    index = down.argmax(axis=2)
    some = down.any(axis=2)
    first = index == there.argmax(axis=1)[None]
    rows = tuple(np.indices(index.shape))
    after = falling[(*rows, index)]
    before = falling[(*rows, np.maximum(index - 1, 0))]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(first, 1.0, np.clip((before - goal) / (before - after), 0, 1))
    logs = np.log(extra)
    start = logs[np.maximum(index - 1, 0)]
    found = np.exp(start + part * (logs[index] - start))
    return np.where(some, found, np.inf), np.asarray(first & some)
