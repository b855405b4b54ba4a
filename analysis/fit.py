"""Fit laws to the finished cells of a sweep, and say how far to believe them."""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis import solve
from analysis.laws import Design, Law, Unit
from analysis.metrics import FloatArray, Metric
from analysis.resample import FEW, Resampling, cluster
from analysis.sample import LEVEL, Sample, Which, in_flops
from sweeps.errors import GrowpointError

_STARTS = 3  # per replicate, at least: one warm start misses lower minima
_TUNING = 1.345  # Huber's threshold in robust standard deviations: 95 % efficient for normal noise
GROWTH_POINTS = 3


@dataclass(frozen=True)
class Fit:
    """A fitted law and its diagnosis. L is in the units of the metric, compute in FLOPs."""

    law: Law
    metric: str
    which: Which
    cells: int
    clusters: int  # source checkpoints times seeds
    growth_points: int
    objective: float  # summed Huber loss
    delta: float  # its threshold
    status: str
    starts: int
    starts_agreeing: int  # that reached the best objective within 0.1 %
    at_bounds: tuple[str, ...]
    condition: float  # of the scaled Jacobian of the parameters that are not at a bound
    aicc: float
    held_out: float  # mean absolute error on the cells of a source checkpoint left out
    held_out_errors: tuple[float, ...]  # the same for each checkpoint
    trend: float  # slope of the residuals per tenfold of sunk compute
    trend_se: float
    intervals: tuple[tuple[float, float], ...]  # of each parameter
    method: str
    sample: Sample | None = field(default=None, compare=False, repr=False)

    def diagnosis(self) -> str:
        """What is wrong with this fit, in words; "" if nothing was found."""
        found = [f"{name} at its bound" for name in self.at_bounds]
        if self.condition > 1e4:
            found.append(f"parameters trade off (condition {self.condition:.0e})")
        if self.starts_agreeing < 2:
            found.append("starts disagree")
        if abs(self.trend) > 2 * self.trend_se > 0:
            found.append("residual trend in sunk")
        if self.status != "converged":
            found.append(self.status)
        return "; ".join(found)


def design(frame: pd.DataFrame) -> Design:
    """The design of records, in FLOPs and parameters."""
    names = ("sunk_flops", "extra_flops", "source_active_params", "active_params")
    return Design(*(frame[name].to_numpy(float) for name in names))


def shortage(frame: pd.DataFrame, law: type[Law]) -> str:
    """Why `law` cannot be fitted to these cells, or "" if it can."""
    points = frame["sunk_flops"].nunique()
    if law.scope != "total" and points < GROWTH_POINTS:
        return f"{points} growth points, {GROWTH_POINTS} are needed"
    need = len(law.names()) + 3  # AICc is defined, with the noise as one more parameter
    if len(frame) < need:
        return f"{len(frame)} cells for a law of {need - 3} parameters, which needs {need}"
    distinct = len(frame[_axes(law)].drop_duplicates())
    if distinct < need - 3:
        return f"{distinct} distinct points for {need - 3} parameters"
    if cluster(frame).nunique() < 3:
        return f"{cluster(frame).nunique()} source checkpoints times seeds, 3 are needed"
    return ""


def _axes(law: type[Law]) -> list[str]:
    axes = {"extra": ["sunk_flops"], "total": ["total_flops"]}
    return axes.get(law.scope, ["sunk_flops", "extra_flops"])


def fit(
    frame: pd.DataFrame, law: type[Law], metric: Metric, which: Which, resampling: Resampling
) -> Fit:
    """Fit `law` to a frame of records that `which` describes.

    The summed Huber loss is minimised from every combination of the law's starts. Intervals come
    from the cluster bootstrap; below 8 clusters from the cluster jackknife and Student's t.
    Raises GrowpointError if there are too few cells.
    """
    if problem := shortage(frame, law):
        raise GrowpointError(
            "too few finished cells to fit a law",
            [("law", law.name), ("cells", which.label()), ("has", problem)],
            "finish more cells of the sweep",
        )
    return _Problem.of(frame, law, metric).solved(which, resampling)


