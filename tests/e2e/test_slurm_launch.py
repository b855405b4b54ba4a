"""The same sweep on a real SLURM: ordered by afterok, stopped and requeued, to the same bits."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.test_kill import scores, weights
from tests.slurm.cluster import Cluster

FEW = ["points.at=[0,65536]", "growth=[{kind: depth}]", "budgets.at=[4e10]", "exclude=[]"]
ASKED = ["cluster=slurm", "cluster.partition=gpu", "cluster.cpus=1", "cluster.minutes=30"]
# The cluster of the tests gives a job 1 GB unless told otherwise: torch alone needs half of it.
ASKED += ["cluster.memory_gb=2", "cluster.gpus=0"]


@pytest.fixture(scope="module")
def words(small: list[str]) -> list[str]:
    """A few cells, long enough to be caught in mid-training."""
    return [*small, *FEW, "name=few"]


@pytest.fixture(scope="module")
def here(growpoint: Run, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the few cells have run without SLURM."""
    store = tmp_path_factory.mktemp("here")
    growpoint("launch", "demo", *words, cwd=store)
    return store


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every node sees."""
    return tmp_path_factory.mktemp("shared")


def until(store: Path, reached: Callable[[], bool], seconds: float = 400) -> None:
    """Wait for something to come true; say what SLURM thinks if it does not."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            queue = subprocess.run(["squeue", "-r"], capture_output=True, text=True, check=False)
            logs = [path.read_text()[-2000:] for path in store.glob("plans/few/slurm/*/*.err")]
            raise AssertionError("\n".join([queue.stdout, *logs]))
        time.sleep(0.2)


def complete(store: Path) -> bool:
    plan = json.loads((store / "plans/few/plan.json").read_text())
    return all((store / "runs" / stage / "record.json").exists() for stage in plan["stages"])


def allocations(store: Path) -> set[str]:
    """SLURM's names of the jobs that did the stages."""
    return {json.loads(p.read_text())["allocation"] for p in store.glob("runs/*/record.json")}


def test_a_sweep_runs_on_slurm_to_the_same_bits(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    said = growpoint("launch", "demo", *words, *ASKED, "--yes", cwd=store)
    assert "submitted" in said.stdout
    again = growpoint("launch", "demo", *words, *ASKED, "--yes", cwd=store)
    assert "submitted    0 jobs" in again.stdout
    until(store, lambda: complete(store))
    assert weights(store) == weights(here)
    assert scores(store) == scores(here)
    assert "local" not in allocations(store)
    for path in store.glob("runs/*/state.json"):
        assert json.loads(path.read_text())["attempts"] == 1
    assert "nothing to run" in growpoint("launch", "demo", *words, *ASKED, cwd=store).stdout


@pytest.mark.parametrize("number", ["USR2", "TERM"])
def test_a_signalled_job_saves_and_is_requeued(
    number: str, slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    saving = "cluster.save_seconds=0.2"
    growpoint("launch", "demo", *words, *ASKED, saving, "--yes", cwd=store)

    def training() -> list[Path]:
        return [
            path.parents[2]
            for path in store.glob("runs/train-*/partial/at-*/manifest.json")
            if not (path.parents[2] / "record.json").exists()
        ]

    until(store, lambda: bool(training()))
    stage = training()[0]
    job = json.loads((stage / "state.json").read_text())["allocation"]
    slurm.run("scancel", f"--signal={number}", job)
    until(store, lambda: complete(store))
    assert weights(store) == weights(here)
    assert scores(store) == scores(here)
    assert json.loads((stage / "state.json").read_text())["attempts"] >= 2


def test_cancel_takes_the_jobs_out_of_the_queue(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    growpoint("launch", "demo", *words, *ASKED, "--yes", cwd=store)
    status = growpoint("status", "demo", "name=few", "--json", cwd=store)
    assert json.loads(status.stdout)["stages"]["queued"] > 0
    assert "SLURM jobs" in growpoint("cancel", "demo", "name=few", cwd=store).stdout
    until(store, lambda: not slurm.run("squeue", "-h", "-t", "PENDING,RUNNING").strip(), 60)


def test_an_unknown_partition_is_refused(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    asked = ["cluster=slurm", "cluster.partition=gpux"]
    said = growpoint("launch", "demo", *words, *asked, "--yes", cwd=store, code=2)
    assert "there is no partition `gpux`" in said.stderr
    assert list(store.iterdir()) == []
