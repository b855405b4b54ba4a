"""Dispatch to SLURM: what is missing goes into the queue, as much as it takes, in order."""

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import claim, frozen, ledger, slurm_ends, slurm_limits, slurm_queue, slurm_states
from orchestrator import slurm_batch as batch
from orchestrator.ledger import Ledger
from orchestrator.progress import failed
from orchestrator.slurm_arrays import Array, arrays, few_at_once
from orchestrator.slurm_batch import Shape, minutes
from orchestrator.slurm_limits import Limits
from orchestrator.slurm_queue import Queued
from orchestrator.slurm_states import Said
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# A parent that failed: SLURM keeps its children pending for ever.
NEVER = "DependencyNeverSatisfied"


@dataclass(frozen=True)
class Submitted:
    """What a launch has submitted."""

    jobs: int
    ids: str
    waiting: int = 0  # jobs that did not fit into the queue
    because: str = ""  # the limit that they wait for


def submit(
    store: Store,
    sweep: str,
    cluster: Slurm,
    longest_minutes: int | None = None,
    again: bool = True,
) -> Submitted:
    """Submit what is missing and not queued already; repeat at will, also twice at once.

    What does not fit into the queue waits for the next time. `longest_minutes` is the time limit
    of the partition. Failed jobs are submitted `again`, or left with what waits for them.
    """
    held = claim.take(store.plan_folder(sweep) / "launch", "submit")
    if held is None:
        raise batch.under_way(store, sweep)
    with held:
        book, lines = ledger.read(store, sweep), slurm_queue.queue()
        plan = store.plan(sweep)
        batch.settle(book, lines)
        with contextlib.suppress(GrowpointError):
            slurm_ends.record(store, plan, book, _gone(slurm_states.said(book), lines))
        if again:
            _forgive(store, plan)
        over = _over(store, plan)
        live = _live(book, lines)
        dead = _never(plan, over, live, lines)
        slurm_queue.cancel([live.pop(job) for job in dead], lines)
        mine = sum(map(slurm_queue.alive, lines.values())) - len(dead)
        limits = slurm_limits.read(cluster)
        if not again:
            plan = _without_failed(store, plan)
        room, missing = limits.room(mine), len(_missing(plan, over, live))
        new = _submit_missing(
            _Round(
                store=store,
                plan=plan,
                cluster=_avoiding(cluster, slurm_ends.bad_nodes(store, sweep)),
                book=book,
                live=live,
                over=over,
                limits=limits,
                room=room,
                parallel=max(1, cluster.max_parallel - _at_once(book, live)),
                coming=min(room, missing),
                longest_minutes=longest_minutes,
                code=frozen.freeze(store) if cluster.snapshot and missing else None,
            )
        )
        return Submitted(len(new), _span(new), missing - len(new), limits.because)


def _gone(states: Mapping[str, Said], lines: Mapping[str, Queued]) -> dict[str, Said]:
    """What SLURM says of jobs whose processes are gone: cancelled ones save for some seconds."""
    alive = {slurm_id for slurm_id, line in lines.items() if slurm_queue.alive(line)}
    return {job: said for job, said in states.items() if said.slurm_id not in alive}


def _forgive(store: Store, plan: Mapping[str, Any]) -> None:
    """Failed stages are to be run again, also those that do not fit into the queue this time."""
    for stage in failed(store, plan["stages"]):
        known = {key: value for key, value in store.state(stage).items() if key != "state"}
        store.set_state(stage, "stopped", **known)


def _live(book: Ledger, lines: Mapping[str, Queued]) -> dict[str, str]:
    """SLURM's id of each job whose newest submission it still works on.

    By name as well: a controller that lost its memory gives the same ids to other jobs.
    """
    found: dict[str, str] = {}
    for one in book.batches.values():
        for job, slurm_id in zip(one.jobs, one.slurm_ids, strict=False):
            found.pop(job, None)
            line = lines.get(slurm_id)
            if line and line.name == one.name and slurm_queue.alive(line):
                found[job] = slurm_id
    return found


def _avoiding(cluster: Slurm, nodes: Sequence[str]) -> Slurm:
    """The same settings, with nodes left out on which jobs die."""
    if not nodes:
        return cluster
    logger.warning("left out, since different jobs died there at once: %s", ", ".join(nodes))
    exclude = ",".join([*([cluster.exclude] if cluster.exclude else []), *nodes])
    return cluster.model_copy(update={"exclude": exclude})


