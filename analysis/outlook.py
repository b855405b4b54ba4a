"""What to do with one checkpoint, as a function of what is left to spend."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from analysis import answer, evidence
from analysis.advice import Grounds, at_budget
from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric
from analysis.question import Question
from analysis.recommendation import Recommendation, without_nan
from analysis.sample import Which
from analysis.shares import REACH
from analysis.surface import levels, place
from orchestrator import text

_SHOWN = 6  # budgets, where none are asked for
_FINE = 120  # budgets at which two arms are held against each other


@dataclass(frozen=True)
class BreakEven:
    """From which extra budget on one arm is ahead of another.

    They are the smallest budget searched where `later` is always ahead. The upper end of the 90 %
    interval is infinite where it may not be ahead at the largest budget either.
    """

    earlier: Which  # better below
    later: Which  # better from there on
    extra_flops: float
    interval: tuple[float, float]
    searched: tuple[float, float]
    chance: float  # that `later` is ahead at the largest budget searched

    def words(self) -> str:
        """As people read it."""
        low, high = self.searched
        names = f"{self.later.label()} is ahead of {self.earlier.label()}"
        span = f"{text.flops(low)}-{text.flops(high)}"
        if self.extra_flops <= low:
            return f"{names} everywhere in {span} extra{self._unless()}"
        return f"{names} from {text.flops(self.extra_flops)} extra on ({self._interval()})"

    def _unless(self) -> str:
        return (
            f" (in 5 % of draws not before {self._end(1)})"
            if self.interval[1] > self.searched[0]
            else ""
        )

    def _interval(self) -> str:
        return f"90 % {self._end(0)} to {self._end(1)}"

    def _end(self, index: int) -> str:
        end, (low, high) = self.interval[index], self.searched
        if end > high:
            return f"more than {text.flops(high)}"
        return f"less than {text.flops(low)}" if end <= low else text.flops(end)


@dataclass(frozen=True)
class Outlook:
    """Answers for one checkpoint at several extra budgets, and where they change."""

    question: Question
    metric: Metric
    steps: tuple[Recommendation, ...]  # the smallest extra budget first
    breaks: tuple[BreakEven, ...]
    caveats: tuple[str, ...]

    def headline(self) -> str:
        """The first line: what to do from which budget on."""
        parts = [(self.steps[0].question.left, self.steps[0].act())]
        for before, step in pairwise(self.steps):
            if step.act() != before.act():
                parts.append((self._change(before, step), step.act()))
        if len(parts) > 1:
            said = [f"from {answer.amount(extra)} on {act}" for extra, act in parts[1:]]
            return f"{_capital(parts[0][1])}; with more left to spend, {', '.join(said)}."
        span = answer.amount(parts[0][0])
        if len(self.steps) > 1:
            span += f"-{answer.amount(self.steps[-1].question.left)}"
        return f"{_capital(parts[0][1])}, with {span} left to spend."

    def _change(self, before: Recommendation, step: Recommendation) -> float:
        """Between which budgets an answer changes: at a break-even, if that is why."""
        low, high = before.question.left, step.question.left
        arms = {each.best.which for each in (before, step) if each.best}
        for each in self.breaks:
            if {each.earlier, each.later} == arms and low <= each.extra_flops <= high:
                return each.extra_flops
        return high

    def text(self) -> str:
        """What the terminal shows."""
        lines = [self.headline(), "", *answer.aligned(self._header(), self._rows()), ""]
        notes = self.notes()
        width = max(len(key) for key, _ in notes) + 2
        return "\n".join(lines + [f"  {key:<{width}}{value}" for key, value in notes])

    def _header(self) -> list[str]:
        return [
            "extra",
            "answer",
            answer.columns(self.metric)[1],
            "next best",
            "chance best",
            "beyond",
        ]

    def _rows(self) -> list[list[str]]:
        rows = []
        for step in self.steps:
            best = step.best
            if best is None:
                rows.append([answer.amount(step.question.left), step.act(), "-", "-", "-", "-"])
                continue
            half = (best.interval[1] - best.interval[0]) / 2
            rival = (
                f"{answer.label(step.rival, False)}, {self.metric.text(step.rival.behind)} behind"
                if step.rival
                else "-"
            )
            rows.append(
                [
                    answer.amount(step.question.left),
                    step.act(),
                    f"{self.metric.text(best.expected)} ± {self.metric.text(half)}",
                    rival,
                    f"{step.chance(best.act):.2f}",
                    f"{best.beyond:.2g} x" if step.extrapolated else "-",
                ]
            )
        return rows

    def notes(self) -> list[tuple[str, str]]:
        """What stands under the table: where answers change, and what they rest on."""
        kept = ("law", "noise", "holds for", "missing", "rule", "not tested")
        middle = self.steps[len(self.steps) // 2]
        found = [("break-even", each.words()) for each in self.breaks]
        found += [(key, value) for key, value in middle.notes() if key in kept]
        return [*found, ("caveats", " · ".join(self.caveats))]

    def to_dict(self) -> dict[str, Any]:
        """The stable structure of `recommend --json`; infinite ends of intervals are null."""
        found = {
            "answer": "outlook",
            "headline": self.headline(),
            "metric": self.metric.name,
            "question": asdict(self.question),
            "steps": [step.to_dict() for step in self.steps],
            "break_even": [asdict(each) | {"words": each.words()} for each in self.breaks],
            "caveats": list(self.caveats),
        }
        return {key: without_nan(value) for key, value in found.items()}


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def outlook(made: Grounds, question: Question) -> Outlook:
    """Answer a question of one checkpoint without a single budget."""
    assert question.sunk is not None
    extras = tuple(sorted(set(question.extras))) or _budgets(made)
    steps = tuple(at_budget(made, replace(question, extra=extra, extras=())) for extra in extras)
    shared = [set(step.caveats) for step in steps]
    doubts = dict.fromkeys(caveat for step in steps for caveat in step.caveats)
    kept = [each for each in doubts if all(each in caveats for caveats in shared)]
    said = [
        f"at {answer.amount(step.question.left)}: {each}"
        for step in steps
        for each in step.caveats
        if each not in kept
    ]
    return Outlook(question, made.metric, steps, breaks(made, question.sunk), tuple(kept + said))


def _range(made: Grounds) -> tuple[float, float]:
    """Extra budgets from the smallest measured to as far beyond the largest as answers go."""
    trained = made.frame[made.frame["extra_flops"] > 0]
    grown = trained[trained["arm"] == "grow"]
    extra = (grown if len(grown) else trained)["extra_flops"]
    one = len(np.unique(evidence.levels(extra))) == 1
    return float(extra.min()), float(extra.max()) * (1 if one else REACH)


def _budgets(made: Grounds) -> tuple[float, ...]:
    """Budgets to show: with two digits, which is how people give them."""
    low, high = _range(made)
    if high / low < 1.05:
        return (high,)
    return (low, *dict.fromkeys(_short(each) for each in np.geomspace(low, high, _SHOWN)[1:]))


def _short(flops: float) -> float:
    """Rounded down to two digits, so that it stays within what may be answered."""
    unit = 10.0 ** (math.floor(math.log10(flops)) - 1)
    return float(f"{math.floor(flops / unit * (1 + 1e-9)) * unit:.1e}")


def breaks(made: Grounds, sunk: float) -> tuple[BreakEven, ...]:
    """Where growing (each growth) overtakes continuing, and both overtake starting over."""
    low, high = _range(made)
    known = [arm for arm in made.arms if arm.forecast is not None and not arm.one_budget]
    if high / low < 1.05:
        return ()
    extra = np.geomspace(low, high, _FINE)
    found = []
    for earlier, later in _facing(known):
        each = _break(earlier, later, np.full(_FINE, sunk), extra)
        found += [each] if each is not None else []
    return tuple(found)


def _facing(known: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Pairs of arms of one variant that an extra budget may decide between."""
    order = {"continue": 0, "grow": 1, "scratch": 2}
    pairs = [
        (one, two)
        for one in known
        for two in known
        if order[one.which.arm] < order[two.which.arm] and one.which.variant == two.which.variant
    ]
    # The sizes of two different growths do not compete: growing so, or starting over at that size.
    return [
        (one, two)
        for one, two in pairs
        if one.which.arm == "continue" or one.which.growth == two.which.growth
    ]


