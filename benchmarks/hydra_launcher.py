"""The usual way to many jobs: Hydra's multirun with its launcher for SLURM, as far as sbatch."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import Bench

PACKAGE = "hydra-submitit-launcher==1.2.0"
APPLICATION = """
import hydra


@hydra.main(version_base=None, config_path=None)
def main(config):
    pass


main()
"""


@dataclass(frozen=True)
class Submission:
    """Until sbatch has taken the one array of all jobs."""

    jobs: int
    seconds: float
    core_seconds: float
    peak_mb: float


def installed(bench: Bench) -> Path | None:
    """A folder with the launcher beside the Hydra and submitit that are here; None if offline."""
    folder = bench.box / "hydra"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*pip, PACKAGE], capture_output=True, check=False)
    return folder if done.returncode == 0 else None


def submissions(bench: Bench, packages: Path, counts: Sequence[int]) -> list[Submission]:
    """One multirun of each size; nodes must be drained, as the launcher waits for its jobs."""
    (bench.box / "application.py").write_text(APPLICATION)
    return [_submission(bench, packages, count) for count in counts]


def _submission(bench: Bench, packages: Path, count: int) -> Submission:
    bench.calls_file.write_text("")
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    launcher += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30"]
    folder = f"hydra.sweep.dir={bench.box / f'multirun-{count}'}"
    command = [sys.executable, "application.py", "-m", *launcher, folder, f"+n=range(0,{count})"]
    environment = bench.environment() | {"PYTHONPATH": str(packages)}
    began = time.perf_counter()
    with (bench.box / "said").open("w") as said:
        started = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=bench.box, env=environment
        )
        while not any(name == "sbatch" for name, _, _ in bench.calls()):
            if started.poll() is not None:
                raise SystemExit(f"Hydra's launcher ended\n{bench.said}")
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        # It would wait for all jobs to end; what was to be measured is over.
        started.kill()
        _, _, used = os.wait4(started.pid, 0)
        started.returncode = -9
    bench.cluster.run("scancel", "--me")
    core_seconds = used.ru_utime + used.ru_stime
    return Submission(count, seconds, core_seconds, used.ru_maxrss / 1024)


def seconds_a_job(few: Submission, many: Submission) -> tuple[float, float]:
    """Wall and core seconds that each further job takes."""
    more = many.jobs - few.jobs
    return (many.seconds - few.seconds) / more, (many.core_seconds - few.core_seconds) / more
