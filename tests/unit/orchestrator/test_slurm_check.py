"""Which partitions can take a job, by what sinfo tells of their nodes."""

import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator import slurm_check, slurm_partitions
from orchestrator.store import Store
from sweeps import config
from sweeps.cluster import Slurm
from sweeps.errors import GrowpointError

SINFO = """\
gpu|up|1-00:00:00|gpu:h200:4(S:0-1)|16|64000|REQUEUE|g1
gpu|up|1-00:00:00|(null)|64|512000|REQUEUE|g2
long|up|infinite|gpu:h200:8|96|1000000+|CANCEL|g3
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the commands of a cluster print; EnforcePartLimits may be set."""
    answers = {"sinfo": SINFO, "scontrol": "EnforcePartLimits       = NO\n"}
    for module in (slurm_check, slurm_partitions):
        monkeypatch.setattr(module, "ask", lambda command, *_: answers[command])
    monkeypatch.setattr(slurm_check.shutil, "which", lambda command: f"/bin/{command}")
    monkeypatch.setattr(slurm_check, "_check_names", lambda cluster: None)
    return answers


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def check(store: Store, partition: str = "gpu", **more: Any) -> int | None:
    return slurm_check.check(Slurm(partition=partition, **more), store)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "gpus": ({"gpus": 5}, "so many GPUs", "cluster.gpus=4"),
    "type": ({"gpu_type": "a100"}, "GPUs of type `a100`", "cluster.gpu_type=h200"),
    "cpus": ({"gpus": 0, "cpus": 65}, "so many CPUs", "cluster.cpus=64"),
    "memory": ({"gpus": 0, "memory_gb": 501}, "so many MB of memory", "cluster.memory_gb=500"),
    "together": ({"gpus": 1, "cpus": 32}, "has all that a job asks for", "lower cluster.cpus"),
    "minutes": ({"minutes": 1441}, "longer than partition `gpu` allows", "cluster.minutes=1440"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_node_has_is_refused(name: str, said: dict[str, str], store: Store) -> None:
    settings, problem, hint = REFUSED[name]
    with pytest.raises(GrowpointError, match=problem) as caught:
        check(store, **settings)
    assert hint in caught.value.help


def test_of_several_partitions_one_must_fit_unless_all_must(
    said: dict[str, str], store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert check(store, "gpu,long", minutes=2000) is None
    assert "no job will run in partition gpu" in caplog.text
    assert check(store, "gpu,long") == 1440
    with pytest.raises(GrowpointError, match="partition `gpu` has so many GPUs"):
        check(store, "gpu,long", gpus=9)
    said["scontrol"] = "EnforcePartLimits       = ALL\n"
    with pytest.raises(GrowpointError, match="longer than partition `gpu`"):
        check(store, "gpu,long", minutes=2000)


def test_a_list_of_partitions_needs_no_quotes() -> None:
    request = config.load("demo", ["cluster=slurm", "cluster.partition=a,b"])
    assert isinstance(request.cluster, Slurm)
    assert request.cluster.partition == "a,b"
    assert len(request.sweeps) == 1


def test_cancelling_partitions_and_local_disks_are_warned_of(
    said: dict[str, str],
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(slurm_check, "_file_system", lambda folder: "nfs4")
    check(store)
    assert not caplog.text
    monkeypatch.setattr(slurm_check, "_file_system", lambda folder: "ext4")
    check(store, "long")
    assert "SLURM cancels preempted jobs of partition long" in caplog.text
    assert "jobs on g3 do not see it" in caplog.text


def test_the_job_that_fills_up_needs_a_place_too(said: dict[str, str], store: Store) -> None:
    cluster = Slurm.model_validate({"partition": "gpu", "top_up": {"partition": "cpux"}})
    assert slurm_check.check(cluster, store) == 1440
    with pytest.raises(GrowpointError, match="no partition `cpux`") as caught:
        slurm_check.check(cluster, store, unattended=True)
    assert caught.value.help.startswith("cluster.top_up.partition=")
