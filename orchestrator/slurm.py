"""Dispatch to SLURM: submitit writes and submits arrays, `afterok` orders them."""

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from orchestrator import claim, ledger
from orchestrator.ledger import Batch, Ledger
from orchestrator.slurm_job import run
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

# States in which SLURM still has work to do for a job.
ALIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD",
    "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD",
}  # fmt: skip
# A parent that failed: SLURM keeps its children pending for ever.
NEVER = "DependencyNeverSatisfied"
# The default of MaxArraySize is 1001, so the highest index is 1000.
ARRAY_JOBS = 1000


@dataclass(frozen=True)
class Submitted:
    """What a launch has submitted."""

    jobs: int
    ids: str


@dataclass(frozen=True)
class Queued:
    """A line of squeue."""

    slurm_id: str
    state: str
    reason: str
    name: str


def check(cluster: Slurm, store: Store) -> None:
    """Refuse what cannot work before anything is written."""
    for command in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(command) is None:
            raise GrowpointError(
                f"this machine has no `{command}`",
                [("cluster", "slurm")],
                "cluster=local, or log in to the cluster",
            )
    partitions = _partitions()
    if partitions and not set(cluster.partition.split(",")) <= set(partitions):
        here = ", ".join(f"{name} ({state})" for name, state in partitions.items())
        raise GrowpointError(
            f"there is no partition `{cluster.partition}`",
            [("here", here)],
            f"cluster.partition={next(iter(partitions))}",
        )
    kind = _file_system(store.root)
    if kind in {"tmpfs", "ramfs"}:
        raise GrowpointError(
            f"{store.root.resolve()} is on this machine only, and jobs run on others",
            [("kind", kind)],
            "set store to a folder that every node sees, e.g. store=$HOME/runs",
        )


def _partitions() -> dict[str, str]:
    rows = _ask("sinfo", "-h", "-o", "%R %a").splitlines()
    return dict(row.split(maxsplit=1) for row in rows if " " in row)


def _file_system(folder: Path) -> str:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        if there.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _ask(*command: str) -> str:
    # Array lists are cut at 64 bytes unless SLURM_BITSTR_LEN is 0.
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0"}
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


def queue() -> dict[str, Queued]:
    """Everything this user has in the queue, by SLURM id (array tasks one by one); one call."""
    rows = _ask("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%j").splitlines()
    found = [Queued(*row.split("|", 3)) for row in rows if row.count("|") >= 3]
    return {line.slurm_id: line for line in found}


def submit(store: Store, sweep: str, cluster: Slurm) -> Submitted:
    """Submit what is missing and not queued already; repeat at will, also twice at once."""
    held = claim.take(store.plan_folder(sweep) / "launch", "submit")
    if held is None:
        raise GrowpointError(
            "another launch of this sweep is under way",
            [("held by", claim.holder(store.plan_folder(sweep) / "launch"))],
            f"growpoint status {sweep}",
        )
    with held:
        book, lines = ledger.read(store, sweep), queue()
        _settle(book, lines)
        dead = _never(book, lines)
        _cancel([book.latest[job] for job in dead])
        live = {
            job: i for job, i in book.latest.items() if _alive(lines.get(i)) and job not in dead
        }
        return _submit_missing(store, sweep, cluster, book, live)


def _alive(line: Queued | None) -> bool:
    return line is not None and line.state in ALIVE


def _settle(book: Ledger, lines: Mapping[str, Queued]) -> None:
    """Find out what became of intents whose launch was killed before it could say."""
    for batch in book.unanswered:
        ids = sorted(
            (line.slurm_id for line in lines.values() if line.name == batch.name),
            key=lambda slurm_id: int(slurm_id.partition("_")[2] or 0),
        )
        if ids:
            book.acknowledge(batch.name, ids)
        else:
            book.give_up(batch.name)


def _never(book: Ledger, lines: Mapping[str, Queued]) -> set[str]:
    latest = book.latest.items()
    return {job for job, i in latest if i in lines and lines[i].reason == NEVER}


def _submit_missing(
    store: Store, sweep: str, cluster: Slurm, book: Ledger, live: dict[str, str]
) -> Submitted:
    plan = store.plan(sweep)
    over = {job["id"] for job in plan["jobs"] if all(store.done(stage) for stage in job["stages"])}
    missing = [job for job in plan["jobs"] if job["id"] not in over and job["id"] not in live]
    new: list[str] = []
    while missing:
        known = {**live}
        ready = [job for job in missing if all(b in over or b in known for b in job["after"])]
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for job in ready:
            waits = tuple(sorted(known[before] for before in job["after"] if before not in over))
            groups[waits].append(job["id"])
        for waits, jobs in groups.items():
            for first in range(0, len(jobs), ARRAY_JOBS):
                ids = _submit_array(
                    store, sweep, cluster, book, jobs[first : first + ARRAY_JOBS], waits
                )
                live.update(ids)
                new += ids.values()
        missing = [job for job in missing if job["id"] not in live]
    return Submitted(len(new), _span(new))


