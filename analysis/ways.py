"""The cheapest way to a value of the metric."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from analysis import rules
from analysis.answer import aligned, amount, columns, named, plain
from analysis.evidence import Noise
from analysis.metrics import Metric
from analysis.question import Question
from analysis.recommendation import SURE, without_nan
from analysis.rules import Rule
from analysis.sample import Which
from analysis.shares import REACH

_SLACK = 1.05

Verdict = Literal["grow", "continue", "scratch", "too_close", "not_reachable", "not_enough_runs"]


@dataclass(frozen=True)
class Way:
    """One way to the target. Costs are in FLOPs, infinite where it is not reached.

    With a checkpoint given a cost is what is spent on it from now on, else all that is spent.
    """

    which: Which
    cost_flops: float
    interval: tuple[float, float]  # 90 %, over draws
    sunk_flops: float  # NaN where it is not reached
    extra_flops: float
    chance_reached: float  # within what may be searched
    chance_cheapest: float
    closest: float  # the best value expected within what may be searched; NaN without any
    at_most: bool  # reached with the least that was searched, so it may cost less
    beyond: float  # times outside the measured range; NaN where it is not reached
    checkpoint: str

    @property
    def act(self) -> str:
        """What one does: growing an untrained network is starting over."""
        fresh = self.which.arm == "grow" and self.sunk_flops == 0
        return "scratch" if fresh else self.which.arm


@dataclass(frozen=True)
class Ways:
    """Every way to a target, the cheapest first, and what that rests on."""

    question: Question
    metric: Metric
    ways: tuple[Way, ...]
    noise: Noise
    laws: tuple[str, ...]
    rules: tuple[Rule, ...]
    missing: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def best(self) -> Way | None:
        """The cheapest way that reaches the target."""
        return self.ways[0] if self.ways and math.isfinite(self.ways[0].cost_flops) else None

    @property
    def verdict(self) -> Verdict:
        """The answer in one word."""
        if not any(way.which.arm == "grow" for way in self.ways):
            return "not_enough_runs"
        if self.best is None:
            return "not_reachable"
        chance = math.fsum(way.chance_cheapest for way in self.ways if way.act == self.best.act)
        rivals = [way for way in self.ways[1:] if way.act != self.best.act]
        if chance < SURE and any(way.chance_cheapest > 0 for way in rivals):
            return "too_close"
        act = self.best.act
        return "grow" if act == "grow" else "continue" if act == "continue" else "scratch"

    def headline(self) -> str:
        """The first line."""
        best, target = self.best, self._target()
        if self.verdict == "not_enough_runs":
            why = self.missing[0] if self.missing else "nothing was grown"
            return f"Not enough runs to say what {target} costs: {why}."
        if best is None:
            said = f"Not reachable: {target} is not reached within what was measured x {REACH:g}"
            near = [way for way in self.ways if not math.isnan(way.closest)]
            top = min(near, key=lambda way: self._falling(way.closest), default=None)
            return said + (
                "."
                if top is None
                else f"; {_name(top)} comes closest, to {self._value(top.closest)}."
            )
        if self.verdict == "too_close":
            rival = next(way for way in self.ways if way.act != best.act)
            return (
                f"Too close to call: {target} costs {self._cost(best)} by {_name(best)}"
                f" and {self._cost(rival)} by {_name(rival)}."
            )
        said = f"Cheapest way to {target}: {_name(best)}, for {self._cost(best)}"
        return f"{said}{self._where(best)}."

    def _falling(self, value: float) -> float:
        return float(self.metric.falling(np.array(value)))

    def _value(self, value: float) -> str:
        return self.metric.text(value) + (" %" if self.metric.top is not None else "")

    def _target(self) -> str:
        assert self.question.target is not None
        return f"{self.metric.name} {self._value(self.question.target)}"

    def _cost(self, way: Way) -> str:
        kind = "more" if self.question.sunk is not None else "in all"
        if math.isinf(way.cost_flops):
            return "more than was searched"
        most = "at most " if way.at_most else ""
        return f"{most}{amount(way.cost_flops)} FLOPs {kind} (90 % {_ends(way.interval)})"

    def _where(self, way: Way) -> str:
        if self.question.sunk is not None or way.act != "grow":
            return ""
        return f", growing {way.checkpoint or f'at {amount(way.sunk_flops)} sunk'}"

    def text(self) -> str:
        """What the terminal shows."""
        notes = self.notes()
        width = max(len(key) for key, _ in notes) + 2
        table = aligned(self._header(), [self._row(way) for way in self.ways]) if self.ways else []
        lines = [self.headline(), "", *table, ""]
        return "\n".join(lines + [f"  {key:<{width}}{value}" for key, value in notes])

    def _header(self) -> list[str]:
        cost = "FLOPs more" if self.question.sunk is not None else "FLOPs in all"
        name = columns(self.metric)[1].removesuffix(" (90 %)")
        return ["way", cost, "90 %", "sunk", "cheapest", "reached", f"{name}, at best"]

    def _row(self, way: Way) -> list[str]:
        reached = math.isfinite(way.cost_flops)
        cost = f"{'<' if way.at_most else ''}{amount(way.cost_flops)}" if reached else "not reached"
        return [
            named(way.which),
            cost,
            _ends(way.interval),
            amount(way.sunk_flops) if reached else "-",
            f"{way.chance_cheapest:.2f}",
            f"{way.chance_reached:.2f}",
            "-" if math.isnan(way.closest) else self.metric.text(way.closest),
        ]

    def notes(self) -> list[tuple[str, str]]:
        """What stands under the table, as pairs of a word and a line."""
        found = [("law", law) for law in self.laws]
        found.append(("searched", f"up to {REACH:g} times beyond what was measured"))
        if self.best is not None and self.best.beyond > _SLACK:
            found.append(("beyond", f"this way is {self.best.beyond:.2g} times outside it"))
        found += [("missing", each) for each in self.missing]
        found += rules.lines(self.rules)
        return [*found, ("caveats", " · ".join(self.caveats))]

    def to_dict(self) -> dict[str, Any]:
        """The stable structure of `recommend --json`; costs that are not reached are null."""
        best = self.best
        found = {
            "answer": self.verdict,
            "headline": self.headline(),
            "growth": best.which.growth if best and self.verdict == "grow" else None,
            "metric": self.metric.name,
            "question": asdict(self.question),
            "cost": "extra" if self.question.sunk is not None else "total",
            "ways": [plain(way) for way in self.ways],
            "noise": asdict(self.noise),
            "laws": list(self.laws),
            "rules_of_thumb": [asdict(rule) for rule in self.rules],
            "missing": list(self.missing),
            "caveats": list(self.caveats),
        }
        return {key: without_nan(value) for key, value in found.items()}


def _name(way: Way) -> str:
    """The way as people name it: what is grown before it is trained is started over."""
    fresh = way.act == "scratch" and way.which.arm == "grow"
    return f"start over at the grown size, {way.which.growth}" if fresh else named(way.which)


def _ends(interval: tuple[float, float]) -> str:
    low, high = interval
    if math.isinf(low):
        return "not reached"
    return f"{amount(low)} to " + ("not reached" if math.isinf(high) else amount(high))
