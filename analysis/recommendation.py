"""A recommendation: one value with two faces, text for people and a dictionary for machines."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from analysis import answer
from analysis.answer import Option, Question, Timing
from analysis.evidence import Noise, Pair
from analysis.metrics import Metric
from orchestrator import text

_SURE = 0.8  # chance below which an arm is not called the best
_REACH = 2.0  # times the measured range beyond which no arm is

Verdict = Literal["grow", "continue", "scratch", "too_close", "not_enough_runs", "outside"]
_ACTS = {"grow": "growing now", "continue": "continuing", "scratch": "starting over"}
_ORDERS = {"grow": "Grow", "continue": "Continue", "scratch": "Start over"}


@dataclass(frozen=True)
class Recommendation:
    """An answer and everything one needs to doubt it."""

    question: Question
    metric: Metric
    options: tuple[Option, ...]  # best first
    noise: Noise
    timing: tuple[Timing, ...]  # one for each growth with a law
    pairs: tuple[Pair, ...]  # measured differences to the un-grown control
    laws: tuple[str, ...]
    holds_for: dict[str, tuple[float, float]]  # the grown cells' range
    beyond: float  # of the best option
    growth_points: int
    cells: int
    planned: int
    missing: tuple[str, ...]  # options of which nothing can be expected, and why
    caveats: tuple[str, ...]

    @property
    def best(self) -> Option | None:
        """The option with the best expectation."""
        return self.options[0] if self.options else None

    @property
    def extrapolated(self) -> bool:
        """Whether the best option lies outside the measured range, rounding of steps aside."""
        return self.beyond > 1.05

    @property
    def rival(self) -> Option | None:
        """The best option of another arm."""
        return next((o for o in self.options if o.which.arm != self.options[0].which.arm), None)

    def chance(self, arm: str) -> float:
        """How often some option of an arm is the best."""
        return math.fsum(o.chance_best for o in self.options if o.which.arm == arm)

    @property
    def verdict(self) -> Verdict:
        """The answer in one word."""
        if self.best is None or not any(o.which.arm == "grow" for o in self.options):
            return "not_enough_runs"
        if self.beyond > _REACH:
            return "outside"
        unsure = self.chance(self.best.which.arm) < _SURE
        if self.rival and (unsure or self.rival.behind < self.noise.value):
            return "too_close"
        arm = self.best.which.arm
        return "grow" if arm == "grow" else "continue" if arm == "continue" else "scratch"

    def headline(self) -> str:
        """The first line."""
        best, rival = self.best, self.rival
        verdict = self.verdict
        if verdict == "not_enough_runs" or best is None:
            why = (
                self.missing[0] if self.missing else f"{self.growth_points} growth points are done"
            )
            return f"Not enough runs: {self.cells} of {self.planned} cells are done; {why}."
        if verdict == "outside":
            times = "far" if math.isinf(self.beyond) else f"{self.beyond:.1f} times"
            return f"Outside what was measured: the best option lies {times} beyond the sweep."
        if verdict == "too_close":
            assert rival is not None
            return self._close(best, rival)
        now = " now" if best.which.arm == "grow" and self.question.sunk is not None else ""
        return f"{_ORDERS[verdict]}{now}{self._how(best)}."

    def _close(self, best: Option, rival: Option) -> str:
        gap, noise = (self.metric.text(value) for value in (rival.behind, self.noise.value))
        acts = f"{_ACTS[best.which.arm]} and {_ACTS[rival.which.arm]}"
        if rival.behind < self.noise.value:
            return f"Too close to call: {acts} differ by {gap}, noise is {noise}{self._unit()}."
        chance = self.chance(best.which.arm)
        return (
            f"Too close to call: {acts} differ by {gap}{self._unit()}, with odds of {chance:.2f}."
        )

    def _unit(self) -> str:
        return "" if self.metric.name == "loss" else f" {self.metric.unit}"

    def _how(self, best: Option) -> str:
        if best.which.arm == "continue":
            return " without growing"
        others = [o for o in self.options[1:] if o.which.arm == best.which.arm]
        close = [o for o in others if o.behind < self.noise.value and o.which != best.which]
        if close:
            names = " and ".join(dict.fromkeys(o.which.growth for o in (best, *close)))
            return f": {names} are too close to tell apart"
        if best.which.arm == "scratch":
            return f" at {best.which.growth}"
        when = f", at {text.flops(best.sunk_flops)} sunk" if self.question.sunk is None else ""
        return f": {best.which.growth}{when}"

    def control(self) -> str:
        """Whether growing beats the un-grown control: never left unsaid."""
        grown = next((o for o in self.options if o.which.arm == "grow"), None)
        kept = next((o for o in self.options if o.which.arm == "continue"), None)
        if grown is None or kept is None:
            return "growing and the un-grown control cannot be compared here"
        ahead = kept.behind - grown.behind
        word = "ahead of" if ahead >= 0 else "behind"
        size = f"{self.metric.text(abs(ahead))}{self._unit()}"
        within = ", within noise" if abs(ahead) < self.noise.value else ""
        return f"{grown.which.growth} is {size} {word} the un-grown control{within}"

    def text(self) -> str:
        """What the terminal shows."""
        lines = [self.headline()]
        if self.options:
            rows = answer.option_rows(self.options, self.metric)
            lines += ["", *answer.aligned(answer.columns(self.metric), rows), ""]
        width = max(len(key) for key, _ in self.notes()) + 2
        lines += [f"  {key:<{width}}{value}" for key, value in self.notes()]
        return "\n".join(lines)

    def notes(self) -> list[tuple[str, str]]:
        """What stands under the table, as pairs of a word and a line."""
        share = None
        if self.question.sunk is not None and self.question.whole:
            share = self.question.sunk / self.question.whole
        found = [("control", self.control())]
        found += [("measured", answer.pair_text(pair, self.metric)) for pair in self.pairs]
        found += [("timing", answer.timing_text(timing, share)) for timing in self.timing]
        found += [("law", law) for law in self.laws]
        found += [
            ("noise", f"{self.metric.text(self.noise.value)}{self._unit()}, {self.noise.source}")
        ]
        if self.holds_for:
            found.append(("holds for", self._holds_for()))
        if self.extrapolated:
            found.append(
                ("beyond", f"the best option is {self.beyond:.2g} times outside that range")
            )
        found += [("missing", each) for each in self.missing]
        return [*found, ("caveats", " · ".join(self.caveats))]

    def _holds_for(self) -> str:
        parts = [
            f"{name} {text.flops(low) if low else 0}-{text.flops(high)}"
            for name, (low, high) in self.holds_for.items()
            if name != "active"
        ]
        low, high = self.holds_for["active"]
        size = text.params(low) if low == high else f"{text.params(low)}-{text.params(high)}"
        return f"{', '.join(parts)}, sources of {size} active parameters"

    def to_dict(self) -> dict[str, Any]:
        """The stable structure of `recommend --json`; what is not known is null."""
        best = self.best
        found = {
            "answer": self.verdict,
            "headline": self.headline(),
            "growth": best.which.growth if best and self.verdict == "grow" else None,
            "metric": self.metric.name,
            "higher_is_better": self.metric.top is not None,
            "question": asdict(self.question),
            "chance_best": self.chance(best.which.arm) if best else None,
            "control": self.control(),
            "options": [answer.plain(option) for option in self.options],
            "noise": asdict(self.noise),
            "timing": [asdict(each) | {"identifiable": each.identifiable} for each in self.timing],
            "measured_pairs": [asdict(pair) for pair in self.pairs],
            "laws": list(self.laws),
            "holds_for": {name: list(ends) for name, ends in self.holds_for.items()},
            "extrapolated": self.extrapolated,
            "times_beyond": self.beyond,
            "growth_points": self.growth_points,
            "cells": self.cells,
            "planned": self.planned,
            "missing": list(self.missing),
            "caveats": list(self.caveats),
        }
        return {key: without_nan(value) for key, value in found.items()}


def without_nan(value: Any) -> Any:
    """The same structure with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
