"""The ledger of a sweep's SLURM submissions: what was meant, and what SLURM said.

An intent is on disk before sbatch runs, its acknowledgement after. An intent without one is looked
up by its unique name, so a launch that is killed in between neither loses nor doubles a job.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.store import Store, unwritable


@dataclass(frozen=True)
class Batch:
    """One sbatch call: the jobs of an array in order, and SLURM's id of each once known."""

    name: str
    jobs: tuple[str, ...]
    slurm_ids: tuple[str, ...] = ()
    lost: bool = False
    parallel: int = 0  # of an array, how many jobs may run at once; 0 in old ledgers
    at: float = 0.0  # when it was meant, in seconds since the epoch


@dataclass
class Ledger:
    """An append-only file of intents and acknowledgements."""

    path: Path
    batches: dict[str, Batch] = field(default_factory=dict)
    word: str = ""  # stands in the names of its jobs
    cancelled: set[str] = field(default_factory=set)  # SLURM's ids of jobs that we cancelled

    def intend(self, sweep: str, jobs: Sequence[str], parallel: int = 0) -> Batch:
        """Write that these jobs are about to be submitted, under a name nobody else has."""
        name, now = f"gp-{sweep}-{self.word}{secrets.token_hex(4)}", time.time()
        batch = Batch(name, tuple(jobs), parallel=parallel, at=now)
        self._append({"intent": name, "jobs": list(jobs), "parallel": parallel, "at": now})
        self.batches[batch.name] = batch
        return batch

    def acknowledge(self, name: str, slurm_ids: Sequence[str]) -> None:
        """Write what SLURM calls the jobs of a batch."""
        self._append({"acknowledged": name, "slurm_ids": list(slurm_ids)})
        self.batches[name] = replace(self.batches[name], slurm_ids=tuple(slurm_ids))

    def give_up(self, name: str) -> None:
        """Write that SLURM never heard of a batch."""
        self._append({"lost": name})
        self.batches[name] = replace(self.batches[name], slurm_ids=(), lost=True)

    def cancel(self, slurm_ids: Sequence[str]) -> None:
        """Write that we cancelled jobs: accounting forgets single tasks that never ran."""
        if slurm_ids:
            self._append({"cancelled": list(slurm_ids)})
            self.cancelled.update(slurm_ids)

    @property
    def unanswered(self) -> list[Batch]:
        """Batches that were meant, and of which no answer is known."""
        return [batch for batch in self.batches.values() if not batch.slurm_ids and not batch.lost]

    @property
    def latest(self) -> dict[str, str]:
        """SLURM's id of each job's newest submission."""
        return {
            job: slurm_id
            for batch in self.batches.values()
            for job, slurm_id in zip(batch.jobs, batch.slurm_ids, strict=False)
        }

    def batch_of(self, slurm_id: str) -> Batch | None:
        """The batch that a job of SLURM belongs to."""
        master = slurm_id.partition("_")[0]
        for batch in reversed(self.batches.values()):
            if batch.slurm_ids and batch.slurm_ids[0].partition("_")[0] == master:
                return batch
        return None

    def _append(self, entry: Mapping[str, Any]) -> None:
        # A line that a full disk or a crash cut short must not swallow the next one.
        before = self.path.read_bytes() if self.path.exists() else b""
        torn = bool(before) and not before.endswith(b"\n")
        try:
            with self.path.open("ab") as file:
                file.write(b"\n" * torn + json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error


def read(store: Store, sweep: str) -> Ledger:
    """The ledger of a sweep as it stands."""
    return _filled(Ledger(store.plan_folder(sweep) / "ledger.jsonl"))


def read_top_up(store: Store, sweep: str) -> Ledger:
    """The same of the job that fills the queue up: it comes and goes far more often."""
    return _filled(Ledger(store.plan_folder(sweep) / "top_up.jsonl", word="top-up-"))


def _filled(ledger: Ledger) -> Ledger:
    if not ledger.path.exists():
        return ledger
    for line in ledger.path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        ledger.cancelled.update(entry.get("cancelled", ()))
        _apply(ledger.batches, entry)
    return ledger


def _apply(batches: dict[str, Batch], entry: Mapping[str, Any]) -> None:
    if "intent" in entry:
        name = entry["intent"]
        parallel, at = entry.get("parallel", 0), entry.get("at", 0.0)
        batches[name] = Batch(name, tuple(entry["jobs"]), parallel=parallel, at=at)
    elif "acknowledged" in entry:
        name = entry["acknowledged"]
        batches[name] = replace(batches[name], slurm_ids=tuple(entry["slurm_ids"]))
    elif "lost" in entry:
        name = entry["lost"]
        batches[name] = replace(batches[name], slurm_ids=(), lost=True)
