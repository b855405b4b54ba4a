"""How many FLOPs choosing the next runs takes, beside the whole grid and beside a random order.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/next_runs.py [--repeat 6] [--csv FILE]

For each invented truth a grid of cells could be run: growing at 8 points times 4 budgets,
continuing at 7 times 4, starting over with 4. A few cells are run first; then `growpoint next`'s
choice, or a random one, adds three at a time, and after each batch the laws are fitted again. What
counts is the true regret of the option that is then expected to be best: the FLOPs after which it
is at most half a run's noise, and stays so. Trunks are paid once, also by the random order.
"""

import argparse
import csv
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import beliefs, forecast
from analysis.beliefs import Place
from analysis.extension import Candidate
from analysis.laws import LAWS, Design, Law, Unit
from analysis.metrics import METRICS, FloatArray
from analysis.next_runs import next_runs
from analysis.question import Question
from analysis.sample import Which

SOURCE, GROWN = 2e8, 3.3e8  # active parameters
SUNK = (0.0, 2.5e17, 5e17, 1e18, 2e18, 4e18, 8e18, 1.6e19)
EXTRA = (1e18, 2e18, 4e18, 8e18)
NOISE = 0.004  # nats, of a run; its source checkpoint adds half of that
TOTAL = 8e18  # the question: when to grow if so much may be spent in all
ENOUGH = 0.5  # of a run's noise: what regret is as good as none
BATCH = 3
SHARES = np.linspace(0, 0.98, 99)
LOSS = METRICS["loss"]


@dataclass(frozen=True)
class Truth:
    """What losses really are: growing by a law, continuing by a curve of all compute."""

    law: Law
    continuing: float  # how far continuing is behind the best time to grow, at the total asked for
    kink: float = 0.0  # nats per tenfold of sunk compute beyond 2e18, which no law has

    def loss(self, place: Place) -> float:
        """Without noise; starting over is growing before anything is sunk."""
        if place.which.arm == "continue":
            spent = place.sunk_flops + place.extra_flops
            return self._best + self.continuing + _curve(spent) - _curve(TOTAL)
        return float(self._grown(np.array([place.sunk_flops]), np.array([place.extra_flops]))[0])

    def _grown(self, sunk: FloatArray, extra: FloatArray) -> FloatArray:
        size = np.ones(len(sunk))
        stiff = self.kink * np.maximum(0.0, np.log10(np.maximum(sunk, 1.0) / 2e18))
        return self.law.predict(Design(sunk, extra, SOURCE * size, GROWN * size)) + stiff

    @cached_property
    def _best(self) -> float:
        return float(self._grown(SHARES * TOTAL, (1 - SHARES) * TOTAL).min())


def _curve(spent: float) -> float:
    return 1.2 * (1 + spent / 4e17) ** -0.4


def _scaled(name: str, *values: float) -> Law:
    return LAWS[name](*values).rescaled(Unit(flops=1.6e19, parameters=SOURCE))


TRUTHS = {
    "average_params": Truth(_scaled("average_params", 0.9, 0.4, 1.9, 0.03, 0.6, 0.5), 0.008),
    "upcycling": Truth(_scaled("upcycling", 1.4, 2.2, 0.05, 0.03, 0.25, 0.4), 0.004),
    "loss_matching": Truth(_scaled("loss_matching", 1.5, 0.4, 0.2, 0.5, 0.6, 0.15), -0.008),
    "kink": Truth(_scaled("average_params", 0.9, 0.6, 1.9, 0.03, 0.6, 0.5), 0.01, kink=-0.1),
}


def grid() -> list[Candidate]:
    """Every cell that could be run."""
    places = [Place(Which("", "grow", "depth x2"), s, e) for s in SUNK for e in EXTRA]
    places += [Place(Which("", "continue", "-"), s, e) for s in SUNK[1:] for e in EXTRA]
    places += [Place(Which("", "scratch", "depth x2"), 0.0, e) for e in EXTRA]
    return [
        Candidate(f"{p.which.label()} {p.sunk_flops:g} {p.extra_flops:g}", (p,)) for p in places
    ]


