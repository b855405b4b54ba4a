"""Two nodes that train one job together on a real SLURM: over gloo, stopped and requeued."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Run
from tests.e2e.test_slurm_launch import ASKED, complete, until
from tests.slurm.cluster import Cluster

# One job: a trunk, its growth, a branch, scores.
CHAIN = ["points.at=[65536]", "arms=[grow]", "growth=[{kind: depth}]", "budgets.at=[1e10]"]
TOGETHER = ["cluster.nodes=2", "cluster.tasks=1", "cluster.save_seconds=0.2"]


@pytest.fixture(scope="module")
def words(small: list[str]) -> list[str]:
    return [*small, *CHAIN, "exclude=[]", "name=few", *ASKED, *TOGETHER]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every node sees."""
    return tmp_path_factory.mktemp("shared")


def records(store: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in store.glob(f"runs/{pattern}/record.json")]


def test_two_nodes_train_together_and_stop_together(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    said = growpoint("launch", "demo", *words, "--yes", cwd=store)
    assert "submitted    1 jobs" in said.stdout

    def saved() -> list[Path]:
        return list(store.glob("runs/train-*/partial/at-*/manifest.json"))

    until(store, lambda: bool(saved()))
    stage = saved()[0].parents[2]
    job = json.loads((stage / "state.json").read_text())["allocation"]
    slurm.run("scancel", "--signal=USR2", job)
    until(store, lambda: complete(store))

    assert json.loads((stage / "state.json").read_text())["attempts"] == 2
    trained = records(store, "train-*")
    assert [(one["ranks"], one["ranks_per_node"]) for one in trained] == [(2, 1)] * 2
    assert any(one["resumed_tokens"] > 0 for one in trained)
    for one in trained:
        steps = store / "runs" / one["stage"] / "metrics.jsonl"
        tokens = [json.loads(line)["tokens"] for line in steps.read_text().splitlines()]
        assert tokens == sorted(set(tokens))
        assert tokens[-1] == one["tokens"]
    assert records(store, "evaluate-*")[0]["metrics"]["loss"]["value"] < 6
    # SLURM ends a job well only if every rank does.
    until(store, lambda: not slurm.run("squeue", "-h").strip(), 60)
    ended = slurm.run("sacct", "-n", "-X", "-P", "-j", job, "--format=State").split()
    assert ended[-1] == "COMPLETED"


def test_more_ranks_than_sequences_are_refused(
    slurm: Cluster, growpoint: Run, words: list[str], store: Path
) -> None:
    asked = [*words, "cluster.tasks=9"]
    said = growpoint("launch", "demo", *asked, "--yes", cwd=store, code=2)
    assert "a batch has fewer sequences than the job has ranks" in said.stderr
    assert list(store.iterdir()) == []
