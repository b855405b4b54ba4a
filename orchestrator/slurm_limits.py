"""What a SLURM cluster allows: how long an array may be, and how many jobs may be queued."""

import getpass
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.slurm_queue import ask
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

# SLURM's own defaults (slurm.conf): indices of an array end at MaxArraySize - 1.
ARRAY_SIZE, JOB_COUNT = 1001, 10_000
# submitit's tasks look for their description for 60 s: arrays stay short on slow file systems.
LONGEST_ARRAY = 1000
# MaxJobCount holds everybody's jobs, finished ones too until MinJobAge: half of it is ours at most.
OUR_SHARE = 0.5


@dataclass(frozen=True)
class Limits:
    """Tasks of one array, and jobs of ours in the queue; each task of an array is a job."""

    array: int
    queued: int
    because: str

    def room(self, mine: int) -> int:
        """How many more jobs fit, with so many of mine queued or running."""
        return max(0, self.queued - mine)


def read(cluster: Slurm) -> Limits:
    """The limits that hold for this user, with these settings. Three calls at most."""
    said = _config()
    array = min(_number(said.get("MaxArraySize")) or ARRAY_SIZE, LONGEST_ARRAY + 1) - 1
    within = _number(_scheduler(said).get("max_array_tasks"))
    most = round((_number(said.get("MaxJobCount")) or JOB_COUNT) * OUR_SHARE)
    known = [(most, f"half of the cluster's MaxJobCount, {2 * most}")]
    known += [(limit, f"the submit limit of {where}") for where, limit in _accounting(cluster)]
    known += [(cluster.max_queued, "cluster.max_queued")] if cluster.max_queued else []
    queued, because = min(known)
    return Limits(max(1, min(array, within or array)), queued, because)


def _config() -> dict[str, str]:
    try:
        lines = ask("scontrol", "show", "config").splitlines()
    except GrowpointError as error:
        logger.warning("limits are taken for SLURM's defaults: %s", dict(error.evidence)["says"])
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _scheduler(said: Mapping[str, str]) -> dict[str, str]:
    words = said.get("SchedulerParameters", "").split(",")
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdigit() else None


def _accounting(cluster: Slurm) -> Iterable[tuple[str, int]]:
    """Limits of the association and of the QOS that apply; none where accounting is off."""
    columns = "account,partition,maxsubmit,grpsubmit,defaultqos"
    rows = _table("assoc", "where", f"user={getpass.getuser()}", f"format={columns}")
    ours = [row for row in rows if cluster.account in (None, row[0]) and row[1] in _places(cluster)]
    for account, _, *limits, _default in ours:
        yield from ((f"account {account}", n) for n in map(_number, limits) if n is not None)
    names = [cluster.qos] if cluster.qos else sorted({row[4] for row in ours if row[4]})
    if names:
        columns = "name,maxsubmitpu,maxsubmitpa,grpsubmit"
        for name, *most in _table("qos", "where", f"name={','.join(names)}", f"format={columns}"):
            yield from ((f"qos {name}", n) for n in map(_number, most) if n is not None)


def _places(cluster: Slurm) -> set[str]:
    return {"", *cluster.partition.split(",")}


def _table(*words: str) -> list[list[str]]:
    try:
        return [row.split("|") for row in ask("sacctmgr", "-nP", "show", *words).splitlines()]
    except (GrowpointError, FileNotFoundError):
        # Without accounting there are no such limits.
        return []
