"""A command that trains on a real SLURM: warned, it saves, is requeued, and goes on."""

import json
from pathlib import Path

import pytest

from orchestrator.progress import WORK
from tests.e2e.slurm_sweep import Sweep
from tests.slurm.cluster import Cluster

# It does not handle the signal that SLURM sends to all processes of a step, only the one that it is
# asked to stop by; without a `half` in its folder it waits for that.
TRAIN = """
say() { echo "{\\"tokens\\": $1, \\"loss\\": 3}" >> "$GROWPOINT_METRICS"; }
cp "$GROWPOINT_SOURCE"/*.json "$GROWPOINT_SOURCE"/*.safetensors "$GROWPOINT_TARGET"
if [ -e half ]; then say "$GROWPOINT_TOKENS"; exit 0; fi
trap 'touch half; exit 75' TERM
say 1024; touch up
while :; do sleep 0.1; done
"""


@pytest.mark.timeout(600)
def test_warned_in_mid_training(
    slurm: Cluster, sweep: Sweep, small: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "train.sh"
    script.write_text(TRAIN)
    store = sweep.store
    words = [word for word in small if not word.startswith("recipe.")]
    words += ["points.at=[0]", "budgets.at=[2e9]", "arms=[continue]", "exclude=[]"]
    words += ["recipe=command", "recipe.batch_sequences=16", "recipe.sequence_tokens=64"]
    words += [f"recipe.files={{it: {script}}}", 'recipe.run=[bash, "{it}"]']
    sweep.words = words
    sweep.launch()
    sweep.until(lambda: any(store.glob(f"runs/train-*/{WORK}/up")))
    [run] = store.glob("runs/train-*")
    allocation = json.loads((run / "state.json").read_text())["allocation"]
    slurm.run("scancel", "--signal=USR2", allocation)
    sweep.until(lambda: any(store.glob("runs/evaluate-*/record.json")))
    record = json.loads((run / "record.json").read_text())
    assert (record["trainer"], record["train_seconds"]) == ("command", None)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [1024, record["tokens"]]
    assert json.loads((run / "state.json").read_text())["attempts"] == 2
