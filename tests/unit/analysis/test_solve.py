"""The solver: no worse than scipy's, robust, and within bounds."""

import numpy as np
import pytest
from scipy.optimize import minimize

from analysis import solve
from analysis.laws import LAWS, Design, Unit
from analysis.metrics import FloatArray
from tests.unit.analysis.test_laws import TRUE, runs

DELTA = 0.003


def cells(name: str) -> solve.Cells:
    frame = runs(LAWS[name](*TRUE[name]))
    names = ("sunk_flops", "extra_flops", "source_active_params", "active_params")
    where = Design(*(frame[each].to_numpy(float) for each in names))
    return solve.Cells(where.per(Unit.of(where)), frame["val_loss"].to_numpy(float))


def best(name: str, data: solve.Cells, delta: float, weights: FloatArray) -> solve.Solutions:
    begin = solve.starts(LAWS[name], data)
    repeated = np.repeat(weights[None], len(begin), axis=0)
    return solve.minimise(LAWS[name], data, begin, delta, repeated, solve.FINE)


@pytest.mark.parametrize("name", LAWS)
def test_no_start_of_scipy_finds_a_lower_minimum(name: str) -> None:
    law, data = LAWS[name], cells(name)
    found = best(name, data, DELTA, np.ones(len(data.falling)))

    def loss(inner: FloatArray) -> float:
        residuals = solve.predict(law, inner[None], data.design)[0] - data.falling
        return float(solve.huber(residuals, DELTA).sum()) * 1e4

    limits = list(zip(*solve.bounds(law), strict=True))
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
    clean = solve.predict(LAWS[name], np.array([_inner(name)]), data.design)[0]
    wild = data.falling.copy()
    wild[4] += 0.3
    spoiled = solve.Cells(data.design, wild)
    errors = []
    for delta in (DELTA, np.inf):
        found = best(name, spoiled, delta, np.ones(len(wild)))
        fitted = solve.predict(LAWS[name], found.inner[[np.argmin(found.objective)]], data.design)
        errors.append(np.abs(fitted[0] - clean).max())
    assert errors[0] < 0.01 < errors[1]


def _inner(name: str) -> FloatArray:
    linear = np.array(LAWS[name].linear())
    values = np.array(TRUE[name])
    return np.where(linear, values, np.log(values))


@pytest.mark.parametrize("name", LAWS)
def test_solutions_keep_within_bounds(name: str) -> None:
    data = cells(name)
    flat = solve.Cells(data.design, np.linspace(-5, 5, len(data.falling)) ** 3)
    found = best(name, flat, 1.0, np.ones(len(data.falling)))
    low, high = solve.bounds(LAWS[name])
    assert ((found.inner >= low) & (found.inner <= high)).all()
    assert np.isfinite(found.objective).all()


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_agree_with_differences(name: str) -> None:
    data, inner = cells(name), _inner(name)
    slopes = solve.jacobian(LAWS[name], inner[None], data.design)[0]
    for index in range(len(inner)):
        step = np.zeros(len(inner))
        step[index] = 1e-4
        up, down = (
            solve.predict(LAWS[name], (inner + sign * step)[None], data.design)[0]
            for sign in (1, -1)
        )
        np.testing.assert_allclose(slopes[:, index], (up - down) / 2e-4, rtol=1e-4, atol=1e-7)
