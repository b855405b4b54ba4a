"""Tables and verdicts of `benchmarks/science.py`: what the paper says, and what the records say.

A difference is taken within each seed, between two runs that left one trunk at one point, read the
same tokens, spent the same FLOPs and were scored on the same text. Its interval is that of the mean
over seeds, 90 %, by Student's t. No verdict is written down anywhere: `better`, `alike` and
`rising` make them from intervals.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis import evidence
from analysis.metrics import METRICS, FloatArray, Metric
from orchestrator import text

SHOWN, NOT_SHOWN, CLOSE = "shown", "not shown", "too close to call"
CONFIDENCE, P = 0.9, 0.05
# What is too small to matter: half of the point of accuracy that the paper reports for the noise,
# and what half a point is in nats at the demo's scale (docs/training.md: 1.3 points are 0.075).
MARGINS = {"accuracy": 0.5, "loss": 0.03}
DEPTH, STACK, WIDTH = "depth x2", "depth x2 stack", "width x2"
At = Literal["early", "middle", "late", "all"]
CHAINS = ("depth x2 + width x2", "width x2 + depth x2")
CONTINUE, SCRATCH = "continue", "scratch depth x2"


class Places(NamedTuple):
    """Growth points and extra budgets of comparisons; the longer ones are at the middle point."""

    early: float
    middle: float
    late: float
    budgets_flops: tuple[float, ...]
    longer_flops: tuple[float, ...]

    def at(self, at: At, runs: pd.DataFrame) -> pd.DataFrame:
        """The runs at a growth point, but for rounding to whole batches, with its budgets."""
        budgets = self.longer_flops if at == "middle" else self.budgets_flops
        mine = runs[runs["budget"].isin(budgets)]
        if at == "all":
            # An untrained network has nothing that growing it could keep.
            return mine[mine["sunk_flops"] > 0]
        point = {"early": self.early, "middle": self.middle, "late": self.late}[at]
        return mine[(mine["sunk_flops"] / point - 1).abs() < 0.15]


@dataclass(frozen=True)
class Claim:
    """Something the paper says of two ways to go on: the one is better, or they are alike."""

    table: str
    says: str
    one: str
    other: str
    expects: Literal["better", "alike"]
    at: At

    @property
    def runs(self) -> tuple[str, str]:
        """Both ways, the one that is said to be better first."""
        return self.one, self.other


ZERO, LARGE, RANDOM = f"{WIDTH} noise 0", f"{WIDTH} noise 0.1", f"{WIDTH} experts random"
LONG = "growing in {} beats training on, for as long again"
CLAIMS = (
    Claim("layers", "before convergence both orders are alike", DEPTH, STACK, "alike", "early"),
    Claim("layers", "after it interposing is better", DEPTH, STACK, "better", "late"),
    Claim("noise", "noise of 0.01 is better than none", WIDTH, ZERO, "better", "late"),
    Claim("noise", "noise of 0.01 is better than 0.1", WIDTH, LARGE, "better", "late"),
    Claim("noise", "copies beat random experts", WIDTH, RANDOM, "better", "late"),
    Claim("orders", "either order of both growths ends alike", *CHAINS, "alike", "late"),
    Claim("pays", "growing in depth beats starting over", DEPTH, SCRATCH, "better", "all"),
    Claim("pays", "growing in depth beats training on", DEPTH, CONTINUE, "better", "all"),
    Claim("pays", LONG.format("depth"), DEPTH, CONTINUE, "better", "middle"),
    Claim("pays", "growing in width beats training on", WIDTH, CONTINUE, "better", "late"),
    Claim("pays", LONG.format("width"), WIDTH, CONTINUE, "better", "middle"),
    Claim("pays", "growing both ways beats training on", CHAINS[0], CONTINUE, "better", "late"),
)
HEADINGS = {
    "layers": "Interposing against stacking",
    "noise": "Noise in width",
    "orders": "Depth then width, width then depth",
    "pays": "Does growing pay?",
}


def better(low: float, high: float, margin: float) -> str:
    """Whether an advantage is there: its interval is above zero, or below what would matter."""
    if math.isnan(low):
        return CLOSE
    return SHOWN if low > 0 else NOT_SHOWN if high < margin else CLOSE


def alike(low: float, high: float, margin: float) -> str:
    """Whether a difference is too small to matter, or too large not to."""
    if low > -margin and high < margin:
        return SHOWN
    return NOT_SHOWN if low > margin or high < -margin else CLOSE


def rising(correlation: float, p: float) -> str:
    """Whether what should rise does."""
    if p < P:
        return SHOWN if correlation > 0 else NOT_SHOWN
    return CLOSE if correlation > 0 else NOT_SHOWN


def interval(values: FloatArray) -> tuple[float, float, float]:
    """Standard error of the mean, and the ends of its interval; NaN for one value alone."""
    if len(values) < 2:
        return math.nan, math.nan, math.nan
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return error, float(values.mean()) - reach, float(values.mean()) + reach


def tables(frame: pd.DataFrame, places: Places) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """File name, heading and table of each question that records answer."""
    runs = runs_of(frame, places)
    whole = at_every_point(runs)
    yield "sunk", "What is reached after growth, by sunk compute", sunk(whole)
    yield "correlations", "Rank correlation with sunk compute", correlations(whole)
    for table, heading in HEADINGS.items():
        mine = [each for each in CLAIMS if each.table == table]
        rows = [row for each in mine for row in compared(runs, each, places)]
        yield table, heading, pd.DataFrame(rows)


def runs_of(frame: pd.DataFrame, places: Places) -> pd.DataFrame:
    """Records with the run's name, the budget that was asked for, and where the trunk was left.

    Starting over has no growth point, and is there to be compared at every one.
    """
    asked = np.array(places.budgets_flops + places.longer_flops)
    found = frame.assign(
        run=[_name(*each) for each in zip(frame["arm"], frame["growth"], strict=True)],
        budget=[asked[np.abs(asked / each - 1).argmin()] for each in frame["extra_flops"]],
        # The paper's measure of convergence: 6 N for 20 N tokens.
        converged=frame["sunk_flops"] / (120.0 * frame["source_active_params"] ** 2),
    )
    over = found[found["arm"] == "scratch"].drop(columns=["sunk_flops", "converged"])
    points = found.loc[found["arm"] != "scratch", ["sunk_flops", "converged"]].drop_duplicates()
    return pd.concat(
        [found[found["arm"] != "scratch"], over.merge(points, how="cross")], ignore_index=True
    )


def at_every_point(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of those seeds that were grown in depth everywhere: further ones only at some points."""
    depth = runs[runs["run"] == DEPTH]
    points = depth.groupby("seed")["sunk_flops"].nunique()
    return runs[runs["seed"].isin(points.index[points == points.max()])]