@dataclass(frozen=True)
class _Problem:
    """One fit on its way: a frame of records in fitting units."""

    frame: pd.DataFrame
    law: type[Law]
    metric: Metric
    unit: Unit
    cells: solve.Cells

    @classmethod
    def of(cls, frame: pd.DataFrame, law: type[Law], metric: Metric) -> "_Problem":
        where = design(frame)
        unit = Unit.of(where)
        falling = metric.falling(frame[metric.column].to_numpy(float))
        return cls(frame, law, metric, unit, solve.Cells(where.per(unit), falling))

    def residuals(self, inner: FloatArray) -> FloatArray:
        predicted = solve.predict(self.law, inner[None], self.cells.design)[0]
        return np.asarray(self.cells.falling - predicted)

    def minimise(self, begin: FloatArray, delta: float, tolerance: float) -> solve.Solutions:
        ones = np.ones((len(begin), len(self.frame)))
        return solve.minimise(self.law, self.cells, begin, delta, ones, tolerance)

    def solved(self, which: Which, resampling: Resampling) -> Fit:
        grid = solve.starts(self.law, self.cells)
        squares = self.minimise(grid, math.inf, solve.COARSE)
        delta = _TUNING * self._scale(squares.inner[np.argmin(squares.objective)])
        full = self.minimise(grid, delta, solve.FINE)
        best = int(np.argmin(full.objective))
        inner, objective = full.inner[best], float(full.objective[best])
        begin = np.concatenate([solve.distinct(full, _STARTS), grid[:: max(1, len(grid) // 2)]])
        left_out = self._left_out(begin[: _STARTS + 1], delta)
        sample, method = self._sample(inner, begin[:_STARTS], delta, left_out, resampling)
        errors = self._held_out(left_out)
        trend, trend_se = _trend(self.frame, self.residuals(inner))
        low, high = np.quantile(sample.parameters(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return Fit(
            law=in_flops(self.law, inner, self.unit),
            metric=self.metric.name,
            which=which,
            cells=len(self.frame),
            clusters=cluster(self.frame).nunique(),
            growth_points=self.frame["sunk_flops"].nunique(),
            objective=objective,
            delta=delta,
            status="converged" if full.converged[best] else "stopped at the iteration limit",
            starts=len(grid),
            starts_agreeing=int(np.sum(full.objective <= objective * 1.001 + 1e-18)),
            at_bounds=self._at_bounds(inner),
            condition=self._condition(inner),
            aicc=_aicc(objective, len(self.frame), len(inner)),
            held_out=float(np.mean(errors)),
            held_out_errors=tuple(float(error) for error in errors),
            trend=trend,
            trend_se=trend_se,
            intervals=tuple(zip(low.tolist(), high.tolist(), strict=True)),
            method=method,
            sample=sample,
        )

    def _scale(self, inner: FloatArray) -> float:
        """A robust standard deviation of the noise.

        Half the root mean square is its floor, for with few cells more than half of the residuals
        can be next to nothing; so is a millionth of the spread, for data without any noise.
        """
        residuals = self.residuals(inner)
        free = len(residuals) - len(inner)
        deviation = 1.4826 * float(np.median(np.abs(residuals)))
        scale = max(deviation, 0.5 * float(np.sqrt(np.mean(residuals**2))))
        spread = float(np.std(self.cells.falling))
        return max(scale * math.sqrt(len(residuals) / free), 1e-6 * spread, 1e-12)

    def _best_of(self, begin: FloatArray, delta: float, weights: FloatArray) -> FloatArray:
        """The best parameters for each row of weights, from every row of `begin`."""
        rows, count = len(weights), len(begin)
        tiled, repeated = np.tile(begin, (rows, 1)), np.repeat(weights, count, axis=0)
        found = solve.minimise(self.law, self.cells, tiled, delta, repeated, solve.COARSE)
        chosen = np.argmin(found.objective.reshape(rows, count), axis=1)
        return np.asarray(found.inner.reshape(rows, count, -1)[np.arange(rows), chosen])

    def _left_out(self, begin: FloatArray, delta: float) -> FloatArray:
        """Parameters without each cluster in turn, clusters in sorted order."""
        names = cluster(self.frame).to_numpy(str)
        weights = np.array([(names != name).astype(float) for name in np.unique(names)])
        return self._best_of(begin, delta, weights)

    def _held_out(self, left_out: FloatArray) -> FloatArray:
        names = cluster(self.frame).to_numpy(str)
        predicted = solve.predict(self.law, left_out, self.cells.design)
        errors = np.abs(predicted - self.cells.falling)
        own = np.unique(names)
        return np.array([errors[row, names == name].mean() for row, name in enumerate(own)])

    def _sample(
        self,
        inner: FloatArray,
        begin: FloatArray,
        delta: float,
        left_out: FloatArray,
        resampling: Resampling,
    ) -> tuple[Sample, str]:
        names = cluster(self.frame)
        if names.nunique() < FEW:
            mix = resampling.few(names)
            return Sample(self.law, self.unit, inner, left_out, mix), "cluster jackknife with t"
        points = self.frame[_axes(self.law)[0]].to_numpy(float)
        weights = resampling.bootstrap(names, points, GROWTH_POINTS)
        replicates = self._best_of(begin, delta, weights)
        return Sample(self.law, self.unit, inner, replicates, None), "cluster bootstrap"

    def _at_bounds(self, inner: FloatArray) -> tuple[str, ...]:
        low, high = solve.bounds(self.law)
        near = 1e-6 * np.maximum(1.0, high - low)
        hit = (inner - low < near) | (high - inner < near)
        return tuple(name for name, is_hit in zip(self.law.names(), hit, strict=True) if is_hit)

    def _condition(self, inner: FloatArray) -> float:
        slopes = solve.jacobian(self.law, inner[None], self.cells.design)[0]
        free = [name not in self._at_bounds(inner) for name in self.law.names()]
        size = np.linalg.norm(slopes, axis=0)
        columns = slopes[:, np.array(free) & (size > 0)]
        return float(np.linalg.cond(columns / np.linalg.norm(columns, axis=0)))


def _aicc(objective: float, cells: int, parameters: int) -> float:
    """Akaike's criterion with its small-sample term; the noise counts as a parameter."""
    count = parameters + 1
    variance = max(2 * objective / cells, 1e-30)
    correction = 2 * count * (count + 1) / (cells - count - 1)
    return cells * math.log(variance) + 2 * count + correction


def _trend(frame: pd.DataFrame, residuals: FloatArray) -> tuple[float, float]:
    """Slope of residuals on log10 sunk compute, and its standard error.

    Zero sunk is put one smallest step below the smallest positive value.
    """
    sunk = frame["sunk_flops"].to_numpy(float)
    positive = sunk[sunk > 0]
    if len(np.unique(sunk)) < GROWTH_POINTS:
        return math.nan, math.nan
    x = np.log10(np.where(sunk > 0, sunk, positive.min() / 3))
    x = x - x.mean()
    slope = float(x @ residuals / (x @ x))
    left = residuals - residuals.mean() - slope * x
    return slope, float(np.sqrt(left @ left / (len(x) - 2) / (x @ x)))
