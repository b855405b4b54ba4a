"""A sweep of 10,000 cells on a real SLURM: to plan it, submit it, ask how it is, and read it.

    python benchmarks/dispatch.py [--quick] [--rounds 3]

The cluster is that of the tests (root, Debian's packages), with SLURM's default MaxJobCount and
MaxArraySize. Every row is a command of its own, whose wall time, core seconds and peak memory are
taken; SLURM's own commands are counted by stand-ins on PATH that call them. Jobs are real, down to
srun, except that the cluster's `python` is a shell script that writes records. Those that do not
get their turn within some seconds are finished by the benchmark. The usual way, Hydra's launcher
for SLURM, is measured with a hundred and with three hundred jobs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import hydra_launcher  # noqa: E402
from benchmarks.commands import RECORD, Bench, Cost, prepare  # noqa: E402
from tests.slurm import cluster as slurm  # noqa: E402

RUN_SECONDS = 20
LOAD = """
import sys, time
from pathlib import Path
from analysis import records
from orchestrator.store import Store
store, rounds = Store(Path(sys.argv[1])), []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    frame = records.load(store, "many")
    rounds.append(time.perf_counter() - began)
print(len(frame), min(rounds))
"""


@dataclass
class Rows:
    """The table: what, its goal, what came out, and the command's own cost."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def add(
        self, what: str, goal: str, came: str, cost: Cost | None = None, note: str = ""
    ) -> None:
        """A row; printed at once, as the whole takes minutes."""
        spent = f"{cost.core_seconds:.1f} / {cost.peak_mb:.0f}" if cost else ""
        self.rows.append((what, goal, came, spent, note))
        print(f"| {' | '.join(self.rows[-1])} |", flush=True)


def submitted(bench: Bench, rows: Rows) -> None:
    """Plan, submit window after window, ask, cancel; some jobs run, the rest is written."""
    place = [f"store={bench.box / 'store'}"]
    words = ["many", *place, "--config-dir", str(bench.box / "conf")]
    plan = bench.best("plan", *words)
    rows.add("`plan`", "5 s", f"{plan.seconds:.1f} s", plan)
    asked = ["cluster=slurm", "cluster.partition=gpu", "cluster.gpus=0", "cluster.cpus=1"]
    asked += [f"cluster.python={bench.box / 'stub'}", "--yes"]
    bench.nodes("drain")
    window, left = 1, True
    while left:
        cost = bench.cost("launch", *words, *asked)
        left = "not yet" in bench.said
        _window(bench, rows, window, cost)
        if window == 1:
            _status(bench, rows, "queued")
            _run_some(bench, rows)
        _finish_queued(bench)
        cost = bench.cost("cancel", "many", *place)
        rows.add(f"`cancel`, window {window}", "20 calls", f"{cost.calls['scancel']} scancel", cost)
        window += 1
    _status(bench, rows, "done")


def _window(bench: Bench, rows: Rows, window: int, cost: Cost) -> None:
    jobs = next(line for line in bench.said.splitlines() if "submitted" in line).split()[1]
    rows.add(
        f"`launch`, window {window}",
        "30 s" if window == 1 else "",
        f"{cost.seconds:.1f} s",
        cost,
        f"{jobs} jobs; from the first sbatch to the last {cost.sbatch_seconds:.1f} s",
    )
    rows.add(f"sbatch calls, window {window}", "20", str(cost.calls["sbatch"]))
    rows.add(f"peak memory, window {window}", "300 MB", f"{cost.peak_mb:.0f} MB")


def _status(bench: Bench, rows: Rows, state: str) -> None:
    cost = bench.best("status", "many", f"store={bench.box / 'store'}")
    rows.add(f"`status`, {state}", "2 s", f"{cost.seconds:.1f} s", cost)
    asked = ", ".join(f"{count} {name}" for name, count in cost.calls.items())
    rows.add(f"scheduler queries, {state}", "1", str(cost.queries), None, asked)


