"""Laws held against each other on the same cells."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from analysis.fit import Fit
from analysis.metrics import FloatArray

Answer = TypeVar("Answer", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """One row of a comparison of laws on the same cells."""

    fit: Fit
    behind: float  # held-out error less that of the best law
    behind_se: float  # over source checkpoints
    delta_aicc: float


def compare(fits: Sequence[Fit]) -> list[Comparison]:
    """Laws fitted to the same cells, the smallest held-out error first.

    Differences are paired by source checkpoint, which is what makes their errors small.
    """
    ordered = sorted(fits, key=lambda each: (each.held_out, each.law.name))
    least = min(each.aicc for each in fits)
    best = np.array(ordered[0].held_out_errors)
    rows = []
    for each in ordered:
        behind = np.array(each.held_out_errors) - best
        se = float(np.std(behind, ddof=1) / math.sqrt(len(behind)))
        rows.append(Comparison(each, float(behind.mean()), se, each.aicc - least))
    return rows


def ensemble(fits: Sequence[Fit]) -> list[Fit]:
    """The laws that the data cannot tell apart: within 10 of the least AICc.

    An equal mix of them covers what it claims where the best law alone does not, since the form of
    the law, and not the noise, is the main error.
    """
    least = min((each.aicc for each in fits), default=0.0)
    return [each for each in fits if each.aicc - least < 10]


def answers(fits: Sequence[Fit], ask: Callable[[Fit], Answer]) -> dict[Answer, tuple[str, ...]]:
    """Which laws give which answer to a question, the answer of most laws first.

    One key means that they agree. `ask` turns a fit into an answer that can be compared, such as
    the name of the best arm or the growth point a budget is best spent from.
    """
    found: dict[Answer, list[str]] = {}
    for each in fits:
        found.setdefault(ask(each), []).append(each.law.name)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[1]))
    return {answer: tuple(names) for answer, names in ordered}


def mixed(draws: Sequence[FloatArray]) -> FloatArray:
    """Draws (draws, ...) of an equal mix of laws, from the draws of each: draw k is of law k mod n.

    Draw k of every law rests on the same resampled sources, so draws of different arms and options
    that are mixed this way stay paired.
    """
    turn = np.arange(len(draws[0])) % len(draws)
    return np.asarray(np.stack(list(draws))[turn, np.arange(len(draws[0]))])
