"""What a cluster cannot give is refused before anything is written, with what it offers."""

import getpass
import logging
import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from orchestrator import slurm_partitions
from orchestrator.shares import require_rows
from orchestrator.slurm_partitions import Node, Partition
from orchestrator.slurm_queue import ask
from orchestrator.store import Store
from orchestrator.top_up import settings
from sweeps.cluster import Slurm
from sweeps.command import CommandRecipe
from sweeps.errors import GrowpointError, nearest
from sweeps.stages import Stage, Train

logger = logging.getLogger(__name__)

# File systems in the memory or on the disks of one machine, unless that serves them to others.
IN_MEMORY = {"tmpfs", "ramfs"}
ON_DISK = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "f2fs"}


def check(cluster: Slurm, store: Store, unattended: bool = False) -> int | None:
    """Refuse what cannot work. Returns the longest time limit that may be asked for, in minutes.

    Raises GrowpointError for commands that are not here, an unknown partition, account or QOS,
    more time, GPUs, CPUs or memory than there is, and a store that other machines do not see.
    """
    for command in ("sbatch", "squeue", "scancel", "srun", "sinfo", "scontrol"):
        if shutil.which(command) is None:
            raise GrowpointError(
                f"this machine has no `{command}`",
                [("cluster", "slurm")],
                "cluster=local, or log in to the cluster",
            )
    partitions = slurm_partitions.read()
    chosen = _fitting(cluster, partitions)
    _check_names(cluster)
    _check_store(store, chosen)
    if unattended:
        _fitting(settings(cluster), partitions, "cluster.top_up")
    _warn_of_cancelling(chosen)
    return _longest(chosen)


def _fitting(
    cluster: Slurm, partitions: dict[str, Partition], key: str = "cluster"
) -> list[Partition]:
    """Of the partitions asked for, those that can run the jobs.

    SLURM takes a job if one of them can; with EnforcePartLimits=ALL only if all of them can.
    """
    chosen = [_chosen(name, partitions, key) for name in cluster.partition.split(",")]
    reasons = {one.name: reason for one in chosen if (reason := _lacks(cluster, one, key))}
    if reasons and (len(reasons) == len(chosen) or _all_must_fit()):
        raise next(iter(reasons.values()))
    for name, reason in reasons.items():
        logger.warning("no job will run in partition %s: %s", name, reason.problem)
    return [one for one in chosen if one.name not in reasons]


