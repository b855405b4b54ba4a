"""Do 90 % intervals hold the truth 90 times in 100?

    PYTHONPATH=. OMP_NUM_THREADS=1 python -m benchmarks.coverage --sweeps 200 --jobs 2

Sweeps are drawn from three laws with noise of single evaluations and of whole source checkpoints,
and answered as `recommend --total` answers: by the mix of laws that the data cannot tell apart. The
table says how often the interval of the best share to spend before growing, and of the metric
there, holds the truth, and how often those of other methods would have. Results are added to
a CSV as they come; what is in it already is not simulated again.
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import candidates, shares
from analysis.compare import ensemble
from analysis.fit import Fit, design, fit
from analysis.forecast import Arm
from analysis.forecasts import ByLaws
from analysis.laws import LAWS, Law, Unit
from analysis.metrics import METRICS
from analysis.resample import BOOTSTRAP, Resampling
from analysis.sample import Which
from orchestrator.store import write_atomic

ACCURACY, WHICH = METRICS["accuracy"], Which("", "grow", "depth x2")
SOURCE, GROWN = 6e8, 1.1e9  # active parameters
WHITE, RUN = 0.004, 0.003  # of one evaluation; shared by all runs of a source checkpoint
UNIT = Unit(1.2e21, SOURCE)
LAW_NAMES = tuple(name for name, law in LAWS.items() if law.scope == "surface")
DEFAULT = "average_params"  # the law one would take alone

# In UNIT. Each has its best share inside what is searched, and falls by some 20 points.
TRUTHS: Mapping[str, tuple[float, ...]] = {
    "average_params": (0.25, 0.08, 0.60, 0.02, 1.0, 0.20),
    "upcycling": (0.45, 0.30, 0.08, 0.06, 0.35, 0.30),
    "loss_matching": (0.38, 0.20, 0.03, 0.50, 1.2, 0.17),
}
TOTALS = {"measured": 6e20, "beyond": 1.5e21}  # the latter 2.5 times the largest extra budget


@dataclass(frozen=True)
class Layout:
    """The cells of a sweep: every source with every budget and seed."""

    sources: int  # one of them untrained
    budgets: int
    seeds: int

    def cells(self) -> pd.DataFrame:
        """Records without results."""
        sunk = [0.0, *np.geomspace(2e19, 6e20, self.sources - 1)]
        extra = np.geomspace(2e19, 6e20, self.budgets)
        rows = pd.DataFrame(
            product(range(self.seeds), sunk, extra), columns=["seed", "sunk_flops", "extra_flops"]
        )
        rows["total_flops"] = rows["sunk_flops"] + rows["extra_flops"]
        rows["lineage"] = rows["sunk_flops"].astype(str) + "/" + rows["seed"].astype(str)
        said = {"variant": "", "arm": WHICH.arm, "growth": WHICH.growth}
        return rows.assign(source_active_params=SOURCE, active_params=GROWN, **said)


LAYOUTS = {"13x8": Layout(13, 8, 1), "8x3x2": Layout(8, 3, 2), "6x4": Layout(6, 4, 1)}


@dataclass(frozen=True)
class Simulated:
    """One sweep to draw: the law it follows, its cells, and its number."""

    truth: str
    layout: str
    sweep: int

    def law(self) -> Law:
        """The truth, in FLOPs."""
        return LAWS[self.truth](*TRUTHS[self.truth]).rescaled(UNIT)

    def frame(self) -> pd.DataFrame:
        """Records with accuracies."""
        rows = LAYOUTS[self.layout].cells()
        rng = np.random.default_rng([self.sweep, *self.truth.encode(), *self.layout.encode()])
        luck = {name: rng.normal(0, RUN) for name in rows["lineage"].unique()}
        noise = rng.normal(0, WHITE, len(rows)) + rows["lineage"].map(luck).to_numpy(float)
        return rows.assign(accuracy=1 - self.law().predict(design(rows)) + noise)


@dataclass(frozen=True)
class Interval:
    """What one way of making intervals said about one quantity of one sweep."""

    truth: str
    layout: str
    sweep: int
    total: str
    way: str
    quantity: str
    true: float
    expected: float
    low: float
    high: float
    regret: float  # of the share recommended, by the truth; in points
    laws: str  # behind it
    aicc: float  # of the true law, behind the least
    cpu_seconds: float  # of the whole sweep


def ways(frame: pd.DataFrame) -> tuple[dict[str, ByLaws], list[Fit]]:
    """Every way of making intervals, and the fits of all laws."""
    draws = Resampling.of(frame)
    few = len(draws.clusters) < BOOTSTRAP
    first = draws if few else Resampling.of(frame, 2)
    every = [fit(frame, LAWS[name], ACCURACY, WHICH, first) for name in LAW_NAMES]
    # Only the laws of the mix, and the default one, are worth all replicates.
    kept = {each.law.name for each in ensemble(every)} | {DEFAULT}
    made = [each for each in every if each.law.name in kept]
    if not few:
        made = [fit(frame, type(each.law), ACCURACY, WHICH, draws) for each in made]
    mix = ensemble(made)
    best = min(mix, key=lambda each: each.aicc)
    apart = frame.assign(lineage=[f"{row:04d}" for row in range(len(frame))])
    pairs = fit(apart, type(best.law), ACCURACY, WHICH, Resampling.of(apart))
    alone = next(each for each in made if each.law.name == DEFAULT)
    found = zip(WAYS, (mix, [best], [pairs], [alone]), strict=True)
    return {way: ByLaws(tuple(laws)) for way, laws in found}, every


def simulate(what: Simulated) -> list[Interval]:
    """Draw a sweep and answer it in every way."""
    begin = time.process_time()
    frame = what.frame()
    forecasts, every = ways(frame)
    least = min(each.aicc for each in every)
    behind = next(each.aicc for each in every if each.law.name == what.truth) - least
    found = [
        row
        for way, forecast in forecasts.items()
        for total in TOTALS
        for row in _intervals(what, Arm(WHICH, frame, forecast), way, total, behind)
    ]
    spent = round(time.process_time() - begin, 2)
    return [Interval(**asdict(row) | {"cpu_seconds": spent}) for row in found]


def _intervals(
    what: Simulated, arm: Arm, way: str, total: str, behind: float
) -> Iterator[Interval]:
    """Of the best share of a total, and of the accuracy at the share that is recommended."""
    size = TOTALS[total]
    assert isinstance(arm.forecast, ByLaws)
    laws = " ".join(each.law.name for each in arm.forecast.laws)
    when = shares.timing(arm, size, math.nan)
    split = shares.best_split(arm, size)[0]
    option = candidates.options([candidates.Candidate.of(arm, *split)], ACCURACY)[0]
    assert when is not None
    searched = shares.searched(arm, size)
    levels = 1 - what.law().predict(arm.design(searched * size, (1 - searched) * size))
    at = 1 - float(what.law().predict(arm.design(*(np.array([each]) for each in split)))[0])
    regret = 100 * (float(levels.max()) - at)
    best = float(searched[np.argmax(levels)])
    said = {
        "share": (best, when.share, *when.interval),
        "accuracy": (at, option.expected, *option.interval),
    }
    for quantity, (true, expected, low, high) in said.items():
        yield Interval(
            **asdict(what),
            total=total,
            way=way,
            quantity=quantity,
            true=true,
            expected=expected,
            low=low,
            high=high,
            regret=regret,
            laws=laws,
            aicc=behind,
            cpu_seconds=0.0,
        )


def work(truths: Sequence[str], layouts: Sequence[str], sweeps: int) -> list[Simulated]:
    """Everything to simulate, so ordered that what is done first is balanced."""
    return [
        Simulated(truth, layout, sweep)
        for sweep, truth, layout in product(range(sweeps), truths, layouts)
    ]


_HEADER = ",".join(each.name for each in fields(Interval))
_SWEEP = ["truth", "layout", "sweep"]
WAYS = ("mix", "best law", "best law by pairs", DEFAULT)
_KEYS = ["quantity", "total", "layout", "truth"]
_ROWS = len(WAYS) * len(TOTALS) * 2  # of one sweep; the quantities are two


def read(path: Path) -> pd.DataFrame:
    """What was simulated before; a sweep that was not written whole is left out."""
    if not path.exists():
        return pd.DataFrame(columns=_HEADER.split(","))
    found = pd.read_csv(path)
    if list(found.columns) != _HEADER.split(","):
        raise SystemExit(f"{path} is of another version of this benchmark; move it away")
    # A row that was cut off lacks its last column, and `count` does not count it.
    return found[found.groupby(_SWEEP)["cpu_seconds"].transform("count") == _ROWS]


def extend(path: Path, wanted: Sequence[Simulated], jobs: int) -> pd.DataFrame:
    """Simulate what `path` does not hold yet and add it there."""
    before = read(path)
    done = {Simulated(*row) for row in before[_SWEEP].drop_duplicates().itertuples(index=False)}
    left = [each for each in wanted if each not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, before.to_csv(index=False).encode())
    begin = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool, path.open("a") as out:
        running = [pool.submit(simulate, each) for each in left]
        for count, each in enumerate(as_completed(running), 1):
            out.write("".join(",".join(map(str, astuple(row))) + "\n" for row in each.result()))
            out.flush()
            if count % 30 == 0:
                rest = (time.monotonic() - begin) / count * (len(left) - count) / 60
                print(f"{count} of {len(left)}, {rest:.0f} minutes left", flush=True)
    return read(path)


def held(found: pd.DataFrame) -> pd.Series:
    """Which intervals hold the truth, to rounding."""
    return found["true"].between(found["low"] - 1e-9, found["high"] + 1e-9)


def coverage(found: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table: shares of intervals that hold the truth."""
    names = [*_KEYS, "intervals", *WAYS, "half width, points"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rated = found.assign(held=held(found), half=(found["high"] - found["low"]) / 2)
    for kept in (["layout", "truth"], ["layout"], ["total"], []):
        for values, rows in rated.groupby(["quantity", *kept]):
            said = dict(zip(["quantity", *kept], map(str, values), strict=True))
            mix = rows[rows["way"] == "mix"]
            rates = [f"{rows[rows['way'] == way]['held'].mean():.0%}" for way in WAYS]
            cells = [*(said.get(key, "all") for key in _KEYS), str(len(mix)), *rates]
            lines.append(f"| {' | '.join(cells)} | {100 * mix['half'].median():.2g} |")
    return lines


def recovery(found: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table: is the truth among the laws, and what does the answer cost."""
    names = ["truth", "layout", "n", "least AICc", "in the mix", "laws in the mix", "lost, points"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    mix = found[(found["way"] == "mix") & (found["quantity"] == "share")]
    for (truth, layout), rows in mix.groupby(["truth", "layout"]):
        own = rows[rows["total"] == "measured"]
        cells = [
            *(str(truth), str(layout), str(len(own))),
            f"{(own['aicc'] == 0).mean():.0%}",
            f"{(own['aicc'] < 10).mean():.0%}",
            f"{np.mean([len(str(each).split()) for each in own['laws']]):.1f}",
            f"{rows['regret'].mean():.2f} (95 %: {rows['regret'].quantile(0.95):.2f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Simulate what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=200, help="of each truth and layout")
    parser.add_argument("--truth", choices=TRUTHS, action="append", help="default: each")
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="default: each")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=Path("coverage.csv"))
    asked = parser.parse_args()
    wanted = work(asked.truth or [*TRUTHS], asked.layout or [*LAYOUTS], asked.sweeps)
    found = extend(asked.csv, wanted, asked.jobs)
    print("\n".join([*coverage(found), "", *recovery(found)]))
    spent = found.groupby(_SWEEP)["cpu_seconds"].first()
    print(f"\n{len(spent)} sweeps took {spent.sum() / 60:.0f} CPU minutes")


if __name__ == "__main__":
    main()
