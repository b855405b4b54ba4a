"""What a cluster cannot give is refused before anything is written, with what it offers."""

import getpass
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.shares import require_rows
from orchestrator.slurm_queue import ask
from orchestrator.store import Store
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError, nearest
from sweeps.stages import Stage, Train


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo tells it: `gpus` are the most of each type on one of its nodes."""

    name: str
    state: str
    minutes: int | None  # its time limit; None where it has none
    gpus: dict[str, int]


def check(cluster: Slurm, store: Store) -> int | None:
    """Refuse what cannot work. Returns the shortest time limit of the partitions, in minutes.

    Raises GrowpointError for commands that are not here, an unknown partition, account or QOS,
    more time or GPUs than there are, and a store that other machines do not see.
    """
    for command in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(command) is None:
            raise GrowpointError(
                f"this machine has no `{command}`",
                [("cluster", "slurm")],
                "cluster=local, or log in to the cluster",
            )
    partitions = _partitions()
    chosen = [_chosen(name, partitions) for name in cluster.partition.split(",")]
    _check_names(cluster)
    _check_gpus(cluster, chosen)
    _check_store(store)
    return _check_time(cluster, chosen)


def _partitions() -> dict[str, Partition]:
    found: dict[str, Partition] = {}
    for row in ask("sinfo", "-h", "-o", "%R|%a|%l|%G").splitlines():
        name, state, limit, gpus = (row.split("|") + [""] * 4)[:4]
        before = found[name].gpus if name in found else {}
        most = {kind: max(count, before.get(kind, 0)) for kind, count in _gpus(gpus).items()}
        found[name] = Partition(name, state, minutes(limit), {**before, **most})
    return found


def minutes(limit: str) -> int | None:
    """SLURM's `days-hours:minutes:seconds` in whole minutes; None for no limit."""
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":") if part.isdigit()]
    if not parts or len(parts) != clock.count(":") + 1:
        return None
    if days:
        hours, mins, _ = (*parts, 0, 0)[:3]
        return (int(days) * 24 + hours) * 60 + mins
    hours, mins = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return hours * 60 + mins


def _gpus(gres: str) -> dict[str, int]:
    """`gpu:h200:2(S:0-1)` as {"h200": 2}; the type is "" where none is told."""
    found = re.findall(r"gpu:(?:([A-Za-z][\w.-]*):)?(\d+)", gres)
    return {kind: int(count) for kind, count in found}


def _chosen(name: str, partitions: dict[str, Partition]) -> Partition:
    if name in partitions:
        return partitions[name]
    here = ", ".join(f"{known} ({one.state})" for known, one in partitions.items())
    raise GrowpointError(
        f"there is no partition `{name}`",
        [("here", here or "none")],
        f"cluster.partition={nearest(name, list(partitions)) or 'NAME'}",
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


def _check_gpus(cluster: Slurm, chosen: Sequence[Partition]) -> None:
    for partition in chosen:
        kind = cluster.gpu_type or ""
        fitting = [n for name, n in partition.gpus.items() if kind in ("", name)]
        most = max(fitting, default=0)
        if cluster.gpus > most:
            offers = ", ".join(f"{n} {name or 'GPUs'}" for name, n in partition.gpus.items())
            raise GrowpointError(
                f"no node of partition `{partition.name}` has so many GPUs",
                [
                    ("asked", f"{cluster.gpus} {kind}".strip() + " a node"),
                    ("there", f"{offers or 'none'} a node"),
                ],
                f"cluster.gpus={most}" if most else "cluster.gpus=0, or another cluster.partition",
            )


def check_ranks(cluster: Slurm, stages: Iterable[Stage]) -> None:
    """Raise GrowpointError if a batch has fewer sequences than a job has ranks."""
    for stage in stages:
        if isinstance(stage.do, Train):
            require_rows(stage.do.recipe.batch_sequences, cluster.ranks)


def _check_time(cluster: Slurm, chosen: Sequence[Partition]) -> int | None:
    limits = [one.minutes for one in chosen if one.minutes is not None]
    shortest = min(limits, default=None)
    if cluster.minutes and shortest and cluster.minutes > shortest:
        raise GrowpointError(
            "the time limit is longer than the partition allows",
            [("asked", f"{cluster.minutes} minutes"), ("partition", f"{shortest} minutes")],
            f"cluster.minutes={shortest}: jobs are requeued and go on",
        )
    return shortest


def _check_store(store: Store) -> None:
    kind = _file_system(store.root)
    if kind in {"tmpfs", "ramfs"}:
        raise GrowpointError(
            f"{store.root.resolve()} is on this machine only, and jobs run on others",
            [("kind", kind)],
            "set store to a folder that every node sees, e.g. store=$HOME/runs",
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