def _all_must_fit() -> bool:
    for line in ask("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "EnforcePartLimits":
            return value.strip() in ("ALL", "YES")
    return False


def _longest(chosen: Sequence[Partition]) -> int | None:
    """What is estimated longer than the shortest limit is cut to it, and requeued there."""
    return min((one.minutes for one in chosen if one.minutes is not None), default=None)


def _chosen(name: str, partitions: dict[str, Partition], key: str) -> Partition:
    if name in partitions:
        return partitions[name]
    here = ", ".join(f"{known} ({one.state})" for known, one in partitions.items())
    raise GrowpointError(
        f"there is no partition `{name}`",
        [("here", here or "none")],
        f"{key}.partition={nearest(name, list(partitions)) or 'NAME'}",
    )


def _check_names(cluster: Slurm) -> None:
    """Account and QOS, where accounting is there to know them."""
    user = getpass.getuser()
    if cluster.account:
        asked = ("assoc", "where", f"user={user}", "format=account")
        _known("account", cluster.account, _names(*asked))
    if cluster.qos:
        _known("qos", cluster.qos, _names("qos", "format=name"))


def _names(*words: str) -> list[str]:
    if shutil.which("sacctmgr") is None:
        return []
    try:
        return sorted(set(ask("sacctmgr", "-nP", "show", *words).split()))
    except GrowpointError:
        return []


def _known(word: str, asked: str, known: Sequence[str]) -> None:
    if known and asked not in known:
        raise GrowpointError(
            f"there is no {word} `{asked}` for you",
            [("here", ", ".join(known))],
            f"cluster.{word}={nearest(asked, known) or known[0]}",
        )


def check_ranks(cluster: Slurm, stages: Iterable[Stage]) -> None:
    """Raise GrowpointError if a batch has fewer sequences than a job has ranks.

    Also for commands that train: they make processes of their own.
    """
    for stage in stages if cluster.ranks > 1 else ():
        if isinstance(stage.do, Train):
            if isinstance(stage.do.recipe, CommandRecipe):
                raise GrowpointError(
                    "a command that trains makes its processes itself",
                    [("nodes", cluster.nodes), ("tasks", cluster.tasks)],
                    "cluster.nodes=1 cluster.tasks=1, and a launcher in recipe.start.launcher",
                )
            for batch in stage.do.recipe.batches.stretches:
                require_rows(batch.sequences, cluster.ranks)


def _lacks(cluster: Slurm, partition: Partition, key: str) -> GrowpointError | None:
    """What a partition does not have of what one job asks for."""
    if cluster.minutes and partition.minutes and cluster.minutes > partition.minutes:
        return GrowpointError(
            f"the time limit is longer than partition `{partition.name}` allows",
            [
                ("asked", f"{cluster.minutes} minutes"),
                ("partition", f"{partition.minutes} minutes"),
            ],
            f"{key}.minutes={partition.minutes}: jobs are requeued and go on",
        )
    memory_mb = round((cluster.memory_gb or 0) * 1024)
    return (
        _lacks_gpus(cluster, partition)
        or _too_few(partition, "cpus", "CPUs", cluster.cpus * cluster.tasks, lambda node: node.cpus)
        or _too_few(partition, "memory_gb", "MB of memory", memory_mb, lambda node: node.memory_mb)
        or _not_together(cluster, partition, memory_mb)
    )


def _lacks_gpus(cluster: Slurm, partition: Partition) -> GrowpointError | None:
    there, kind = partition.gpus(), cluster.gpu_type
    most = max((node.count(kind) for node in partition.nodes), default=0)
    if cluster.gpus <= most:
        return None
    offers = ", ".join(f"{n} {name or 'GPUs'}" for name, n in there.items())
    evidence = [
        ("asked", f"{cluster.gpus} {kind or ''}".strip() + " a node"),
        ("there", f"{offers or 'none'} a node"),
    ]
    if kind and there and not most:
        named = [name for name in there if name]
        hint = f"cluster.gpu_type={nearest(kind, named) or 'null'}"
        return GrowpointError(
            f"no node of partition `{partition.name}` has GPUs of type `{kind}`", evidence, hint
        )
    return GrowpointError(
        f"no node of partition `{partition.name}` has so many GPUs",
        evidence,
        f"cluster.gpus={most}" if most else "cluster.gpus=0, or another cluster.partition",
    )


def _too_few(
    partition: Partition, key: str, what: str, asked: int, has: Callable[[Node], int | None]
) -> GrowpointError | None:
    told = [count for node in partition.nodes if (count := has(node)) is not None]
    most = max(told, default=asked)
    if asked <= most:
        return None
    hint = most // 1024 if key == "memory_gb" else most
    return GrowpointError(
        f"no node of partition `{partition.name}` has so many {what}",
        [("asked", f"{asked} a node"), ("there", f"{most} a node")],
        f"cluster.{key}={hint}",
    )


def _not_together(cluster: Slurm, partition: Partition, memory_mb: int) -> GrowpointError | None:
    """Each is there, but not on the same node."""
    cpus = cluster.cpus * cluster.tasks
    for node in partition.nodes:
        has_gpus = cluster.gpus <= node.count(cluster.gpu_type)
        has_cpus = node.cpus is None or cpus <= node.cpus
        if has_gpus and has_cpus and (node.memory_mb is None or memory_mb <= node.memory_mb):
            return None
    asked = f"{cluster.gpus} GPUs, {cpus} CPUs, {memory_mb} MB"
    return GrowpointError(
        f"no node of partition `{partition.name}` has all that a job asks for",
        [("asked", asked)],
        "lower cluster.cpus or cluster.memory_gb",
    )


def _warn_of_cancelling(chosen: Iterable[Partition]) -> None:
    names = [one.name for one in chosen if one.cancels]
    if names:
        logger.warning(
            "SLURM cancels preempted jobs of partition %s and does not requeue them: what they had "
            "saved stays, and launch, --follow or --unattended submits them again",
            ",".join(names),
        )


def _check_store(store: Store, chosen: Iterable[Partition]) -> None:
    """Refuse a store in memory, and warn of one on a disk where jobs run on other machines.

    Whether this machine serves its disk to them cannot be seen from here.
    """
    kind, folder = _file_system(store.root), store.root.resolve()
    if kind in IN_MEMORY:
        raise GrowpointError(
            f"{folder} is on this machine only, and jobs run on others",
            [("kind", kind)],
            "set store to a folder that every node sees, e.g. store=$HOME/runs",
        )
    name = socket.gethostname()
    others = slurm_partitions.hosts(chosen) - {name, name.partition(".")[0], "localhost"}
    if kind in ON_DISK and others:
        logger.warning(
            "%s is on a disk of this machine (%s): unless that is shared, jobs on %s do not see it",
            folder,
            kind,
            sorted(others)[0],
        )


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
