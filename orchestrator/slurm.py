"""Dispatch to SLURM: submitit writes and submits arrays, `afterok` orders them."""

import logging
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import submitit

from orchestrator import claim, ledger, slurm_queue
from orchestrator.ledger import Batch, Ledger
from orchestrator.slurm_job import run
from orchestrator.slurm_queue import Queued
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# A parent that failed: SLURM keeps its children pending for ever.
NEVER = "DependencyNeverSatisfied"
# The default of MaxArraySize is 1001, so the highest index is 1000.
ARRAY_JOBS = 1000


@dataclass(frozen=True)
class Submitted:
    """What a launch has submitted."""

    jobs: int
    ids: str


def submit(store: Store, sweep: str, cluster: Slurm) -> Submitted:
    """Submit what is missing and not queued already; repeat at will, also twice at once."""
    held = claim.take(store.plan_folder(sweep) / "launch", "submit")
    if held is None:
        raise GrowpointError(
            "another launch of this sweep is under way",
            [("store", store.root.resolve())],
            f"growpoint status {sweep}",
        )
    with held:
        book, lines = ledger.read(store, sweep), slurm_queue.queue()
        _settle(book, lines)
        live = {job: i for job, i in book.latest.items() if slurm_queue.alive(lines.get(i))}
        dead = _never(store, sweep, live, lines)
        slurm_queue.cancel([live.pop(job) for job in dead])
        return _submit_missing(store, sweep, cluster, book, live)


def _settle(book: Ledger, lines: Mapping[str, Queued]) -> None:
    """Clear up intents whose launch was killed before it could say what became of them.

    What SLURM holds under such a name is cancelled, and submitted anew: submitit may not have put
    the job's description in place yet, and tasks that ended already cannot be told from their ids.
    """
    for batch in book.unanswered:
        slurm_queue.cancel({line.slurm_id for line in lines.values() if line.name == batch.name})
        book.give_up(batch.name)


def _never(
    store: Store, sweep: str, live: Mapping[str, str], lines: Mapping[str, Queued]
) -> list[str]:
    """Pending jobs that wait for one that is neither done nor alive: SLURM keeps them for ever."""
    plan = store.plan(sweep)
    over, lost = _over(store, plan), set[str]()
    for job in plan["jobs"]:
        line = lines.get(live.get(job["id"], ""))
        if line is None or line.state != "PENDING":
            continue
        gone = [b for b in job["after"] if b not in over and (b not in live or b in lost)]
        if gone or line.reason == NEVER:
            lost.add(job["id"])
    return [job["id"] for job in plan["jobs"] if job["id"] in lost]


def _over(store: Store, plan: Mapping[str, Any]) -> set[str]:
    return {job["id"] for job in plan["jobs"] if all(store.done(stage) for stage in job["stages"])}


def _holders(plan: Mapping[str, Any], live: Mapping[str, str]) -> dict[str, str]:
    """SLURM's id of the live job of an earlier cut of the plan that will make a stage."""
    earlier = [job for job in plan.get("earlier_jobs", ()) if job["id"] in live]
    return {stage: live[job["id"]] for job in earlier for stage in job["stages"]}


def _submit_missing(
    store: Store, sweep: str, cluster: Slurm, book: Ledger, live: dict[str, str]
) -> Submitted:
    plan = store.plan(sweep)
    over, holders = _over(store, plan), _holders(plan, live)
    missing = [job for job in plan["jobs"] if job["id"] not in over and job["id"] not in live]
    new: list[str] = []
    while missing:
        ready = [job for job in missing if all(b in over or b in live for b in job["after"])]
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for job in ready:
            needed = {live[before] for before in job["after"] if before not in over}
            needed |= {holders[stage] for stage in job["stages"] if stage in holders}
            groups[tuple(sorted(needed))].append(job["id"])
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
    """Stages of jobs that SLURM still holds or runs; one squeue call, empty where it fails."""
    if shutil.which("squeue") is None:
        return frozenset()
    try:
        lines = slurm_queue.queue()
    except GrowpointError as error:
        # The scheduler's word is a hint; the files say what is done.
        logger.warning("SLURM does not answer: %s", dict(error.evidence).get("says"))
        return frozenset()
    latest, plan = ledger.read(store, sweep).latest, store.plan(sweep)
    live = {job for job, slurm_id in latest.items() if slurm_queue.alive(lines.get(slurm_id))}
    jobs = (*plan["jobs"], *plan.get("earlier_jobs", ()))
    return frozenset(stage for job in jobs if job["id"] in live for stage in job["stages"])


def cancel(store: Store, sweep: str) -> int:
    """Cancel the sweep's jobs; returns how many were alive."""
    lines, book = slurm_queue.queue(), ledger.read(store, sweep)
    live = [slurm_id for slurm_id in book.latest.values() if slurm_queue.alive(lines.get(slurm_id))]
    slurm_queue.cancel(live)
    return len(live)
