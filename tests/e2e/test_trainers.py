"""Sweeps whose training is done by commands: the two that docs/trainers.md shows, and mistakes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.progress import WORK
from tests.e2e.conftest import Run

TRAINERS = Path(__file__).parents[2] / "docs" / "trainers"
SIZES = ["recipe.batch_sequences=16", "recipe.sequence_tokens=64"]


@pytest.fixture
def tiny(small: list[str]) -> list[str]:
    """The small demo with a command as its recipe, one growth, and no trunk."""
    kept = [word for word in small if not word.startswith("recipe.")]
    fewer = ["growth=depth", "points.at=[0]", "budgets.at=[2e9]", "exclude=[]", "arms=[continue]"]
    return [*kept, *fewer, "recipe=command", *SIZES]


def records(store: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in store.glob(f"runs/{kind}-*/record.json")]
    return sorted(found, key=lambda record: (record["trained_tokens"], record["stage"]))


def told_tokens(run: Path) -> list[int]:
    return [json.loads(line)["tokens"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_a_sweep_is_trained_under_torchrun(growpoint: Run, tiny: list[str], tmp_path: Path) -> None:
    """Two processes each, after growth; a budget goes on from another."""
    launcher = '["{python}", -m, torch.distributed.run, --standalone, --nproc-per-node, 2]'
    words = [
        *tiny,
        "arms=[grow]",
        "budgets.at=[2e9,4e9]",
        f"recipe.files={{train: {TRAINERS / 'ddp.py'}}}",
        'recipe.run=["{train}"]',
        f"recipe.start.launcher={launcher}",
        "recipe.schedule.kind=constant",
        "recipe.lr=3e-3",
        "cluster.workers=1",
    ]
    growpoint("launch", "demo", *words, cwd=tmp_path, timeout=580)
    short, long = records(tmp_path, "train")
    assert {record["trainer"] for record in (short, long)} == {"command"}
    assert [r["resumed_tokens"] for r in (short, long)] == [0, short["tokens"]]
    assert min(told_tokens(tmp_path / "runs" / long["stage"])) > short["tokens"]
    assert short["loss"] > long["loss"]
    assert len(records(tmp_path, "evaluate")) == 2
    table = growpoint("results", "demo", cwd=tmp_path).stdout
    assert "depth x2" in table


@pytest.mark.timeout(600)
def test_a_shell_script_is_stopped_and_goes_on(
    growpoint: Run, tiny: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    files = f"{{wrapper: {TRAINERS / 'shell.sh'}, trainer: {TRAINERS / 'sgd.py'}}}"
    words = [
        *tiny,
        f"recipe.files={files}",
        'recipe.run=[bash, "{wrapper}", "{trainer}", "{python}"]',
        "recipe.lr=0.1",
        "recipe.settings.steps_in_a_piece=4",
    ]
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "demo", *words]
    nothing = subprocess.DEVNULL
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=nothing, stderr=nothing)
    run = await_piece(tmp_path)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=120) == 130
    assert json.loads((run / "state.json").read_text())["state"] == "stopped"
    assert not (run / "checkpoint").exists()
    at = int((run / "work" / "step").read_text())
    weights = run / "work" / str(at) / "model.safetensors"
    written = weights.stat().st_mtime_ns
    growpoint("launch", "demo", *words, cwd=tmp_path)
    [record] = records(tmp_path, "train")
    tokens = told_tokens(run)
    assert tokens == [1024 * step for step in range(1, record["tokens"] // 1024 + 1)]
    assert not (run / "work").exists()
    # What was saved before the stop was not trained again.
    assert written < (run / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    assert record["loss"] < json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    [scored] = records(tmp_path, "evaluate")
    assert scored["metrics"]["loss"]["value"] > 0


def await_piece(store: Path, seconds: float = 240) -> Path:
    """Wait until some stage has a piece of its training behind it; its folder."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in store.glob(f"runs/train-*/{WORK}/step"):
            return path.parents[1]
        time.sleep(0.01)
    raise AssertionError("no piece was trained")


def test_a_command_that_fails_fails_its_stage_alone(
    growpoint: Run, tiny: list[str], tmp_path: Path
) -> None:
    """Its last words are shown; what was asked for is not there, and nothing is taken for it."""
    script = tmp_path / "train.sh"
    script.write_text("echo step 1\necho 'no space on scratch' >&2\nexit 9\n")
    words = [*tiny, f"recipe.files={{it: {script}}}", 'recipe.run=[bash, "{it}"]', "store=store"]
    growpoint("launch", "demo", *words, cwd=tmp_path, code=1)
    shown = growpoint("status", "demo", "store=store", cwd=tmp_path, code=1).stdout
    assert "the recipe's command ended with status 9" in shown
    assert "no space on scratch" in shown
    [run] = (tmp_path / "store").glob("runs/train-*")
    assert not (run / "record.json").exists()
    assert (
        "no space on scratch"
        in growpoint("logs", "demo", run.name, "store=store", cwd=tmp_path).stdout
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["recipe.run=[no-such-trainer]"], 2, "error: the program of the recipe's command"),
        (["recipe.run=[bash,'{targets}']"], 2, "error: the recipe's command has a placeholder"),
        (
            ["recipe.run=[no-such-trainer]", "cluster=slurm", "cluster.partition=gpu", "--dry-run"],
            0,
            "warning: the program of the recipe's command is not there on this machine",
        ),
    ],
)
def test_commands_that_cannot_run_are_refused_before_anything_is_written(
    words: list[str], code: int, says: str, growpoint: Run, tiny: list[str], tmp_path: Path
) -> None:
    done = growpoint("launch", "demo", *tiny, *words, cwd=tmp_path, code=code)
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []
