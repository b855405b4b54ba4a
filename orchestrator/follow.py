"""`launch --follow`: keep the queue filled until the sweep is over."""

import logging
import time
from collections.abc import Callable

from orchestrator import slurm
from orchestrator.progress import Snapshot, snapshot
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# Schedulers are shared: administrators ask for no more than a query or two a minute.
POLL_SECONDS = 30.0
SEE_SECONDS = 1.0


def follow(
    store: Store,
    sweep: str,
    cluster: Slurm,
    longest_minutes: int | None,
    report: Callable[[Snapshot], None],
    stop: Callable[[], bool],
    poll_seconds: float = POLL_SECONDS,
) -> Snapshot:
    """Submit what there is room for, again and again, until nothing is left that can run.

    What fails meanwhile is left for the next launch; jobs that were preempted, lost their node or
    reached their limit are submitted again. When `stop` turns true the queued jobs stay.
    """
    asked = time.monotonic()
    while True:
        shot = look(store, sweep)
        report(shot)
        if shot.complete or stop() or not going(shot):
            return shot
        if time.monotonic() - asked >= poll_seconds:
            asked = time.monotonic()
            fill(store, sweep, cluster, longest_minutes)
            shot = look(store, sweep, ask=True)
            if not going(shot):
                report(shot)
                return shot
        time.sleep(SEE_SECONDS)


def look(store: Store, sweep: str, ask: bool = False) -> Snapshot:
    """How far the sweep is; with `ask`, after asking SLURM what it holds."""
    queued = slurm.queued_stages(store, sweep) if ask else frozenset[str]()
    return snapshot(store, store.plan(sweep), queued)


def going(shot: Snapshot) -> bool:
    """Whether something runs, is queued, or can be."""
    return any(shot.count(word) for word in ("running", "queued", "waiting", "stopped"))


def fill(
    store: Store, sweep: str, cluster: Slurm, longest_minutes: int | None
) -> slurm.Submitted | None:
    """Submit what there is room for, less what failed; None if that was not possible now."""
    try:
        return slurm.submit(store, sweep, cluster, longest_minutes, again=False)
    except GrowpointError as error:
        # Somebody else tops up, or the controller is away: the next round sees.
        logger.warning("not topped up: %s", error.problem)
        return None
