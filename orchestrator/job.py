"""The body of a job: run a chain of stages, each once, skipping what is done."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator import claim, frozen, notify, provenance, verbs
from orchestrator.progress import reached
from orchestrator.store import Store
from orchestrator.work import Circumstance, Work
from sweeps import cost
from sweeps.errors import GrowpointError
from sweeps.plan import VERSION
from sweeps.stages import Stage, Train

logger = logging.getLogger(__name__)

# Restarts of one SLURM job that saved nothing new. Training saves whenever it is stopped in time;
# the other verbs begin anew, and must be given a chance to be left alone once.
TRAIN_STALLS, OTHER_STALLS = 2, 10
Ending = Literal["done", "failed", "stopped", "blocked"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and at which stage if not done."""

    ending: Ending
    stage: str = ""
    error: str = ""


def run_job(store: Store, sweep: str, job_id: str, circumstance: Circumstance) -> Outcome:
    """Run the stages of one job of a launched sweep, up to the first that fails or is stopped.

    A job that was started although the one before it left its work undone is `blocked`.
    """
    # At once: whoever edits a checkout while a job runs it changes what a later question finds.
    provenance.code()
    plan = _readable(store, sweep)
    # A sweep that was extended meanwhile may have cut its chains elsewhere.
    found = [job for job in (*plan["jobs"], *plan.get("earlier_jobs", ())) if job["id"] == job_id]
    if not found:
        raise GrowpointError(
            f"sweep `{sweep}` has no job `{job_id}`",
            [("plan", store.plan_folder(sweep) / "plan.json")],
            f"growpoint launch {sweep}",
        )
    if blocked := _blocked(store, plan, found[0], circumstance):
        return blocked
    for stage_id in found[0]["stages"]:
        outcome = run_stage(store, stage_id, plan, circumstance)
        if outcome.ending == "failed":
            notify.failed(store, sweep, stage_id, outcome.error)
        if outcome.ending != "done":
            return outcome
    notify.done(store, plan)
    return Outcome("done")


def _readable(store: Store, sweep: str) -> dict[str, Any]:
    """The plan, unless a newer growpoint laid it out while a job of this code was queued."""
    plan = store.check().plan(sweep)
    if plan.get("version", VERSION) > VERSION:
        raise GrowpointError(
            "the plan was written by a newer growpoint than this job runs",
            [("plan", f"version {plan['version']}"), ("known", f"up to {VERSION}")],
            f"growpoint cancel {sweep}, then launch it again: new jobs run the newer code",
        )
    return plan


def _blocked(
    store: Store, plan: Mapping[str, Any], job: Mapping[str, Any], circumstance: Circumstance
) -> Outcome | None:
    """What becomes of a job whose first undone stage has nothing to go on from."""
    stage = next((each for each in job["stages"] if not store.done(each)), "")
    entry = plan["stages"].get(stage, {})
    after, start = entry.get("after"), entry.get("starts_from")
    if stage and not entry:  # of an earlier question under this name
        before = store.stage(stage).after
        after = before.id if before else None
    # A phase can do without the shorter one that it would go on from: one that nobody has begun
    # is of a newer cut of the plan. One that went wrong is left to be put right first.
    wrong = [each for each in {after, start} if each and not store.done(each)]
    wrong = [each for each in wrong if each == after or _went_wrong(store, each)]
    if not wrong or after in job["stages"]:
        return None
    logger.warning("this job goes on from %s, which is not done", wrong[0])
    known = store.state(stage)
    if known["state"] != "failed":
        here = {"allocation": circumstance.allocation, "at": time.time()}
        store.set_state(stage, "stopped", attempts=known.get("attempts", 0), **here)
    return Outcome("blocked", stage)


def _went_wrong(store: Store, stage: str) -> bool:
    return store.state(stage)["state"] in ("failed", "stopped")


def run_stage(
    store: Store, stage_id: str, plan: Mapping[str, Any], circumstance: Circumstance
) -> Outcome:
    """Run one stage unless it is done, or wait while somebody else does; a failure is returned."""
    if store.done(stage_id):
        return Outcome("done", stage_id)
    held = claim.wait(store.run(stage_id) / "claim", circumstance.allocation, circumstance.stop)
    if held is None:
        return Outcome("stopped", stage_id)
    with held, logged(store.run(stage_id)):
        if store.done(stage_id):
            return Outcome("done", stage_id)
        try:
            return _attempt(store, store.stage(stage_id), plan, circumstance, held)
        except GrowpointError as error:
            logger.error(error.text())
            told = error.text().removeprefix("error: ")
        except Exception as error:
            logger.exception("the stage failed")
            told = f"{type(error).__name__}: {error}"
        # Somebody else has the stage by now, and its files are his.
        if held.lost:
            return Outcome("stopped", stage_id)
        return _failed(store, stage_id, circumstance.allocation, told)


