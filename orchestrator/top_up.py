"""`launch --unattended`: a small job that fills SLURM's queue up, and submits its own successor.

It runs for seconds, begins at a set time (an `afterany` on the last array would neither see free
places nor jobs to repair before that ends), and ends by itself when nothing is left that can run.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator import claim, frozen, ledger, slurm_batch, slurm_limits, slurm_queue, text
from orchestrator.slurm_queue import Queued
from orchestrator.store import Store, read_json, write_json
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

# The job, its successor, and one that computes.
LEAST_PLACES = 3
# Folders with logs of earlier rounds.
KEPT_ROUNDS = 8
WAIT_SECONDS = 60.0


def start(store: Store, sweep: str, cluster: Slurm, longest_minutes: int | None) -> str:
    """Have the queue filled up from now on, by these settings; SLURM's id of the job that does it.

    Repeat at will: there is one such job at a time. Raises GrowpointError where none fits.
    """
    limits = slurm_limits.read(cluster)
    if limits.queued < LEAST_PLACES:
        raise GrowpointError(
            "the queue is too short for a job that fills it up",
            [("places", limits.queued), ("by", limits.because), ("needs", LEAST_PLACES)],
            "launch without --unattended, and with --follow",
        )
    over = not stands(store, sweep)
    with _alone(store, sweep):
        asked = {"asked": time.time(), "cluster": cluster.model_dump(mode="json")}
        more: dict[str, Any] = {
            "longest_minutes": longest_minutes,
            "fruitless": 0,
            "seen": [],
            "ended": "",
        }
        write_json(_path(store, sweep), {**asked, **more})
        # One that runs although its end was written is about to leave.
        found = _next(store, sweep, cluster, but_running=over)
    if found is None:
        raise GrowpointError(
            "the queue has no place for the job that fills it up",
            [("limit", limits.because)],
            "launch without --unattended, and again with it when some of your jobs have ended",
        )
    return found


@contextmanager
def beside(
    store: Store, name: str, cluster: Slurm, longest_minutes: int | None, unattended: bool
) -> Iterator[None]:
    """The job of --unattended goes in first, so that a queue filled to its limit has it too.

    One that stands goes on by the new settings. What SLURM refuses must not be tried all night.
    """
    stood = stands(store, name)
    if not (stood or unattended):
        yield
        return
    job = start(store, name, cluster, longest_minutes)
    try:
        yield
    except GrowpointError:
        if not stood:
            stop(store, name, "the launch failed")
        raise
    every = text.seconds(60 * cluster.top_up.every_minutes)
    text.out.print(f"  unattended   job #{job} fills the queue up every {every}")


def read(store: Store, sweep: str) -> dict[str, Any] | None:
    """What was asked for and how that goes; None if it never was."""
    return read_json(_path(store, sweep))


def stands(store: Store, sweep: str) -> bool:
    """Whether somebody has asked for it, and it has not come to its end."""
    known = read(store, sweep)
    return known is not None and not known["ended"]


def stop(store: Store, sweep: str, why: str) -> bool:
    """No more rounds; waits until one that runs has ended. Returns whether there was anything."""
    known = read(store, sweep)
    if known is None:
        return False
    standing = not known["ended"]
    with _alone(store, sweep):
        if standing:
            write_json(_path(store, sweep), {**known, "ended": why})
        names = set(ledger.read_top_up(store, sweep).batches)
    until = time.monotonic() + WAIT_SECONDS
    while live := _alive(names):
        slurm_queue.cancel(live, live)
        if time.monotonic() > until:
            break
        time.sleep(1.0)
    return standing


def _alive(names: set[str]) -> dict[str, Queued]:
    lines = slurm_queue.queue()
    return {i: one for i, one in lines.items() if one.name in names and slurm_queue.alive(one)}


def told(store: Store, sweep: str) -> dict[str, Any] | None:
    """What is to be said of it: its job, when that looks next, or why it ended; None if unasked."""
    known = read(store, sweep)
    if known is None:
        return None
    batches = [b for b in ledger.read_top_up(store, sweep).batches.values() if b.slurm_ids]
    said: dict[str, Any] = {"ended": known["ended"]}
    if known["ended"] or not batches:
        return said
    newest = batches[-1]
    every = Slurm.model_validate(known["cluster"]).top_up.every_minutes
    said |= {"job": newest.slurm_ids[0], "at": newest.at + 60 * every}
    if shutil.which("squeue") is None:
        return said
    try:
        state = slurm_queue.ask("squeue", "--me", "-h", "-n", newest.name, "-o", "%T").strip()
    except GrowpointError:
        return said
    return {**said, "state": state or "gone"}


def end(store: Store, sweep: str, known: Mapping[str, Any], why: str, **more: object) -> None:
    """Write what a round came to, unless somebody has launched or cancelled meanwhile."""
    with _alone(store, sweep):
        now = read(store, sweep) or {}
        if now.get("asked") != known["asked"] or now["ended"]:
            return
        write_json(_path(store, sweep), {**now, **more, "ended": why})
        book = ledger.read_top_up(store, sweep)
        if why:
            lines = slurm_queue.queue()
            waiting = [i for i, one in lines.items() if one.name in book.batches]
            slurm_queue.cancel([i for i in waiting if lines[i].state == "PENDING"], lines)
        for old in list(book.batches)[:-KEPT_ROUNDS]:
            folder = store.plan_folder(sweep) / "slurm" / old
            shutil.rmtree(folder, ignore_errors=True)


def successor(store: Store, sweep: str, cluster: Slurm, mine: str) -> str | None:
    """SLURM's id of the job that comes after `mine`; None if the queue is full."""
    with _alone(store, sweep):
        return _next(store, sweep, cluster, mine)


