"""SLURM's own commands: what is in the queue, which partitions there are, cancelling."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator import slurm_environment
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
    rows = ask("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%j").splitlines()
    found = [Queued(*row.split("|", 3)) for row in rows if row.count("|") >= 3]
    return {line.slurm_id: line for line in found}


def alive(line: Queued | None) -> bool:
    """Whether SLURM still has work to do for a job."""
    return line is not None and line.state in ALIVE


def cancel(ids: Iterable[str]) -> None:
    """Cancel jobs by SLURM id, in few calls."""
    chosen = sorted(ids)
    for first in range(0, len(chosen), 500):
        ask("scancel", *chosen[first : first + 500])


def ask(*command: str) -> str:
    """What one of SLURM's commands prints. Raises GrowpointError where it fails."""
    # Array lists are cut at 64 bytes unless SLURM_BITSTR_LEN is 0.
    environment = {**slurm_environment.for_tellers(os.environ), "SLURM_BITSTR_LEN": "0"}
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
