"""The partitions of a cluster as sinfo tells them: time limits, and what their nodes have."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from orchestrator.slurm_queue import ask


@dataclass(frozen=True)
class Node:
    """What a node has; None for what was not told. GPUs are counted by type, "" if none is told."""

    cpus: int | None
    memory_mb: int | None
    gpus: tuple[tuple[str, int], ...]
    host: str = ""

    def count(self, kind: str | None) -> int:
        """GPUs of a type, or the most of one type."""
        return max((n for name, n in self.gpus if kind in (None, name)), default=0)


@dataclass(frozen=True)
class Partition:
    """A partition and its nodes."""

    name: str
    state: str
    minutes: int | None  # its time limit; None where it has none
    cancels: bool = False  # whether preempted jobs are cancelled, and not requeued
    nodes: tuple[Node, ...] = ()

    def gpus(self) -> dict[str, int]:
        """The most GPUs of each type on one node."""
        found: dict[str, int] = {}
        for name, count in (pair for node in self.nodes for pair in node.gpus):
            found[name] = max(count, found.get(name, 0))
        return found


def read() -> dict[str, Partition]:
    """All partitions by name; one call. Raises GrowpointError where sinfo fails."""
    found: dict[str, Partition] = {}
    for row in ask("sinfo", "-h", "-o", "%R|%a|%l|%G|%c|%m|%M|%n").splitlines():
        name, state, limit, gpus, cpus, memory, mode, host = (row.split("|") + [""] * 8)[:8]
        node = Node(_number(cpus), _number(memory), tuple(_gpus(gpus)), host)
        one = found.get(name) or Partition(name, state, minutes(limit), mode == "CANCEL")
        found[name] = replace(one, nodes=(*one.nodes, node))
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


def _number(said: str) -> int | None:
    number = said.rstrip("+")
    return int(number) if number.isdigit() else None


def _gpus(gres: str) -> Iterator[tuple[str, int]]:
    """`gpu:h200:2(S:0-1)` as ("h200", 2); the type is "" where none is told."""
    for kind, count in re.findall(r"gpu:(?:([A-Za-z][\w.-]*):)?(\d+)", gres):
        yield kind, int(count)


def hosts(partitions: Iterable[Partition]) -> set[str]:
    """Names of the machines behind the nodes."""
    return {node.host for one in partitions for node in one.nodes if node.host}
