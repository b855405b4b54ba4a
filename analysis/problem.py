"""One fit on its way: the cells in fitting units, and the searches that a fit is made of."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis import coordinates, solve
from analysis.coordinates import Mask
from analysis.evidence import levels
from analysis.laws import AccuracyLink, Design, Law, Unit
from analysis.metrics import FloatArray, Metric
from analysis.resample import FEW, Resampling, cluster
from analysis.sample import Sample

STARTS = 3  # per replicate: one warm start misses lower minima
GROWTH_POINTS = 3
SIZES = ("source_active_params", "active_params")
_TUNING = 1.345  # Huber's threshold in robust standard deviations: 95 % efficient for normal noise
_SCALES = 3  # times that the noise is estimated, each time from a fit that outliers move less


def design(frame: pd.DataFrame) -> Design:
    """The design of records, in FLOPs and parameters."""
    names = ("sunk_flops", "extra_flops", *SIZES)
    return Design(*(frame[name].to_numpy(float) for name in names))


def axes(law: type[Law]) -> list[str]:
    """The columns of records that may vary for a law, the one it is about first."""
    known = {
        "extra": ["sunk_flops"],
        "total": ["total_flops"],
        "sizes": ["active_params", "total_flops"],
    }
    return known.get(law.scope, ["sunk_flops", "extra_flops"])


def as_base(frame: pd.DataFrame) -> pd.DataFrame:
    """Un-grown runs as points of a law of growing: all they spent is sunk, nothing came after."""
    total = frame["sunk_flops"] + frame["extra_flops"]
    return frame.assign(sunk_flops=total, extra_flops=0.0)[total > 0]


@dataclass(frozen=True)
class Split:
    """Cells held out to see how far a law can be extended."""

    name: str
    held: Mask  # (rows,): whose error is counted
    kept: Mask  # what is fitted


@dataclass(frozen=True)
class Search:
    """Where the fit to all cells ended, from every start."""

    inner: FloatArray  # (parameters,): the best
    objective: float
    converged: bool
    starts: int
    agreeing: int  # starts within 0.1 % of the best
    delta: float
    begin: FloatArray  # (STARTS, parameters): where replicates begin


@dataclass(frozen=True)
class Problem:
    """A law and the records it is fitted to; `own` are those that the question is about."""

    rows: pd.DataFrame
    own: Mask
    law: type[Law]
    unit: Unit
    cells: solve.Cells
    behind: Sample | None = None  # fits to losses of the same rows, for an accuracy linked to them

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        law: type[Law],
        metric: Metric,
        base: pd.DataFrame | None = None,
        behind: Sample | None = None,
    ) -> "Problem":
        """Put records into fitting units, and un-grown ones if the law has a place for them."""
        rows = frame
        if law.with_base and base is not None and len(base):
            rows = pd.concat([frame, as_base(base)], ignore_index=True)
        where = design(rows)
        falling = metric.falling(rows[metric.column].to_numpy(float))
        unit = Unit.of(where, falling)
        if behind is not None:
            unit = replace(unit, loss=behind.unit.falling)
        cells = solve.Cells(where.per(unit), falling / unit.falling, law.relative)
        return cls(rows, np.arange(len(rows)) < len(frame), law, unit, cells, behind)

    @property
    def names(self) -> np.ndarray:
        """The cluster of each row."""
        return cluster(self.rows).to_numpy(str)

    @property
    def held(self) -> Mask | None:
        """Parameters that are no longer free: those of the loss law behind an accuracy."""
        if self.behind is None:
            return None
        assert issubclass(self.law, AccuracyLink)
        return np.array([name not in self.law.link_names() for name in self.law.names()])

    def model(self, inner: FloatArray) -> FloatArray:
        """L in fitting units by each row of parameters: (rows of parameters, cells)."""
        return coordinates.predict(self.law, inner, self.cells.design)

    def minimise(self, begin: FloatArray, delta: float, tolerance: float) -> solve.Solutions:
        """Fit all rows from each row of `begin`."""
        ones = np.ones((len(begin), len(self.rows)))
        return solve.minimise(self.law, self.cells, begin, delta, ones, tolerance, self.held)

    def search(self) -> Search:
        """Fit all rows: the scale of the noise first, then from every start under that scale."""
        grid = solve.starts(self.law, self.cells, self._row_behind())
        delta, found = math.inf, self.minimise(grid, math.inf, solve.COARSE)
        for _ in range(_SCALES):
            delta = _TUNING * self._scale(found.inner[np.argmin(found.objective)], delta)
            found = self.minimise(solve.distinct(found, STARTS), delta, solve.COARSE)
        full = self.minimise(grid, delta, solve.COARSE)
        ends = np.concatenate([solve.distinct(full, STARTS), found.inner[:1]])
        fine = self.minimise(ends, delta, solve.FINE)
        best = int(np.argmin(fine.objective))
        objective = float(fine.objective[best])
        others = np.concatenate([solve.distinct(full, STARTS), grid[:: max(1, len(grid) // 2)]])
        begin = np.concatenate([fine.inner[[best]], others[1:]])[:STARTS]
        agreeing = int(np.sum(full.objective <= objective * 1.001 + 1e-18))
        converged = bool(fine.converged[best])
        return Search(fine.inner[best], objective, converged, len(grid), agreeing, delta, begin)

    def _row_behind(self) -> FloatArray | None:
        if self.behind is None:
            return None
        assert self.held is not None
        row = np.zeros(len(self.law.names()))
        row[self.held] = self.behind.inner
        return row

    def _scale(self, inner: FloatArray, delta: float) -> float:
        """A robust standard deviation of the noise, from errors cut off at `delta`.

        Half the root mean square is its floor, for with few cells more than half of the residuals
        can be next to nothing; so is a millionth of the spread, for data without any noise.
        """
        size = np.minimum(np.abs(self.cells.errors(self.model(inner[None]))[0]), delta)
        free = len(size) - (len(inner) if self.held is None else int(np.sum(~self.held)))
        scale = max(1.4826 * float(np.median(size)), 0.5 * float(np.sqrt(np.mean(size**2))))
        spread = float(np.std(self.cells.falling))
        return max(scale * math.sqrt(len(size) / max(free, 1)), 1e-6 * spread, 1e-12)

    def best_of(self, found: Search, weights: FloatArray, behind: FloatArray | None) -> FloatArray:
        """The best parameters for each row of weights: (rows of weights, parameters).

        `behind` are the parameters of the loss law in each, where there is one.
        """
        begin = np.repeat(found.begin[None], len(weights), axis=0)
        if behind is not None:
            begin[:, :, self.held] = behind[:, None]
        ends = solve.best_of(
            self.law, self.cells, begin, found.delta, weights, solve.COARSE, self.held
        )
        return ends.inner

    def deleted(self, found: Search) -> FloatArray:
        """Parameters without each cluster in turn, in sorted order, and without each split."""
        clusters = [(self.names != name).astype(float) for name in np.unique(self.names)]
        splits = [split.kept.astype(float) for split in self.splits()]
        behind = None if self.behind is None else self.behind.deleted
        return self.best_of(found, np.array(clusters + splits), behind)

    def sample(self, found: Search, resampling: Resampling) -> tuple[Sample, str]:
        """What could as well have been fitted, and the name of the method."""
        names, deleted = cluster(self.rows), self.deleted(found)
        count = names.nunique()
        if cluster(self.rows[self.own]).nunique() < FEW:
            mix = resampling.few(names)
            kept = Sample(self.law, self.unit, found.inner, deleted[:count], mix, deleted)
            return kept, "cluster jackknife with t"
        points = np.where(self.own, self.rows[axes(self.law)[0]].to_numpy(float), np.nan)
        weights = resampling.bootstrap(names, points, GROWTH_POINTS)
        behind = None if self.behind is None else self.behind.others
        replicates = self.best_of(found, weights, behind)
        kept = Sample(self.law, self.unit, found.inner, replicates, None, deleted)
        return kept, "cluster bootstrap"

    def held_out(self, deleted: FloatArray) -> FloatArray:
        """Mean absolute error on each own cluster when it was left out, in the metric's unit."""
        errors = np.abs(self.model(deleted) - self.cells.falling) * self.unit.falling
        clusters = np.unique(self.names)
        own = [(row, self.own & (self.names == name)) for row, name in enumerate(clusters)]
        return np.array([errors[row, rows].mean() for row, rows in own if rows.any()])

    def extrapolated(self, deleted: FloatArray) -> tuple[tuple[str, float], ...]:
        """Mean absolute error on each split that was held out, in the metric's unit."""
        splits = self.splits()
        if not splits:
            return ()
        errors = np.abs(self.model(deleted[-len(splits) :]) - self.cells.falling)
        return tuple(
            (split.name, float(errors[row, split.held].mean() * self.unit.falling))
            for row, split in enumerate(splits)
        )

    def splits(self) -> list[Split]:
        """The largest budgets, latest sources and largest size, where enough is left to fit."""
        names = {
            "sunk_flops": ("latest sources", GROWTH_POINTS),
            "extra_flops": ("largest extra budget", 2),
            "total_flops": ("largest budget", GROWTH_POINTS),
            "active_params": ("largest size", GROWTH_POINTS),
        }
        # Those of the loss law decide for an accuracy linked to it as well: the rows are the same.
        parameters = len(self.law.names() if self.behind is None else self.behind.inner)
        found = []
        for column in axes(self.law):
            name, least = names[column]
            level = levels(self.rows[column])
            own = np.unique(level[self.own])
            held, kept = self.own & (level == own[-1]), level < own[-1]
            enough = np.sum(kept & self.own) > parameters
            if len(own) > least and enough:
                found.append(Split(name, held, kept))
        return found
