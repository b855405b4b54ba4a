"""Many restarts of a robust, bounded least-squares fit at once.

A bootstrap needs thousands of fits of a few parameters to a few dozen cells. One
Levenberg-Marquardt iteration over all of them is a handful of numpy calls on arrays
(restarts, cells, parameters), where a loop over scipy's solver costs milliseconds each.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from analysis.laws import Design, Law
from analysis.metrics import FloatArray

_STEP = 1e-6  # of central differences, in logarithms: truncation and rounding are near 1e-11
# Relative fall of the summed loss at which a restart ends; of a sum, so it does not depend on n.
# The finer one is for the fit itself; a replicate's own spread is 1e5 times the coarser one.
FINE, COARSE = 1e-8, 1e-5
_PATIENCE = 2  # successive falls below it
_ITERATIONS = 150


@dataclass(frozen=True)
class Cells:
    """What a law is fitted to, in fitting units."""

    design: Design
    falling: FloatArray  # (cells,)


@dataclass(frozen=True)
class Solutions:
    """One row per restart."""

    inner: FloatArray  # (restarts, parameters): logarithms of the nonlinear ones
    objective: FloatArray  # (restarts,): the summed Huber loss
    converged: npt.NDArray[np.bool_]  # (restarts,) of bool


@dataclass(frozen=True)
class Space:
    """The solver's coordinates: linear parameters as they are, the others as logarithms."""

    linear: npt.NDArray[np.bool_]
    low: FloatArray
    high: FloatArray


@cache
def _space(law: object) -> Space:
    assert isinstance(law, type)
    assert issubclass(law, Law)
    linear = np.array(law.linear())
    ends = np.array(law.meta("low"), float), np.array(law.meta("high"), float)
    low, high = (np.where(linear, end, np.log(np.where(linear, 1.0, end))) for end in ends)
    return Space(linear, low, high)


def space(law: type[Law]) -> Space:
    """The coordinates of a law, worked out once."""
    # mypy takes the class for one of its instances, whose hash it cannot see
    return _space(law)


def _linear(law: type[Law]) -> npt.NDArray[np.bool_]:
    return space(law).linear


def outer(law: type[Law], inner: FloatArray) -> FloatArray:
    """Parameters from the solver's coordinates, along the last axis."""
    values = inner.copy()
    curved = ~_linear(law)
    values[..., curved] = np.exp(inner[..., curved])
    return values


def bounds(law: type[Law]) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds in the solver's coordinates."""
    return space(law).low, space(law).high


def predict(law: type[Law], inner: FloatArray, design: Design) -> FloatArray:
    """L of every restart at every cell: (restarts, cells)."""
    return law(*outer(law, inner).T[..., None]).predict(design)


def jacobian(
    law: type[Law], inner: FloatArray, design: Design, only_linear: bool = False
) -> FloatArray:
    """Derivatives of L: (restarts, cells, parameters); exact for the linear parameters."""
    columns = []
    for index, linear in enumerate(_linear(law)):
        if only_linear and not linear:
            columns.append(np.zeros((len(inner), len(design))))
            continue
        step = 0.5 if linear else _STEP
        up, down = inner.copy(), inner.copy()
        up[:, index] += step
        down[:, index] -= step
        change = predict(law, up, design) - predict(law, down, design)
        columns.append(change / (2 * step))
    return np.stack(columns, axis=-1)