def _break(one: Arm, two: Arm, sunk: FloatArray, extra: FloatArray) -> BreakEven | None:
    there = one.reaches(*place(one, sunk, extra)) & two.reaches(*place(two, sunk, extra))
    if there.sum() < 2:
        return None
    point, draws = levels([one, two], sunk[there], extra[there])
    # Later is what wins in the end, whichever of the two that is.
    order = (0, 1) if point[1, -1] < point[0, -1] else (1, 0)
    first, last = order
    expected = _overtaken(extra[there], (point[last] - point[first])[None])[0]
    each = _overtaken(extra[there], draws[last] - draws[first])
    low, high = np.quantile(each, [0.05, 0.95], method="nearest")
    return BreakEven(
        earlier=(one, two)[first].which,
        later=(one, two)[last].which,
        extra_flops=float(expected),
        interval=(float(low), float(high)),
        searched=(float(extra[there][0]), float(extra[there][-1])),
        chance=float(np.mean(each <= extra[there][-1])),
    )


def _overtaken(extra: FloatArray, behind: FloatArray) -> FloatArray:
    """From which budget on `behind` (rows, budgets) stays negative; infinite where it does not.

    Between the last budget at which it is not and the next, linear in the logarithm.
    """
    ahead = behind < 0
    # the first column of the unbroken run of `ahead` that reaches the end
    start = behind.shape[1] - np.cumprod(ahead[:, ::-1], axis=1).sum(axis=1)
    last = np.clip(start, 1, behind.shape[1] - 1)
    rows = np.arange(len(behind))
    before, after = behind[rows, last - 1], behind[rows, last]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip(before / (before - after), 0, 1)
    logs = np.log(extra)
    found = np.exp(logs[last - 1] + part * (logs[last] - logs[last - 1]))
    found = np.where(start == 0, extra[0], found)
    return np.where(start == behind.shape[1], np.inf, found)
