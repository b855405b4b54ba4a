"""The answer: grow, continue or start over, how sure that is, and what it rests on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis import candidates, checkpoints, evidence, rules, shares
from analysis.candidates import Candidate
from analysis.caveats import caveats
from analysis.checkpoints import Checkpoint
from analysis.evidence import Noise
from analysis.fits import Fits
from analysis.forecast import Arm, arms, run_noise
from analysis.metrics import Metric
from analysis.question import Question, check, once
from analysis.recommendation import Recommendation
from sweeps.errors import GrowpointError, nearest


@dataclass(frozen=True)
class Grounds:
    """What every answer about one metric of some records rests on; made once, asked often."""

    frame: pd.DataFrame  # the rows that have the metric
    metric: Metric
    planned: int
    arms: tuple[Arm, ...]
    noise: Noise
    names: tuple[Checkpoint, ...]  # sources that are called something
    series: tuple[Checkpoint, ...]  # whose checkpoints may be answers without having been grown

    def of_growth(self, growth: str | None) -> "Grounds":
        """Only one growth, beside continuing and starting over at that size.

        Raises GrowpointError if nothing was grown so.
        """
        if growth is None:
            return self
        known = sorted({arm.which.growth for arm in self.arms if arm.which.arm == "grow"})
        if growth not in known:
            raise GrowpointError(
                f"nothing was grown by {growth!r}",
                [("known", ", ".join(known) or "none")],
                f'--growth "{nearest(growth, known) or (known or ["depth x2"])[0]}"',
            )
        kept = tuple(arm for arm in self.arms if arm.which.growth in (growth, "-"))
        return replace(self, arms=kept)


def grounds(
    frame: pd.DataFrame,
    metric: Metric,
    question: Question,
    planned: int,
    known: Fits | None = None,
    series: Sequence[Checkpoint] = (),
) -> Grounds:
    """Fit what a question needs. Fits that are `known` are not made again.

    Raises GrowpointError for a question that makes no sense.
    """
    check(question, metric)
    measured = metric.measured(frame)
    every = arms(measured, metric, _budget(measured, question), known)
    noise = run_noise(measured, metric, every)
    names = (*series, *checkpoints.named(measured))
    made = Grounds(measured, metric, planned, tuple(every), noise, names, tuple(series))
    return made.of_growth(question.growth)


def _budget(frame: pd.DataFrame, question: Question) -> float | None:
    """The extra budget that laws of one budget are wanted for, if no others can be had."""
    if question.kind in ("extra", "total"):
        return question.extra
    found = evidence.levels(frame["extra_flops"][frame["arm"] == "grow"])
    return float(found.max()) if len(found) else None


def recommend(
    frame: pd.DataFrame,
    metric: Metric,
    question: Question,
    planned: int,
    known: Fits | None = None,
    series: Sequence[Checkpoint] = (),
) -> Recommendation:
    """Answer a question of one budget from finished cells: see `Question`.

    Every option is compared under the same bootstrap draws, always with the un-grown control
    where one was measured. Fits that are `known` are not made again. Raises GrowpointError for a
    budget that makes no sense.
    """
    if question.kind not in ("extra", "total"):
        raise once(question)
    return at_budget(grounds(frame, metric, question, planned, known, series), question)


def at_budget(made: Grounds, question: Question) -> Recommendation:
    """Answer a question of one budget."""
    frame, metric = made.frame, made.metric
    found = [
        each for arm in made.arms for each in candidates.candidates(arm, question, made.series)
    ]
    options = candidates.options(found, metric, made.names)
    when = [shares.timing(arm, question.whole, made.noise.value) for arm in made.arms]
    timing = tuple(each for each in when if each is not None)
    said = candidates.by_law(found)
    grown = frame[frame["arm"] == "grow"]
    sunk = question.sunk if question.sunk is not None or not options else options[0].sunk_flops
    whole = question.whole or ((sunk or 0.0) + question.left if options else None)
    seen = rules.Seen(frame, metric, made.arms, options, timing, sunk, whole)
    return Recommendation(
        question=question,
        metric=metric,
        options=options,
        noise=made.noise,
        chance_ahead=candidates.chance_ahead(found),
        timing=timing,
        pairs=tuple(_pairs(frame, metric, question)),
        laws=_laws(found),
        by_law=tuple((arm, names) for arm, names in said.items()),
        rules=rules.held_against(seen),
        holds_for=_holds_for(grown),
        beyond=max((option.beyond for option in options[:1]), default=math.nan),
        growth_points=int(grown["sunk_flops"].nunique()),
        cells=len(frame),
        planned=made.planned,
        missing=tuple(each for arm in made.arms if (each := candidates.missing(arm, found))),
        caveats=(
            *unfinished(made),
            *caveats(frame, metric, made.arms, [each.arm for each in found], options, said),
        ),
    )


def unfinished(made: Grounds) -> list[str]:
    """What is still to come."""
    left = made.planned - len(made.frame)
    return [f"{left} of {made.planned} cells have no {made.metric.name} yet"] if left > 0 else []


def _laws(found: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(sorted({each.arm.forecast.basis for each in found if each.arm.forecast}))


def _pairs(frame: pd.DataFrame, metric: Metric, question: Question) -> list[evidence.Pair]:
    """Measured pairs at the question's budget; at its checkpoint only, where there are some."""
    at = frame
    if question.sunk is not None:
        near = frame["sunk_flops"].between(question.sunk / 1.05, question.sunk * 1.05)
        at = frame[near] if near.any() else frame
    found = evidence.pairs(at, metric) or evidence.pairs(frame, metric)
    if question.growth is not None:
        found = [pair for pair in found if pair.growth == question.growth]
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
