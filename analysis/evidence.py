"""What the runs say before any law is fitted: budgets, correlations, pairs, noise."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.metrics import FloatArray, Metric
from analysis.resample import SEED, cluster

_SAME_BUDGET = 1.05  # extra budgets closer than this ratio are one; steps round tokens
_EXACT = 8  # cells up to which every permutation is tried (8! = 40,320)
_DRAWS = 20_000
POINTS = 4  # distinct growth points below which a correlation says nothing


def levels(flops: pd.Series) -> FloatArray:
    """The budget level of each value: the median of the values within 5 % of one another."""
    values = np.sort(flops.unique().astype(float))
    cuts = np.flatnonzero(values[1:] > _SAME_BUDGET * values[:-1]) + 1
    groups = np.split(values, cuts)
    level = {value: float(np.median(group)) for group in groups for value in group}
    return np.array([level[value] for value in flops])


def by_level(frame: pd.DataFrame, column: str) -> list[tuple[float, pd.DataFrame]]:
    """The rows at each level of a column of FLOPs, the lowest first."""
    level = levels(frame[column])
    return [(float(at), frame[level == at]) for at in np.unique(level)]


@dataclass(frozen=True)
class Correlation:
    """How a metric at one extra budget goes with the compute sunk before growing."""

    metric: str
    variant: str
    growth: str
    extra_flops: float
    cells: int
    spearman: float  # over all cells: ranks have a place for zero sunk compute
    spearman_p: float  # two-sided, by permutation
    pearson: float  # with log10 sunk FLOPs, over cells with any; NaN below 3
    pearson_p: float
    exact: bool  # whether every permutation was tried


def correlations(frame: pd.DataFrame, metric: Metric) -> list[Correlation]:
    """One row for each growth and extra budget with at least 4 growth points."""
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    found = []
    for (variant, growth), cells in grown.groupby(["variant", "growth"]):
        for level, rows in by_level(cells, "extra_flops"):
            if rows["sunk_flops"].nunique() >= POINTS:
                found.append(_correlation(rows, metric, str(variant), str(growth), level))
    return found


def _correlation(
    rows: pd.DataFrame, metric: Metric, variant: str, growth: str, level: float
) -> Correlation:
    sunk, value = rows["sunk_flops"].to_numpy(float), rows[metric.column].to_numpy(float)
    ranks = stats.rankdata(sunk), stats.rankdata(value)
    some = sunk > 0
    return Correlation(
        metric.name,
        variant,
        growth,
        level,
        len(rows),
        pearson(*ranks),
        permutation_p(*ranks),
        pearson(np.log10(sunk[some]), value[some]),
        permutation_p(np.log10(sunk[some]), value[some]),
        len(rows) <= _EXACT,
    )


def pearson(x: FloatArray, y: FloatArray) -> float:
    """Pearson's correlation; NaN for fewer than 3 points or a constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def permutation_p(x: FloatArray, y: FloatArray) -> float:
    """Two-sided p of a correlation under shuffling of y.

    Exact up to 8 points; above, from 20,000 seeded shuffles with the observed order counted as
    one (Phipson and Smyth, 2010), so it is never zero.
    """
    seen = pearson(x, y)
    if math.isnan(seen):
        return math.nan
    if len(x) <= _EXACT:
        orders = np.array(list(permutations(range(len(y)))))
        return float(np.mean(_as_strong(x, y[orders], seen)))
    rng = np.random.default_rng(SEED)
    shuffled = rng.permuted(np.tile(y, (_DRAWS, 1)), axis=1)
    return float((1 + np.sum(_as_strong(x, shuffled, seen))) / (1 + _DRAWS))


def _as_strong(x: FloatArray, shuffled: FloatArray, seen: float) -> np.ndarray:
    centred = (x - x.mean()) / np.linalg.norm(x - x.mean())
    rows = shuffled - shuffled.mean(axis=1, keepdims=True)
    found = (rows @ centred) / np.linalg.norm(rows, axis=1)
    return np.asarray(np.abs(found) >= abs(seen) - 1e-12)