def huber(residuals: FloatArray, delta: float) -> FloatArray:
    """Huber's loss of each residual: half its square, linear beyond `delta`."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def starts(law: type[Law], cells: Cells) -> FloatArray:
    """Every combination of the nonlinear starts, with the linear parameters solved for.

    This is variable projection (Golub and Pereyra, 1973): given exponents and offsets, floor and
    amplitudes are a bounded linear problem with one answer.
    """
    linear = _linear(law)
    low, high = bounds(law)
    found = []
    for values in product(*(each for each in law.meta("starts") if each)):
        inner = np.zeros(len(linear))
        inner[~linear] = np.log(values)
        basis = jacobian(law, inner[None], cells.design)[0][:, linear]
        inner[linear] = lsq_linear(basis, cells.falling, (low[linear], high[linear])).x
        found.append(inner)
    return np.array(found)


def minimise(
    law: type[Law],
    cells: Cells,
    begin: FloatArray,
    delta: float,
    weights: FloatArray,
    tolerance: float,
) -> Solutions:
    """Minimise the summed Huber loss from each row of `begin`, within the law's bounds.

    `weights` (restarts, cells) are how often a replicate drew each cell. Residuals beyond `delta`
    are reweighted at every iteration, which majorises Huber's loss, so a step that lowers the
    weighted squares lowers the loss; damping is Marquardt's, per restart.
    """
    state = _State.begin(law, cells, np.clip(begin, *bounds(law)), delta, weights)
    for _ in range(_ITERATIONS):
        busy = np.flatnonzero(state.patience > 0)
        if not len(busy):
            break
        state.write(busy, _advance(law, cells, state.take(busy), delta, tolerance))
    return Solutions(state.inner, state.objective, state.patience <= 0)


@dataclass
class _State:
    """Where every restart is. The finished ones are left out of the arithmetic."""

    inner: FloatArray
    weights: FloatArray
    objective: FloatArray
    damping: FloatArray
    patience: npt.NDArray[np.int64]

    @classmethod
    def begin(
        cls, law: type[Law], cells: Cells, inner: FloatArray, delta: float, weights: FloatArray
    ) -> "_State":
        objective = _objective(law, cells, inner, delta, weights)
        count = len(inner)
        return cls(inner, weights, objective, np.full(count, 1e-2), np.full(count, _PATIENCE))

    def take(self, rows: npt.NDArray[np.int64]) -> "_State":
        return _State(
            self.inner[rows],
            self.weights[rows],
            self.objective[rows],
            self.damping[rows],
            self.patience[rows],
        )

    def write(self, rows: npt.NDArray[np.int64], new: "_State") -> None:
        self.inner[rows], self.objective[rows] = new.inner, new.objective
        self.damping[rows], self.patience[rows] = new.damping, new.patience


def _objective(
    law: type[Law], cells: Cells, inner: FloatArray, delta: float, weights: FloatArray
) -> FloatArray:
    residuals = predict(law, inner, cells.design) - cells.falling
    return np.asarray((weights * huber(residuals, delta)).sum(axis=1))


def _advance(law: type[Law], cells: Cells, state: _State, delta: float, tolerance: float) -> _State:
    """One damped step of every restart; those that do not improve stay and are damped more."""
    stepped = np.clip(state.inner + _steps(law, cells, state, delta), *bounds(law))
    projected = _projected(law, cells, replace(state, inner=stepped), delta)
    objectives = [
        _objective(law, cells, each, delta, state.weights) for each in (stepped, projected)
    ]
    objective = np.minimum(*objectives)
    trial = np.where((objectives[1] < objectives[0])[:, None], projected, stepped)
    better = objective < state.objective
    fall = np.where(better, state.objective - objective, 0.0)
    # Falls that rounding of the squares could make are none: a perfect fit must end as well.
    noise = tolerance * state.objective + 1e-24 * float(np.sum(cells.falling**2))
    stuck = ~better & (state.damping > 1e4)
    patience = np.where(fall > noise, _PATIENCE, state.patience - (better & (fall <= noise)))
    return replace(
        state,
        inner=np.where(better[:, None], trial, state.inner),
        objective=np.where(better, objective, state.objective),
        damping=np.clip(state.damping * np.where(better, 0.2, 6.0), 1e-9, 1e9),
        patience=np.where(stuck, 0, patience),
    )


def _steps(law: type[Law], cells: Cells, state: _State, delta: float) -> FloatArray:
    residuals = predict(law, state.inner, cells.design) - cells.falling
    slopes = jacobian(law, state.inner, cells.design)
    size = np.maximum(np.abs(residuals), 1e-300)
    weights = state.weights * np.minimum(1.0, delta / size)
    weighted = slopes * weights[..., None]
    gradient = np.einsum("rcp,rc->rp", weighted, residuals)
    normal = np.swapaxes(weighted, 1, 2) @ slopes
    low, high = bounds(law)
    held = ((state.inner <= low) & (gradient > 0)) | ((state.inner >= high) & (gradient < 0))
    return _solve(normal, np.where(held, 0.0, gradient), held, state.damping)


def _projected(law: type[Law], cells: Cells, state: _State, delta: float) -> FloatArray:
    """The same nonlinear parameters with the linear ones solved for anew.

    Without it a step follows the straight tangent of a curved valley such as A C0^alpha = const,
    and most restarts were still crawling after 150 iterations.
    """
    linear = _linear(law)
    held = np.broadcast_to(~linear, state.inner.shape)
    residuals = predict(law, state.inner, cells.design) - cells.falling
    basis = jacobian(law, state.inner, cells.design, only_linear=True)
    size = np.maximum(np.abs(residuals), 1e-300)
    weighted = basis * (state.weights * np.minimum(1.0, delta / size))[..., None]
    gradient = np.einsum("rcp,rc->rp", weighted, residuals)
    normal = np.swapaxes(weighted, 1, 2) @ basis
    step = _solve(normal, gradient, held, np.zeros(len(residuals)))
    return np.clip(state.inner + step, *bounds(law))


def _solve(
    normal: FloatArray, gradient: FloatArray, held: npt.NDArray[np.bool_], damping: FloatArray
) -> FloatArray:
    """The damped Newton step, zero for parameters held at a bound."""
    free = ~held
    matrix = normal * (free[:, :, None] & free[:, None, :])
    diagonal = np.einsum("rpp->rp", matrix)
    # Marquardt's scaling by the diagonal; the floor keeps a parameter without any effect still.
    ridge = damping[:, None] * diagonal + 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-30
    index = np.arange(matrix.shape[1])
    matrix[:, index, index] += np.where(free, ridge, 1.0)
    return -np.asarray(np.linalg.solve(matrix, gradient[..., None])[..., 0])


def distinct(solutions: Solutions, count: int) -> FloatArray:
    """Up to `count` solutions that lie apart from one another, the best one first.

    They are where the replicates of a bootstrap begin: from the best alone many of them miss a
    lower minimum.
    """
    order = np.argsort(solutions.objective, kind="stable")
    kept: list[FloatArray] = []
    for row in solutions.inner[order]:
        if all(np.max(np.abs(row - other)) > 0.05 for other in kept):
            kept.append(row)
        if len(kept) == count:
            break
    return np.array(kept)
