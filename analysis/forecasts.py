"""What an expectation rests on: laws, pairs with another growth, or runs to lie between."""

import zlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from analysis.compare import mixed
from analysis.fit import Fit
from analysis.laws import Design
from analysis.metrics import FloatArray
from analysis.resample import SEED
from analysis.sample import Sample


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

    @property
    def replicates(self) -> int:
        """How many draws there are."""
        return _sample(self.laws[0]).replicates

    @property
    def basis(self) -> str:
        names = " and ".join(each.law.name for each in self.laws)
        return f"{names}, fitted to {self.laws[0].cells} cells"

    def point(self, design: Design) -> FloatArray:
        return np.asarray(np.mean([_sample(each).centre(design) for each in self.laws], axis=0))

    def draws(self, design: Design) -> FloatArray:
        return mixed([_sample(each).draws(design) for each in self.laws])


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
        return f"interpolated between {self.runs} runs" if self.runs > 1 else "one run"

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


def _rng(key: str, count: int) -> np.random.Generator:
    return np.random.default_rng([SEED, count, zlib.crc32(key.encode())])
