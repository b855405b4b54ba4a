"""What is believed of every option and of every run that could be made, as draws of the laws."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis import evidence
from analysis.forecast import Arm, ByInterpolation, ByLaws, ByOffset
from analysis.laws import Design
from analysis.metrics import FloatArray
from analysis.preposterior import Draws
from analysis.question import Question
from analysis.resample import SEED
from analysis.sample import Which

_REACH = 2.0  # times the measured range beyond which a law is not asked
_SLACK = 1.05  # rounding of steps
_SAME = 1.001  # of one source
_GOES_ON = (0.3, 1.2)  # of its last slope in the logarithm: curves flatten, and slopes are noisy
_SHARES = np.linspace(0, 0.98, 33)  # of a total, spent before growing


@dataclass(frozen=True)
class Place:
    """Where a run stands, or an option: an arm at so much compute."""

    which: Which
    sunk_flops: float
    extra_flops: float


def options(every: Sequence[Arm], question: Question) -> list[Place]:
    """Everything that could be decided: each arm at each point where it answers the question.

    Where the checkpoint is open, growing and continuing are options at each measured source, or,
    of a total, growing at shares of it that lie near the measured range.
    """
    found = []
    for arm in every:
        if question.growth not in (None, arm.which.growth) and arm.which.arm == "grow":
            continue
        for sunk, extra in _points(arm, question):
            if knows(arm, sunk, extra):
                found.append(Place(arm.which, sunk, extra))
    return found


def _points(arm: Arm, question: Question) -> list[tuple[float, float]]:
    if arm.which.arm == "scratch":
        return [(0.0, question.left)]
    if question.sunk is not None:
        return [(question.sunk, question.left)]
    if question.extra is not None:
        sources = np.unique(evidence.levels(arm.cells["sunk_flops"]))
        return [(float(sunk), question.extra) for sunk in sources]
    if arm.which.arm == "continue":
        return [(question.left, 0.0)]
    return [(float(share) * question.left, float(1 - share) * question.left) for share in _SHARES]


def knows(arm: Arm, sunk: float, extra: float) -> bool:
    """Whether something is expected of an arm at a point."""
    if isinstance(arm.forecast, ByInterpolation):
        far = (sunk + extra) / arm.forecast.totals[-1]
        return (
            arm.beyond(sunk, extra) <= (_REACH if far > 1 and _slope(arm.forecast) else 1) * _SLACK
        )
    reached = arm.reaches(np.array([sunk]), np.array([extra]))[0]
    return bool(reached) and arm.beyond(sunk, extra) <= _REACH * _SLACK


def measured(arm: Arm, sunk: float, extra: float) -> bool:
    """Whether an arm's forecast reaches a point, and no slope had to be drawn on beyond its runs."""
    return bool(arm.reaches(np.array([sunk]), np.array([extra]))[0])


def _slope(by: ByInterpolation) -> float:
    """How fast L fell over the last two budgets, per tenfold of compute; 0 with one budget."""
    if len(by.totals) < 2:
        return 0.0
    fall = by.means[-2] - by.means[-1]
    return max(0.0, float(fall / np.log10(by.totals[-1] / by.totals[-2])))


def _drawn_on(by: ByInterpolation, design: Design) -> FloatArray:
    """Draws of an interpolation, and beyond its runs of a fall that goes on by some share.

    A control that ends short of the budget would otherwise never be seen to be worth a run.
    """
    beyond = np.maximum(0.0, np.log10((design.sunk + design.extra) / by.totals[-1]))
    rng = np.random.default_rng([SEED, zlib.crc32(by.key.encode())])
    share = rng.uniform(*_GOES_ON, (by.replicates, 1))
    return np.asarray(by.draws(design) - share * _slope(by) * beyond)


def learns(every: Sequence[Arm], runs: Sequence[Place], seed: int | None = None) -> bool:
    """Whether something is expected of these runs, and the forecasts would learn from them.

    An arm that is forecast by pairs with another growth learns only where that one was run: from
    the same source, with the same budget, and by the same `seed` if one is given.
    """
    arms = {arm.which: arm for arm in every}
    return all(
        place.which in arms
        and knows(arms[place.which], place.sunk_flops, place.extra_flops)
        and _paired(arms[place.which], every, place, seed)
        for place in runs
    )


def _paired(arm: Arm, every: Sequence[Arm], place: Place, seed: int | None) -> bool:
    if not isinstance(arm.forecast, ByOffset):
        return True
    other = replace(arm.which, growth=arm.forecast.other_growth)
    cells = next(each.cells for each in every if each.which == other)
    near = cells["sunk_flops"].between(place.sunk_flops / _SAME, place.sunk_flops * _SAME)
    near &= cells["extra_flops"].between(place.extra_flops / _SLACK, place.extra_flops * _SLACK)
    if seed is not None:
        near &= cells["seed"] == seed
    return bool(near.any())


def draws(
    every: Sequence[Arm], decided: Sequence[Place], runs: Sequence[Place], noise: float
) -> Draws:
    """L of options and runs by every law of the mix: (replicates × laws, places).

    The mix of a forecast gives each replicate one law in turn; here each replicate has a row for
    each turn, in which all arms turn together.
    """
    turns = max((len(_laws(arm)) for arm in every), default=1) or 1
    both = [*decided, *runs]
    found = np.concatenate([_one_turn(every, both, turn) for turn in range(turns)])
    return Draws(found[:, : len(decided)], found[:, len(decided) :], noise)


def _one_turn(every: Sequence[Arm], places: Sequence[Place], turn: int) -> FloatArray:
    """(replicates, places)."""
    columns: dict[int, FloatArray] = {}
    for arm in every:
        mine = [index for index, place in enumerate(places) if place.which == arm.which]
        if not mine:
            continue
        forecast = _turned(arm, turn).forecast
        assert forecast is not None
        sunk, extra = (
            np.array([getattr(places[index], name) for index in mine])
            for name in ("sunk_flops", "extra_flops")
        )
        design = arm.design(sunk, extra)
        exact = not isinstance(forecast, ByInterpolation)
        drawn = forecast.draws(design) if exact else _drawn_on(forecast, design)
        columns |= dict(zip(mine, drawn.T, strict=True))
    return np.stack([columns[index] for index in range(len(places))], axis=1)


def _laws(arm: Arm) -> tuple[object, ...]:
    by = arm.forecast.other if isinstance(arm.forecast, ByOffset) else arm.forecast
    return by.laws if isinstance(by, ByLaws) else ()


def _turned(arm: Arm, turn: int) -> Arm:
    """The arm with another law first in its mix."""

    def next_first(by: ByLaws) -> ByLaws:
        at = turn % len(by.laws)
        return replace(by, laws=by.laws[at:] + by.laws[:at])

    if isinstance(arm.forecast, ByLaws):
        return replace(arm, forecast=next_first(arm.forecast))
    if isinstance(arm.forecast, ByOffset):
        return replace(arm, forecast=replace(arm.forecast, other=next_first(arm.forecast.other)))
    return arm
