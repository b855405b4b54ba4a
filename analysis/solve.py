"""Many restarts of a robust, bounded least-squares fit at once.

A bootstrap needs thousands of fits of a few parameters to a few dozen cells. One
Levenberg-Marquardt iteration over all of them is a handful of numpy calls on arrays
(restarts, parameters, cells), where a loop over scipy's solver costs milliseconds each.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from analysis.cells import Cells, Solutions, distinct, huber
from analysis.coordinates import Mask, bounds, jacobian, linear_columns, predict, space
from analysis.laws import Law
from analysis.metrics import FloatArray

__all__ = [
    "COARSE",
    "FINE",
    "Cells",
    "Solutions",
    "best_of",
    "distinct",
    "huber",
    "minimise",
    "starts",
]

# Relative fall of the summed loss at which a restart ends; of a sum, so it does not depend on n.
# The finer one is for the fit itself; a replicate's own spread is 1e5 times the coarser one.
FINE, COARSE = 1e-8, 1e-5
_PATIENCE = 2  # successive falls below it
_ITERATIONS = 150
_BLOCK = 16_384  # restarts times cells at once: their arrays stay in a core's cache
_LEAST_BLOCK = 32  # restarts
_BEND = 0.1  # of what lies beyond Huber's threshold: 1 took twice the iterations, 0 can be singular
_SAME = 0.05  # apart in every nonlinear parameter: two restarts in one valley


def starts(law: type[Law], cells: Cells, held: FloatArray | None = None) -> FloatArray:
    """Every combination of the nonlinear starts, with the linear parameters solved for.

    This is variable projection (Golub and Pereyra, 1973): given exponents and offsets, floor and
    amplitudes are a bounded linear problem with one answer. `held` (parameters,) gives the values
    of parameters that have no starts of their own. Shape (starts, parameters).
    """
    where = space(law)
    found = []
    for values in product(*(each for each in law.meta("starts") if each)):
        row = np.zeros(len(where.linear)) if held is None else held.copy()
        searched = np.array([bool(each) for each in law.meta("starts")])
        row[searched] = values
        row[searched & where.logarithmic] = np.log(row[searched & where.logarithmic])
        row[where.linear] = 0.0
        found.append(row)
    inner = np.array(found)
    basis = linear_columns(law, inner, cells.design)
    scale = 1 / cells.falling if cells.relative else np.ones(len(cells.falling))
    low, high = where.low[where.linear], where.high[where.linear]
    inner[:, where.linear] = _bounded(basis * scale, cells.falling * scale, low, high)
    return inner


def _bounded(
    basis: FloatArray, target: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Bounded linear least squares: what leaves its bounds is held there, and the rest goes on."""
    found = np.clip(np.zeros(basis.shape[:2]), low, high)
    held = np.zeros(found.shape, dtype=bool)
    normal = basis @ np.swapaxes(basis, 1, 2)
    for _ in range(found.shape[1] + 1):
        errors = np.einsum("rpc,rp->rc", basis, found) - target
        gradient = (basis @ errors[..., None])[..., 0]
        free = found + _solve(normal, gradient, held, np.zeros(found.shape))
        outside = (free < low) | (free > high)
        found = np.clip(free, low, high)
        if not outside.any():
            break
        held |= outside
    return found


def minimise(
    law: type[Law],
    cells: Cells,
    begin: FloatArray,
    delta: float,
    weights: FloatArray,
    tolerance: float,
    held: Mask | None = None,
    near: FloatArray | None = None,
) -> Solutions:
    """Minimise the summed Huber loss from each row of `begin`, within the law's bounds.

    `weights` (restarts, cells) are how often a replicate drew each cell; parameters that are `held`
    stay where they begin. A restart that comes near the row of `near` (restarts, parameters), a
    minimum that is known already, ends there. Damping is Marquardt's, per restart.
    """
    fixed = np.zeros(begin.shape[1], dtype=bool) if held is None else held
    known = np.full(begin.shape, np.nan) if near is None else near
    way = _Way(law, cells, delta, tolerance, fixed)
    state = way.ended(np.clip(begin, *bounds(law)), weights, known)
    return Solutions(state.inner, state.objective, state.patience <= 0)


