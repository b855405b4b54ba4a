"""What each option is expected to reach, as draws that share their luck between options."""

import math
import zlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from analysis import evidence, fits
from analysis.compare import ensemble
from analysis.fit import Fit, fit, shortage
from analysis.fits import Fits
from analysis.laws import Design
from analysis.metrics import FloatArray, Metric
from analysis.resample import SEED, Resampling
from analysis.sample import Sample, Which

_SLACK = 1.05  # a budget within 5 % of a measured one is that one


class Forecast(Protocol):
    """The falling quantity L of one option at any design."""

    @property
    def basis(self) -> str:
        """What it rests on, in words."""

    def point(self, design: Design) -> FloatArray:
        """The expectation: (designs,)."""

    def draws(self, design: Design) -> FloatArray:
        """(draws, designs); draw k of every option rests on the same resampled sources."""


@dataclass(frozen=True)
class ByLaws:
    """An equal mix of the laws that the data cannot tell apart."""

    laws: tuple[Fit, ...]
    replicates: int

    @property
    def basis(self) -> str:
        names = " and ".join(each.law.name for each in self.laws)
        return f"{names}, fitted to {self.laws[0].cells} cells"

    def point(self, design: Design) -> FloatArray:
        return np.asarray(np.mean([_sample(each).point(design) for each in self.laws], axis=0))

    def draws(self, design: Design) -> FloatArray:
        every = [_sample(each).draws(design) for each in self.laws]
        turn = np.arange(self.replicates) % len(every)
        return np.asarray(np.stack(every)[turn, np.arange(self.replicates)])


@dataclass(frozen=True)
class ByOffset:
    """Another growth's laws, shifted by the mean difference of paired runs."""

    other: ByLaws
    other_growth: str
    other_active: float
    differences: FloatArray  # of L, over pairs
    se: float

    @property
    def basis(self) -> str:
        return f"{self.other_growth} and {len(self.differences)} pairs with it"

    def point(self, design: Design) -> FloatArray:
        return np.asarray(self.other.point(self._there(design)) + float(self.differences.mean()))

    def draws(self, design: Design) -> FloatArray:
        count = len(self.differences)
        noise = _rng("offset", count).standard_t(count - 1, self.other.replicates)
        shift = self.differences.mean() + self.se * noise
        return np.asarray(self.other.draws(self._there(design)) + shift[:, None])

    def _there(self, design: Design) -> Design:
        return replace(design, active=np.full(len(design), self.other_active))


@dataclass(frozen=True)
class ByInterpolation:
    """Means of measured runs, linear in the logarithm of total compute between them."""

    totals: FloatArray
    means: FloatArray
    se: FloatArray
    runs: int
    replicates: int
    key: str  # gives each option draws of its own

    @property
    def basis(self) -> str:
        return f"interpolated between {self.runs} runs"

    def point(self, design: Design) -> FloatArray:
        return self._between(design, self.means)

    def draws(self, design: Design) -> FloatArray:
        noise = _rng(self.key, self.runs).standard_normal((self.replicates, len(self.means)))
        return np.array([self._between(design, self.means + row * self.se) for row in noise])

    def _between(self, design: Design, values: FloatArray) -> FloatArray:
        where = np.log10(design.sunk + design.extra)
        return np.interp(where, np.log10(self.totals), values)


def _sample(found: Fit) -> Sample:
    assert found.sample is not None
    return found.sample


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
        if self.which.arm != "grow":
            return _beyond(sunk + extra, self.cells["total_flops"])
        return max(
            _beyond(sunk, self.cells["sunk_flops"]), _beyond(extra, self.cells["extra_flops"])
        )


def _beyond(value: float, measured: pd.Series) -> float:
    low, high = float(measured.min()), float(measured.max())
    if low <= value <= high:
        return 1.0
    if value > high:
        return math.inf if high <= 0 else value / high
    return math.inf if value <= 0 else low / value


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
        return [self._arm(which, rows, extra) for which, rows in selected if len(rows)]

    def _arm(self, which: Which, rows: pd.DataFrame, extra: float | None) -> Arm:
        found, missing = self._laws(which, rows)
        if not found and which.arm == "grow" and extra is not None:
            near = rows["extra_flops"].between(extra / _SLACK, extra * _SLACK)
            found, _ = self._laws(replace(which, extra_flops=extra), rows[near])
        replicates = len(self.resampling.uniform)
        if found:
            return Arm(which, rows, ByLaws(tuple(ensemble(found)), replicates))
        if which.arm == "grow":
            return Arm(which, rows, None, missing)
        noise = evidence.seed_noise(self.frame, self.metric).value
        return Arm(which, rows, _interpolation(rows, self.metric, noise, replicates))

    def _laws(self, which: Which, rows: pd.DataFrame) -> tuple[list[Fit], str]:
        known = self.known.groups(self.metric.name).get(which, []) if self.known else []
        if known and all(each.sample is not None for each in known):
            return known, ""
        found, missing = [], ""
        for law in fits.laws_for(which):
            if reason := shortage(rows, law):
                missing = missing or reason
            else:
                found.append(fit(rows, law, self.metric, which, self.resampling))
        return found, missing


def _interpolation(
    rows: pd.DataFrame, metric: Metric, noise: float, replicates: int
) -> ByInterpolation:
    level = evidence.levels(rows["total_flops"])
    falling = pd.Series(metric.falling(rows[metric.column].to_numpy(float)), index=rows.index)
    groups = [(float(at), falling[level == at]) for at in np.unique(level)]
    spread = noise if math.isfinite(noise) else float(rows[f"{metric.column}_se"].max())
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


def _rng(key: str, count: int) -> np.random.Generator:
    return np.random.default_rng([SEED, count, zlib.crc32(key.encode())])
