"""One sbatch call: an array of jobs of equal shape, written and submitted by submitit."""

import logging
import math
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from orchestrator import frozen, provenance, slurm_environment, slurm_queue
from orchestrator.ledger import Batch, Ledger
from orchestrator.slurm_job import run
from orchestrator.slurm_queue import Queued
from orchestrator.store import Store
from orchestrator.work import exported
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# What sbatch says of a controller that is busy or away; the job may have been taken all the same.
AWAY = re.compile(
    r"socket timed out|unable to contact|unexpected message|zero bytes|connection (refused|reset)"
    r"|transport endpoint|temporarily|communication connection failure|i/o error",
    re.IGNORECASE,
)
# And of a queue that holds as many jobs as this user may have: AssocMaxSubmitJobLimit, ...
FULL = re.compile(r"(Assoc|QOS)(Max|Grp)\w*Submit\w*", re.IGNORECASE)
WAIT_SECONDS = (2.0, 4.0, 8.0, 16.0, 30.0)
# What a job runs: a function of store, sweep and job that its node can import.
Body = Callable[[str, str, str], object]


@dataclass(frozen=True)
class Shape:
    """What the jobs of an array have in common beyond the cluster's settings."""

    minutes: int
    at_once: int
    code: Path | None = None  # a copy in the store; None for the code wherever it lies


def minutes(plan: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], cluster: Slurm) -> int:
    """The time limit for an array: as set, or the longest of its jobs by the plan's FLOPs.

    A job that needs longer is requeued at its limit and goes on, so an estimate may be short.
    """
    if cluster.minutes:
        return cluster.minutes
    flops = max(
        sum(_flops(plan["stages"][stage], cluster) for stage in job["stages"]) for job in jobs
    )
    needed = cluster.least_minutes + cluster.safety * flops / cluster.flops_per_second / 60
    # Whole steps of ten minutes, so that arrays and their scripts do not differ by seconds.
    return 10 * math.ceil(needed / 10)


def _flops(stage: Mapping[str, Any], cluster: Slurm) -> float:
    """FLOPs at the speed of the whole job: of its ranks, one alone evaluates."""
    return float(stage["flops"]) * (cluster.ranks if stage["kind"] == "evaluate" else 1)


def submit(
    store: Store,
    sweep: str,
    cluster: Slurm,
    book: Ledger,
    jobs: Sequence[str],
    waits: str | None,
    shape: Shape,
    body: Body = run,
) -> dict[str, str] | None:
    """SLURM's ids of the jobs; None if the queue takes no more of this user's.

    While the controller is away it is asked again a few times, each time after what it may have
    taken was looked up by name. `waits` is what sbatch calls a dependency. Raises GrowpointError
    for what sbatch refuses.
    """
    for wait in (*WAIT_SECONDS, None):
        batch = book.intend(sweep, jobs, shape.at_once)
        try:
            ids = _submitted(store, sweep, cluster, batch, waits, shape, body)
        except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
            said = str(getattr(error, "stderr", "") or error)
            if FULL.search(said):
                book.give_up(batch.name)
                return None
            if wait is None or not AWAY.search(said):
                raise _refused(said, sweep) from error
            logger.warning("SLURM does not answer, asking again in %.0f s: %s", wait, _last(said))
            time.sleep(wait)
            _look_up(book)
        else:
            book.acknowledge(batch.name, ids)
            return dict(zip(jobs, ids, strict=True))
    raise AssertionError("the last round returns or raises")


def _submitted(
    store: Store,
    sweep: str,
    cluster: Slurm,
    batch: Batch,
    waits: str | None,
    shape: Shape,
    body: Body,
) -> list[str]:
    made = executor(store, sweep, cluster, batch, waits, shape)
    root, count = str(store.root.resolve()), len(batch.jobs)
    with slurm_environment.clean(cluster):
        handles = made.map_array(body, [root] * count, [sweep] * count, batch.jobs)
    return [str(handle.job_id) for handle in handles]