def best_of(
    law: type[Law],
    cells: Cells,
    begin: FloatArray,
    delta: float,
    weights: FloatArray,
    tolerance: float,
    held: Mask | None = None,
) -> Solutions:
    """The best end of several starts for each row of weights: one row each.

    `begin` is (rows, starts, parameters). The first start of every row, the likeliest, goes ahead.
    """
    rows, count, size = begin.shape
    first = minimise(law, cells, begin[:, 0], delta, weights, tolerance, held)
    if count == 1:
        return first
    others = begin[:, 1:].reshape(-1, size)
    near, repeated = (np.repeat(each, count - 1, axis=0) for each in (first.inner, weights))
    found = minimise(law, cells, others, delta, repeated, tolerance, held, near)
    inner = np.concatenate([first.inner[:, None], found.inner.reshape(rows, -1, size)], axis=1)
    objective = np.column_stack([first.objective, found.objective.reshape(rows, -1)])
    converged = np.column_stack([first.converged, found.converged.reshape(rows, -1)])
    at = np.arange(rows), np.argmin(objective, axis=1)
    return Solutions(inner[at], objective[at], converged[at])


@dataclass
class _State:
    """Where every restart is. The finished ones are left out of the arithmetic."""

    inner: FloatArray
    weights: FloatArray
    near: FloatArray
    model: FloatArray
    errors: FloatArray
    objective: FloatArray
    damping: FloatArray
    patience: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]  # iterations

    def take(self, rows: npt.NDArray[np.int64]) -> "_State":
        return _State(*(each[rows] for each in vars(self).values()))

    def write(self, rows: npt.NDArray[np.int64], new: "_State") -> None:
        for name in ("inner", "model", "errors", "objective", "damping", "patience", "left"):
            getattr(self, name)[rows] = getattr(new, name)


