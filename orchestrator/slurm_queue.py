"""SLURM's own commands: what is in the queue, which partitions there are, cancelling."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

# States in which SLURM still has work to do for a job.
ALIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
    "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
}  # fmt: skip


@dataclass(frozen=True)
class Queued:
    """A line of squeue."""

    slurm_id: str
    state: str
    reason: str
    name: str


def queue() -> dict[str, Queued]:
    """Everything this user has in the queue, by SLURM id (array tasks one by one); one call."""
    rows = _ask("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%j").splitlines()
    found = [Queued(*row.split("|", 3)) for row in rows if row.count("|") >= 3]
    return {line.slurm_id: line for line in found}


def alive(line: Queued | None) -> bool:
    """Whether SLURM still has work to do for a job."""
    return line is not None and line.state in ALIVE


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs by SLURM id, in few calls."""
    chosen = sorted(ids)
    for first in range(0, len(chosen), 500):
        _ask("scancel", *chosen[first : first + 500])


def check(cluster: Slurm, store: Store) -> None:
    """Refuse what cannot work before anything is written."""
    for command in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(command) is None:
            raise GrowpointError(
                f"this machine has no `{command}`",
                [("cluster", "slurm")],
                "cluster=local, or log in to the cluster",
            )
    partitions = _partitions()
    if partitions and not set(cluster.partition.split(",")) <= set(partitions):
        here = ", ".join(f"{name} ({state})" for name, state in partitions.items())
        raise GrowpointError(
            f"there is no partition `{cluster.partition}`",
            [("here", here)],
            f"cluster.partition={next(iter(partitions))}",
        )
    kind = _file_system(store.root)
    if kind in {"tmpfs", "ramfs"}:
        raise GrowpointError(
            f"{store.root.resolve()} is on this machine only, and jobs run on others",
            [("kind", kind)],
            "set store to a folder that every node sees, e.g. store=$HOME/runs",
        )


def _partitions() -> dict[str, str]:
    rows = _ask("sinfo", "-h", "-o", "%R %a").splitlines()
    return dict(row.split(maxsplit=1) for row in rows if " " in row)


def _file_system(folder: Path) -> str:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        if there.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _ask(*command: str) -> str:
    # Array lists are cut at 64 bytes unless SLURM_BITSTR_LEN is 0.
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise GrowpointError(
            f"`{command[0]}` failed",
            [
                (
                    "says",
                    done.stderr.strip().splitlines()[-1]
                    if done.stderr.strip()
                    else done.returncode,
                )
            ],
            " ".join(command),
        )
    return done.stdout
