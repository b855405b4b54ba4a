"""The solver: no worse than scipy's, robust, and within bounds."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from analysis import solve
from analysis.coordinates import bounds, jacobian, predict, space
from analysis.fit import design
from analysis.laws import LAWS, Unit
from analysis.metrics import FloatArray
from tests.unit.analysis.test_laws import TRUE, runs

DELTA = 0.003


def cells(name: str) -> solve.Cells:
    frame = runs(LAWS[name](*TRUE[name]))
    where = design(frame)
    falling = frame["val_loss"].to_numpy(float)
    return solve.Cells(where.per(Unit.of(where)), falling, LAWS[name].relative)


def best(name: str, data: solve.Cells, delta: float, weights: FloatArray) -> solve.Solutions:
    begin = solve.starts(LAWS[name], data)
    repeated = np.repeat(weights[None], len(begin), axis=0)
    return solve.minimise(LAWS[name], data, begin, delta, repeated, solve.FINE)


@pytest.mark.parametrize("name", LAWS)
def test_no_start_of_scipy_finds_a_lower_minimum(name: str) -> None:
    law, data = LAWS[name], cells(name)
    found = best(name, data, DELTA, np.ones(len(data.falling)))

    def loss(inner: FloatArray) -> float:
        errors = data.errors(predict(law, inner[None], data.design))
        return float(solve.huber(errors, DELTA).sum()) * 1e4

    limits = list(zip(*bounds(law), strict=True))
    for start in [*solve.starts(law, data)[::5], found.inner[np.argmin(found.objective)]]:
        other = minimize(loss, start, method="L-BFGS-B", bounds=limits)
        assert found.objective.min() * 1e4 <= other.fun * (1 + 1e-5)


def test_a_weight_of_two_is_a_run_seen_twice() -> None:
    data = cells("effective_compute")
    weights = np.ones(len(data.falling))
    weights[:5] = 2
    twice = np.concatenate([np.arange(len(weights)), np.arange(5)])
    doubled = solve.Cells(data.design[twice], data.falling[twice])
    left = best("effective_compute", data, DELTA, weights).objective.min()
    right = best("effective_compute", doubled, DELTA, np.ones(len(twice))).objective.min()
    assert left == pytest.approx(right, rel=1e-5)


def test_one_wild_run_moves_a_huber_fit_less_than_least_squares() -> None:
    name = "total_saturating"
    data = cells(name)
    clean = predict(LAWS[name], np.array([_inner(name)]), data.design)[0]
    wild = data.falling.copy()
    wild[4] += 0.3
    spoiled = solve.Cells(data.design, wild)
    errors = []
    for delta in (DELTA, np.inf):
        found = best(name, spoiled, delta, np.ones(len(wild)))
        fitted = predict(LAWS[name], found.inner[[np.argmin(found.objective)]], data.design)
        errors.append(np.abs(fitted[0] - clean).max())
    assert errors[0] < 0.01 < errors[1]


def _inner(name: str) -> FloatArray:
    values, logarithmic = np.array(TRUE[name]), space(LAWS[name]).logarithmic
    return np.where(logarithmic, np.log(np.where(logarithmic, values, 1.0)), values)


@pytest.mark.parametrize("name", LAWS)
def test_solutions_keep_within_bounds(name: str) -> None:
    data = cells(name)
    falling = np.exp(np.linspace(-5, 5, len(data.falling)))  # log L exists
    flat = solve.Cells(data.design, falling, data.relative)
    found = best(name, flat, 1.0, np.ones(len(data.falling)))
    low, high = bounds(LAWS[name])
    assert ((found.inner >= low) & (found.inner <= high)).all()
    assert np.isfinite(found.objective).all()


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_agree_with_differences(name: str) -> None:
    data, inner = cells(name), _inner(name)
    slopes = jacobian(LAWS[name], inner[None], data.design)[0]
    for index in range(len(inner)):
        step = np.zeros(len(inner))
        step[index] = 1e-4
        up, down = (
            predict(LAWS[name], (inner + sign * step)[None], data.design)[0] for sign in (1, -1)
        )
        np.testing.assert_allclose(slopes[index], (up - down) / 2e-4, rtol=1e-4, atol=1e-7)


def test_held_parameters_stay_and_the_others_end_where_they_would_alone() -> None:
    name = "total_saturating"
    data, inner = cells(name), _inner(name)
    held = np.array([False, False, True, True])
    begin = inner[None] + np.array([[0.4, -0.3, 0.2, 0.1]])
    ones = np.ones((1, len(data.falling)))
    found = solve.minimise(LAWS[name], data, begin, np.inf, ones, solve.FINE, held).inner[0]
    np.testing.assert_array_equal(found[held], begin[0][held])
    basis = jacobian(LAWS[name], begin, data.design)[0][:2].T
    expected = np.linalg.lstsq(basis, data.falling)[0]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)


def test_many_restarts_end_where_each_would_alone() -> None:
    """Restarts share the arithmetic, never the answer: blocks must not change it."""
    name = "effective_compute"
    data = cells(name)
    begin = np.tile(solve.starts(LAWS[name], data), (30, 1))
    weights = np.random.default_rng(2).poisson(1, (len(begin), len(data.falling))).astype(float)
    law = LAWS[name]
    together = solve.minimise(law, data, begin, DELTA, weights, solve.COARSE)
    assert len(begin) > 256
    for row in (0, 100, 255, 256, len(begin) - 1):
        one = slice(row, row + 1)
        alone = solve.minimise(law, data, begin[one], DELTA, weights[one], solve.COARSE)
        np.testing.assert_allclose(together.objective[row], alone.objective[0], rtol=1e-6)


def test_starts_are_bounded_least_squares() -> None:
    """Given the nonlinear start, no other floor and amplitude within bounds fit better."""
    name = "sunk_saturating"
    data = cells(name)
    low, high = bounds(LAWS[name])
    for row in solve.starts(LAWS[name], data):
        basis = jacobian(LAWS[name], row[None], data.design)[0][:2].T
        best = lsq_linear(basis, data.falling, (low[:2], high[:2])).cost
        own = 0.5 * float(np.sum((basis @ row[:2] - data.falling) ** 2))
        assert own <= best * (1 + 1e-6) + 1e-12