def _next(
    store: Store, sweep: str, cluster: Slurm, mine: str = "", but_running: bool = False
) -> str | None:
    """SLURM's id of the job that comes next after `mine`, submitted unless it is there already.

    None if the queue is full.
    """
    # What it runs imports this module.
    from orchestrator.top_up_job import run

    book, lines = ledger.read_top_up(store, sweep), slurm_queue.queue()
    slurm_batch.settle(book, lines)
    for batch in book.batches.values():
        line = lines.get(batch.slurm_ids[0]) if batch.slurm_ids else None
        # Ids are given out again when a controller lost its memory, names are not.
        if not line or line.name != batch.name or not slurm_queue.alive(line):
            continue
        if line.slurm_id != mine and not (but_running and line.state != "PENDING"):
            return line.slurm_id
    # Its rounds submit the code that it runs itself.
    code = frozen.freeze(store) if cluster.snapshot else None
    small, shape = settings(cluster), slurm_batch.Shape(cluster.top_up.minutes, 1, code)
    ids = slurm_batch.submit(store, sweep, small, book, ["top-up"], None, shape, run)
    return ids["top-up"] if ids else None


def settings(cluster: Slurm) -> Slurm:
    """The settings of the job itself: one CPU, no GPU, and a time before which it does not run."""
    own, elsewhere = cluster.top_up, cluster.top_up.partition is not None
    begin = f"now+{max(1, round(60 * own.every_minutes))}"
    changes: dict[str, Any] = {
        "partition": own.partition or cluster.partition,
        "account": own.account or cluster.account,
        "qos": own.qos or cluster.qos,
        "gpus": 0,
        "gpu_type": None,
        "nodes": 1,
        "tasks": 1,
        "cpus": 1,
        "memory_gb": own.memory_gb,
        "minutes": own.minutes,
        "constraint": None if elsewhere else cluster.constraint,
        "reservation": None if elsewhere else cluster.reservation,
        "python": own.python or cluster.python,
        "signal_seconds": 30,
        "srun_args": (),
        "additional": {"begin": begin, **own.additional},
    }
    return cluster.model_copy(update=changes)


def _path(store: Store, sweep: str) -> Path:
    return store.plan_folder(sweep) / "top_up.json"


@contextmanager
def _alone(store: Store, sweep: str) -> Iterator[None]:
    """Nobody else submits or ends the job meanwhile."""
    until = time.monotonic() + WAIT_SECONDS
    name = store.plan_folder(sweep) / "top_up.claim"
    held = claim.wait(name, "top_up", lambda: time.monotonic() > until)
    if held is None:
        raise slurm_batch.under_way(store, sweep)
    with held:
        yield
