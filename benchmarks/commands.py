"""growpoint's commands on the SLURM of the tests: what each takes, and what it asks of SLURM."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr")
QUERIES = ("squeue", "sacct", "scontrol", "sinfo", "sacctmgr")
SHIM = """#!/bin/sh
began=$(date +%s.%N)
{real} "$@"
code=$?
echo "{name} $began $(date +%s.%N)" >> {log}
exit $code
"""
# Stands for `python -u -m submitit.core._submit FOLDER`: finds out which job this is as submitit
# does, and writes the records of its stages.
STUB = """#!/bin/sh
id=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
pickle="$4/${{id:-$SLURM_JOB_ID}}_submitted.pkl"
until [ -e "$pickle" ]; do sleep 0.1; done
job=$(grep -aom1 'job-[0-9a-f]*' "$pickle" | head -n 1)
set -- $(grep -m1 "^$job " {jobs})
shift
for stage in "$@"; do
  cp {record} "{runs}/$stage/.record" && mv "{runs}/$stage/.record" "{runs}/$stage/record.json"
done
"""
RECORD = {
    "metrics": {
        "loss": {"value": 4.0, "se": 0.01},
        "next_token_accuracy": {"value": 0.3, "se": 0.002},
    },
    "commit": "",
}
SWEEP = """# @package _global_
defaults:
  - override /data: text
data: {{paths: [{texts}], heldout_share: 0.2}}
points: {{unit: steps, at: [0, 20, 40, 60, 80, 100, 120, 140, 160, 180]}}
budgets: {{of: extra, unit: tokens, at: [20480, 40960, 81920, 163840, 327680]}}
growth:
  - {{kind: depth, factor: 2}}
  - {{kind: depth, factor: 3}}
  - {{kind: width, factor: 2}}
  - {{kind: width, factor: 3}}
arms: [grow]
branch: {{schedule: {{kind: cosine}}}}
seeds: [0, 1, 2, 3, 4]
axes: [{{key: branch.lr_ratio, values: {ratios}}}]
"""


@dataclass(frozen=True)
class Cost:
    """One command: wall and core seconds, peak memory, and the calls of SLURM's commands."""

    seconds: float
    core_seconds: float
    peak_mb: float
    calls: Counter[str]
    sbatch_seconds: float  # from the first sbatch call to the end of the last

    @property
    def queries(self) -> int:
        """Calls that ask the scheduler something."""
        return sum(self.calls[name] for name in QUERIES)


@dataclass(frozen=True)
class Bench:
    """A folder with everything, and the cluster."""

    box: Path
    cluster: Cluster
    rounds: int

    @property
    def plan(self) -> dict[str, Any]:
        """plan.json as launched."""
        found: dict[str, Any] = json.loads((self.box / "store/plans/many/plan.json").read_text())
        return found

    def environment(self) -> dict[str, str]:
        """With the stand-ins first on PATH, and compiled files as an installation has them."""
        mine = {
            **self.cluster.env,
            "PATH": f"{self.box / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(self.box / "compiled"),
            "OMP_NUM_THREADS": "1",
        }
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, **mine}

    def cost(self, *words: str) -> Cost:
        """What growpoint with these words takes."""
        self.calls_file.write_text("")
        command = [sys.executable, "-m", "orchestrator.cli", *words]
        began = time.perf_counter()
        with (self.box / "said").open("w") as said:
            started = subprocess.Popen(
                command, stdout=said, stderr=said, cwd=self.box, env=self.environment()
            )
            _, status, used = os.wait4(started.pid, 0)
        seconds = time.perf_counter() - began
        started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode:
            raise SystemExit(f"{words} failed\n{self.said}")
        submits = [(begun, ended) for name, begun, ended in self.calls() if name == "sbatch"]
        return Cost(
            seconds,
            used.ru_utime + used.ru_stime,
            used.ru_maxrss / 1024,
            Counter(name for name, _, _ in self.calls()),
            max(ended for _, ended in submits) - min(submits)[0] if submits else 0.0,
        )

    def best(self, *words: str) -> Cost:
        """The quickest of some rounds."""
        rounds = [self.cost(*words) for _ in range(self.rounds)]
        return min(rounds, key=lambda each: each.seconds)

    @property
    def said(self) -> str:
        """What the last command printed."""
        return (self.box / "said").read_text()

    @property
    def calls_file(self) -> Path:
        """Where the stand-ins write."""
        return self.box / "calls"

    def calls(self) -> list[tuple[str, float, float]]:
        """Calls of SLURM's commands: which, from when, until when."""
        lines = (line.split() for line in self.calls_file.read_text().splitlines())
        return [(name, float(begun), float(ended)) for name, begun, ended in lines]

    def nodes(self, state: str) -> None:
        """Let jobs start (`resume`), or not (`drain`)."""
        names = ",".join(self.cluster.nodes)
        self.cluster.run(
            "scontrol", "update", f"nodename={names}", f"state={state}", "reason=benchmark"
        )


def prepare(box: Path, cells: int) -> None:
    """Stand-ins, texts, the sweep, and what its jobs run."""
    for folder in ("bin", "texts", "conf/sweep", "store"):
        (box / folder).mkdir(parents=True)
    for name in CLIENTS:
        real = shutil.which(name)
        _program(box / "bin" / name, SHIM.format(real=real, name=name, log=box / "calls"))
    for path in sorted(Path(os.__file__).parent.glob("[a-d]*.py")):
        shutil.copy(path, box / "texts")
    ratios = [round(0.1 * (index + 1), 1) for index in range(cells // 1000)]
    (box / "conf/sweep/many.yaml").write_text(SWEEP.format(texts=box / "texts", ratios=ratios))
    (box / "record").write_text(json.dumps(RECORD))
    runs = box / "store/runs"
    _program(box / "stub", STUB.format(jobs=box / "jobs", record=box / "record", runs=runs))


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(stat.S_IRWXU)
