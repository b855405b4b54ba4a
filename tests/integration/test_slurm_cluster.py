"""The cluster that other tests rely on is real: jobs run, wait for each other, and get GPUs."""

import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster


def submit(slurm: Cluster, folder: Path, command: str, *options: str) -> str:
    """The id of a job that runs one shell command; its output goes to `<id>.out` in the folder."""
    return slurm.run(
        "sbatch", "--parsable", f"--output={folder}/%j.out", *options, f"--wrap={command}"
    ).strip()


def final_state(slurm: Cluster, job: str, seconds: float = 30) -> str:
    """What accounting says of a job that has ended; it learns that up to 6 s late."""
    deadline = time.monotonic() + seconds
    state = ""
    while time.monotonic() < deadline:
        state = slurm.run("sacct", "-nPX", "-j", job, "-o", "State").strip()
        if state and state not in {"PENDING", "RUNNING", "COMPLETING"}:
            return state
        time.sleep(0.1)
    pytest.fail(f"job {job} is still {state!r} after {seconds:g} s")


def test_a_job_runs_on_each_node(slurm: Cluster, tmp_path: Path) -> None:
    jobs = {n: submit(slurm, tmp_path, "hostname", f"--nodelist={n}") for n in slurm.nodes}
    for node, job in jobs.items():
        assert final_state(slurm, job) == "COMPLETED"
        assert slurm.run("sacct", "-nPX", "-j", job, "-o", "NodeList").strip() == node


def test_every_partition_takes_a_job(slurm: Cluster, tmp_path: Path) -> None:
    known = slurm.run("sinfo", "-h", "-o", "%R").split()
    assert set(known) == set(slurm.partitions)
    assert slurm.partition in known
    jobs = [submit(slurm, tmp_path, "true", f"--partition={p}") for p in slurm.partitions]
    assert [final_state(slurm, job) for job in jobs] == ["COMPLETED"] * len(jobs)


def test_afterok_waits_for_the_parent(slurm: Cluster, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    parent = submit(slurm, tmp_path, f"sleep 2; echo parent >> {diary}")
    child = submit(slurm, tmp_path, f"echo child >> {diary}", f"--dependency=afterok:{parent}")
    assert final_state(slurm, child) == "COMPLETED"
    assert diary.read_text().split() == ["parent", "child"]


def test_afterok_holds_the_child_of_a_failed_parent(slurm: Cluster, tmp_path: Path) -> None:
    parent = submit(slurm, tmp_path, "exit 3")
    child = submit(
        slurm,
        tmp_path,
        "touch ran",
        f"--dependency=afterok:{parent}",
        "--kill-on-invalid-dep=yes",
        f"--chdir={tmp_path}",
    )
    assert final_state(slurm, parent) == "FAILED"
    assert final_state(slurm, child).startswith("CANCELLED")
    assert not (tmp_path / "ran").exists()


def test_a_job_sees_the_gpus_it_asked_for(slurm: Cluster, tmp_path: Path) -> None:
    show = "echo gpus=$CUDA_VISIBLE_DEVICES"
    one = submit(slurm, tmp_path, show, "--gpus-per-node=1")
    both = submit(slurm, tmp_path, show, f"--gres=gpu:h200:{slurm.gpus_per_node}")
    none = submit(slurm, tmp_path, show)
    for job in (one, both, none):
        assert final_state(slurm, job) == "COMPLETED"
    seen = [(tmp_path / f"{job}.out").read_text().strip() for job in (one, both, none)]
    assert seen[0] in {"gpus=0", "gpus=1"}
    assert seen[1:] == ["gpus=0,1", "gpus="]


def test_a_lost_node_comes_back(slurm: Cluster, tmp_path: Path) -> None:
    slurm.control("kill-node", "n2", "--down")
    try:
        assert slurm.run("sinfo", "-h", "-N", "-n", "n2", "-p", "gpu", "-o", "%T").startswith(
            "down"
        )
    finally:
        slurm.control("restore-node", "n2")
    job = submit(slurm, tmp_path, "true", "--nodelist=n2")
    assert final_state(slurm, job) == "COMPLETED"
