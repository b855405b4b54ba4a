"""Which runs to make next: those that take most regret off the answer for their FLOPs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from analysis import beliefs, forecast
from analysis.answer import aligned
from analysis.beliefs import Place
from analysis.extension import Candidate
from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric
from analysis.preposterior import Draws, Reduction, Simulation, better
from analysis.question import Question, check
from orchestrator import text

COUNT = 3
_SETTLED = 0.1  # of a run's noise: regret below it is not worth a run
_WORTH = 0.1  # of the regret: a batch that takes off less would not change the answer

Status = Literal["worth", "settled", "nothing", "too_few", "too_dear"]


class Offer(Protocol):
    """What could be run, and what it would cost."""

    def candidates(self) -> Sequence[Candidate]:
        """Runs that were not made."""

    def flops(self, chosen: Sequence[Candidate]) -> float:
        """FLOPs to make these together."""


@dataclass(frozen=True)
class Step:
    """A run of the batch, in the order in which it is worth most."""

    run: Candidate
    flops: float  # beside the runs before it
    reduction: Reduction  # by it and those before it


@dataclass(frozen=True)
class NextRuns:
    """The runs that would settle an answer, or why none is worth making. L is the metric's unit."""

    question: Question
    metric: Metric
    status: Status
    regret: float  # expected, of the answer as it stands; NaN if nothing can be expected
    answer: Place | None  # as it stands
    steps: tuple[Step, ...]
    considered: int
    noise: float
    laws: tuple[str, ...]
    notes: tuple[str, ...] = ()
    written: str = ""  # the file that asks for them
    command: str = ""  # that launches it

    @property
    def flops(self) -> float:
        """What the whole batch costs."""
        return math.fsum(step.flops for step in self.steps)

    @property
    def regret_after(self) -> float:
        """Expected, of the answer once the batch is done."""
        return self.steps[-1].reduction.after if self.steps else self.regret

    def headline(self) -> str:
        """The first line."""
        now, after = (self.metric.text(each) for each in (self.regret, self.regret_after))
        unit = self.metric.unit
        if self.status == "worth":
            runs = "1 run" if len(self.steps) == 1 else f"{len(self.steps)} runs"
            cost = text.flops(self.flops)
            return f"{runs} for {cost} FLOPs: expected regret falls from {now} to {after} {unit}."
        noise = self.metric.text(self.noise)
        said = {
            "settled": f"Nothing is worth running: expected regret is {now} {unit},"
            f" and a run's noise is {noise}.",
            "nothing": f"Nothing is worth running: the answer would not change"
            f" (expected regret {now} {unit}).",
            "too_dear": "No run that says anything can be had for this budget.",
            "too_few": "Too few runs: there is no law yet that could say what a run would show.",
        }
        return said[self.status]

    def text(self) -> str:
        """What the terminal shows."""
        lines = [self.headline()]
        if self.steps:
            header = ["run", "FLOPs", f"regret after, {self.metric.unit}"]
            rows = [
                [each.run.label, text.flops(each.flops), self.metric.text(each.reduction.after)]
                for each in self.steps
            ]
            lines += ["", *aligned(header, rows)]
        width = max(len(key) for key, _ in self._notes()) + 2
        lines += ["", *(f"  {key:<{width}}{line}" for key, line in self._notes())]
        if self.written:
            lines += ["", f"wrote {self.written}", f"next: {self.command}"]
        return "\n".join(lines)

    def _notes(self) -> list[tuple[str, str]]:
        found = [("answer now", _words(self.answer))] if self.answer else []
        found += [("law", law) for law in self.laws]
        found += [("considered", f"{self.considered} runs")]
        return found + [("note", note) for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """The stable structure of `next --json`; what is not known is null."""
        return {
            "answer": self.status,
            "headline": self.headline(),
            "metric": self.metric.name,
            "question": asdict(self.question),
            "option": _plain(self.answer) if self.answer else None,
            "regret": self.regret,
            "regret_after": self.regret_after,
            "flops": self.flops,
            "runs": [
                {
                    "label": step.run.label,
                    "flops": step.flops,
                    "regret_after": step.reduction.after,
                    "cells": [_plain(place) for place in step.run.places],
                }
                for step in self.steps
            ],
            "considered": self.considered,
            "noise": self.noise,
            "laws": list(self.laws),
            "notes": list(self.notes),
            "written": self.written or None,
            "command": self.command or None,
        }


def _plain(place: Place) -> dict[str, Any]:
    amounts = {"sunk_flops": place.sunk_flops, "extra_flops": place.extra_flops}
    return asdict(place.which) | amounts


def _words(place: Place) -> str:
    amounts = {"sunk": place.sunk_flops, "extra": place.extra_flops}
    words = [f"{name} {text.flops(value)}" for name, value in amounts.items() if value]
    return f"{place.which.label()}: {', '.join(words)}"


def next_runs(
    frame: pd.DataFrame,
    metric: Metric,
    question: Question,
    offer: Offer,
    budget: float = math.inf,
    count: int = COUNT,
) -> NextRuns:
    """The batch of up to `count` runs, for at most `budget` FLOPs, that would settle `question`.

    `frame` are the finished cells, as records. Members of the batch account for each other, in
    what they say and in what they cost. Raises GrowpointError for a question without sense.
    """
    check(question, metric)
    every = forecast.arms(frame, metric, question.extra)
    noise = forecast.run_noise(frame, metric, every).value
    decided = beliefs.options(every, question)
    laws = tuple(sorted({arm.forecast.basis for arm in every if arm.forecast}))
    missing = tuple(f"{arm.which.label()}: {arm.missing}" for arm in every if not arm.forecast)
    found = NextRuns(question, metric, "too_few", math.nan, None, (), 0, noise, laws, missing)
    grown = any(place.which.arm == "grow" for place in decided)
    if not grown or len(decided) < 2 or not math.isfinite(noise):
        return replace(found, notes=(*missing, *_short(every, decided, noise)))
    offered = [each for each in offer.candidates() if beliefs.learns(every, each.places, each.seed)]
    drawn = beliefs.draws(every, decided, [p for each in offered for p in each.places], noise)
    return _chosen(found, decided, _Market(offer, offered, drawn), budget, count)


def _short(every: Sequence[Arm], decided: Sequence[Place], noise: float) -> list[str]:
    """Why nothing can be said although there may be laws."""
    if not any(arm.forecast for arm in every if arm.which.arm == "grow"):
        return []
    if not decided:
        return ["nothing was measured near this budget"]
    if not math.isfinite(noise):
        return ["the error of a run is not known: run a second seed of some cells"]
    return ["there is nothing to decide between: no other arm has a forecast at this budget"]


@dataclass(frozen=True)
class _Market:
    """What is offered, and what is believed of it."""

    offer: Offer
    offered: list[Candidate]
    draws: Draws

    def columns(self) -> list[list[int]]:
        """Which runs of the draws each candidate makes."""
        ends = np.cumsum([len(each.places) for each in self.offered]).tolist()
        return [
            list(range(end - len(each.places), end))
            for end, each in zip(ends, self.offered, strict=True)
        ]

    def costs(self, chosen: Sequence[int], left: float) -> FloatArray:
        """What each candidate adds to the price of the chosen; infinite if chosen or too dear."""
        have = [self.offered[at] for at in chosen]
        spent = self.offer.flops(have) if have else 0.0
        found = np.full(len(self.offered), math.inf)
        for at, each in enumerate(self.offered):
            if at not in chosen:
                found[at] = max(self.offer.flops([*have, each]) - spent, 1.0)
        return np.where(found <= left, found, math.inf)


def _chosen(
    found: NextRuns, decided: Sequence[Place], market: _Market, budget: float, count: int
) -> NextRuns:
    simulated = Simulation.of(market.draws)
    before = simulated.reduction().before
    now = decided[int(np.argmin(market.draws.options.mean(axis=0)))]
    found = replace(found, regret=before, answer=now, considered=len(market.offered))
    if before <= _SETTLED * found.noise:
        return replace(found, status="settled")
    columns, steps = market.columns(), []
    chosen: list[int] = []
    left = budget
    while len(chosen) < count:
        costs = market.costs(chosen, left)
        if not chosen and len(costs) and not np.isfinite(costs).any():
            return replace(found, status="too_dear")
        at = better(simulated, columns, costs)
        if at is None:
            break
        chosen.append(at)
        left -= float(costs[at])
        simulated = simulated.after(columns[at])
        steps.append(Step(market.offered[at], float(costs[at]), simulated.reduction()))
        if steps[-1].reduction.after <= _SETTLED * found.noise:
            break
    if not steps or not _pays(steps[-1].reduction):
        return replace(found, status="nothing")
    return replace(found, status="worth", steps=tuple(steps))


def _pays(found: Reduction) -> bool:
    """Whether a batch takes off something, and more than the simulation's own error."""
    gain = found.before - found.after
    return gain > max(_WORTH * found.before, 2 * found.se)
