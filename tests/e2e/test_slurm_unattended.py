"""A queue that is filled up while nobody is logged in, on a real SLURM."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.slurm_sweep import Sweep
from tests.slurm.cluster import Cluster

SOME = ["points.at=[0,8192]", "budgets.at=[1e10]", "growth=[{kind: depth}]", "exclude=[]"]
OFTEN = ["cluster.top_up.every_minutes=0.1", "cluster.top_up.memory_gb=1"]
TINY = ["cluster.account=lab", "cluster.qos=tiny"]


@pytest.fixture
def unattended(sweep: Sweep, small: list[str]) -> Sweep:
    """A few short cells, in more jobs than QOS `tiny` takes at once."""
    sweep.words = [*small, *SOME, *OFTEN]
    return sweep


def asked(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "plans/few/top_up.json").read_text())
    return found


def queued(slurm: Cluster) -> list[str]:
    """Names of the jobs that are alive."""
    return slurm.run("squeue", "-h", "-r", "-o", "%j").split()


def test_a_full_queue_is_filled_up_by_a_job_until_all_is_done(
    slurm: Cluster, unattended: Sweep
) -> None:
    """QOS `tiny` takes five jobs of a user: one that fills up, and four that compute."""
    sweep, store = unattended, unattended.store
    said = sweep.launch(*TINY, "--unattended").stdout
    assert "fills the queue up every 6 s" in said
    assert "the queue is full by the submit limit of qos tiny" in said
    again = sweep.launch(*TINY, "--unattended").stdout
    assert "fills the queue up" in again
    assert sum("top-up" in name for name in queued(slurm)) <= 2
    assert sweep.status()["unattended"]["state"] in ("PENDING", "RUNNING")
    # Not hastened: each round would begin before anything can have come of the last.
    sweep.until(lambda: bool(asked(store)["ended"]), 400, asking=False)
    assert asked(store)["ended"] == "all stages are done"
    assert sweep.complete()
    sweep.until(lambda: not queued(slurm), 60)
    said = sweep.growpoint("status", "few", cwd=store).stdout
    assert "ended: all stages are done" in said


def test_cancel_takes_it_out_of_the_queue_as_well(slurm: Cluster, unattended: Sweep) -> None:
    unattended.launch(*TINY, "--unattended")
    said = unattended.growpoint("cancel", "few", cwd=unattended.store).stdout
    assert "no longer filled up unattended" in said
    assert not [name for name in queued(slurm) if "top-up" in name]
    assert asked(unattended.store)["ended"] == "cancelled"
    unattended.until(lambda: not queued(slurm), 60)
