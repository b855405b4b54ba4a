"""Is each law found again in data drawn from it, and preferred to the others?

    PYTHONPATH=. OMP_NUM_THREADS=1 python -m benchmarks.recovery [--simulations 20]

Every law in turn is the truth at the design points of `benchmarks/sweep.py`, with noise of runs and
of source checkpoints; every law of its scope is fitted. Prints a Markdown table.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.compare import compare
from analysis.fit import Fit, design, fit
from analysis.laws import LAWS, Design, Law, Unit
from analysis.metrics import METRICS
from analysis.resample import Resampling
from analysis.sample import Which
from benchmarks.sweep import NOISE, cells

# In fitting units: the largest compute of a scope's cells and the source's active parameters.
TRUE: Mapping[str, tuple[float, ...]] = {
    "sunk_loglinear": (2.6, 0.25, 0.03),
    "sunk_saturating": (2.0, 0.7, 0.05, 0.7),
    "average_params": (0.9, 0.6, 1.9, 0.03, 0.6, 0.5),
    "upcycling": (1.4, 2.2, 0.05, 0.03, 0.25, 0.4),
    "upcycling_interaction": (1.4, 2.2, 0.05, 0.03, 0.25, 0.4, 0.05),
    "loss_matching": (1.5, 0.4, 0.2, 0.5, 0.6, 0.15),
    "effective_compute": (1.6, 1.9, 0.05, 0.5, 0.9, 0.6),
    "loglinear_interaction": (3.4, 0.35, 0.5, 0.09, 0.03, 0.03),
    "total_loglinear": (3.3, 0.5, 0.03),
    "total_saturating": (1.7, 1.6, 0.05, 0.6),
    "chinchilla": (1.2, 0.8, 0.25, 0.5, 0.35),
}
LOSS = METRICS["loss"]


@dataclass(frozen=True)
class Outcome:
    """What one simulated sweep said about its truth."""

    error: float  # root mean square of the fitted curve about the truth, at the design points
    beyond: float  # the largest error at twice the largest compute
    best: bool  # least held-out error of all laws
    within: bool  # in the ensemble
    wrong_refuted: float  # share of the other laws that are more than 10 AICc behind


def rows_of(scope: str) -> tuple[pd.DataFrame, Which]:
    """The design points of one scope, as records without results."""
    frame = cells()
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    if scope == "sizes":
        both = [
            frame[frame["arm"] == "scratch"].assign(active_params=2e8 * size, growth="size")
            for size in (0.5, 1, 2, 4)
        ]
        every = pd.concat(both, ignore_index=True)
        every["source_active_params"] = every["active_params"]
        which = Which("", "scratch", "every size")
        names = every["active_params"].astype(str) + " " + every["extra_flops"].astype(str)
        return every.assign(source=names), which
    arm = "continue" if scope == "total" else "grow"
    kept = frame[(frame["arm"] == arm) & ((scope != "extra") | (frame["extra_flops"] == 4e18))]
    which = Which("", arm, str(kept["growth"].iloc[0]))
    return kept.assign(source="at " + kept["sunk_flops"].astype(str)).reset_index(drop=True), which


def drawn(law: Law, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows with losses by `law`, noise of runs, and luck that a source's runs share."""
    rng = np.random.default_rng(seed)
    lineage = rows["source"] + "/" + rows["seed"].astype(str)
    luck = {name: rng.normal(0, NOISE / 2) for name in sorted(set(lineage))}
    noise = rng.normal(0, NOISE, len(rows)) + lineage.map(luck).to_numpy(float)
    return rows.assign(val_loss=law.predict(design(rows)) + noise, lineage=lineage)


def outcome(name: str, seed: int) -> Outcome:
    """Draw one sweep from the law of this name and fit every law of its scope."""
    rows, which = rows_of(LAWS[name].scope)
    where = design(rows)
    truth = LAWS[name](*TRUE[name]).rescaled(Unit.of(where))
    frame = drawn(truth, rows, seed)
    resampling = Resampling.of(frame, 2, seed)  # the draws are not looked at here
    rivals = [law for law in LAWS.values() if law.scope == LAWS[name].scope]
    made = compare([fit(frame, law, LOSS, which, resampling) for law in rivals])
    own = next(each for each in made if each.fit.law.name == name)
    others = [each.delta_aicc > 10 for each in made if each is not own]
    error = own.fit.law.predict(where) - truth.predict(where)
    return Outcome(
        float(np.sqrt(np.mean(error**2))),
        _beyond(own.fit, truth, where),
        made[0] is own,
        own.delta_aicc < 10,
        float(np.mean(others)) if others else float("nan"),
    )


def _beyond(found: Fit, truth: Law, where: Design) -> float:
    far = replace(where, sunk=2 * where.sunk, extra=2 * where.extra)
    return float(np.abs(found.law.predict(far) - truth.predict(far)).max())


def table(simulations: int) -> None:
    """Print a Markdown table, one law a line, over so many simulated sweeps."""
    names = [
        "truth",
        "error / noise",
        "error at 2x",
        "least held-out",
        "in the mix",
        "wrong refuted",
    ]
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|", flush=True)
    for name in TRUE:
        found = [outcome(name, seed) for seed in range(simulations)]
        columns = [
            f"{np.mean([each.error for each in found]) / NOISE:.2f}",
            f"{np.median([each.beyond for each in found]):.4f}",
            f"{np.mean([each.best for each in found]):.0%}",
            f"{np.mean([each.within for each in found]):.0%}",
            "-"
            if np.isnan(found[0].wrong_refuted)
            else f"{np.mean([each.wrong_refuted for each in found]):.0%}",
        ]
        print(f"| `{name}` | {' | '.join(columns)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=20)
    asked = parser.parse_args()
    table(asked.simulations)


if __name__ == "__main__":
    main()
