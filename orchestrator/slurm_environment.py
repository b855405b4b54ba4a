"""The environment of SLURM's commands, without what would speak for the user unasked.

sbatch hands its environment on, and SLURM reads it for options: submitted from inside a job, a new
job would get the memory, binding and GPUs of the old one, or be refused because they contradict.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from orchestrator import frozen
from orchestrator.work import VARIABLES
from sweeps.cluster import Slurm

logger = logging.getLogger(__name__)

# How the commands find and convince the controller. submitit's clean_env drops these as well,
# and then nothing can be submitted where slurm.conf lies elsewhere.
REACH = frozenset({
    "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT",
    "SLURM_SACK_KEY", "SLURM_SACK_JWKS", "SLURM_SACK_SOCKET",
})  # fmt: skip
# sbatch lets its variables overrule the script. Who pays and where is a standing wish, kept unless
# the cluster's settings say it; all others would change what the plan asks for behind its back.
WISHES = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_WCKEY": "wckey",
    "SBATCH_CLUSTERS": None,
}
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
GPUS_OF_A_JOB = frozenset({"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"})
# What a launcher of ranks leaves; never meant for another job.
OF_RANKS = frozenset({
    "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
})  # fmt: skip
# Those of the commands that tell: a filter such as SQUEUE_PARTITION hides jobs that are there.
OF_TELLERS = ("SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")


def for_sbatch(environment: Mapping[str, str], cluster: Slurm) -> dict[str, str]:
    """What a new job may inherit. Outside of a job, SLURM_* and SRUN_* are the user's own."""
    inside = "SLURM_JOB_ID" in environment
    return {name: value for name, value in environment.items() if _handed_on(name, cluster, inside)}


def _handed_on(name: str, cluster: Slurm, inside: bool) -> bool:
    if name in REACH:
        return True
    if name.startswith("SBATCH_"):
        setting = WISHES.get(name)
        return name in WISHES and (setting is None or getattr(cluster, setting) is None)
    # Scripts say anew how to compute, or nothing where a setting is off.
    if name.startswith("SUBMITIT_") or name in OF_RANKS or name in VARIABLES:
        return False
    if name in (frozen.CODE_VARIABLE, frozen.COMMIT_VARIABLE):
        return frozen.running() is not None
    return not inside or not (name.startswith(OF_A_JOB) or name in GPUS_OF_A_JOB)


def for_tellers(environment: Mapping[str, str]) -> dict[str, str]:
    """What squeue, sinfo, sacct and scancel may see: nothing that filters or lays out."""
    return {name: value for name, value in environment.items() if not name.startswith(OF_TELLERS)}


@contextmanager
def clean(cluster: Slurm) -> Iterator[None]:
    """Hide from sbatch what a new job must not inherit; submitit gives it this process's own."""
    kept = for_sbatch(os.environ, cluster)
    hidden = {name: value for name, value in os.environ.items() if name not in kept}
    _tell(tuple(sorted(n for n in hidden if n.startswith("SBATCH_") and n not in WISHES)))
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


@cache
def _tell(names: tuple[str, ...]) -> None:
    """Once for a process, however many arrays it submits."""
    if names:
        logger.warning(
            "not handed on to sbatch, as it would overrule cluster.*: %s", ", ".join(names)
        )