def _span(ids: Sequence[str]) -> str:
    masters = list(dict.fromkeys(slurm_id.partition("_")[0] for slurm_id in ids))
    if not masters:
        return ""
    return f"#{masters[0]}" if len(masters) == 1 else f"#{masters[0]}-#{masters[-1]}"


def _submit_array(
    store: Store,
    sweep: str,
    cluster: Slurm,
    book: Ledger,
    jobs: Sequence[str],
    waits: Sequence[str],
) -> dict[str, str]:
    batch = book.intend(sweep, jobs)
    made = executor(store, sweep, cluster, batch, waits)
    root, count = str(store.root.resolve()), len(jobs)
    try:
        handles = made.map_array(run, [root] * count, [sweep] * count, jobs)
    except subprocess.CalledProcessError as error:
        raise _refused(error, sweep) from error
    except submitit.core.utils.FailedJobError as error:
        raise _refused(error, sweep) from error
    ids = [str(handle.job_id) for handle in handles]
    book.acknowledge(batch.name, ids)
    return dict(zip(jobs, ids, strict=True))


def _refused(error: Exception, sweep: str) -> GrowpointError:
    # A failed sbatch may have been accepted all the same: the intent stays open, and the next
    # launch looks it up by name before it submits anything.
    lines = [
        line for line in str(getattr(error, "stderr", "") or error).splitlines() if line.strip()
    ]
    return GrowpointError(
        "sbatch did not take a job",
        [("says", line.strip()) for line in lines[-2:]],
        f"growpoint launch {sweep}, after putting that right",
    )


def executor(
    store: Store, sweep: str, cluster: Slurm, batch: Batch, waits: Sequence[str]
) -> submitit.SlurmExecutor:
    """submitit's executor with all settings; its sbatch script is what SLURM is asked."""
    # One folder per batch keeps folders small; jobs write their own logs into their stages.
    folder = store.plan_folder(sweep).resolve() / "slurm" / batch.name
    made = submitit.SlurmExecutor(folder, python=cluster.python or sys.executable)
    made.update_parameters(**parameters(cluster, batch.name, waits))
    return made


def parameters(cluster: Slurm, name: str, waits: Sequence[str]) -> dict[str, Any]:
    """The settings of a batch in sbatch's own words."""
    gpus = f"{cluster.gpu_type}:{cluster.gpus}" if cluster.gpu_type else cluster.gpus
    asked: dict[str, Any] = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "time": cluster.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cluster.cpus,
        "gpus_per_node": gpus if cluster.gpus else None,
        "mem": f"{cluster.memory_gb:g}GB" if cluster.memory_gb else None,
        "constraint": cluster.constraint,
        "exclude": cluster.exclude,
        "dependency": "afterok:" + ":".join(waits) if waits else None,
        "array_parallelism": cluster.max_parallel,
        "signal_delay_s": cluster.signal_seconds,
        "setup": [*_environment(cluster), *cluster.setup],
        # One dead task must not hold the allocation until its time limit.
        "srun_args": ["--kill-on-bad-exit=1", *cluster.srun_args],
        "additional_parameters": {"requeue": True, **cluster.additional},
        # submitit's default wckey is refused by clusters that track them.
        "wckey": None,
    }
    return asked


def _environment(cluster: Slurm) -> list[str]:
    return [
        f"export GROWPOINT_SAVE_SECONDS={cluster.save_seconds:g}",
        f"export OMP_NUM_THREADS={cluster.threads}",
        "export TOKENIZERS_PARALLELISM=false",
    ]


def queued_stages(store: Store, sweep: str) -> frozenset[str]:
    """Stages of jobs that SLURM still holds or runs; one squeue call. Empty without SLURM."""
    if shutil.which("squeue") is None:
        return frozenset()
    lines, latest = queue(), ledger.read(store, sweep).latest
    live = {job for job, slurm_id in latest.items() if _alive(lines.get(slurm_id))}
    jobs = store.plan(sweep)["jobs"]
    return frozenset(stage for job in jobs if job["id"] in live for stage in job["stages"])


def cancel(store: Store, sweep: str) -> int:
    """Cancel the sweep's jobs; returns how many were alive."""
    lines, book = queue(), ledger.read(store, sweep)
    live = [slurm_id for slurm_id in book.latest.values() if _alive(lines.get(slurm_id))]
    _cancel(live)
    return len(live)


def _cancel(ids: Iterable[str]) -> None:
    chosen = sorted(ids)
    for first in range(0, len(chosen), 500):
        _ask("scancel", *chosen[first : first + 500])
