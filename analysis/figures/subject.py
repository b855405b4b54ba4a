"""What figures are drawn of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import evidence, forecast
from analysis.evidence import Noise
from analysis.fits import Fits
from analysis.forecast import Arm
from analysis.metrics import Metric

Drawn = tuple[Figure, pd.DataFrame]  # the second is what was drawn


class NothingToDrawError(Exception):
    """Why a figure has nothing to show: a clause without a full stop."""


def panel_name(variant: str, growth: str) -> str:
    """What a panel shows; of a variant's keys the last part is enough."""
    name = "not grown" if growth == "-" else growth
    parts = (part.rpartition("=") for part in variant.split(", ") if part)
    short = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, _, value in parts)
    return f"{name} ({short})" if short else name


@dataclass(frozen=True)
class Subject:
    """The cells of a sweep or table that have one metric, and what is known about them.

    `found` is None where no law could be fitted. `curves` gives those of `records.curves`.
    """

    frame: pd.DataFrame
    metric: Metric
    found: Fits | None
    curves: Callable[[], pd.DataFrame]

    @cached_property
    def arms(self) -> list[Arm]:
        """Every way to go on, with what is expected of it; worked out once for all figures."""
        budgets = np.unique(evidence.levels(self.frame["extra_flops"]))
        only = float(budgets[0]) if len(budgets) == 1 else None
        return forecast.arms(self.frame, self.metric, only, self.found)

    @cached_property
    def noise(self) -> Noise:
        """How much one run scatters."""
        return forecast.run_noise(self.frame, self.metric, self.arms)
