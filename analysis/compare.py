"""Laws held against each other on the same cells."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.fit import Fit


@dataclass(frozen=True)
class Comparison:
    """One row of a comparison of laws on the same cells."""

    fit: Fit
    behind: float  # held-out error less that of the best law
    behind_se: float  # over source checkpoints
    delta_aicc: float


def compare(fits: list[Fit]) -> list[Comparison]:
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


def ensemble(fits: list[Fit]) -> list[Fit]:
    """The laws that the data cannot tell apart: within 10 of the least AICc.

    An equal mix of them covers what it claims where the best law alone does not, since the form of
    the law, and not the noise, is the main error.
    """
    least = min((each.aicc for each in fits), default=0.0)
    return [each for each in fits if each.aicc - least < 10]
