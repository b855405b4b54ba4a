"""What befalls jobs on a real SLURM: each time the sweep ends, and to the same bits."""

import json
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.test_kill import scores, weights
from tests.e2e.test_slurm_launch import ASKED, until
from tests.slurm.cluster import Cluster

# What SLURM waits for (a node given up, a job held back) adds up on a busy machine.
pytestmark = pytest.mark.timeout(900)

ONE = ["points.at=[65536]", "growth=[{kind: depth}]", "arms=[grow]", "budgets.at=[4e10]"]
SAVING = "cluster.save_seconds=0.2"


@pytest.fixture(scope="module")
def words(small: list[str]) -> list[str]:
    """One cell: a trunk, a growth, a branch, an evaluation."""
    return [*small, *ONE, "exclude=[]", "name=few"]


@pytest.fixture(scope="module")
def here(growpoint: Run, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the cell has run without SLURM and undisturbed."""
    store = tmp_path_factory.mktemp("here")
    growpoint("launch", "demo", *words, cwd=store)
    return store


@pytest.fixture(autouse=True)
def _nodes_in_service(slurm: Cluster) -> None:
    """Put back nodes that SLURM drained because a killed job was slow to die there."""
    for node in slurm.nodes:
        if slurm.run("sinfo", "-h", "-n", node, "-p", "gpu", "-o", "%T").startswith("drain"):
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every node sees."""
    return tmp_path_factory.mktemp("shared")


def training(store: Path) -> Path | None:
    """The folder of a stage that is in mid-training and has saved."""
    saved = store.glob("runs/train-*/partial/at-*/manifest.json")
    runs = (path.parents[2] for path in saved)
    return next((run for run in runs if not (run / "record.json").exists()), None)


def caught(store: Path) -> dict[str, str]:
    """The state of the stage that is in mid-training, once there is one."""
    until(store, lambda: training(store) is not None)
    run = training(store)
    assert run is not None
    found: dict[str, str] = json.loads((run / "state.json").read_text())
    return {**found, "stage": run.name}


def status(growpoint: Run, store: Path, code: int = 0) -> dict[str, str]:
    """The state of each unfinished stage."""
    said = growpoint("status", "few", "--json", cwd=store, code=code)
    return {one["stage"]: one["state"] for one in json.loads(said.stdout)["unfinished"]}


def complete(store: Path) -> bool:
    plan = json.loads((store / "plans/few/plan.json").read_text())
    return all((store / "runs" / stage / "record.json").exists() for stage in plan["stages"])


def same(store: Path, here: Path) -> None:
    assert weights(store) == weights(here)
    assert scores(store) == scores(here)


def test_requeued_by_the_administrator(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    growpoint("launch", "demo", *words, *ASKED, SAVING, "--yes", cwd=store)
    slurm.run("scontrol", "requeue", caught(store)["allocation"])
    until(store, lambda: complete(store))
    same(store, here)


def test_preempted_by_a_higher_partition(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    lower = [*ASKED, "cluster.partition=preempt", SAVING]
    growpoint("launch", "demo", *words, *lower, "--yes", cwd=store)
    before = caught(store)
    everything = ("--partition=gpu", "--nodes=2", "--exclusive", "--time=1", "--wrap=sleep 3")
    slurm.run("sbatch", f"--output={store}/higher", *everything)
    until(store, lambda: complete(store))
    same(store, here)
    state = json.loads((store / "runs" / before["stage"] / "state.json").read_text())
    assert state["attempts"] >= 2


def test_cancelled_in_mid_training_it_is_told_and_launched_again(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    growpoint("launch", "demo", *words, *ASKED, SAVING, "--yes", cwd=store)
    before = caught(store)
    slurm.run("scancel", before["allocation"])
    until(store, lambda: not slurm.run("squeue", "-h", "-j", before["allocation"]).strip(), 60)
    assert status(growpoint, store)[before["stage"]] == "stopped"
    said = growpoint("launch", "demo", *words, *ASKED, "--yes", "--follow", cwd=store)
    assert "all" in said.stdout
    assert "done" in said.stdout
    same(store, here)


def test_out_of_memory_is_told_with_the_node_and_the_log(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    little = [*ASKED, "cluster.memory_gb=0.2"]
    growpoint("launch", "demo", *words, *little, "--yes", cwd=store)
    # The parent dies; what waits for it stays in the queue, and is known to be blocked.
    until(store, lambda: not slurm.run("squeue", "-h", "-t", "RUNNING,COMPLETING").strip(), 60)
    until(store, lambda: "OUT_OF_ME" in slurm.run("sacct", "-nP", "-o", "State"), 60)
    said = growpoint("status", "few", cwd=store, code=1).stdout
    assert "ran out of memory: raise cluster.memory_gb" in said
    assert any(f"node {node}" in said for node in slurm.nodes)
    growpoint("launch", "demo", *words, *ASKED, "--yes", cwd=store)
    until(store, lambda: complete(store))
    same(store, here)


def test_more_jobs_than_one_may_submit_go_in_by_turns(
    slurm: Cluster, growpoint: Run, small: list[str], store: Path
) -> None:
    """QOS `tiny` takes five jobs of a user at once."""
    some = ["points.at=[0,8192]", "budgets.at=[1e10]", "growth=[{kind: depth}]", "exclude=[]"]
    many = [*small, *some, "name=few"]
    asked = [*ASKED, "cluster.account=lab", "cluster.qos=tiny", "--yes"]
    said = growpoint("launch", "demo", *many, *asked, cwd=store)
    assert "the queue is full by the submit limit of qos tiny" in said.stdout
    assert len(slurm.run("squeue", "-h", "-r").splitlines()) <= 5
    growpoint("launch", "demo", *many, *asked, "--follow", cwd=store, timeout=400)
    assert complete(store)


def test_a_controller_that_is_away_at_submission_loses_and_doubles_nothing(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    slurm.control("kill-daemon", "slurmctld", "--hard")
    launch = ["launch", "demo", *words, *ASKED, "--yes"]
    try:
        said = growpoint(*launch, cwd=store, code=2, timeout=200)
        assert "error: `" in said.stderr
    finally:
        slurm.control("restore-daemon", "slurmctld")
    growpoint(*launch, cwd=store)
    until(store, lambda: complete(store))
    same(store, here)
    for path in store.glob("runs/*/state.json"):
        assert json.loads(path.read_text())["attempts"] == 1


def test_a_lost_node_costs_one_interval(
    slurm: Cluster, growpoint: Run, words: list[str], here: Path, store: Path
) -> None:
    growpoint("launch", "demo", *words, *ASKED, SAVING, "--yes", cwd=store)
    before = caught(store)
    node = slurm.run("squeue", "-h", "-j", before["allocation"], "-o", "%N").strip()
    began = time.monotonic()
    slurm.control("kill-node", node, "--no-wait")
    # As an administrator would: else SLURM finds out by itself, half a minute later.
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        until(store, lambda: complete(store), 600)
    finally:
        slurm.control("restore-node", node)
    print(f"node {node} killed; the sweep ended {time.monotonic() - began:.0f} s later")
    same(store, here)
