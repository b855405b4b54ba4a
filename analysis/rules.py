"""Published rules of thumb, and whether these runs agree with them.

They are references printed beside an answer; no answer rests on them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis import evidence
from analysis.answer import Option, Timing, percent
from analysis.forecast import Arm
from analysis.laws import GrowthTiming
from analysis.metrics import FloatArray, Metric
from analysis.shares import REACH
from analysis.surface import levels
from orchestrator import text

Verdict = Literal["agrees", "disagrees", "undecided", "not measured"]
_SURE = 0.8
_RECYCLING = "arXiv 2510.08008"
_CHINCHILLA = 6 * 20  # FLOPs per squared active parameter, of 20 tokens for each (arXiv 2203.15556)
_STACKED = 1e19  # FLOPs below which the growth-timing law is far from what it was fitted to


@dataclass(frozen=True)
class Rule:
    """One rule of thumb, held against the runs at hand."""

    name: str
    says: str
    source: str
    verdict: Verdict
    evidence: str

    def words(self) -> str:
        """The rule, and what these runs say to it."""
        return f"{self.says} ({self.source}): {self.verdict}, {self.evidence}"


@dataclass(frozen=True)
class Seen:
    """What rules are held against: the runs, forecasts and answer of one question."""

    frame: pd.DataFrame
    metric: Metric
    arms: Sequence[Arm]
    options: Sequence[Option]
    timing: Sequence[Timing]
    sunk_flops: float | None  # of the checkpoint asked about, or the best of the measured
    whole: float | None  # sunk and extra together


def held_against(seen: Seen) -> tuple[Rule, ...]:
    """Every rule with its verdict."""
    made: list[tuple[str, str, str, Callable[[Seen], tuple[Verdict, str]]]] = [
        ("longer", "train a grown model for at least the sunk FLOPs", _RECYCLING, _longer),
        ("constant", "grow checkpoints of a constant learning rate", _RECYCLING, _constant),
        (
            "interpose",
            "interpose layers past about 1 x Chinchilla-optimal FLOPs",
            _RECYCLING,
            _interpose,
        ),
        ("noise", "copy experts with noise of 0.01 standard deviations", _RECYCLING, _noise),
        ("growth_timing", f"grow at d tokens, {GrowthTiming.formula}", "arXiv 2405.15319", _timing),
    ]
    return tuple(Rule(name, says, source, *ask(seen)) for name, says, source, ask in made)


def lines(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """What stands under an answer: a line for each rule that the runs say something to."""
    told = [("rule", rule.words()) for rule in rules if rule.verdict != "not measured"]
    rest = [f"{rule.says} ({rule.source})" for rule in rules if rule.verdict == "not measured"]
    return told + ([("not tested", " · ".join(rest))] if rest else [])


def _verdict(chance: float) -> Verdict:
    return "agrees" if chance >= _SURE else "disagrees" if chance <= 1 - _SURE else "undecided"


def _longer(seen: Seen) -> tuple[Verdict, str]:
    """Growing should be ahead of the control once as much is spent after it as before."""
    sunk = seen.sunk_flops
    control = next((arm for arm in seen.arms if arm.which.arm == "continue"), None)
    grown = [arm for arm in seen.arms if arm.which.arm == "grow" and arm.forecast]
    if not sunk or control is None or not control.forecast or not grown:
        return "not measured", "it needs a checkpoint, and runs of it that were trained on"
    at = np.array([sunk])
    if not all(arm.reaches(at, at)[0] and arm.beyonds(at, at)[0] <= REACH for arm in grown):
        return "not measured", f"{text.flops(sunk)} extra is far from what was measured"
    # Draws of every arm rest on the same sources, so this is the chance of a comparison.
    _, draws = levels([control, *grown], at, at)
    chance = float(np.mean(draws[1:].min(axis=0) < draws[0]))
    size = text.flops(sunk)
    return _verdict(chance), f"with {size} sunk and {size} extra, growing is ahead at {chance:.2f}"


def _constant(seen: Seen) -> tuple[Verdict, str]:
    """Annealed sources should do worse than the laws of all of them expect."""
    left: list[FloatArray] = []
    cooled: list[FloatArray] = []
    for arm in seen.arms:
        if arm.which.arm != "grow" or arm.forecast is None:
            continue
        at = tuple(arm.cells[name].to_numpy(float) for name in ("sunk_flops", "extra_flops"))
        falling = seen.metric.falling(arm.cells[seen.metric.column].to_numpy(float))
        there = arm.reaches(*at)
        errors = (falling - arm.forecast.point(arm.design(*at)))[there]
        flags = arm.cells["annealed"].to_numpy(bool)[there]
        cooled.append(errors[flags])
        left.append(errors[~flags])
    hot, cold = (np.concatenate([*each, np.empty(0)]) for each in (left, cooled))
    if len(cold) < 3 or len(hot) < 3:
        return (
            "not measured",
            f"{len(cold)} of {len(cold) + len(hot)} grown runs are of annealed sources",
        )
    gap = float(cold.mean() - hot.mean())
    se = math.hypot(
        float(cold.std(ddof=1)) / len(cold) ** 0.5, float(hot.std(ddof=1)) / len(hot) ** 0.5
    )
    said = f"annealed sources do {_worse(seen.metric, gap, se)} than the laws expect of all"
    return _sign(gap, se), said


def _interpose(seen: Seen) -> tuple[Verdict, str]:
    grown = seen.frame[seen.frame["arm"] == "grow"]
    multiple = grown["sunk_flops"] / (
        _CHINCHILLA * grown["source_active_params"].astype(float) ** 2
    )
    if multiple.isna().all():
        return "not measured", "active parameters are not known"
    reach = f"sources here have {multiple.min():.2g}-{multiple.max():.2g} times that"
    late = seen.frame[(seen.frame["arm"] != "grow") | multiple.reindex(seen.frame.index).ge(1)]
    twins = [
        (name.replace(" stack", ""), name) for name in set(grown["growth"]) if " stack" in name
    ]
    return _between(seen, late, twins, reach)


def _noise(seen: Seen) -> tuple[Verdict, str]:
    """Growths in tables name their noise if it is not 0.01."""
    names = set(seen.frame["growth"][seen.frame["arm"] == "grow"])
    twins = [(name.split(" noise ")[0], name) for name in names if " noise " in name]
    return _between(seen, seen.frame, twins, "all widths here were grown with the same noise")


def _between(
    seen: Seen, frame: pd.DataFrame, twins: Sequence[tuple[str, str]], reach: str
) -> tuple[Verdict, str]:
    """Paired differences of the growth a rule prefers to that which it does not."""
    found = list(_offsets(seen, frame, twins))
    if not found:
        return "not measured", reach
    (preferred, other), differences, se = max(found, key=lambda each: len(each[1]))
    gap = -float(differences.mean())
    said = f"{other} does {_worse(seen.metric, gap, se)} than {preferred}"
    return _sign(gap, se), f"{said} ({len(differences)} pairs)"


def _offsets(
    seen: Seen, frame: pd.DataFrame, twins: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], FloatArray, float]]:
    for variant in sorted(set(frame["variant"])):
        for pair in sorted(twins):
            found, se = evidence.offsets(frame, seen.metric, variant, *pair)
            if len(found) >= 3:
                yield pair, found, se


def _sign(gap: float, se: float) -> Verdict:
    if abs(gap) <= 2 * se:
        return "undecided"
    return "agrees" if gap > 0 else "disagrees"


def _worse(metric: Metric, gap: float, se: float) -> str:
    word = "worse" if gap >= 0 else "better"
    return f"{metric.text(abs(gap))} ± {metric.text(se)} {metric.unit} {word}"


def _timing(seen: Seen) -> tuple[Verdict, str]:
    """The published best moment, as a share of the total, against the share found here."""
    best = next((each for each in seen.timing if each.identifiable), None)
    arm = next((arm for arm in seen.arms if arm.which.arm == "grow"), None)
    if arm is None or seen.whole is None or not arm.source_active > 0:
        return "not measured", "it needs active parameters, a total budget and a growth"
    published = GrowthTiming().sunk_flops(arm.source_active, arm.active, seen.whole)
    share = float(published) / seen.whole
    said = f"{share * 100:.0f} % of {text.flops(seen.whole)} before growing"
    if seen.whole < _STACKED:
        return "not measured", f"says {said}, far below the budgets it was fitted to"
    if best is None:
        return "not measured", f"says {said}; no share stands out here"
    ends = [*best.near_equal, *best.interval]
    inside = min(ends) <= share <= max(ends)
    found = f"says {said}; here {percent((min(ends), max(ends)))}"
    return ("agrees" if inside else "disagrees"), found
