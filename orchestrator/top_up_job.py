"""What the job of `launch --unattended` does: one round, and its successor before that."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator import follow, notify, slurm_queue, top_up
from orchestrator.progress import Snapshot
from orchestrator.slurm import Submitted
from orchestrator.slurm_job import slurm_id
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# Rounds in which jobs were submitted, or none was alive, and nothing had come of the one before.
FRUITLESS_ROUNDS = 12
RETRY_SECONDS = 20.0
# What SLURM and submitit say of the job that runs would be taken for wishes about those to come.
OF_THIS_JOB = re.compile(r"(SLURM|SLURMD|SRUN|SUBMITIT|PMI|PMIX)_")
OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"}


def run(root: str, sweep: str, job: str) -> str:
    """What the job does: one round. Returns why it was the last one, or ""."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    # submitit's own handlers would ignore the one, and begin the round anew after the other.
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: sys.exit(1))
    mine = slurm_id()
    with _as_logged_in():
        ended, followed = one_round(Store(Path(root)), sweep, mine)
    logger.info("ended: %s", ended or "the next round follows")
    if not (ended or followed):
        # A full queue took no successor: this job keeps its place, and SLURM holds it back a while.
        slurm_queue.ask("scontrol", "requeue", mine)
        sys.exit(1)
    return ended


def one_round(store: Store, sweep: str, mine: str) -> tuple[str, bool]:
    """Submit the successor and what fits beside it.

    Returns why this was the last round, or "", and whether there is a successor.
    """
    known = top_up.read(store, sweep)
    if known is None or known["ended"]:
        return "nobody wants it", False
    cluster = Slurm.model_validate(known["cluster"])
    # First: should this job die, the next one goes on; and in a full queue it has its place.
    following = _successor(store, sweep, cluster, mine, known)
    filled = follow.fill(store, sweep, cluster, known["longest_minutes"])
    shot = follow.look(store, sweep, ask=True)
    came = [shot.count("done"), shot.count("failed"), round(shot.flops_done)]
    fruitless = int(known["fruitless"]) + _idle(filled, shot) if came == known["seen"] else 0
    why = _over(shot, fruitless)
    top_up.end(store, sweep, known, why, seen=came, fruitless=fruitless)
    if why and not shot.complete:
        notify.stuck(store, sweep, why)
    return why, following is not None


def _successor(
    store: Store, sweep: str, cluster: Slurm, mine: str, known: Mapping[str, Any]
) -> str | None:
    """The job that comes next; a controller that is away is given half of the job's time."""
    until = time.monotonic() + 30 * cluster.top_up.minutes
    while True:
        try:
            return top_up.successor(store, sweep, cluster, mine)
        except GrowpointError as error:
            if time.monotonic() > until:
                top_up.end(
                    store, sweep, known, ": ".join([error.problem, *dict(error.evidence).values()])
                )
                raise
            logger.warning("no successor yet: %s", error.text())
            time.sleep(RETRY_SECONDS)


def _idle(filled: Submitted | None, shot: Snapshot) -> bool:
    """Whether a round without progress submitted something again, or found nothing to wait for."""
    if filled and filled.jobs:
        return True
    if filled and filled.waiting:
        # The queue is full, of this sweep or another.
        return False
    return not (shot.count("running") or shot.count("queued"))


def _over(shot: Snapshot, fruitless: int) -> str:
    if shot.complete:
        return "all stages are done"
    if not follow.going(shot):
        left = f"{shot.count('failed')} stages failed, {shot.count('blocked')} wait for them"
        return f"nothing is left that can run: {left}"
    if fruitless >= FRUITLESS_ROUNDS:
        return f"nothing came of {fruitless} rounds"
    return ""


@contextmanager
def _as_logged_in() -> Iterator[None]:
    """An environment that says nothing of the job that runs."""
    before = dict(os.environ)
    for name in before:
        if OF_THIS_JOB.match(name) and name not in OF_THE_CLUSTER:
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