def cost(cells: Sequence[Candidate]) -> float:
    """FLOPs of cells as a plan charges them: a trunk, and each branch to its furthest budget."""
    places = [place for each in cells for place in each.places]
    trunk = max((place.sunk_flops for place in places), default=0.0)
    # Continuing at a constant learning rate is a branch of its own here, as in a plan.
    branches: dict[tuple[Which, float], float] = {}
    for place in places:
        key = place.which, place.sunk_flops
        branches[key] = max(branches.get(key, 0.0), place.extra_flops)
    return trunk + math.fsum(branches.values())


@dataclass(frozen=True)
class World:
    """One repetition: a truth, and the luck of every cell of the grid."""

    truth: str
    seed: int

    def frame(self, cells: Sequence[Candidate]) -> pd.DataFrame:
        """The records of these cells."""
        every = grid()
        rng = np.random.default_rng(self.seed)
        luck = {sunk: rng.normal(0, NOISE / 2) for sunk in SUNK}
        noise = {each.label: rng.normal(0, NOISE) for each in every}
        rows = []
        for each in cells:
            place = each.places[0]
            arm, sunk, extra = place.which.arm, place.sunk_flops, place.extra_flops
            loss = TRUTHS[self.truth].loss(place) + noise[each.label]
            loss += luck[sunk] if arm != "scratch" else 0.0
            source = "init" if arm == "scratch" else f"at {sunk:g}"
            rows.append((arm, place.which.growth, sunk, extra, source, loss))
        names = ["arm", "growth", "sunk_flops", "extra_flops", "source", "val_loss"]
        found = pd.DataFrame(rows, columns=names)
        found["total_flops"] = found["sunk_flops"] + found["extra_flops"]
        active = np.where(found["arm"] == "continue", SOURCE, GROWN)
        found["active_params"] = active
        found["source_active_params"] = np.where(found["arm"] == "scratch", GROWN, SOURCE)
        said = {"sweep": "invented", "variant": "", "seed": 0, "annealed": False, "stage": "x"}
        found["lineage"] = found["source"] + "/0"
        return found.assign(val_loss_se=NOISE, accuracy=math.nan, accuracy_se=math.nan, **said)

    def regret(self, cells: Sequence[Candidate]) -> float:
        """True regret of the option that these cells make look best."""
        question = Question(total=TOTAL)
        every = forecast.arms(self.frame(cells), LOSS, None)
        decided = beliefs.options(every, question)
        draws = beliefs.draws(every, decided, [], NOISE)
        chosen = decided[int(np.argmin(draws.options.mean(axis=0)))]
        truth = TRUTHS[self.truth]
        return truth.loss(chosen) - min(truth.loss(place) for place in possible())


def possible() -> list[Place]:
    """Everything that could be decided, whether or not a sweep would see it."""
    grown = Which("", "grow", "depth x2")
    found = [Place(grown, share * TOTAL, (1 - share) * TOTAL) for share in SHARES]
    scratch = Place(Which("", "scratch", "depth x2"), 0.0, TOTAL)
    return [*found, Place(Which("", "continue", "-"), TOTAL, 0.0), scratch]


def first() -> list[Candidate]:
    """What is run before any choice: corners enough for a law of each arm."""
    kept = {("grow", s, e) for s in (0.0, 5e17, 2e18) for e in EXTRA[:3]}
    kept |= {("continue", s, e) for s in (5e17, 2e18) for e in EXTRA[:2]}
    kept |= {("scratch", 0.0, e) for e in EXTRA[:2]}
    return [
        each
        for each in grid()
        if (each.places[0].which.arm, each.places[0].sunk_flops, each.places[0].extra_flops) in kept
    ]


