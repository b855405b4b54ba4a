"""The answer: grow, continue or start over, how sure that is, and what it rests on."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import evidence
from analysis.answer import Option, Question, Timing, check
from analysis.evidence import Noise
from analysis.fit import GROWTH_POINTS
from analysis.fits import Fits
from analysis.forecast import Arm, ByInterpolation, ByLaws, ByOffset, arms
from analysis.metrics import FloatArray, Metric
from analysis.recommendation import Recommendation
from analysis.resample import FEW

_SHARES = np.linspace(0, 0.98, 99)
_REACH = 2.0  # times the measured range beyond which shares are not searched nor answers given


def recommend(
    frame: pd.DataFrame,
    metric: Metric,
    question: Question,
    planned: int,
    known: Fits | None = None,
) -> Recommendation:
    """Answer `question` from the finished cells of a sweep.

    Every option is compared under the same bootstrap draws, always with the un-grown control
    where one was measured. Fits that are `known` are not made again. Raises GrowpointError for a
    budget that makes no sense.
    """
    check(question)
    every = arms(frame, metric, question.extra, known)
    candidates = [each for arm in every for each in _candidates(arm, every, question)]
    noise = _noise(frame, metric, every)
    missing = tuple(each for arm in every if (each := _missing(arm, candidates)))
    timing = tuple(
        found for arm in every if (found := _timing(arm, question, noise.value)) is not None
    )
    options, laws_disagree = _options(candidates, metric)
    grown = frame[frame["arm"] == "grow"]
    return Recommendation(
        question=question,
        metric=metric,
        options=options,
        noise=noise,
        timing=timing,
        pairs=tuple(_pairs(frame, metric, question)),
        laws=tuple(sorted({each.arm.forecast.basis for each in candidates if each.arm.forecast})),
        holds_for=_holds_for(grown),
        beyond=max((option.beyond for option in options[:1]), default=math.nan),
        growth_points=int(grown["sunk_flops"].nunique()),
        cells=len(frame),
        planned=planned,
        missing=missing,
        caveats=tuple(_caveats(frame, candidates, every, laws_disagree)),
    )


@dataclass(frozen=True)
class _Candidate:
    """An arm at one point: what an option is before it is compared."""

    arm: Arm
    sunk: float
    extra: float
    point: float  # L
    draws: FloatArray


def _candidate(arm: Arm, sunk: float, extra: float) -> _Candidate:
    assert arm.forecast is not None
    design = arm.design(np.array([sunk]), np.array([extra]))
    draws = arm.forecast.draws(design)[:, 0]
    return _Candidate(arm, sunk, extra, float(arm.forecast.point(design)[0]), draws)


def _candidates(arm: Arm, every: list[Arm], question: Question) -> list[_Candidate]:
    """The points at which an arm answers the question; none if nothing is expected of it."""
    if arm.forecast is None:
        return []
    if arm.which.arm == "scratch":
        points = [(0.0, question.left)]
    elif question.sunk is not None:
        points = [(question.sunk, question.left)]
    elif question.extra is not None:
        points = [(float(sunk), question.extra) for sunk in _growth_points(arm)]
    else:
        points = _best_split(arm, question.left)
    return [_candidate(arm, *point) for point in points if _reachable(arm, *point)]


def _missing(arm: Arm, candidates: list[_Candidate]) -> str:
    """Why an arm is not among the options; "" if it is."""
    if arm.forecast is None:
        return f"{arm.which.label()}: {arm.missing}"
    if any(each.arm is arm for each in candidates):
        return ""
    return f"{arm.which.label()}: nothing was measured near this budget"


def _reachable(arm: Arm, sunk: float, extra: float) -> bool:
    """Interpolation does not leave the runs it lies between."""
    return not isinstance(arm.forecast, ByInterpolation) or arm.beyond(sunk, extra) <= 1.05


def _growth_points(arm: Arm) -> FloatArray:
    return np.unique(evidence.levels(arm.cells["sunk_flops"]))


def _best_split(arm: Arm, total: float) -> list[tuple[float, float]]:
    if arm.which.arm == "continue":
        return [(total, 0.0)]
    shares = _searched(arm, total)
    if not len(shares) or not isinstance(arm.forecast, ByLaws | ByOffset):
        return []
    expected = arm.forecast.point(arm.design(shares * total, (1 - shares) * total))
    share = float(shares[np.argmin(expected)])
    return [(share * total, (1 - share) * total)]


def _searched(arm: Arm, total: float) -> FloatArray:
    """Shares of a total before growing: those in the measured range, else those near it."""
    beyond = np.array([arm.beyond(share * total, (1 - share) * total) for share in _SHARES])
    within = beyond <= 1.05
    # Pairs at few growth points say nothing about others.
    inside = within.sum() >= 3 or isinstance(arm.forecast, ByOffset)
    return np.asarray(_SHARES[within if inside else beyond <= _REACH])


def _timing(arm: Arm, question: Question, noise: float) -> Timing | None:
    """The best share of the total to spend before growing, and the shares about as good."""
    total = question.whole
    if arm.which.arm != "grow" or total is None or not isinstance(arm.forecast, ByLaws):
        return None
    shares = _searched(arm, total)
    if arm.cells["sunk_flops"].nunique() < GROWTH_POINTS or len(shares) < 3:
        return None
    if len(arm.forecast.laws) and arm.forecast.laws[0].which.extra_flops is not None:
        return None  # laws of one extra budget say nothing about others
    design = arm.design(shares * total, (1 - shares) * total)
    expected, draws = arm.forecast.point(design), arm.forecast.draws(design)
    close = shares[expected <= expected.min() + noise]
    low, high = np.quantile(shares[np.argmin(draws, axis=1)], [0.05, 0.95])
    return Timing(
        which=arm.which,
        total_flops=total,
        share=float(shares[np.argmin(expected)]),
        near_equal=(float(close.min()), float(close.max())),
        interval=(float(low), float(high)),
        searched=(float(shares.min()), float(shares.max())),
    )


def _options(candidates: list[_Candidate], metric: Metric) -> tuple[tuple[Option, ...], bool]:
    """Options, best first, and whether the laws in the mix disagree about the best arm."""
    if not candidates:
        return (), False
    draws = np.stack([each.draws for each in candidates], axis=1)
    best = np.argmin(draws, axis=1)
    regret = draws - draws.min(axis=1, keepdims=True)
    least = min(each.point for each in candidates)
    made = []
    for index, each in enumerate(candidates):
        ends = metric.rising(np.quantile(each.draws, [0.05, 0.95]))
        made.append(
            Option(
                which=each.arm.which,
                sunk_flops=each.sunk,
                extra_flops=each.extra,
                expected=float(metric.rising(np.array(each.point))),
                interval=(float(ends.min()), float(ends.max())),
                behind=each.point - least,
                chance_best=float(np.mean(best == index)),
                regret=float(regret[:, index].mean()),
                regret_95=float(np.quantile(regret[:, index], 0.95)),
                beyond=each.arm.beyond(each.sunk, each.extra),
                basis=each.arm.forecast.basis if each.arm.forecast else "",
            )
        )
    order = sorted(made, key=lambda option: (option.behind, option.which, option.sunk_flops))
    return tuple(order), _disagree(candidates)


def _disagree(candidates: list[_Candidate]) -> bool:
    """Whether single laws of the mix would name different arms."""
    names = {
        law.law.name
        for each in candidates
        if isinstance(each.arm.forecast, ByLaws) and each.arm.which.arm == "grow"
        for law in each.arm.forecast.laws
    }
    return len({_winner(candidates, name) for name in names}) > 1


def _winner(candidates: list[_Candidate], law: str) -> str:
    def level(each: _Candidate) -> float:
        by = each.arm.forecast
        if not isinstance(by, ByLaws):
            return each.point
        kept = tuple(one for one in by.laws if one.law.name == law) or by.laws
        design = each.arm.design(np.array([each.sunk]), np.array([each.extra]))
        return float(replace(by, laws=kept).point(design)[0])

    return min(candidates, key=level).arm.which.arm


def _noise(frame: pd.DataFrame, metric: Metric, every: list[Arm]) -> Noise:
    """Seed noise; with one seed the larger of the scatter about the laws and of an evaluation."""
    found = evidence.seed_noise(frame, metric)
    if math.isfinite(found.value):
        return found
    evaluation = float(frame[f"{metric.column}_se"].median())
    laws = [law for arm in every if isinstance(arm.forecast, ByLaws) for law in arm.forecast.laws]
    free = [2 * law.objective / max(law.cells - len(law.law.names()), 1) for law in laws]
    scatter = math.sqrt(float(np.median(free))) if free else 0.0
    if scatter > evaluation:
        return Noise(scatter, "scatter about the laws, from one seed")
    return Noise(evaluation, "error of one evaluation, from one seed")


def _pairs(frame: pd.DataFrame, metric: Metric, question: Question) -> list[evidence.Pair]:
    """Measured pairs at the question's budget; at its checkpoint only, where there are some."""
    at = frame
    if question.sunk is not None:
        near = frame["sunk_flops"].between(question.sunk / 1.05, question.sunk * 1.05)
        at = frame[near] if near.any() else frame
    found = evidence.pairs(at, metric) or evidence.pairs(frame, metric)
    extra = question.extra if question.total is None else None
    if extra is None:
        return found
    close = [pair for pair in found if 1 / 1.05 <= pair.extra_flops / extra <= 1.05]
    return close or found