def _look_up(book: Ledger) -> None:
    """Settle what SLURM may have taken, if it answers now; the next launch does it otherwise."""
    try:
        settle(book, slurm_queue.queue())
    except GrowpointError as error:
        logger.warning("squeue does not answer either: %s", dict(error.evidence).get("says"))


def under_way(store: Store, sweep: str) -> GrowpointError:
    """What somebody is told who comes while another submits."""
    return GrowpointError(
        "another launch of this sweep is under way",
        [("store", store.root.resolve())],
        f"growpoint status {sweep}",
    )


def settle(book: Ledger, lines: Mapping[str, Queued]) -> None:
    """Clear up intents of which nobody could say what became of them.

    What SLURM holds under such a name is cancelled, and submitted anew: submitit may not have put
    the job's description in place yet, and tasks that ended already cannot be told from their ids.
    """
    for batch in book.unanswered:
        ids = {line.slurm_id for line in lines.values() if line.name == batch.name}
        slurm_queue.cancel(ids, lines)
        book.give_up(batch.name)


def _last(said: str) -> str:
    return next(_told(said, 1), "nothing")


def _told(said: str, count: int) -> Iterator[str]:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    yield from lines[-count:]


def _refused(said: str, sweep: str) -> GrowpointError:
    # A failed sbatch may have been accepted all the same: the intent stays open, and the next
    # launch looks it up by name before it submits anything.
    return GrowpointError(
        "sbatch did not take a job",
        [("says", line) for line in _told(said, 2)],
        f"growpoint launch {sweep}, after putting that right",
    )


def executor(
    store: Store,
    sweep: str,
    cluster: Slurm,
    batch: Batch,
    waits: str | None,
    shape: Shape,
) -> submitit.SlurmExecutor:
    """submitit's executor with all settings; its sbatch script is what SLURM is asked."""
    # One folder per batch keeps folders small; jobs write their own logs into their stages.
    folder = store.plan_folder(sweep).resolve() / "slurm" / batch.name
    made = submitit.SlurmExecutor(folder, python=cluster.python)
    made.update_parameters(**parameters(cluster, batch.name, waits, shape))
    return made


def parameters(cluster: Slurm, name: str, waits: str | None, shape: Shape) -> dict[str, Any]:
    """The settings of a batch in sbatch's own words."""
    gpus = f"{cluster.gpu_type}:{cluster.gpus}" if cluster.gpu_type else cluster.gpus
    further = {"reservation": cluster.reservation, "nice": cluster.nice}
    return {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "time": shape.minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks,
        "cpus_per_task": cluster.cpus,
        "gpus_per_node": gpus if cluster.gpus else None,
        # In whole megabytes: sbatch refuses fractions.
        "mem": f"{round(cluster.memory_gb * 1024)}M" if cluster.memory_gb else None,
        "constraint": cluster.constraint,
        "exclude": cluster.exclude,
        "dependency": waits,
        "array_parallelism": shape.at_once,
        "signal_delay_s": cluster.signal_seconds,
        "setup": [*_environment(cluster), *cluster.setup, *_code(shape)],
        # One dead task must not hold the allocation until its time limit. Since 22.05 srun does
        # not take the number of CPUs from sbatch: each task would be bound to one.
        "srun_args": [
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={cluster.cpus}",
            *cluster.srun_args,
        ],
        "additional_parameters": {
            "requeue": True,
            **{key: value for key, value in further.items() if value is not None},
            **cluster.additional,
        },
        # submitit's default wckey is refused by clusters that track them.
        "wckey": cluster.wckey,
    }


def _environment(cluster: Slurm) -> list[str]:
    return [
        f"export GROWPOINT_SAVE_SECONDS={cluster.save_seconds:g}",
        f"export OMP_NUM_THREADS={cluster.threads}",
        "export TOKENIZERS_PARALLELISM=false",
        # srun hands this environment on, also where sbatch was told to export none of the caller's.
        "export SLURM_EXPORT_ENV=ALL",
        *(f"export {name}={value}" for name, value in exported(cluster).items()),
    ]


def _code(shape: Shape) -> list[str]:
    """After the user's own lines, which may set a Python path as well."""
    return frozen.exports(shape.code, provenance.commit()) if shape.code else []