@dataclass(frozen=True)
class Rest:
    """The cells that are not run yet."""

    have: list[Candidate]

    def candidates(self) -> list[Candidate]:
        """All of the grid but those."""
        done = {each.label for each in self.have}
        return [each for each in grid() if each.label not in done]

    def flops(self, chosen: Sequence[Candidate]) -> float:
        """Beside what is paid."""
        return cost([*self.have, *chosen]) - cost(self.have)


def chosen_by_worth(world: World, have: list[Candidate]) -> list[Candidate]:
    found = next_runs(world.frame(have), LOSS, Question(total=TOTAL), Rest(have), count=BATCH)
    return [step.run for step in found.steps]


def chosen_at_random(world: World, have: list[Candidate]) -> list[Candidate]:
    order = np.random.default_rng([world.seed, 1]).permutation(len(grid()))
    done = {each.label for each in have}
    return [each for at in order if (each := grid()[at]).label not in done][:BATCH]


POLICIES = {"next": chosen_by_worth, "random": chosen_at_random}


@dataclass(frozen=True)
class Row:
    """How one repetition went by one policy."""

    truth: str
    seed: int
    policy: str
    flops: float  # after which the regret was small and stayed so; NaN if it never was
    spent: float  # in all
    cells: int
    regret_first: float
    regret_last: float


def run(job: tuple[str, int, str, int]) -> Row:
    """Add batches until there is nothing to add, the grid is done, or `batches` were added."""
    truth, seed, policy, batches = job
    world, have = World(truth, seed), first()
    spent, regrets = [cost(have)], [world.regret(have)]
    for _ in range(batches):
        more = POLICIES[policy](world, have)
        if not more:
            break
        have = [*have, *more]
        spent.append(cost(have))
        regrets.append(world.regret(have))
    good = np.array(regrets) <= ENOUGH * NOISE
    since = len(good) - int(np.argmin(good[::-1])) if not good.all() else 0
    reached = spent[since] if since < len(good) else math.nan
    return Row(truth, seed, policy, reached, spent[-1], len(have), regrets[0], regrets[-1])


def table(rows: Sequence[Row]) -> list[str]:
    """Medians over repetitions; those that never got there count as infinite."""
    whole = cost(grid())
    lines = [f"whole grid: {len(grid())} cells, {whole:.2g} FLOPs; first cells {cost(first()):.2g}"]
    head = f"{'truth':<12} {'policy':<7} {'reached':>8} {'median FLOPs':>13} {'grid / it':>10}"
    lines.append(head + f" {'regret first':>13} {'last':>8} {'spent':>8}")
    for truth in dict.fromkeys(row.truth for row in rows):
        for policy in POLICIES:
            mine = [row for row in rows if (row.truth, row.policy) == (truth, policy)]
            flops = np.array([row.flops if math.isfinite(row.flops) else math.inf for row in mine])
            middle = float(np.median(flops))
            share = f"{np.isfinite(flops).sum()}/{len(flops)}"
            means = [
                float(np.mean([getattr(row, name) for row in mine]))
                for name in ("regret_first", "regret_last", "spent")
            ]
            lines.append(
                f"{truth:<12} {policy:<7} {share:>8} {middle:>13.2g} {whole / middle:>9.1f}x"
                f" {means[0]:>13.4f} {means[1]:>8.4f} {means[2]:>8.2g}"
            )
    return lines


def main() -> None:
    """Run, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--truth", choices=TRUTHS, action="append")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    jobs = [
        (truth, seed, policy, given.batches)
        for truth in given.truth or TRUTHS
        for seed in range(given.repeat)
        for policy in POLICIES
    ]
    begun = time.perf_counter()
    with ProcessPoolExecutor(given.workers) as pool:
        rows = list(pool.map(run, jobs))
    print("\n".join(table(rows)))
    print(f"{time.perf_counter() - begun:.0f} s on {given.workers} workers")
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
