"""The things one could do, and how they compare under the same draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis import checkpoints, shares
from analysis.answer import Option
from analysis.checkpoints import Checkpoint
from analysis.compare import answers
from analysis.fit import Fit
from analysis.forecast import Arm, ByLaws
from analysis.metrics import FloatArray, Metric
from analysis.question import Question

_ONE_POINT = 1.005  # sources closer than this ratio are one: seeds of a trunk


@dataclass(frozen=True)
class Candidate:
    """An arm at one point: what an option is before it is compared."""

    arm: Arm
    sunk: float
    extra: float
    point: float  # L
    draws: FloatArray

    @classmethod
    def of(cls, arm: Arm, sunk: float, extra: float) -> "Candidate":
        """What is expected of an arm with a forecast at one point."""
        assert arm.forecast is not None
        design = arm.design(np.array([sunk]), np.array([extra]))
        draws = arm.forecast.draws(design)[:, 0]
        return cls(arm, sunk, extra, float(arm.forecast.point(design)[0]), draws)


def candidates(arm: Arm, question: Question, series: Sequence[Checkpoint] = ()) -> list[Candidate]:
    """The points at which an arm answers a question of one budget; none if nothing is expected."""
    if arm.forecast is None:
        return []
    if arm.which.arm == "scratch":
        points = [(0.0, question.left)]
    elif question.sunk is not None:
        points = [(question.sunk, question.left)]
    elif question.extra is not None:
        points = [(float(sunk), question.extra) for sunk in _sources(arm, series)]
    else:
        points = shares.best_split(arm, question.left)
    return [Candidate.of(arm, *point) for point in points if reachable(arm, *point)]


def reachable(arm: Arm, sunk: float, extra: float) -> bool:
    """Whether anything can be expected of an arm at one point."""
    return bool(arm.reaches(np.array([sunk]), np.array([extra]))[0])


def _sources(arm: Arm, series: Sequence[Checkpoint]) -> FloatArray:
    """The measured sources of an arm, and those of a series that lie between them."""
    values = np.sort(arm.cells["sunk_flops"].unique().astype(float))
    cuts = np.flatnonzero(values[1:] > _ONE_POINT * values[:-1]) + 1
    own = [float(np.median(group)) for group in np.split(values, cuts)]
    between = [each.sunk_flops for each in series if own[0] <= each.sunk_flops <= own[-1]]
    known = [each for each in own if each == 0 or checkpoints.at(series, each) is None]
    return np.unique([*known, *between])


def missing(arm: Arm, found: Sequence[Candidate]) -> str:
    """Why an arm is not among the options; "" if it is."""
    if arm.forecast is None:
        return f"{arm.which.label()}: {arm.missing}"
    if any(each.arm is arm for each in found):
        return ""
    return f"{arm.which.label()}: nothing was measured near this budget"


def options(
    found: Sequence[Candidate], metric: Metric, names: Sequence[Checkpoint] = ()
) -> tuple[Option, ...]:
    """Options, best first."""
    if not found:
        return ()
    draws = np.stack([each.draws for each in found], axis=1)
    best = np.argmin(draws, axis=1)
    regret = draws - draws.min(axis=1, keepdims=True)
    least = min(each.point for each in found)
    made = [
        replace(
            _alone(each, metric, names),
            behind=each.point - least,
            chance_best=float(np.mean(best == index)),
            regret=float(regret[:, index].mean()),
            regret_95=float(np.quantile(regret[:, index], 0.95)),
        )
        for index, each in enumerate(found)
    ]
    return tuple(sorted(made, key=lambda option: (option.behind, option.which, option.sunk_flops)))


def _alone(each: Candidate, metric: Metric, names: Sequence[Checkpoint]) -> Option:
    ends = metric.rising(np.quantile(each.draws, [0.05, 0.95]))
    known = checkpoints.at(names, each.sunk) if each.arm.which.arm != "scratch" else None
    return Option(
        which=each.arm.which,
        sunk_flops=each.sunk,
        extra_flops=each.extra,
        expected=float(metric.rising(np.array(each.point))),
        interval=(float(ends.min()), float(ends.max())),
        behind=0.0,
        chance_best=1.0,
        regret=0.0,
        regret_95=0.0,
        beyond=each.arm.beyond(each.sunk, each.extra),
        basis=each.arm.forecast.basis if each.arm.forecast else "",
        checkpoint=known.words() if known else "",
    )


def chance_ahead(found: Sequence[Candidate]) -> float:
    """How often the best of growing is ahead of the best un-grown control; NaN without either.

    Which is the best is decided by expectations, not by draws: luck picks no winner here.
    """
    best = [
        min((each for each in found if each.arm.which.arm == arm), key=lambda each: each.point)
        for arm in ("grow", "continue")
        if any(each.arm.which.arm == arm for each in found)
    ]
    return float(np.mean(best[0].draws < best[1].draws)) if len(best) == 2 else math.nan


def by_law(found: Sequence[Candidate]) -> dict[str, tuple[str, ...]]:
    """Which laws of growing would name which arm the best, that of most laws first."""
    fits = {
        law.law.name: law
        for each in found
        if isinstance(each.arm.forecast, ByLaws) and each.arm.which.arm == "grow"
        for law in each.arm.forecast.laws
    }
    return answers(list(fits.values()), lambda law: _winner(found, law))


def _winner(found: Sequence[Candidate], law: Fit) -> str:
    def level(each: Candidate) -> float:
        by = each.arm.forecast
        if not isinstance(by, ByLaws):
            return each.point
        kept = tuple(one for one in by.laws if one.law.name == law.law.name) or by.laws
        design = each.arm.design(np.array([each.sunk]), np.array([each.extra]))
        return float(replace(by, laws=kept).point(design)[0])

    return min(found, key=level).arm.which.arm