def _records(bench: Bench) -> int:
    runs = bench.box / "store/runs"
    return sum((runs / stage / "record.json").exists() for stage in bench.plan["stages"])


def _run_some(bench: Bench, rows: Rows) -> None:
    """Let SLURM run what it can within some seconds."""
    lines = (" ".join([job["id"], *job["stages"]]) for job in bench.plan["jobs"])
    (bench.box / "jobs").write_text("\n".join(lines) + "\n")
    began = time.perf_counter()
    bench.nodes("resume")
    time.sleep(RUN_SECONDS)
    bench.nodes("drain")
    seconds = time.perf_counter() - began
    done = _records(bench)
    states = ("-h", "-o", "%i", "-t", "RUNNING,COMPLETING")
    while bench.cluster.run("squeue", *states).strip():
        time.sleep(0.2)
    rows.add("stages that jobs finished", "", str(done), None, f"within {seconds:.0f} s")


def _finish_queued(bench: Bench) -> None:
    """Write the records of the jobs that were submitted, as if they had run."""
    from orchestrator import ledger
    from orchestrator.store import Store

    latest = ledger.read(Store(bench.box / "store"), "many").latest
    text = json.dumps(RECORD)
    for job in bench.plan["jobs"]:
        for stage in job["stages"] if job["id"] in latest else ():
            path = bench.box / "store/runs" / stage / "record.json"
            if not path.exists():
                path.write_text(text)


def collected(bench: Bench, rows: Rows) -> None:
    """All records as a table."""
    words = [sys.executable, "-c", LOAD, str(bench.box / "store"), str(bench.rounds)]
    done = subprocess.run(
        words, env=bench.environment(), capture_output=True, text=True, check=True
    )
    count, seconds = done.stdout.split()
    rows.add("records into a DataFrame", "2 s", f"{float(seconds):.1f} s", None, f"{count} rows")


def usual_way(bench: Bench, rows: Rows, jobs: int) -> None:
    """Hydra's launcher: what each job takes until sbatch is called, and what SLURM says then."""
    packages = hydra_launcher.installed(bench)
    if packages is None:
        rows.add("Hydra's launcher", "", "could not be installed")
        return
    few, many = hydra_launcher.submissions(bench, packages, (100, 300))
    wall, core = hydra_launcher.seconds_a_job(few, many)
    for each in (few, many):
        note = f"{each.core_seconds:.1f} core s, {each.peak_mb:.0f} MB"
        rows.add(f"Hydra's launcher, {each.jobs} jobs", "", f"{each.seconds:.1f} s", None, note)
    whole = few.seconds + wall * (jobs - few.jobs)
    note = f"extrapolated: {1000 * wall:.0f} ms a job, {1000 * core:.0f} ms of a core"
    rows.add(f"the same, {jobs} jobs", "", f"{whole:.0f} s", None, note)
    try:
        bench.cluster.run("sbatch", f"--array=0-{jobs - 1}", "--wrap=true")
        said = "taken"
    except subprocess.CalledProcessError as error:
        said = error.stderr.splitlines()[-1].rpartition(": ")[2]
    rows.add(f"its one array of {jobs}", "", said)


@contextmanager
def _cluster() -> Iterator[slurm.Cluster]:
    defaults = ("--set", "MaxArraySize=1001", "--set", "MaxJobCount=10000")
    running = slurm.start(*defaults)
    try:
        yield running
    finally:
        slurm.stop(running)


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="1,000 cells")
    parser.add_argument("--rounds", type=int, default=3, help="the quickest counts")
    arguments = parser.parse_args()
    cells = 1000 if arguments.quick else 10_000
    print("| what | goal | measured | core s / peak MB | |\n|---|---:|---:|---:|---|", flush=True)
    # Not in memory: growpoint refuses a store that other machines do not see.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, _cluster() as running:
        bench, rows = Bench(Path(folder), running, arguments.rounds), Rows()
        prepare(bench.box, cells)
        submitted(bench, rows)
        collected(bench, rows)
        usual_way(bench, rows, cells)


if __name__ == "__main__":
    main()