def _name(arm: str, growth: str) -> str:
    return {"grow": growth, "continue": CONTINUE}.get(arm, f"{arm} {growth}")


def compared(runs: pd.DataFrame, claim: Claim, places: Places) -> Iterator[dict[str, object]]:
    """A row for every growth point, budget and metric at which a claim is held against runs."""
    keys = ["sunk_flops", "converged", "budget", "seed"]
    mine = places.at(claim.at, runs[runs["run"].isin(claim.runs)])
    for metric in METRICS.values():
        both = mine.pivot(index=keys, columns="run", values=metric.column).dropna()
        for (_, converged, _), rows in both.groupby(keys[:-1]):
            falling = [
                metric.falling(rows[run].to_numpy(float)) for run in (claim.other, claim.one)
            ]
            by = (falling[0] - falling[1]) * metric.shown
            error, low, high = interval(by)
            judge = better if claim.expects == "better" else alike
            yield {
                "finding": claim.says,
                "sunk / 6N·20N": f"{converged:.2g}",
                "extra FLOPs": text.flops(rows.index.get_level_values("budget")[0]),
                "metric": _unit(metric),
                "seeds": len(by),
                "first is better by": f"{by.mean():+.{metric.digits}f} ± {error:.{metric.digits}f}",
                "90 % interval": f"{low:+.{metric.digits}f} to {high:+.{metric.digits}f}",
                "verdict": judge(low, high, MARGINS[metric.name]),
            }


def _unit(metric: Metric) -> str:
    return f"{metric.name}, {metric.unit}"


def sunk(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of growing in depth, training on and starting over, with their errors."""
    rows = []
    for (_, _, converged), every in runs.groupby(["budget", "sunk_flops", "converged"]):
        if DEPTH not in set(every["run"]):
            continue
        row = {
            "sunk FLOPs": text.flops(every["sunk_flops"].iloc[0]),
            "sunk / 6N·20N": f"{converged:.2g}",
            "extra FLOPs": text.flops(every["budget"].iloc[0]),
            "seeds": every["seed"].nunique(),
        }
        for metric in METRICS.values():
            for run in (DEPTH, CONTINUE, SCRATCH):
                values = every.loc[every["run"] == run, metric.column].to_numpy(float)
                row[f"{metric.name}, {run}"] = _mean(values * metric.shown, metric)
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: FloatArray, metric: Metric) -> str:
    if not len(values):
        return "-"
    digits = metric.digits
    return f"{values.mean():.{digits}f} ± {interval(values)[0]:.{digits}f}"


def correlations(runs: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of growing in depth, over the cells of all seeds, and that of single seeds."""
    grown = runs[runs["run"] == DEPTH]
    points = grown.groupby("budget")["sunk_flops"].transform("nunique")
    grown = grown[points >= evidence.POINTS]
    # As asked for: cells of one budget are then one level, however their tokens were rounded.
    grown = grown.assign(extra_flops=grown["budget"])
    rows = []
    for metric in METRICS.values():
        single = [evidence.correlations(mine, metric) for _, mine in grown.groupby("seed")]
        for index, each in enumerate(evidence.correlations(grown, metric)):
            by_seed = [mine[index].spearman for mine in single]
            sign = -1 if metric.top is None else 1
            rows.append(
                {
                    "finding": "what is reached rises with sunk compute",
                    "extra FLOPs": text.flops(each.extra_flops),
                    "metric": _unit(metric),
                    "cells": each.cells,
                    "Spearman's ρ": f"{each.spearman:+.3f}",
                    "p by permutation": f"{each.spearman_p:.1g}",
                    "ρ of single seeds": f"{min(by_seed):+.2f} to {max(by_seed):+.2f}",
                    "verdict": rising(sign * each.spearman, each.spearman_p),
                }
            )
    return pd.DataFrame(rows)


def summary(found: Sequence[pd.DataFrame], places: Places) -> pd.DataFrame:
    """One row for each finding and metric: its verdicts at the largest extra budget it has."""
    every = pd.concat([each for each in found if "verdict" in each], ignore_index=True)
    most = [text.flops(max(each)) for each in (places.budgets_flops, places.longer_flops)]
    last = every[every["extra FLOPs"].isin(most)]
    rows = [
        {"finding": says, "metric": metric, "verdict": counted(list(mine["verdict"]))}
        for (says, metric), mine in last.groupby(["finding", "metric"], sort=False)
    ]
    return pd.DataFrame(rows)


def counted(verdicts: Sequence[str]) -> str:
    """One verdict, or at how many of all growth points it is which."""
    if len(verdicts) == 1:
        return verdicts[0]
    total = len(verdicts)
    return ", ".join(f"{word} at {n} of {total}" for word, n in Counter(verdicts).items())
