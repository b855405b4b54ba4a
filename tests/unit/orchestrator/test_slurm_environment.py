"""What sbatch inherits: the user's wishes and the way to the cluster, nothing of another job."""

import os

import pytest

from orchestrator import slurm_environment
from orchestrator.work import VARIABLES
from sweeps.cluster import Slurm

CLUSTER = Slurm(partition="gpu")
OWN = {"HOME": "/home/me", "PATH": "/bin", "MODULEPATH": "/m", "OMP_NUM_THREADS": "4"}
WAY = {"SLURM_CONF": "/etc/s.conf", "SLURM_JWT": "secret", "SLURM_CLUSTERS": "big"}
OF_A_JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_CPU_BIND": "mask_cpu:0x1",
    "SLURM_MEM_PER_NODE": "100",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURMD_NODENAME": "n1",
    "SRUN_CPUS_PER_TASK": "1",
    "PMIX_RANK": "0",
    "CUDA_VISIBLE_DEVICES": "3",
}
NEVER = {
    "SUBMITIT_EXECUTOR": "slurm",
    "MASTER_ADDR": "n1",
    "RANK": "1",
    "GROWPOINT_CODE": "/another",
}
CONTRARY = {"SBATCH_TIMELIMIT": "1", "SBATCH_PARTITION": "cpu", "SBATCH_WAIT": "1"}
WISHES = {"SBATCH_ACCOUNT": "lab", "SBATCH_QOS": "high", "SBATCH_CLUSTERS": "big"}


def test_nothing_of_a_job_goes_to_the_next_but_the_way_to_the_cluster() -> None:
    environment = {**OWN, **WAY, **OF_A_JOB, **NEVER, **CONTRARY, **WISHES}
    assert slurm_environment.for_sbatch(environment, CLUSTER) == {**OWN, **WAY, **WISHES}


def test_on_a_login_node_what_the_user_set_for_srun_and_gpus_stays() -> None:
    mine = {**OWN, **WAY, "SLURM_MPI_TYPE": "pmix", "SRUN_DEBUG": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**mine, **NEVER, **CONTRARY, **WISHES}
    assert slurm_environment.for_sbatch(environment, CLUSTER) == {**mine, **WISHES}


def test_a_setting_of_the_cluster_beats_the_same_wish() -> None:
    said = Slurm(partition="gpu", account="other")
    kept = slurm_environment.for_sbatch(WISHES, said)
    assert kept == {name: value for name, value in WISHES.items() if name != "SBATCH_ACCOUNT"}


def test_how_to_compute_is_said_anew_by_each_script() -> None:
    assert not slurm_environment.for_sbatch(dict.fromkeys(VARIABLES, "1"), CLUSTER)


def test_this_process_keeps_its_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {**OF_A_JOB, **CONTRARY}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    for _ in range(2):
        with pytest.raises(KeyError, match="SLURM_JOB_ID"), slurm_environment.clean(CLUSTER):
            os.environ["SLURM_JOB_ID"]
        assert dict(os.environ) == before
    assert [", ".join(sorted(CONTRARY)) in line for line in caplog.messages] == [True]


def test_commands_that_tell_are_asked_without_the_users_filters() -> None:
    filters = {"SQUEUE_PARTITION": "cpu", "SACCT_FORMAT": "jobid", "SCANCEL_INTERACTIVE": "1"}
    assert slurm_environment.for_tellers({**OWN, **WAY, **filters}) == {**OWN, **WAY}