def _failed(store: Store, stage_id: str, allocation: str, error: str) -> Outcome:
    attempts = store.state(stage_id).get("attempts", 1)
    log = str(store.run(stage_id) / "log")
    store.set_state(
        stage_id,
        "failed",
        attempts=attempts,
        error=error,
        # By which SLURM's "ended with exit code 1" is known to say nothing more.
        allocation=allocation,
        host=socket.gethostname(),
        at=time.time(),
        log=log,
    )
    return Outcome("failed", stage_id, error)


def _attempt(
    store: Store,
    stage: Stage,
    plan: Mapping[str, Any],
    circumstance: Circumstance,
    held: claim.Claim,
) -> Outcome:
    if circumstance.allocation not in ("", "local"):
        frozen.require()
    before = store.state(stage.id)
    began = time.time()
    stalls = _stalls(store, stage, before, circumstance.allocation)
    running = {
        "attempts": before.get("attempts", 0) + 1,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "saved_tokens": _saved_tokens(store.run(stage.id)),
        "stalls": stalls,
    }
    store.set_state(stage.id, "running", since=began, allocation=circumstance.allocation, **running)
    if stalls > (TRAIN_STALLS if isinstance(stage.do, Train) else OTHER_STALLS):
        raise GrowpointError(
            "the job was restarted again and again and came no further",
            [("restarts", stalls), ("saved", f"{running['saved_tokens']} tokens")],
            "cluster.minutes=LONGER, or a shorter cluster.save_seconds",
        )
    if stage.after and not store.done(stage.after.id):
        raise GrowpointError(
            "the stage before this one is not done",
            [("before", stage.after.id)],
            "growpoint launch SWEEP",
        )

    def stop() -> bool:
        return circumstance.stop() or held.lost

    came = verbs.run(Work(store, plan, circumstance, stop), stage)
    if came is None:
        if not held.lost:
            mine = {**running, "allocation": circumstance.allocation}
            store.set_state(stage.id, "stopped", at=time.time(), **mine)
        return Outcome("stopped", stage.id)
    store.finish(stage.id, _record(stage, began, circumstance, came))
    store.set_state(stage.id, "done", at=time.time(), **running)
    return Outcome("done", stage.id)


def _record(
    stage: Stage, began: float, circumstance: Circumstance, came: dict[str, Any]
) -> dict[str, Any]:
    return {
        "stage": stage.id,
        "kind": stage.do.kind,
        "flops": cost.flops(stage),
        "trained_tokens": cost.trained_tokens(stage),
        "trained_flops": cost.trained_flops(stage),
        "seconds": time.time() - began,
        "finished_at": time.time(),
        "host": socket.gethostname(),
        "allocation": circumstance.allocation,
        **provenance.of_record(),
        **came,
    }


def _stalls(store: Store, stage: Stage, before: Mapping[str, Any], allocation: str) -> int:
    """How often in a row SLURM has restarted this very job without its saving anything new."""
    restarted = allocation not in ("", "local") and before.get("allocation") == allocation
    if not restarted or before["state"] == "failed":
        return 0
    further = _saved_tokens(store.run(stage.id)) > int(before.get("saved_tokens", 0))
    return 0 if further else int(before.get("stalls", 0)) + 1


def _saved_tokens(run: Path) -> int:
    """Tokens of the newest checkpoint that an unfinished phase has saved, or a command's own."""
    numbers = (path.name.removeprefix("at-") for path in run.glob("partial/at-*"))
    return max((int(number) for number in numbers if number.isdigit()), default=reached(run))


@contextmanager
def logged(run: Path) -> Iterator[None]:
    """Send log lines of this process to the stage's own log as well."""
    (run / "log").mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-{os.getpid()}.log"
    there = logging.FileHandler(run / "log" / name, delay=True)
    there.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(there)
    try:
        yield
    finally:
        root.removeHandler(there)
        there.close()
