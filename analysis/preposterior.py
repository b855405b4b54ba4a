"""What a run would be worth before it is run: the regret that knowing its outcome would spare.

Each draw of the laws in turn is taken for the truth. It makes an outcome, with the noise of a run;
the outcome weighs all other draws anew, and the option that is then expected to be best is paid for
at the truth. This is the expected value of sample information (Raiffa and Schlaifer, 1961) by
importance weights, so no law is fitted again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from analysis.metrics import FloatArray
from analysis.resample import SEED

TRUTHS = 400  # draws that are taken for the truth
_SCREENED = 120  # of them, to find the candidates that are looked at closely
_CLOSELY = 24
_SHARE = 0.25  # of the largest reduction: what takes off less is not worth a place in a batch


@dataclass(frozen=True)
class Draws:
    """What options and runs come to, together, by each draw of the laws."""

    options: FloatArray  # (draws, options): L of what could be decided
    runs: FloatArray  # (draws, runs): L of what could be run
    noise: float  # of a run


@dataclass(frozen=True)
class Reduction:
    """How much regret a batch of runs is expected to take off."""

    before: float
    after: float
    se: float  # of the difference, over the truths


@dataclass(frozen=True)
class Simulation:
    """The draws after some runs were simulated: one row of weights for each truth."""

    draws: Draws
    truths: npt.NDArray[np.int64]
    luck: FloatArray = field(repr=False)  # (truths, runs): standard normal
    widths: FloatArray = field(repr=False)  # (runs,): how far an outcome can be off
    logs: FloatArray = field(repr=False)  # (truths, draws): log weights

    @classmethod
    def of(cls, draws: Draws, truths: int = TRUTHS) -> "Simulation":
        """Nothing is run yet. A truth never weighs in its own favour."""
        count = len(draws.options)
        chosen = np.unique(np.linspace(0, count - 1, min(truths, count)).astype(int))
        luck = np.random.default_rng(SEED).standard_normal((count, draws.runs.shape[1]))[chosen]
        # Finite draws resolve nothing finer than their spacing: a kernel as wide as Silverman's
        # rule says keeps the nearest draw from passing for knowledge.
        kernel = 1.06 * count**-0.2 * draws.runs.std(axis=0)
        logs = np.zeros((len(chosen), count))
        logs[np.arange(len(chosen)), chosen] = -np.inf
        return cls(draws, chosen, luck, np.hypot(draws.noise, kernel), logs)

    def after(self, columns: Sequence[int]) -> "Simulation":
        """The same once these runs are done."""
        logs = self.logs
        for column in columns:
            every = self.draws.runs[:, column]
            seen = every[self.truths] + self.draws.noise * self.luck[:, column]
            width = self.widths[column]
            if width > 0:
                logs = logs - 0.5 * ((seen[:, None] - every) / width) ** 2
        return replace(self, logs=logs)

    def first(self, truths: int) -> "Simulation":
        """The same with fewer truths, spread over all of them."""
        rows = np.unique(np.linspace(0, len(self.truths) - 1, truths).astype(int))
        return replace(self, truths=self.truths[rows], luck=self.luck[rows], logs=self.logs[rows])

    def regrets(self) -> FloatArray:
        """What is lost at each truth by the option expected to be best after the runs."""
        weights = np.exp(self.logs - self.logs.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return self._lost(np.argmin(weights @ self.draws.options, axis=1))

    def unaided(self) -> FloatArray:
        """What is lost at each truth by the option expected to be best before any run."""
        best = int(np.argmin(self.draws.options.mean(axis=0)))
        return self._lost(np.full(len(self.truths), best))

    def reduction(self) -> Reduction:
        """Regret before and after all runs so far."""
        before, after = self.unaided(), self.regrets()
        se = float((before - after).std() / np.sqrt(len(after)))
        return Reduction(float(before.mean()), float(after.mean()), se)

    def _lost(self, chosen: npt.NDArray[np.int64]) -> FloatArray:
        here = self.draws.options[self.truths]
        return np.asarray(here[np.arange(len(here)), chosen] - here.min(axis=1))


def better(
    so_far: Simulation, candidates: Sequence[Sequence[int]], costs: FloatArray
) -> int | None:
    """The candidate that takes off most regret per FLOP, given the runs `so_far`; None if none.

    A candidate is a set of columns of the runs, at a cost of its own; infinite costs are passed
    over. Of those that take off next to nothing the cheapest would win, so only candidates count
    that take off a quarter of what the best one does.
    """
    kept = np.flatnonzero(np.isfinite(costs))
    for truths, most in ((_SCREENED, _CLOSELY), (len(so_far.truths), 1)):
        if not len(kept):
            return None
        few = so_far.first(truths)
        now = few.regrets().mean()
        gains = np.array([now - few.after(candidates[int(at)]).regrets().mean() for at in kept])
        if gains.max() <= 0:
            return None
        rate = np.where(gains >= _SHARE * gains.max(), gains / costs[kept], 0.0)
        order = np.argsort(-rate, kind="stable")
        kept = kept[order[rate[order] > 0]][:most]
    return int(kept[0])