def _holds_for(grown: pd.DataFrame) -> dict[str, tuple[float, float]]:
    if grown.empty:
        return {}
    columns = {"sunk": "sunk_flops", "extra": "extra_flops", "active": "source_active_params"}
    return {
        name: (float(grown[column].min()), float(grown[column].max()))
        for name, column in columns.items()
    }


def _caveats(
    frame: pd.DataFrame, candidates: list[_Candidate], every: list[Arm], disagree: bool
) -> list[str]:
    seeds, clusters = frame["seed"].nunique(), evidence.few_clusters(frame)
    found = [f"{seeds} seeds" if seeds > 1 else "one seed"]
    if clusters < FEW:
        found.append(f"only {clusters} source checkpoints times seeds")
    if disagree:
        found.append("the laws disagree about the best arm")
    if frame["annealed"].any():
        found.append(f"annealed sources in {int(frame['annealed'].sum())} cells")
    if not any(each.arm.which.arm == "continue" for each in candidates):
        found.append("no un-grown control to compare with: that growing pays is not shown")
    bounds = {
        f"{law.law.name} has {name} at its bound"
        for arm in every
        if isinstance(arm.forecast, ByLaws) and arm.which.arm == "grow"
        for law in arm.forecast.laws
        for name in law.at_bounds
    }
    weak = {
        f"{each.which.growth} rests on {each.forecast.basis}"
        for each in every
        if isinstance(each.forecast, ByOffset)
    }
    return found + sorted(bounds) + sorted(weak)
