"""SLURM's own commands: what is in the queue, which partitions there are, cancelling."""

import os
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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


def cancel(ids: Iterable[str], lines: Mapping[str, Queued]) -> None:
    """Cancel jobs by SLURM id, in few calls; `lines` is the queue that they were found in."""
    words = _words(ids, lines)
    for first in range(0, len(words), 500):
        ask("scancel", *words[first : first + 500])


def _words(ids: Iterable[str], lines: Mapping[str, Queued]) -> list[str]:
    """What scancel is told: arrays that go as a whole by one id, parts of others as `7_[0,2,5]`.

    Accounting keeps what was cancelled as a whole, and forgets single tasks that never ran.
    """
    chosen, queued = _by_master(ids), _by_master(i for i, line in lines.items() if alive(line))
    return [
        word
        for master, tasks in sorted(chosen.items())
        for word in (_parts(master, tasks) if queued.get(master, set()) - tasks else [master])
    ]


def _by_master(ids: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for slurm_id in ids:
        master, _, index = slurm_id.partition("_")
        found[master].add(index)
    return found


def _parts(master: str, tasks: Collection[str]) -> list[str]:
    """A thousand tasks a word at most: six digits each stay far below what a word may hold."""
    order = sorted(tasks, key=int)
    return [f"{master}_[{','.join(order[i : i + 1000])}]" for i in range(0, len(order), 1000)]


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
