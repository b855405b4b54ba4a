"""Which jobs go into one array, and what it waits for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Up to so many jobs a sweep has arrays for each job that something waits for: each of its points
# goes on as soon as it can. Beyond it that would be an sbatch call for every few jobs.
EXACT_JOBS = 500
# Of a large sweep's arrays those are not throttled that are at most this part of max_parallel.
SMALL = 1 / 16


@dataclass(frozen=True)
class Array:
    """Jobs that wait for the same, by SLURM's ids.

    `afterok` are jobs that all of them need. `afterany` are whole arrays: some of whose tasks may
    fail, each of which only one of these jobs needs, and looks for itself (`job.run_job`).
    """

    jobs: tuple[Mapping[str, Any], ...]
    afterok: tuple[str, ...] = ()
    afterany: tuple[str, ...] = ()

    @property
    def dependency(self) -> str | None:
        """In sbatch's words."""
        kinds = {"afterok": self.afterok, "afterany": self.afterany}
        words = [":".join((kind, *ids)) for kind, ids in kinds.items() if ids]
        return ",".join(words) or None


def arrays(
    plan: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], needs: Mapping[str, frozenset[str]]
) -> list[Array]:
    """Jobs that are ready to be submitted, in arrays; `needs` are SLURM's ids by job.

    In a large sweep jobs go together that need jobs of the same arrays and do the same verbs, where
    that makes fewer arrays: what takes long must not hold up what waits for something short.
    """
    exact, wide = defaultdict(list), defaultdict(list)
    for job in jobs:
        exact[needs[job["id"]]].append(job)
        wide[_kind(plan, job, needs[job["id"]])].append(job)
    fewer = _large(plan) and len(wide) < len(exact)
    groups = list(wide.values()) if fewer else list(exact.values())
    return [_array(group, needs) for group in groups]


def few_at_once(plan: Mapping[str, Any], max_parallel: int, jobs: int) -> int:
    """How many jobs of a short array may run at once, whatever its share of `max_parallel`.

    In a large sweep the trunk's segments are an array of a few seeds each, one after the other. By
    their share of all jobs the seeds would have to take turns, and everything would wait for that.
    """
    return min(jobs, int(max_parallel * SMALL)) if _large(plan) else 0


def _large(plan: Mapping[str, Any]) -> bool:
    return len(plan["jobs"]) > EXACT_JOBS


def _kind(plan: Mapping[str, Any], job: Mapping[str, Any], needed: frozenset[str]) -> object:
    verbs = tuple(plan["stages"][stage]["kind"] for stage in job["stages"])
    return frozenset(map(_master, needed)), verbs


def _array(jobs: Sequence[Mapping[str, Any]], needs: Mapping[str, frozenset[str]]) -> Array:
    distinct = {needs[job["id"]] for job in jobs}
    if len(distinct) == 1:
        return Array(tuple(jobs), afterok=tuple(sorted(*distinct)))
    masters = sorted({_master(slurm_id) for needed in distinct for slurm_id in needed})
    return Array(tuple(jobs), afterany=tuple(masters))


def _master(slurm_id: str) -> str:
    return slurm_id.partition("_")[0]
