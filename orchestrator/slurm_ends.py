"""What became of jobs that died without a word, written into their stages; nodes that kill jobs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator import claim, notify
from orchestrator.ledger import Ledger
from orchestrator.slurm_states import ENDED, STOPPED, Said
from orchestrator.store import WRITERS, Store, read_json, write_json

# Jobs of different stages that a node may lose at their start before it is left out.
BAD_NODE_JOBS = 2
# Ends after which SLURM may run the same job again, before its accounting says so.
BACK = {STOPPED["NODE_FAIL"], STOPPED["PREEMPTED"]}
# A job that ended so soon has not got to its work.
START_SECONDS = 120


def record(
    store: Store, plan: Mapping[str, Any], book: Ledger, states: Mapping[str, Said]
) -> list[str]:
    """Write what SLURM says of jobs that ended into their stages; returns those stages.

    From then on files tell it, to whoever asks and without SLURM.
    """
    dead = []
    ended = list(_ended(store, plan, states))
    # Hundreds may end at once, and each file waits for the disk.
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda one: _note(store, str(plan["sweep"]), book, *one[1:]), ended))
    for job, stage, said in ended:
        if said.word == "failed":
            notify.failed(store, str(plan["sweep"]), stage, _words(said))
        if said.node and said.word == "failed" and _seconds(said.elapsed) < START_SECONDS:
            dead.append((said.node, job))
    _remember(store, str(plan["sweep"]), dead)
    return [stage for _, stage, _ in ended]


def _note(store: Store, sweep: str, book: Ledger, stage: str, said: Said) -> None:
    known = store.state(stage)
    store.set_state(
        stage,
        said.word,
        error=_words(said),
        scheduler=said.slurm_id,
        allocation=said.slurm_id,
        at=time.time(),
        log=str(log(store, sweep, book, said.slurm_id)),
        host=said.node or known.get("host", ""),
        attempts=known.get("attempts", 0),
    )
    if said.reason not in BACK:
        # Its next job may start on another machine, which cannot see that it is gone.
        claim.let_go(store.run(stage) / "claim", said.slurm_id)


def _words(said: Said) -> str:
    return f"SLURM says that job #{said.slurm_id} {said.reason}"


def _ended(
    store: Store, plan: Mapping[str, Any], states: Mapping[str, Said]
) -> Iterator[tuple[str, str, Said]]:
    """Jobs that SLURM says are over, with the stage that each of them left unfinished."""
    for job in (*plan["jobs"], *plan.get("earlier_jobs", ())):
        said = states.get(job["id"])
        if said is None or said.word not in ("failed", "stopped") or _never_began(said):
            continue
        stage = next((each for each in job["stages"] if not store.done(each)), None)
        if stage is None or _told(store, stage, said):
            continue
        yield job["id"], stage, said


def _never_began(said: Said) -> bool:
    """Whether a job was cancelled while it was queued: nothing was lost, and it left no log."""
    return said.word == "stopped" and not said.node and not _seconds(said.elapsed)


def _told(store: Store, stage: str, said: Said) -> bool:
    """Whether the stage's own state is the newer word: its job wrote it, or another works on it."""
    known = store.state(stage)
    if known["state"] == "failed" and said.reason == ENDED:
        return True
    ours = known.get("allocation") == said.slurm_id
    if known.get("scheduler") == said.slurm_id or (
        known["state"] in ("failed", "stopped") and ours
    ):
        return True
    holder = claim.holder(store.run(stage) / "claim")
    # A claim's heartbeat outlives its holder; SLURM knows at once that this job is gone.
    return holder is not None and holder.get("note") != said.slurm_id


def log(store: Store, sweep: str, book: Ledger, slurm_id: str) -> Path:
    """Where SLURM put what a job wrote to its standard error."""
    batch = book.batch_of(slurm_id)
    folder = store.plan_folder(sweep) / "slurm"
    return folder / batch.name / f"{slurm_id}_0_log.err" if batch else folder


def _seconds(elapsed: str) -> float:
    """Of sacct's `days-hours:minutes:seconds`."""
    days, _, clock = elapsed.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = 60 * total + float(part or 0)
    return total + 86400 * float(days or 0)


def bad_nodes(store: Store, sweep: str) -> list[str]:
    """Nodes on which different jobs died at their start: new jobs are kept off them."""
    known = read_json(store.plan_folder(sweep) / "nodes.json") or {}
    return sorted(node for node, jobs in known.items() if len(jobs) >= BAD_NODE_JOBS)


def _remember(store: Store, sweep: str, dead: Sequence[tuple[str, str]]) -> None:
    if not dead:
        return
    path = store.plan_folder(sweep) / "nodes.json"
    known: dict[str, list[str]] = read_json(path) or {}
    for node, job in dead:
        known[node] = sorted({*known.get(node, ()), job})
    write_json(path, known)
