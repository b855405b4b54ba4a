"""A recommendation: one value with two faces, text for people and a dictionary for machines."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from analysis import answer, rules
from analysis.answer import Option, Question, Timing
from analysis.evidence import Noise, Pair
from analysis.metrics import Metric
from analysis.rules import Rule
from analysis.shares import REACH
from orchestrator import text

SURE = 0.95  # chance below which an arm is not called the best

Verdict = Literal[
    "grow",
    "continue",
    "scratch",
    "too_close",
    "not_identifiable",
    "not_enough_runs",
    "outside",
]
_ACTS = {"grow": "growing now", "continue": "continuing", "scratch": "starting over"}
_ORDERS = {"grow": "Grow", "continue": "Continue", "scratch": "Start over"}


@dataclass(frozen=True)
class Recommendation:
    """An answer and everything one needs to doubt it."""

    question: Question
    metric: Metric
    options: tuple[Option, ...]  # best first
    noise: Noise
    chance_ahead: float  # of growing, before the un-grown control; NaN if they cannot be compared
    timing: tuple[Timing, ...]  # one for each growth with a law
    pairs: tuple[Pair, ...]  # measured differences to the un-grown control
    laws: tuple[str, ...]
    by_law: tuple[tuple[str, tuple[str, ...]], ...]  # arm, and the laws that call it the best
    rules: tuple[Rule, ...]  # of thumb, published
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
        return next((o for o in self.options if o.act != self.options[0].act), None)

    @property
    def near_equal(self) -> tuple[Option, ...]:
        """The options that are as good as the best within the noise of one run, it included."""
        return tuple(o for o in self.options if o.behind == 0 or o.behind < self.noise.value)

    def chance(self, act: str) -> float:
        """How often some option of growing, continuing or starting over is the best."""
        return math.fsum(o.chance_best for o in self.options if o.act == act)

    @property
    def identifiable(self) -> bool:
        """Whether the best share of a total to spend before growing is known, if it was asked."""
        best = self.best
        if best is None or self.question.kind != "total" or best.which.arm != "grow":
            return True
        return all(each.identifiable for each in self.timing if each.which == best.which)

    @property
    def verdict(self) -> Verdict:
        """The answer in one word."""
        if self.best is None or not any(o.which.arm == "grow" for o in self.options):
            return "not_enough_runs"
        if self.beyond > REACH:
            return "outside"
        unsure = self.chance(self.best.act) < SURE
        if self.rival and (unsure or self.rival.behind < self.noise.value):
            return "too_close"
        if not self.identifiable:
            return "not_identifiable"
        act = self.best.act
        return "grow" if act == "grow" else "continue" if act == "continue" else "scratch"

    def act(self) -> str:
        """The answer in a few words, for tables."""
        growth = self.best.which.growth if self.best else ""
        return {
            "grow": f"grow now ({growth})"
            if self.question.sunk is not None
            else f"grow ({growth})",
            "continue": "continue",
            "scratch": f"start over ({growth})",
            "outside": "outside what was measured",
        }.get(
            self.verdict, self.verdict.replace("_", " ").replace("too close", "too close to call")
        )

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
        if verdict == "not_identifiable":
            return self._any_time(best)
        return self._order(best) + self._as_good(best)

    def _any_time(self, best: Option) -> str:
        low, high = next(each.searched for each in self.timing if each.which == best.which)
        said = f"Not identifiable: growing ({best.which.growth}) is best, but when is not known"
        return f"{said}; no share of the budget between {answer.percent((low, high))} stands out."

    def _close(self, best: Option, rival: Option) -> str:
        gap, noise = (self.metric.text(value) for value in (rival.behind, self.noise.value))
        acts = f"{_ACTS[best.act]} and {_ACTS[rival.act]}"
        if rival.behind < self.noise.value:
            return f"Too close to call: {acts} differ by {gap}, noise is {noise}{self._unit()}."
        chance = self.chance(best.act)
        return (
            f"Too close to call: {acts} differ by {gap}{self._unit()}, with odds of {chance:.2f}."
        )

    def _unit(self) -> str:
        return "" if self.metric.name == "loss" else f" {self.metric.unit}"

    def _order(self, best: Option) -> str:
        """What to do, as an order."""
        if best.which.arm == "continue":
            return "Continue without growing"
        growth = self._growths(best)
        if best.which.arm == "scratch":
            return f"Start over{' at' if growth == best.which.growth else ':'} {growth}"
        if best.act == "scratch":
            return f"Start over at the grown size, with nothing sunk: {growth}"
        if self.question.sunk is not None:
            return f"Grow now: {growth}"
        if best.checkpoint:
            return f"Grow {best.checkpoint} by {growth}"
        return f"Grow: {growth}, at {text.flops(best.sunk_flops)} sunk"

    def _growths(self, best: Option) -> str:
        """The growth, or those that cannot be told apart."""
        close = [o for o in self.near_equal if o.act == best.act and o.which != best.which]
        if not close:
            return best.which.growth
        names = " and ".join(dict.fromkeys(o.which.growth for o in (best, *close)))
        return f"{names} are too close to tell apart"

    def _as_good(self, best: Option) -> str:
        """The end of the first line: other sources of the same growth that are as good."""
        close = [o for o in self.near_equal if o.which == best.which and o != best]
        if not close:
            return "."
        names = answer.sources(close)
        return f"; {names} {'is' if len(close) == 1 else 'are'} as good within noise."

    def control(self) -> str:
        """Whether growing beats the un-grown control: never left unsaid."""
        grown = next((o for o in self.options if o.which.arm == "grow"), None)
        kept = next((o for o in self.options if o.which.arm == "continue"), None)
        if grown is None or kept is None:
            return "growing and the un-grown control cannot be compared here"
        ahead = kept.behind - grown.behind
        word = "ahead of" if ahead >= 0 else "behind"
        size = f"{self.metric.text(abs(ahead))}{self._unit()}"
        unsure = 1 - SURE < self.chance_ahead < SURE
        within = ", within noise" if abs(ahead) < self.noise.value or unsure else ""
        return f"{grown.which.growth} is {size} {word} the un-grown control{within}"

    def text(self) -> str:
        """What the terminal shows."""
        lines = [self.headline()]
        if self.options:
            rows = answer.option_rows(self.options, self.metric)
            lines += ["", *answer.aligned(answer.columns(self.metric), rows)]
        lines.append("")
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
        if len(self.near_equal) > 1:
            found.append(("as good", self._near_equal()))
        found += [("law", law) for law in self.laws]
        found += [("noise", self._noise())]
        if self.holds_for:
            found.append(("holds for", self._holds_for()))
        if self.extrapolated:
            found.append(
                ("beyond", f"the best option is {self.beyond:.2g} times outside that range")
            )
        found += [("missing", each) for each in self.missing]
        found += rules.lines(self.rules)
        return [*found, ("caveats", " · ".join(self.caveats))]

    def _noise(self) -> str:
        if math.isnan(self.noise.value):
            return f"not known, {self.noise.source}"
        return f"{self.metric.text(self.noise.value)}{self._unit()}, {self.noise.source}"

    def _near_equal(self) -> str:
        """Every option within noise of the best, by what is done."""
        parts = []
        for which in dict.fromkeys(option.which for option in self.near_equal):
            same = [option for option in self.near_equal if option.which == which]
            name = answer.label(same[0], with_sunk=False)
            parts.append(f"{name} of {answer.sources(same)}" if len(same) > 1 else name)
        return f"{'; '.join(parts)}: within {self.metric.text(self.noise.value)}{self._unit()}"

    def _holds_for(self) -> str:
        parts = [
            f"{name} {answer.amount(low)}" + (f"-{answer.amount(high)}" if high > low else "")
            for name, (low, high) in self.holds_for.items()
            if name != "active"
        ]
        low, high = self.holds_for["active"]
        if math.isnan(low):
            return f"{', '.join(parts)}, sources of unknown size"
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
            "checkpoint": best.checkpoint or None if best and self.verdict == "grow" else None,
            "chance_best": self.chance(best.act) if best else None,
            "control": self.control(),
            "chance_ahead_of_control": self.chance_ahead,
            "options": [answer.plain(option) for option in self.options],
            "near_equal": [answer.plain(option) for option in self.near_equal],
            "noise": asdict(self.noise),
            "timing": [asdict(each) | {"identifiable": each.identifiable} for each in self.timing],
            "measured_pairs": [asdict(pair) for pair in self.pairs],
            "laws": list(self.laws),
            "by_law": {arm: list(names) for arm, names in self.by_law},
            "rules_of_thumb": [asdict(rule) for rule in self.rules],
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
