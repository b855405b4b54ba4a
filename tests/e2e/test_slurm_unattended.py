"""A queue that is filled up while nobody is logged in, on a real SLURM."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Run
from tests.e2e.test_slurm_launch import ASKED, until
from tests.slurm.cluster import Cluster

SOME = ["points.at=[0,8192]", "budgets.at=[1e10]", "growth=[{kind: depth}]", "exclude=[]"]
OFTEN = ["cluster.top_up.every_minutes=0.1", "cluster.top_up.memory_gb=1"]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every node sees."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def words(small: list[str]) -> list[str]:
    """A few short cells, in more jobs than QOS `tiny` takes at once."""
    return [*small, *SOME, "name=few", *ASKED, *OFTEN, "cluster.account=lab", "cluster.qos=tiny"]


def asked(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "plans/few/top_up.json").read_text())
    return found


def queued(slurm: Cluster) -> list[str]:
    """Names of the jobs that are alive."""
    return slurm.run("squeue", "-h", "-r", "-o", "%j").split()


def test_a_full_queue_is_filled_up_by_a_job_until_all_is_done(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    """QOS `tiny` takes five jobs of a user: one that fills up, and four that compute."""
    said = growpoint("launch", "demo", *words, "--unattended", "--yes", cwd=store).stdout
    assert "fills the queue up every 6 s" in said
    assert "the queue is full by the submit limit of qos tiny" in said
    again = growpoint("launch", "demo", *words, "--unattended", "--yes", cwd=store).stdout
    assert "fills the queue up" in again
    assert sum("top-up" in name for name in queued(slurm)) <= 2
    unattended = json.loads(growpoint("status", "few", "--json", cwd=store).stdout)["unattended"]
    assert unattended["state"] in ("PENDING", "RUNNING")
    until(store, lambda: bool(asked(store)["ended"]))
    assert asked(store)["ended"] == "all stages are done"
    plan = json.loads((store / "plans/few/plan.json").read_text())
    assert all((store / "runs" / stage / "record.json").exists() for stage in plan["stages"])
    until(store, lambda: not queued(slurm), 60)
    assert "ended: all stages are done" in growpoint("status", "few", cwd=store).stdout


def test_cancel_takes_it_out_of_the_queue_as_well(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    growpoint("launch", "demo", *words, "--unattended", "--yes", cwd=store)
    said = growpoint("cancel", "few", cwd=store).stdout
    assert "no longer filled up unattended" in said
    assert not [name for name in queued(slurm) if "top-up" in name]
    assert asked(store)["ended"] == "cancelled"
    until(store, lambda: not queued(slurm), 60)
