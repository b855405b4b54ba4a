"""Fit laws to the finished cells of a sweep, and say how far to believe them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis import coordinates
from analysis.coordinates import Mask
from analysis.evidence import levels
from analysis.laws import AccuracyLink, Design, Law, linked, sunk_worth
from analysis.metrics import FloatArray, Metric
from analysis.problem import GROWTH_POINTS, SIZES, Problem, Search, axes, design
from analysis.resample import Resampling, cluster
from analysis.sample import ENDS, Sample, Which, in_flops
from analysis.solve import huber
from sweeps.errors import GrowpointError

__all__ = ["GROWTH_POINTS", "Fit", "design", "fit", "fit_linked", "shortage"]

_CURVED = 1e4  # condition number above which single parameters mean little


@dataclass(frozen=True)
class Fit:
    """A fitted law and its diagnosis. L is in the units of the metric, compute in FLOPs.

    `sample` holds the draws; it is not saved, so a fit that was read back has none.
    """

    law: Law
    metric: str
    which: Which
    cells: int
    clusters: int  # source checkpoints times seeds
    growth_points: int
    objective: float  # summed Huber loss; of log L where the law is relative
    delta: float  # its threshold
    status: str
    starts: int
    starts_agreeing: int  # that reached the best objective within 0.1 %
    at_bounds: tuple[str, ...]
    condition: float  # of the scaled Jacobian of the parameters that are not at a bound
    aicc: float
    held_out: float  # mean absolute error on the cells of a source checkpoint left out
    held_out_errors: tuple[float, ...]  # the same for each checkpoint
    extrapolated: tuple[tuple[str, float], ...]  # what was held out, mean absolute error there
    trend: float  # slope of the residuals per tenfold of sunk compute
    trend_se: float
    intervals: tuple[tuple[float, float], ...]  # of each parameter
    worth: float  # extra FLOPs that one more sunk FLOP replaces, in the middle of the data
    worth_interval: tuple[float, float]  # both NaN where X or S does not vary
    says: str  # the law in words, with its parameters
    base_cells: int  # un-grown runs fitted along
    method: str
    sample: Sample | None = field(default=None, compare=False, repr=False)

    def diagnosis(self) -> str:
        """What is wrong with this fit, in words; "" if nothing was found."""
        found = [f"{name} at its bound" for name in self.at_bounds]
        if self.condition > _CURVED:
            found.append(f"parameters trade off (condition {self.condition:.0e})")
        if self.starts_agreeing < 2:
            found.append("starts disagree")
        if abs(self.trend) > 2 * self.trend_se > 0:
            found.append("residual trend in sunk")
        if any(error > 3 * self.held_out for _, error in self.extrapolated):
            found.append("extrapolates badly")
        if self.status != "converged":
            found.append(self.status)
        return "; ".join(found)

    @property
    def extrapolation(self) -> float:
        """Mean error over the splits that hold out the largest budgets; NaN if none could be."""
        errors = [error for _, error in self.extrapolated]
        return float(np.mean(errors)) if errors else math.nan


def shortage(frame: pd.DataFrame, law: type[Law]) -> str:
    """Why `law` cannot be fitted to these cells, or "" if it can."""
    points = frame["sunk_flops"].nunique()
    if law.scope in ("surface", "extra") and points < GROWTH_POINTS:
        return f"{points} growth points, {GROWTH_POINTS} are needed"
    need = len(law.names()) + 3  # AICc is defined, with the noise as one more parameter
    if len(frame) < need:
        return f"{len(frame)} cells for a law of {need - 3} parameters, which needs {need}"
    behind = law.loss_law if issubclass(law, AccuracyLink) else law
    distinct = len(frame[axes(law)].drop_duplicates())
    if distinct < len(behind.names()):
        return f"{distinct} distinct points for {len(behind.names())} parameters"
    if cluster(frame).nunique() < 3:
        return f"{cluster(frame).nunique()} source checkpoints times seeds, 3 are needed"
    if law.scope == "surface" and len(np.unique(levels(frame["extra_flops"]))) < 2:
        return "one extra budget says nothing about others, 2 are needed"
    if law.sized() and frame[list(SIZES)].isna().any(axis=None):
        return "active parameter counts are not known, and it needs them"
    sizes = frame["active_params"].nunique()
    if law.scope == "sizes" and sizes < GROWTH_POINTS:
        return f"{sizes} sizes of un-grown runs, {GROWTH_POINTS} are needed"
    return ""


def fit(
    frame: pd.DataFrame,
    law: type[Law],
    metric: Metric,
    which: Which,
    resampling: Resampling,
    base: pd.DataFrame | None = None,
) -> Fit:
    """Fit `law` to a frame of records that `which` describes.

    The summed Huber loss is minimised from every combination of the law's starts. Intervals come
    from the cluster bootstrap; below 16 clusters from the cluster jackknife and Student's t.
    `base` are un-grown runs, for laws that are fitted to them as well (`with_base`).
    Raises GrowpointError if there are too few cells, or some have no finite value.
    """
    _check(frame, law, metric, which)
    return _fitted(Problem.of(frame, law, metric, base), metric, which, resampling)


def fit_linked(
    frame: pd.DataFrame,
    metric: Metric,
    loss: Fit,
    resampling: Resampling,
    base: pd.DataFrame | None = None,
) -> Fit:
    """Fit an accuracy by way of a loss law that was fitted to the same cells.

    The parameters of the loss law stay what they are, in each replicate too; only the link is
    fitted. AICc still counts them all, for the runs whose losses they follow are the same. Raises
    GrowpointError as `fit` does.
    """
    law = linked(type(loss.law))
    _check(frame, law, metric, loss.which)
    assert loss.sample is not None
    problem = Problem.of(frame, law, metric, base, loss.sample)
    return _fitted(problem, metric, loss.which, resampling)


def _check(frame: pd.DataFrame, law: type[Law], metric: Metric, which: Which) -> None:
    numbers = frame[[metric.column, "sunk_flops", "extra_flops"]].to_numpy(float)
    if bad := int(np.sum(~np.isfinite(numbers).all(axis=1))):
        raise GrowpointError(
            "a law cannot be fitted to cells without a number",
            [("cells", which.label()), ("without", f"{bad} of {len(frame)}")],
            f"drop them: frame.dropna(subset=[{metric.column!r}, 'sunk_flops', 'extra_flops'])",
        )
    if problem := shortage(frame, law):
        raise GrowpointError(
            "too few finished cells to fit a law",
            [("law", law.name), ("cells", which.label()), ("has", problem)],
            "finish more cells of the sweep",
        )


def _fitted(problem: Problem, metric: Metric, which: Which, resampling: Resampling) -> Fit:
    found, frame, law = problem.search(), problem.rows[problem.own], problem.law
    sample, method = problem.sample(found, resampling)
    in_metric = 1.0 if law.relative else problem.unit.falling
    value = in_flops(law, found.inner, problem.unit)
    errors = problem.held_out(sample.deleted)
    residuals = problem.cells.falling - problem.model(found.inner[None])[0]
    trend, trend_se = _trend(frame, residuals[problem.own] * problem.unit.falling)
    low, high = np.quantile(sample.parameters(), ENDS, axis=0)
    middle = _middle(frame)
    worth, worth_interval = _worth(law, sample, middle)
    at_bounds = _at_bounds(problem, found.inner)
    return Fit(
        law=value,
        metric=metric.name,
        which=which,
        cells=len(frame),
        clusters=cluster(frame).nunique(),
        growth_points=frame["sunk_flops"].nunique(),
        objective=found.objective * in_metric**2,
        delta=found.delta * in_metric,
        status="converged" if found.converged else "stopped at the iteration limit",
        starts=found.starts,
        starts_agreeing=found.agreeing,
        at_bounds=tuple(law.names()[index] for index in np.flatnonzero(at_bounds)),
        condition=_condition(problem, found.inner, ~at_bounds),
        aicc=_aicc(problem, found),
        held_out=float(np.mean(errors)),
        held_out_errors=tuple(errors.tolist()),
        extrapolated=problem.extrapolated(sample.deleted),
        trend=trend,
        trend_se=trend_se,
        intervals=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        worth=worth,
        worth_interval=worth_interval,
        says=_sentence(value.words(middle, metric), worth_interval),
        base_cells=int(np.sum(~problem.own)),
        method=method,
        sample=sample,
    )


def _at_bounds(problem: Problem, inner: FloatArray) -> Mask:
    low, high = coordinates.bounds(problem.law)
    near = 1e-6 * np.maximum(1.0, high - low)
    return np.asarray((inner - low < near) | (high - inner < near))


def _condition(problem: Problem, inner: FloatArray, free: Mask) -> float:
    slopes = coordinates.jacobian(problem.law, inner[None], problem.cells.design)[0]
    size = np.linalg.norm(slopes, axis=1)
    kept = free & (size > 0) & (True if problem.held is None else ~problem.held)
    rows = slopes[kept] / size[kept, None]
    return float(np.linalg.cond(rows)) if len(rows) else math.nan


def _aicc(problem: Problem, found: Search) -> float:
    """Akaike's criterion with its small-sample term; the noise counts as a parameter.

    Of the cells in question alone, so that laws with un-grown runs beside them can be compared.
    L is counted in the measure of the metric, which all laws of the same cells share.
    """
    cells, count = int(np.sum(problem.own)), len(found.inner) + 1
    errors = problem.cells.errors(problem.model(found.inner[None]))[0, problem.own]
    objective = float(huber(errors, found.delta).sum())
    scale = 1.0 if problem.law.relative else problem.unit.falling
    variance = max(2 * objective * scale**2 / cells, 1e-30)
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


def _middle(frame: pd.DataFrame) -> Design:
    """One run in the middle of the data: medians, of the sunk compute among runs with any."""
    where = design(frame)
    some = where.sunk > 0
    sunk = float(np.median(where.sunk[some])) if some.any() else 0.0
    extra = float(np.median(where.extra))
    sizes = (np.array([np.median(each)]) for each in (where.source_active, where.active))
    return Design(np.array([sunk]), np.array([extra]), *sizes)


def _worth(law: type[Law], sample: Sample, middle: Design) -> tuple[float, tuple[float, float]]:
    if law.scope != "surface":
        return math.nan, (math.nan, math.nan)
    draws = sunk_worth(sample.draws, middle)[:, 0]
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, ENDS) if len(finite) else (math.nan, math.nan)
    return float(sunk_worth(sample.point, middle)[0]), (float(low), float(high))


def _sentence(words: str, interval: Sequence[float]) -> str:
    if not all(math.isfinite(end) for end in interval):
        return words
    low, high = interval
    return f"{words}, 90 % interval {low:.2g} to {high:.2g}"
