"""What each option is expected to reach, as draws that share their luck between options."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import evidence, fits, noise
from analysis.compare import ensemble
from analysis.coordinates import Mask
from analysis.evidence import Noise
from analysis.fit import Fit
from analysis.fits import Fits
from analysis.forecasts import ByInterpolation, ByLaws, ByOffset, Forecast
from analysis.groups import fit_group
from analysis.laws import Design
from analysis.metrics import FloatArray, Metric
from analysis.resample import Resampling
from analysis.sample import Which

__all__ = ["Arm", "ByInterpolation", "ByLaws", "ByOffset", "Forecast", "arms", "run_noise"]

_SLACK = 1.05  # a budget within 5 % of a measured one is that one


@dataclass(frozen=True)
class Arm:
    """One way to go on: its cells, what is expected of it, or why nothing is."""

    which: Which
    cells: pd.DataFrame
    forecast: Forecast | None
    missing: str = ""

    @property
    def source_active(self) -> float:
        """Active parameters before growth."""
        return float(self.cells["source_active_params"].median())

    @property
    def active(self) -> float:
        """Active parameters of the runs."""
        return float(self.cells["active_params"].median())

    def design(self, sunk: FloatArray, extra: FloatArray) -> Design:
        """Designs of this arm at these FLOPs."""
        sizes = (np.full(len(sunk), size) for size in (self.source_active, self.active))
        return Design(sunk, extra, *sizes)

    def beyond(self, sunk: float, extra: float) -> float:
        """How many times outside the measured range a point lies; at most 1 within it."""
        return float(self.beyonds(np.array([sunk]), np.array([extra]))[0])

    def beyonds(self, sunk: FloatArray, extra: FloatArray) -> FloatArray:
        """The same for every point: (points,)."""
        if self.which.arm != "grow":
            return _beyond(sunk + extra, self.cells["total_flops"])
        return np.maximum(_beyond(sunk, self.cells["sunk_flops"]), _beyond(extra, self._budget))

    @property
    def one_budget(self) -> bool:
        """Whether its laws are of one extra budget, and say nothing about others."""
        return isinstance(self.forecast, ByLaws) and (
            self.forecast.laws[0].which.extra_flops is not None
        )

    @property
    def _budget(self) -> pd.Series:
        """The extra budgets that its forecast is about."""
        if not (isinstance(self.forecast, ByLaws) and self.one_budget):
            return self.cells["extra_flops"]
        return pd.Series([self.forecast.laws[0].which.extra_flops], dtype=float)

    def reaches(self, sunk: FloatArray, extra: FloatArray) -> Mask:
        """Where something may be expected: not beyond runs, nor beside laws of one budget."""
        if self.forecast is None:
            return np.zeros(len(sunk), dtype=bool)
        if isinstance(self.forecast, ByInterpolation):
            return np.asarray(self.beyonds(sunk, extra) <= _SLACK)
        if self.one_budget:
            return np.asarray(_beyond(extra, self._budget) <= _SLACK)
        return np.isfinite(sunk + extra)


def _beyond(value: FloatArray, measured: pd.Series) -> FloatArray:
    low, high = float(measured.min()), float(measured.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        under, over = low / value, value / np.float64(high)
    return np.where(value > high, over, np.where(value < low, under, 1.0))


def arms(
    frame: pd.DataFrame, metric: Metric, extra: float | None, known: Fits | None = None
) -> list[Arm]:
    """Every arm of a sweep with its forecast.

    Growing is forecast by its surface laws; with too few cells by the laws of one extra budget if
    `extra` is that one; with too few growth points by pairs with another growth. The others are
    forecast by laws of all compute, or between the runs there are. Fits that are `known` already
    are not made again.
    """
    made = _Maker(frame, metric, Resampling.of(frame), known).arms(extra)
    return [_paired(each, made, frame, metric) for each in made]


@dataclass(frozen=True)
class _Maker:
    """What the forecasts of one metric of one sweep are made from."""

    frame: pd.DataFrame
    metric: Metric
    resampling: Resampling
    known: Fits | None

    def arms(self, extra: float | None) -> list[Arm]:
        selected = fits.selections(self.frame, columns=False)
        made = [self._arm(which, rows, extra) for which, rows in selected if len(rows)]
        spread = run_noise(self.frame, self.metric, made).value
        return [self._between(each, spread) for each in made]

    def _between(self, arm: Arm, spread: float) -> Arm:
        """An arm of runs alone, interpolated if it is known how much a run says."""
        if arm.forecast is not None or arm.which.arm == "grow":
            return arm
        if not math.isfinite(spread):
            return replace(arm, missing="it has no law, and the error of a run is not known")
        replicates = len(self.resampling.uniform)
        return replace(arm, forecast=_interpolation(arm.cells, self.metric, spread, replicates))

    def _arm(self, which: Which, rows: pd.DataFrame, extra: float | None) -> Arm:
        found, missing = self._laws(which, rows)
        if not found and which.arm == "grow" and extra is not None:
            for level, near in evidence.by_level(rows, "extra_flops"):
                if 1 / _SLACK <= level / extra <= _SLACK:
                    found, _ = self._laws(replace(which, extra_flops=level), near)
        if found:
            return Arm(which, rows, ByLaws(tuple(ensemble(found))))
        return Arm(which, rows, None, missing)

    def _laws(self, which: Which, rows: pd.DataFrame) -> tuple[list[Fit], str]:
        known = self.known.groups(self.metric.name).get(which, []) if self.known else []
        if known and all(each.sample is not None for each in known):
            return known, ""
        found, skipped = fit_group(self.frame, which, rows, self.metric, self.resampling)
        return found, skipped[0].reason if skipped else ""


def run_noise(frame: pd.DataFrame, metric: Metric, every: Sequence[Arm]) -> Noise:
    """The noise of one run, as `noise.one_run` says it, by the laws of these arms."""
    laws = [law for arm in every if isinstance(arm.forecast, ByLaws) for law in arm.forecast.laws]
    return noise.one_run(frame, metric, laws)


def _interpolation(
    rows: pd.DataFrame, metric: Metric, spread: float, replicates: int
) -> ByInterpolation:
    level = evidence.levels(rows["total_flops"])
    falling = pd.Series(metric.falling(rows[metric.column].to_numpy(float)), index=rows.index)
    groups = [(float(at), falling[level == at]) for at in np.unique(level)]
    return ByInterpolation(
        np.array([at for at, _ in groups]),
        np.array([values.mean() for _, values in groups]),
        np.array([spread / math.sqrt(len(values)) for _, values in groups]),
        len(rows),
        replicates,
        f"{rows['arm'].iloc[0]} {rows['growth'].iloc[0]}",
    )


def _paired(arm: Arm, others: list[Arm], frame: pd.DataFrame, metric: Metric) -> Arm:
    if arm.forecast is not None:
        return arm
    variant = arm.which.variant
    for other in others:
        if not isinstance(other.forecast, ByLaws) or other.which.arm != "grow":
            continue
        if other.which.variant != variant:
            continue
        found, se = evidence.offsets(frame, metric, variant, arm.which.growth, other.which.growth)
        if len(found) >= 3:
            by = ByOffset(other.forecast, other.which.growth, other.active, found, se)
            return replace(arm, forecast=by)
    return arm
