"""One job on several ranks: the first runs it, the others take part in what it announces."""

import logging
from collections.abc import Callable

from orchestrator import verbs
from orchestrator.job import Circumstance, Outcome, logged, run_job
from orchestrator.ranks import EndedError
from orchestrator.store import Store
from orchestrator.work import Work

logger = logging.getLogger(__name__)


def run(
    store: Store,
    sweep: str,
    job: str,
    circumstance: Circumstance,
    stopped: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a job of a launched sweep, or take part in it; the same ending on every rank.

    The first rank does what is to be done of a job that `stopped` before the others leave: the end
    of one process may be the end of all. Raises what a rank other than the first failed by.
    """
    ranks = circumstance.ranks
    if not ranks.is_first:
        return _take_part(store, sweep, circumstance)
    outcome = run_job(store, sweep, job, circumstance)
    if outcome.ending == "stopped":
        stopped()
    ranks.part(outcome.ending)
    return outcome


def _take_part(store: Store, sweep: str, circumstance: Circumstance) -> Outcome:
    """Train whatever the first rank announces, until it says how the job ended."""
    ranks = circumstance.ranks
    work = Work(store, store.plan(sweep), circumstance, circumstance.stop)
    while "end" not in (said := ranks.told()):
        stage = store.stage(said["train"])
        with logged(store.run(stage.id)):
            try:
                verbs.take_part(work, stage)
            except EndedError as error:
                logger.info("the first rank has ended: %s", error)
                ranks.part()
                return Outcome("failed", stage.id, "the first rank failed")
            except Exception as error:
                logger.exception("rank %d of %d failed", ranks.rank, ranks.world)
                ranks.complain(error)
                raise
    ranks.part()
    return Outcome(said["end"], error="the first rank failed" if said["end"] == "failed" else "")