def _without_failed(store: Store, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan less the jobs that failed, and those that wait for them."""
    lost: set[str] = set()
    for job in plan["jobs"]:
        if lost.intersection(job["after"]) or failed(store, job["stages"]):
            lost.add(job["id"])
    return {**plan, "jobs": [job for job in plan["jobs"] if job["id"] not in lost]}


def _at_once(book: Ledger, live: Mapping[str, str]) -> int:
    """How many jobs of live arrays may run at once."""
    ids = {name: frozenset(one.slurm_ids) for name, one in book.batches.items()}
    alive = Counter(
        name
        for name, one in book.batches.items()
        for job in one.jobs
        if job in live and live[job] in ids[name]
    )
    return sum(min(count, book.batches[name].parallel or count) for name, count in alive.items())


def _never(
    plan: Mapping[str, Any],
    over: frozenset[str],
    live: Mapping[str, str],
    lines: Mapping[str, Queued],
) -> list[str]:
    """Pending jobs that wait for one that is neither done nor alive: SLURM keeps them for ever."""
    lost, jobs = set[str](), (*plan.get("earlier_jobs", ()), *plan["jobs"])
    for job in jobs:
        line = lines.get(live.get(job["id"], ""))
        if line is None or line.state != "PENDING":
            continue
        gone = [b for b in job["after"] if b not in over and (b not in live or b in lost)]
        if gone or line.reason == NEVER:
            lost.add(job["id"])
    return [job["id"] for job in jobs if job["id"] in lost]


def _over(store: Store, plan: Mapping[str, Any]) -> frozenset[str]:
    jobs = (*plan.get("earlier_jobs", ()), *plan["jobs"])
    done = set(filter(store.done, {stage for job in jobs for stage in job["stages"]}))
    return frozenset(job["id"] for job in jobs if done.issuperset(job["stages"]))


def _holders(plan: Mapping[str, Any], live: Mapping[str, str]) -> dict[str, str]:
    """SLURM's id of the live job of an earlier cut of the plan that will make a stage."""
    earlier = [job for job in plan.get("earlier_jobs", ()) if job["id"] in live]
    return {stage: live[job["id"]] for job in earlier for stage in job["stages"]}


@dataclass
class _Round:
    """One filling of the queue: what is alive, what is new, and how much more fits."""

    store: Store
    plan: Mapping[str, Any]
    cluster: Slurm
    book: Ledger
    live: dict[str, str]
    over: frozenset[str]
    limits: Limits
    room: int
    parallel: int  # jobs that may run at once, of the arrays that are still to come
    coming: int  # jobs in those arrays
    longest_minutes: int | None
    code: Path | None

    def submit(self, array: Array) -> list[str]:
        """Submit jobs that wait for the same, in as few arrays as may be, while there is room."""
        new: list[str] = []
        jobs, waits = array.jobs, array.dependency
        while jobs and self.room:
            chunk = jobs[: min(self.limits.array, self.room)]
            jobs = jobs[len(chunk) :]
            share = max(1, self.parallel * len(chunk) // max(1, self.coming))
            at_once = max(share, few_at_once(self.plan, self.cluster.max_parallel, len(chunk)))
            shape = Shape(minutes(self.plan, chunk, self.cluster), at_once, self.code)
            if self.longest_minutes:
                shape = replace(shape, minutes=min(shape.minutes, self.longest_minutes))
            names = [job["id"] for job in chunk]
            ids = batch.submit(
                self.store, self.plan["sweep"], self.cluster, self.book, names, waits, shape
            )
            if ids is None:
                self.room = 0
                break
            self.room -= len(ids)
            self.live.update(ids)
            new += ids.values()
        return new


def _submit_missing(round: _Round) -> list[str]:
    """Submit what is not done and not alive, parents before children; SLURM's ids of all."""
    plan = round.plan
    holders, new = _holders(plan, round.live), []
    while round.room:
        missing = _missing(plan, round.over, round.live)
        known = round.over | round.live.keys()
        ready = [job for job in missing if known.issuperset(job["after"])]
        if not ready:
            break
        needs = {
            job["id"]: frozenset(
                [
                    *(round.live[before] for before in job["after"] if before not in round.over),
                    *(holders[stage] for stage in job["stages"] if stage in holders),
                ]
            )
            for job in ready
        }
        for array in arrays(plan, ready, needs):
            new += round.submit(array)
    return new


def _missing(
    plan: Mapping[str, Any], over: frozenset[str], live: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    return [job for job in plan["jobs"] if job["id"] not in over and job["id"] not in live]


def _span(ids: Sequence[str]) -> str:
    masters = list(dict.fromkeys(slurm_id.partition("_")[0] for slurm_id in ids))
    if not masters:
        return ""
    return f"#{masters[0]}" if len(masters) == 1 else f"#{masters[0]}-#{masters[-1]}"


def queued_stages(store: Store, sweep: str) -> frozenset[str]:
    """Stages of jobs that SLURM still holds or runs; one call, empty where it fails.

    What SLURM says of jobs that died without a word is written into their stages.
    """
    if shutil.which("squeue") is None:
        return frozenset()
    book, plan = ledger.read(store, sweep), store.plan(sweep)
    try:
        states = slurm_states.said(book)
    except GrowpointError as error:
        # The scheduler's word is a hint; the files say what is done.
        logger.warning("SLURM does not answer: %s", dict(error.evidence).get("says"))
        return frozenset()
    # Somebody who may only read the store sees the same, and leaves the writing to others.
    with contextlib.suppress(GrowpointError, OSError):
        slurm_ends.record(store, plan, book, states)
    live = {job for job, said in states.items() if said.word in ("queued", "running")}
    jobs = (*plan["jobs"], *plan.get("earlier_jobs", ()))
    return frozenset(stage for job in jobs if job["id"] in live for stage in job["stages"])


def cancel(store: Store, sweep: str, stages: frozenset[str] | None = None) -> int:
    """Cancel the sweep's jobs, or those that make `stages`; returns how many were alive."""
    lines, book, plan = slurm_queue.queue(), ledger.read(store, sweep), store.plan(sweep)
    jobs = (*plan["jobs"], *plan.get("earlier_jobs", ()))
    chosen = {job["id"] for job in jobs if stages is None or stages.intersection(job["stages"])}
    every = stages is None
    live = [i for job, i in _live(book, lines).items() if every or job in chosen]
    if every:
        # Of a launch that was killed between sbatch and its answer.
        meant = {batch.name for batch in book.unanswered}
        live += [i for i, one in lines.items() if slurm_queue.alive(one) and one.name in meant]
    slurm_queue.cancel(live, lines)
    book.cancel(live)
    return len(live)
