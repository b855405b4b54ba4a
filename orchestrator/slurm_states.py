"""What SLURM says of a sweep's jobs, in one query: a hint, which finished files overrule."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator import slurm_queue
from orchestrator.ledger import Batch, Ledger
from orchestrator.slurm_queue import ALIVE, ask
from sweeps.errors import GrowpointError

Word = Literal["queued", "running", "stopped", "failed", "lost"]

# Accounting hears of a job some seconds late, and forgets none so soon.
GRACE_SECONDS = 300.0
LONGEST_WORD = 120_000
# Held back before they run again; NODE_FAIL and PREEMPTED are ends only once they left the queue.
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
# Of a job that ended well, whatever it left undone.
ENDED = "ended"
# Ends after which the same job may be tried again as it is.
STOPPED = {
    "CANCELLED": "was cancelled",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "was preempted",
    "TIMEOUT": "reached its time limit",
    "BOOT_FAIL": "its node did not boot",
    "REVOKED": "was revoked",
}
FAILED = {
    "OUT_OF_MEMORY": "ran out of memory: raise cluster.memory_gb",
    "DEADLINE": "could not end before its deadline",
    "FAILED": "ended with exit code {code}",
}


@dataclass(frozen=True)
class Said:
    """SLURM's word on the newest submission of a job."""

    slurm_id: str
    word: Word
    reason: str = ""
    node: str = ""
    elapsed: str = ""


@dataclass(frozen=True)
class Row:
    """A job or array task as the scheduler lists it."""

    state: str
    code: str = ""
    node: str = ""
    elapsed: str = ""
    reason: str = ""


def said(book: Ledger) -> dict[str, Said]:
    """SLURM's word on each submitted job: one call of sacct, or of squeue where that is off.

    Raises GrowpointError where SLURM does not answer at all.
    """
    latest = book.latest
    if not latest:
        return {}
    newest = frozenset(latest.values())
    asked = [b for b in book.batches.values() if not newest.isdisjoint(b.slurm_ids)]
    try:
        rows, complete = _accounted(asked), True
    except (GrowpointError, FileNotFoundError):
        rows, complete = _queued(asked), False
    return {
        job: _said(slurm_id, rows.get(slurm_id) or rows.get(_cut(slurm_id)), complete, book)
        for job, slurm_id in latest.items()
    }


def _accounted(batches: Sequence[Batch]) -> dict[str, Row]:
    """Rows of sacct by id. By name: ids are given out again when a controller lost its memory."""
    earliest = min((b.at for b in batches if b.at), default=0.0)
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(max(0.0, earliest - 60)))
    columns = "JobID,State,ExitCode,NodeList,Elapsed,Reason"
    words = ["-n", "-P", "-S", start, f"--format={columns}"]
    # Linux takes no word over 128 KiB: sooner a table with strangers in it than none.
    names = ",".join(batch.name for batch in batches)
    words += [f"--name={names}"] if len(names) < LONGEST_WORD else []
    rows: dict[str, Row] = {}
    for line in ask("sacct", *words).splitlines():
        slurm_id, state, code, node, elapsed, reason = (line.split("|") + [""] * 6)[:6]
        # A job that never started has the node `None assigned`.
        node = "" if " " in node else node
        row = Row(state.split()[0] if state else "", code, node, elapsed, reason)
        job, _, step = slurm_id.partition(".")
        if step:
            _blame(rows, job, row)
            continue
        for one in expanded(job):
            # A requeued job has several rows: what it does now counts, not how it once ended.
            if one not in rows or rows[one].state not in ALIVE:
                rows[one] = row
    return rows


def _blame(rows: dict[str, Row], job: str, step: Row) -> None:
    """A job whose step ran out of memory is called failed only: its steps follow it and know."""
    if step.state == "OUT_OF_MEMORY" and job in rows and rows[job].state == "FAILED":
        rows[job] = replace(rows[job], state=step.state)


def _queued(batches: Sequence[Batch]) -> dict[str, Row]:
    ours = frozenset(batch.name for batch in batches)
    return {
        slurm_id: Row(line.state, reason=line.reason)
        for slurm_id, line in slurm_queue.queue().items()
        if line.name in ours
    }


def _cut(slurm_id: str) -> str:
    """Stands for those tasks of an array that a list was too long to name."""
    return slurm_id.partition("_")[0] + "_[...]"


def expanded(slurm_id: str) -> Iterator[str]:
    """`7_[0-2,5%4]` as 7_0 7_1 7_2 7_5; any other id as itself.

    A list that was cut short, `7_[0,2,14...]`, has `7_[...]` for the rest, the last number too:
    digits of it may be missing.
    """
    found = re.fullmatch(r"(\d+)_\[([\d,:-]*)(\.\.\.)?(?:%\d+)?\]", slurm_id)
    if not found:
        yield slurm_id
        return
    parts = found[2].split(",")
    if found[3]:
        yield _cut(slurm_id)
    for part in parts[:-1] if found[3] else parts:
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{found[1]}_{index}"


def _said(slurm_id: str, row: Row | None, complete: bool, book: Ledger) -> Said:
    if row is None and slurm_id in book.cancelled:
        return Said(slurm_id, "stopped", STOPPED["CANCELLED"])
    if row is None:
        batch = book.batch_of(slurm_id)
        fresh = batch is not None and time.time() - batch.at < GRACE_SECONDS
        # Without accounting a job that left the queue leaves no trace but its files.
        word: Word = "queued" if fresh and complete else "lost"
        return Said(slurm_id, word, "SLURM knows nothing of it any more" * (word == "lost"))
    if row.state in WAITING:
        return Said(slurm_id, "queued", row.reason)
    if row.state in ALIVE:
        return Said(slurm_id, "running", node=row.node, elapsed=row.elapsed)
    if row.state in FAILED:
        why = FAILED[row.state].format(code=row.code.partition(":")[0])
        return Said(slurm_id, "failed", why, row.node, row.elapsed)
    why = STOPPED.get(row.state, ENDED if row.state == "COMPLETED" else row.state.lower())
    return Said(slurm_id, "stopped", why, row.node, row.elapsed)
