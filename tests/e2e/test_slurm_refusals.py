"""What a real SLURM cannot give is refused with what it offers, and nothing is written."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.slurm_sweep import ASKED, Sweep
from tests.slurm.cluster import Cluster

ONE = ["points.at=[0]", "arms=[scratch]", "budgets.at=[1e9]", "exclude=[]", "name=few"]
REFUSED = {
    "cluster.partition=gpux": ("there is no partition `gpux`", "gpu (up)"),
    "cluster.account=nobody": ("there is no account `nobody` for you", "lab"),
    "cluster.qos=tinny": ("there is no qos `tinny` for you", "cluster.qos=tiny"),
    "cluster.partition=short": ("longer than partition `short` allows", "cluster.minutes=1:"),
    "cluster.partition=gpu,short": ("longer than partition `short` allows", "1 minutes"),
    "cluster.gpus=3": ("no node of partition `gpu` has so many GPUs", "2 h200 a node"),
    "cluster.gpus=1 cluster.gpu_type=a100": ("GPUs of type `a100`", "cluster.gpu_type=h200"),
    "cluster.cpus=5": ("no node of partition `gpu` has so many CPUs", "cluster.cpus=4"),
    "cluster.memory_gb=100": ("has so many MB of memory", "16000 a node"),
    "store=/dev/shm/growpoint-refused": ("is on this machine only", "tmpfs"),
}


@pytest.fixture
def words(small: list[str]) -> list[str]:
    return [*small, *ONE]


@pytest.mark.parametrize("asked", REFUSED)
def test_it_is_refused(
    asked: str, slurm: Cluster, growpoint: Run, words: list[str], tmp_path: Path
) -> None:
    problem, offer = REFUSED[asked]
    said = growpoint(
        "launch", "demo", *words, *ASKED, *asked.split(), "--yes", cwd=tmp_path, code=2
    )
    assert problem in said.stderr
    assert offer in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_slurm(growpoint: Run, words: list[str], tmp_path: Path) -> None:
    where = {"PATH": "/nowhere"}
    said = growpoint("launch", "demo", *words, *ASKED, "--yes", cwd=tmp_path, code=2, **where)
    assert "this machine has no `sbatch`" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_spaces_quotes_and_a_partition_that_cancels_are_no_hindrance(
    slurm: Cluster, growpoint: Run, words: list[str], tmp_path: Path
) -> None:
    slurm.run("scontrol", "update", "partitionname=preempt", "preemptmode=cancel")
    store = tmp_path / "it's a store"
    try:
        where = [f'store="{store}"', "cluster.partition=preempt"]
        said = growpoint("launch", "demo", *words, *ASKED, *where, "--yes", cwd=tmp_path)
        assert "SLURM cancels preempted jobs of partition preempt" in said.stderr
        sweep = Sweep(slurm, growpoint, store, words)
        sweep.until(sweep.complete, 100)
    finally:
        slurm.run("scontrol", "update", "partitionname=preempt", "preemptmode=requeue")
