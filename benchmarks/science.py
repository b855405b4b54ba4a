"""Which findings of arXiv 2510.08008 show on two cores, and which do not?

    PYTHONPATH=. python -m benchmarks.science --store FOLDER [--markdown docs/science.md]

Launches five sweeps that are made from `demo` (where a trunk is left, the order of layers, noise in
width, the order of growths, a longer budget), all in one store so that they share trunks and
controls; reads their records, and Adam's first moments from their checkpoints; and prints a table
for each question. Verdicts follow from the numbers, by the rules of `benchmarks/science_tables.py`.
Stopped, the same command goes on where it was. `--quick` is the same in a minute, and says nothing
about the paper.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from benchmarks import science_moments, science_page, science_tables
from benchmarks.science_tables import Places
from orchestrator.store import write_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "science_records"
RECORDED = (
    *("arm", "growth", "seed", "sunk_tokens", "extra_tokens", "sunk_flops", "extra_flops"),
    *("val_loss", "val_loss_se", "accuracy", "accuracy_se", "source", "stage"),
)


@dataclass(frozen=True)
class Size:
    """How large the study is: the network, where trunks are left, and what is spent then."""

    overrides: tuple[str, ...]
    points_flops: tuple[float, ...]
    early_flops: float
    middle_flops: float
    late_flops: float
    budgets_flops: tuple[float, ...]
    longer_flops: tuple[float, ...]  # at the middle point alone
    seeds: tuple[int, ...]  # of the question about sunk compute
    close_seeds: tuple[int, ...]  # of comparisons whose differences are small

    @property
    def places(self) -> Places:
        """Those that tables speak of."""
        return Places(
            self.early_flops,
            self.middle_flops,
            self.late_flops,
            self.budgets_flops,
            self.longer_flops,
        )


# Three layers of the demo's are 191 k active parameters, so 6 N 20 N is 4.4e12 FLOPs: the paper's
# measure of convergence, of which points are 0, 0.02, 0.1, 0.25, 0.5 and 1.2. Beyond the last one
# trunk and branch together would outgrow the corpus, 4.9 million tokens.
FULL = Size(
    overrides=("model.layers=3",),
    points_flops=(0, 1e11, 4.4e11, 1.1e12, 2.2e12, 5.2e12),
    early_flops=4.4e11,
    middle_flops=2.2e12,
    late_flops=5.2e12,
    budgets_flops=(1.5e11, 5e11),
    longer_flops=(1.1e12, 2.2e12),
    seeds=(0, 1, 2),
    close_seeds=(0, 1, 2, 3, 4),
)
QUICK = Size(
    overrides=("suite.heldout_tokens=4096", "recipe.warmup_tokens=2048"),
    points_flops=(0, 4e9, 8e9, 1.2e10),
    early_flops=4e9,
    middle_flops=4e9,
    late_flops=1.2e10,
    budgets_flops=(2e9, 4e9),
    longer_flops=(8e9,),
    seeds=(0,),
    close_seeds=(0, 1),
)


def questions(size: Size) -> dict[str, list[str]]:
    """The overrides that make each sweep of `demo`, by its name."""
    early, late = size.early_flops, size.late_flops
    given, budgets = [*size.overrides, "points.unit=flops"], _list("budgets.at", size.budgets_flops)
    few = [*given, _list("seeds", size.seeds)]
    close = [*given, budgets, "exclude=[]", _list("seeds", size.close_seeds)]
    at_late = [*close, _list("points.at", (late,))]
    return {
        "science-sunk": [
            *few,
            budgets,
            "growth=depth",
            "exclude=[{arm: [continue], point: [0]}]",
            _list("points.at", size.points_flops),
        ],
        "science-layers": [
            *close,
            "growth=depth_orders",
            _list("points.at", (early, late)),
            "arms=[grow]",
        ],
        "science-noise": [
            *at_late,
            "growth=[{kind: width}, {kind: width, noise: 0}, {kind: width, noise: 0.1},"
            " {kind: width, experts: random}]",
            "arms=[grow,continue]",
        ],
        "science-orders": [*at_late, "growth=orders", "arms=[grow]"],
        "science-longer": [
            *few,
            "growth=depth_width",
            "exclude=[]",
            _list("points.at", (size.middle_flops,)),
            _list("budgets.at", size.longer_flops),
            "arms=[grow,continue]",
        ],
    }


def _list(key: str, values: Sequence[float]) -> str:
    return f"{key}=[{','.join(f'{value:g}' for value in values)}]"


def launch(store: Path, name: str, overrides: Sequence[str]) -> None:
    """Run what is missing of a sweep, and note what that took.

    Raises SystemExit with growpoint's own code if it does not end well.
    """
    words = ["launch", "demo", f"store={store}", f"name={name}", *overrides]
    begun, spent = time.monotonic(), _children()
    code = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).returncode
    seconds, core_seconds = time.monotonic() - begun, _children() - spent
    with (store / "science-cost.csv").open("a") as file:
        file.write(f"{name},{seconds:.0f},{core_seconds:.0f}\n")
    if code:
        raise SystemExit(code)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def records(store: Path, names: Sequence[str]) -> pd.DataFrame:
    """The finished cells of all sweeps; one that several of them ask for is one row."""
    every = pd.concat([analysis.load(store, name) for name in names], ignore_index=True)
    return every.drop_duplicates(["stage", "arm", "growth", "source"], ignore_index=True)


def cost(store: Path, names: Sequence[str]) -> str:
    """What the study took, in one line."""
    stages: dict[str, dict[str, Any]] = {}
    for name in names:
        stages |= json.loads((store / "plans" / name / "plan.json").read_text())["stages"]
    spent = pd.read_csv(store / "science-cost.csv", names=["sweep", "seconds", "core_seconds"])
    # Not the time on the wall: the machine may have had other work, and the study been stopped.
    core = spent["core_seconds"].sum() / 60
    return (
        f"{len(stages)} stages, {flops(stages):.2g} FLOPs, {core:.0f} core minutes,"
        f" by two workers of one thread on {os.cpu_count()} cores."
    )


def flops(stages: Mapping[str, Mapping[str, Any]]) -> float:
    """What was computed. Phases after one stage are one phase here, seen at several lengths."""
    phases: dict[str, float] = {}
    for stage in stages.values():
        if stage["kind"] == "train":
            begun, after = stages[stage["starts_from"]], stage["after"]
            first = begun["tokens"] if stage["starts_from"] != after else 0
            whole = stage["flops"] * stage["tokens"] / (stage["tokens"] - first)
            phases[after] = max(phases.get(after, 0.0), whole)
    scored = sum(stage["flops"] for stage in stages.values() if stage["kind"] == "evaluate")
    return sum(phases.values()) + float(scored)


def report(store: Path, size: Size, frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """File name, heading, and table of every question; what they come to goes first."""
    found = [*science_tables.tables(frame, size.places)]
    moments = [*science_moments.tables(store, list(questions(size)), size.places)]
    parts = [
        science_tables.summary([table for _, _, table in found], size.places),
        science_moments.summary(moments[0][2]),
    ]
    summary = pd.concat(parts, ignore_index=True)
    return [("findings", "What shows and what does not", summary), *found, *moments]


def main() -> None:
    """Run what is missing, print tables, write CSV files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("science-store"))
    parser.add_argument("--quick", action="store_true", help="a minute, in a store of its own")
    parser.add_argument("--csv", type=Path, help="where the tables go")
    parser.add_argument("--markdown", type=Path, help="a page that the tables go into")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    store = (asked.store / "quick" if asked.quick else asked.store).resolve()
    folder = asked.csv or (store / "tables" if asked.quick else RESULTS)
    store.mkdir(parents=True, exist_ok=True)
    for name, overrides in questions(size).items():
        launch(store, name, overrides)
    lines = [cost(store, list(questions(size)))]
    folder.mkdir(parents=True, exist_ok=True)
    frame = records(store, list(questions(size)))
    write_atomic(folder / "records.csv", frame[list(RECORDED)].to_csv(index=False).encode())
    for name, heading, table in report(store, size, frame):
        lines += ["", f"### {heading}", "", *science_page.markdown(table)]
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False).encode())
    print("\n".join(lines))
    if asked.markdown:
        science_page.insert(asked.markdown, lines)


if __name__ == "__main__":
    main()