@dataclass(frozen=True)
class _Way:
    """One problem, and how steps are taken in it."""

    law: type[Law]
    cells: Cells
    delta: float
    tolerance: float
    fixed: Mask

    def ended(self, inner: FloatArray, weights: FloatArray, near: FloatArray) -> _State:
        """Every restart where it ends."""
        count = len(inner)
        model = predict(self.law, inner, self.cells.design)
        errors = self.cells.errors(model)
        state = _State(
            inner=inner,
            weights=weights,
            near=near,
            model=model,
            errors=errors,
            objective=self._objective(errors, weights),
            damping=np.full(count, 1e-2),
            patience=np.full(count, _PATIENCE),
            left=np.full(count, _ITERATIONS),
        )
        block = max(_LEAST_BLOCK, _BLOCK // len(self.cells.falling))
        while len(busy := np.flatnonzero((state.patience > 0) & (state.left > 0))):
            rows = busy[:block]
            state.write(rows, self._advanced(state.take(rows)))
        return state

    def _objective(self, errors: FloatArray, weights: FloatArray) -> FloatArray:
        return np.asarray((weights * huber(errors, self.delta)).sum(axis=1))

    def _advanced(self, state: _State) -> _State:
        """One damped step of every restart; those that do not improve stay, damped more."""
        inner, model, errors = self._stepped(state)
        objective = self._objective(errors, state.weights)
        better = objective < state.objective
        fall = np.where(better, state.objective - objective, 0.0)
        # Falls that rounding of the squares could make are none: a perfect fit must end as well.
        rounding = 1e-24 * float(np.sum(self.cells.falling**2))
        small = fall <= self.tolerance * state.objective + rounding
        stuck = ~better & (state.damping > 1e4)
        nonlinear = ~space(self.law).linear
        apart = np.abs(inner - state.near)[:, nonlinear].max(axis=1)
        patience = np.where(small, state.patience - better, _PATIENCE)
        column = better[:, None]
        return _State(
            inner=np.where(column, inner, state.inner),
            weights=state.weights,
            near=state.near,
            model=np.where(column, model, state.model),
            errors=np.where(column, errors, state.errors),
            objective=np.where(better, objective, state.objective),
            damping=np.clip(state.damping * np.where(better, 0.2, 6.0), 1e-9, 1e9),
            patience=np.where(stuck | (apart < _SAME), 0, patience),
            left=state.left - 1,
        )

    def _weights(self, errors: FloatArray, weights: FloatArray, beyond: float) -> FloatArray:
        """Weights of squares in place of Huber's loss; errors outside `delta` count for less.

        With `beyond` 1 the squares touch Huber's loss from above, so lowering them lowers it; they
        bend too much, though, for outside `delta` the loss is straight.
        """
        if np.isinf(self.delta):
            return weights
        size = np.abs(errors)
        share = np.where(
            size <= self.delta, 1.0, beyond * self.delta / np.maximum(size, self.delta)
        )
        return np.asarray(weights * share)

    def _stepped(self, state: _State) -> tuple[FloatArray, FloatArray, FloatArray]:
        """A Levenberg-Marquardt step, and then the linear parameters solved for anew."""
        slopes = jacobian(self.law, state.inner, self.cells.design)
        slopes = self.cells.tilted(slopes, state.model)
        pull = state.errors * self._weights(state.errors, state.weights, 1.0)
        gradient = (slopes @ pull[..., None])[..., 0]
        weighted = slopes * self._weights(state.errors, state.weights, _BEND)[:, None]
        normal = weighted @ np.swapaxes(slopes, 1, 2)
        low, high = bounds(self.law)
        held = ((state.inner <= low) & (gradient > 0)) | ((state.inner >= high) & (gradient < 0))
        # Only the nonlinear parameters are damped: the linear ones are exact at any distance, and
        # damping them as well took half as many iterations more.
        damping = state.damping[:, None] * ~space(self.law).linear
        inner = state.inner + _solve(normal, gradient, held | self.fixed, damping)
        return self._projected(np.clip(inner, low, high), state.weights)

    def _projected(
        self, inner: FloatArray, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The same nonlinear parameters with the linear ones solved for anew, where that is lower.

        Without it a step follows the straight tangent of a curved valley such as A C0^alpha =
        const, and most restarts were still crawling after 150 iterations.
        """
        linear = space(self.law).linear
        basis = linear_columns(self.law, inner, self.cells.design)
        own = inner[:, linear]
        # L is linear in them and zero without them, so no prediction is needed.
        model = (own[:, None] @ basis)[:, 0]
        errors = self.cells.errors(model)
        slopes = self.cells.tilted(basis, model)
        weighing = self._weights(errors, weights, 1.0)
        gradient = (slopes @ (errors * weighing)[..., None])[..., 0]
        normal = (slopes * weighing[:, None]) @ np.swapaxes(slopes, 1, 2)
        step = _solve(normal, gradient, np.zeros(own.shape, dtype=bool), np.zeros(own.shape))
        moved = np.clip(own + step, space(self.law).low[linear], space(self.law).high[linear])
        there = (moved[:, None] @ basis)[:, 0]
        errors_there = self.cells.errors(there)
        lower = self._objective(errors_there, weights) < self._objective(errors, weights)
        column = lower[:, None]
        inner[:, linear] = np.where(column, moved, own)
        return inner, np.where(column, there, model), np.where(column, errors_there, errors)


def _solve(normal: FloatArray, gradient: FloatArray, held: Mask, damping: FloatArray) -> FloatArray:
    """The damped Newton step, zero for parameters held at a bound."""
    free = ~held
    matrix = normal * (free[:, :, None] & free[:, None, :])
    diagonal = np.einsum("rpp->rp", matrix)
    # Marquardt's scaling by the diagonal; the floor keeps a parameter without any effect still.
    ridge = damping * diagonal + 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-30
    index = np.arange(matrix.shape[1])
    matrix[:, index, index] += np.where(free, ridge, 1.0)
    right = np.where(free, gradient, 0.0)
    return -np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])
