"""What a reader of an answer must know before acting on it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis import evidence, noise
from analysis.answer import Option, amount
from analysis.forecast import Arm, ByLaws, ByOffset
from analysis.metrics import Metric
from analysis.resample import FEW


def caveats(
    frame: pd.DataFrame,
    metric: Metric,
    every: Sequence[Arm],
    compared: Sequence[Arm],
    options: Sequence[Option],
    said: Mapping[str, Sequence[str]],
) -> list[str]:
    """Reasons for doubt, of the runs and of the laws.

    `every` arm there is, those that are `compared`, their `options`, the best first, and which laws
    have `said` which answer.
    """
    return [
        *_runs(frame, metric),
        *_disagreement(said),
        *_annealed(frame, metric, options),
        *_highest(frame, metric, options),
        *_measured(frame, compared),
        *sorted(set(_bounds(every))),
        *sorted(set(_weak(every))),
    ]


def _runs(frame: pd.DataFrame, metric: Metric) -> list[str]:
    seeds, clusters = frame["seed"].nunique(), evidence.few_clusters(frame)
    found = [f"{seeds} seeds" if seeds > 1 else "one seed"]
    if clusters < FEW:
        found.append(f"only {clusters} source checkpoints times seeds")
    error = noise.evaluation(frame, metric)
    if noise.same_documents(frame) and error > 0:
        size = f"{metric.text(error)} {metric.unit}"
        found.append(f"all levels share the error of the documents scored, {size}")
    return found


def _disagreement(said: Mapping[str, Sequence[str]]) -> list[str]:
    if len(said) < 2:
        return []
    parts = [
        f"{' and '.join(laws)} {'say' if len(laws) > 1 else 'says'} {arm}"
        for arm, laws in said.items()
    ]
    return [f"the laws disagree about the best arm: {', '.join(parts)}"]


def _annealed(frame: pd.DataFrame, metric: Metric, options: Sequence[Option]) -> list[str]:
    """Growing wants a constant learning rate; which of such sources is the best, if one is not."""
    cooled = frame[frame["annealed"]]
    if cooled.empty:
        return []
    found = [f"annealed sources in {len(cooled)} cells"]
    grown = [option for option in options if option.which.arm == "grow"]
    flags = [bool(np.isclose(cooled["sunk_flops"], each.sunk_flops).any()) for each in grown]
    if grown and grown[0] == options[0] and flags[0] and not all(flags):
        best = grown[flags.index(False)]
        name = best.checkpoint or f"{amount(best.sunk_flops)} sunk"
        behind = f"{metric.text(best.behind)} {metric.unit} behind"
        found.append(f"the best source is annealed; of the others {name} is best, {behind}")
    return found


def _highest(frame: pd.DataFrame, metric: Metric, options: Sequence[Option]) -> list[str]:
    """The measured best, where laws that only rise or fall name another source."""
    best = options[0] if options else None
    if best is None or best.which.arm != "grow" or sum(o.which == best.which for o in options) < 2:
        return []
    keys = {"arm": "grow", "growth": best.which.growth, "variant": best.which.variant}
    rows = frame[np.logical_and.reduce([frame[key] == value for key, value in keys.items()])]
    rows = rows[np.isclose(rows["extra_flops"], best.extra_flops, rtol=0.05)]
    if rows.empty:
        return []
    means = rows.groupby("sunk_flops")[metric.column].mean()
    sunk = float(means.index[int(np.argmin(metric.falling(means.to_numpy(float))))])
    if np.isclose(sunk, best.sunk_flops, rtol=0.01):
        return []
    same = [
        each for each in options if each.which == best.which and np.isclose(each.sunk_flops, sunk)
    ]
    name = same[0].checkpoint if same and same[0].checkpoint else f"{amount(sunk)} sunk"
    return [f"the best that was measured is {name}, {metric.text(float(means[sunk]))}"]


def _measured(frame: pd.DataFrame, compared: Sequence[Arm]) -> list[str]:
    found = []
    grown = frame[frame["arm"] == "grow"]
    if len(np.unique(evidence.levels(grown["extra_flops"]))) == 1:
        found.append("one extra budget: nothing is said about others, nor about a fixed total")
    if not any(arm.which.arm == "continue" for arm in compared):
        found.append("no un-grown control to compare with: that growing pays is not shown")
    return found


def _bounds(every: Sequence[Arm]) -> list[str]:
    return [
        f"{law.law.name} has {name} at its bound"
        for arm in every
        if isinstance(arm.forecast, ByLaws) and arm.which.arm == "grow"
        for law in arm.forecast.laws
        for name in law.at_bounds
    ]


def _weak(every: Sequence[Arm]) -> list[str]:
    return [
        f"{each.which.growth} rests on {each.forecast.basis}"
        for each in every
        if isinstance(each.forecast, ByOffset)
    ]