@dataclass(frozen=True)
class Pair:
    """Growing less the un-grown control, from the same sources, seeds and extra budget."""

    metric: str
    variant: str
    growth: str
    extra_flops: float
    pairs: int
    difference: float  # of the metric itself: positive is better for an accuracy
    se: float  # over pairs; of the evaluations where there is one pair only


def pairs(frame: pd.DataFrame, metric: Metric) -> list[Pair]:
    """Mean paired difference of each growth to `continue` at each extra budget."""
    return [
        Pair(metric.name, variant, growth, level, *_summary(rows))
        for (variant, growth, level), rows in _paired(frame, metric).items()
    ]


def offsets(
    frame: pd.DataFrame, metric: Metric, variant: str, growth: str, other: str
) -> tuple[FloatArray, float]:
    """Differences of L between two growths where source, seed and budget agree, and their SE.

    The error of the mean is the larger of that over pairs and that over sources, for two budgets
    of one source are not two independent pairs.
    """
    grown = frame[(frame["arm"] == "grow") & (frame["variant"] == variant)]
    left, right = (grown[grown["growth"] == each] for each in (growth, other))
    merged = _merged(left, right)
    falling = [metric.falling(merged[f"{metric.column}_{side}"].to_numpy(float)) for side in "lr"]
    found = pd.Series(falling[0] - falling[1], index=merged.index)
    if len(found) < 2:
        return np.asarray(found, float), math.nan
    by_source = found.groupby([merged["source"], merged["seed"]]).mean()
    errors = [
        float(np.std(each, ddof=1)) / math.sqrt(len(each))
        for each in (found, by_source)
        if len(each) > 1
    ]
    return np.asarray(found, float), max(errors)


def _paired(frame: pd.DataFrame, metric: Metric) -> dict[tuple[str, str, float], pd.DataFrame]:
    found = {}
    for variant, cells in frame[frame["extra_flops"] > 0].groupby("variant"):
        control = cells[cells["arm"] == "continue"]
        for growth, grown in cells[cells["arm"] == "grow"].groupby("growth"):
            merged = _merged(grown, control)
            column = metric.column
            merged["difference"] = merged[f"{column}_l"] - merged[f"{column}_r"]
            merged["se"] = np.hypot(merged[f"{column}_se_l"], merged[f"{column}_se_r"])
            for level, rows in by_level(merged, "extra_flops_l"):
                found[str(variant), str(growth), level] = rows
    return found


def _merged(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Rows of both at the same source and seed whose extra budgets are within 5 %."""
    both = left.merge(right, on=["source", "seed"], suffixes=("_l", "_r"))
    ratio = both["extra_flops_l"] / both["extra_flops_r"].where(both["extra_flops_r"] > 0)
    return both[ratio.between(1 / _SAME_BUDGET, _SAME_BUDGET)].copy()


def _summary(rows: pd.DataFrame) -> tuple[int, float, float]:
    difference = rows["difference"].to_numpy(float)
    if len(rows) == 1:
        return 1, float(difference[0]), float(rows["se"].iloc[0])
    se = float(np.std(difference, ddof=1) / math.sqrt(len(rows)))
    return len(rows), float(difference.mean()), se


@dataclass(frozen=True)
class Noise:
    """How much a metric varies between seeds."""

    value: float  # standard deviation of one run; NaN if unknown
    source: str  # where it comes from, in words


def seed_noise(frame: pd.DataFrame, metric: Metric) -> Noise:
    """The pooled standard deviation of runs that differ in nothing but their seed."""
    keys = ["variant", "arm", "growth", "sunk_flops", "extra_flops"]
    squares, free = 0.0, 0
    for _, rows in frame.groupby(keys):
        value = rows[metric.column].to_numpy(float)
        squares += float(((value - value.mean()) ** 2).sum())
        free += rows["seed"].nunique() - 1
    if free == 0:
        return Noise(math.nan, "one seed: seed noise is not known")
    return Noise(math.sqrt(squares / free), f"seed noise over {frame['seed'].nunique()} seeds")


def few_clusters(frame: pd.DataFrame) -> int:
    """How many source checkpoints times seeds the frame has, scratch runs aside."""
    return int(cluster(frame[frame["arm"] != "scratch"]).nunique())
