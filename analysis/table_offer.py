"""Runs that could follow a table of results made elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.beliefs import Place
from analysis.extension import LONG, Candidate, between
from analysis.sample import Which


@dataclass(frozen=True)
class TableOffer:
    """Runs that could follow a table made elsewhere: from its own sources, with other budgets."""

    frame: pd.DataFrame

    def candidates(self) -> list[Candidate]:
        """Each arm and source at its budgets, between them and a little beyond."""
        found = []
        for (variant, arm, growth), rows in self.frame.groupby(["variant", "arm", "growth"]):
            which = Which(str(variant), str(arm), str(growth))
            budgets = sorted(rows["extra_flops"][rows["extra_flops"] > 0].unique())
            for sunk in sorted(rows["sunk_flops"].unique()):
                for extra in [*budgets, *between(budgets, LONG)] if budgets else []:
                    place = Place(which, float(sunk), float(extra))
                    label = f"{which.label()} · sunk {sunk:.2g} · extra {extra:.2g}"
                    found.append(Candidate(label, (place,)))
        return found

    def flops(self, chosen: Sequence[Candidate]) -> float:
        """Their extra compute: the sources are there."""
        return math.fsum(place.extra_flops for each in chosen for place in each.places)
