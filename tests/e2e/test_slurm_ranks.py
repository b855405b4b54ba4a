"""Two nodes that train one job together on a real SLURM: over gloo, stopped and requeued."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.slurm_sweep import Sweep
from tests.slurm.cluster import Cluster

# One job: a trunk, its growth, a branch, scores.
CHAIN = ["points.at=[65536]", "arms=[grow]", "growth=[{kind: depth}]", "budgets.at=[1e10]"]
CHAIN += ["exclude=[]"]
TOGETHER = ["cluster.nodes=2", "cluster.tasks=1", "cluster.save_seconds=0.2"]


def records(store: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in store.glob(f"runs/{pattern}/record.json")]


def test_two_nodes_train_together_and_stop_together(
    slurm: Cluster, sweep: Sweep, small: list[str]
) -> None:
    sweep.words, store = [*small, *CHAIN], sweep.store
    assert "submitted    1 jobs" in sweep.launch(*TOGETHER).stdout

    def saved() -> list[Path]:
        return list(store.glob("runs/train-*/partial/at-*/manifest.json"))

    sweep.until(lambda: bool(saved()))
    stage = saved()[0].parents[2]
    job = json.loads((stage / "state.json").read_text())["allocation"]
    slurm.run("scancel", "--signal=USR2", job)
    sweep.until(sweep.complete)

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
    # SLURM ends a job well only if every rank does; accounting hears of it a little later.
    words = ("sacct", "-n", "-X", "-P", "-j", job, "--format=State")
    sweep.until(lambda: slurm.run(*words).split()[-1] not in ("RUNNING", "COMPLETING"), 60)
    assert slurm.run(*words).split()[-1] == "COMPLETED"


def test_more_ranks_than_sequences_are_refused(sweep: Sweep, small: list[str]) -> None:
    sweep.words = [*small, *CHAIN]
    said = sweep.launch(*TOGETHER, "cluster.tasks=9", code=2)
    assert "a batch has fewer sequences than the job has ranks" in said.stderr
    assert list(sweep.store.iterdir()) == []
