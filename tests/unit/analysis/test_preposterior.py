"""What a run would be worth: against closed forms, and where the answer is plain."""

import math

import numpy as np
import pytest

from analysis.metrics import FloatArray
from analysis.preposterior import Draws, Simulation, better

RNG = np.random.default_rng(3)
GAP, OTHER = RNG.standard_normal((2, 1000))
# Of two options with a standard normal difference, the wrong one costs this much on average.
UNAIDED = 1 / math.sqrt(2 * math.pi)


def drawn(*runs: FloatArray, gap: FloatArray = GAP, noise: float = 1.0) -> Draws:
    """Two options that differ by `gap`, and runs."""
    return Draws(np.stack([gap - gap.mean(), np.zeros(len(gap))], axis=1), np.stack(runs, 1), noise)


@pytest.mark.parametrize("noise", [0.01, 0.5, 1.0, 3.0])
def test_a_run_is_worth_what_the_closed_form_says(noise: float) -> None:
    # Normal conjugacy: after a run with this noise the expected difference has this spread.
    spread = 1 / math.sqrt(1 + noise**2)
    found = Simulation.of(drawn(GAP, noise=noise), truths=1000).after([0]).reduction()
    assert found.before == pytest.approx(UNAIDED, abs=0.04)
    assert found.after == pytest.approx(UNAIDED * (1 - spread), abs=0.06)


def test_a_run_that_says_nothing_takes_nothing_off() -> None:
    found = Simulation.of(drawn(OTHER)).after([0]).reduction()
    assert found.before - found.after < 3 * found.se + 0.02


def test_what_discriminates_goes_first() -> None:
    simulated = Simulation.of(drawn(OTHER, GAP, GAP + OTHER))
    assert better(simulated, [[0], [1], [2]], np.ones(3)) == 1
    # at a hundredth of the price the next best one is the better buy
    assert better(simulated, [[0], [1], [2]], np.array([1.0, 1.0, 0.01])) == 2
    # what takes off next to nothing is not, at any price
    assert better(simulated, [[0], [1]], np.array([1e-9, 1.0])) == 1


def test_members_of_a_batch_account_for_each_other() -> None:
    simulated = Simulation.of(drawn(GAP, GAP + 1e-3, OTHER, gap=GAP + OTHER, noise=0.2))
    first = better(simulated, [[0], [1], [2]], np.array([1.0, 1.0, 1.5]))
    assert first in (0, 1)
    twin = 1 - first
    assert better(simulated.after([first]), [[twin], [2]], np.array([1.0, 1.5])) == 1


def test_a_candidate_may_be_several_runs() -> None:
    simulated = Simulation.of(drawn(GAP, OTHER, gap=GAP + OTHER, noise=0.2))
    assert better(simulated, [[0], [1], [0, 1]], np.array([1.0, 1.0, 1.01])) == 2
    both, one = simulated.after([0, 1]).reduction(), simulated.after([0]).reduction()
    assert both.after < one.after < one.before


def test_nothing_is_chosen_of_what_is_too_dear() -> None:
    simulated = Simulation.of(drawn(GAP, OTHER))
    assert better(simulated, [[0], [1]], np.array([math.inf, math.inf])) is None
    assert better(simulated, [[0], [1]], np.array([math.inf, 1.0])) in (None, 1)
    assert better(simulated, [], np.array([])) is None
