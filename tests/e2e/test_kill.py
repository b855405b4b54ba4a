"""Whatever dies, nothing is lost and nothing runs twice."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Run
from tests.slurm.matrix import tell

pytestmark = pytest.mark.timeout(900)

# What stops a launch, and the code that it ends with. After SIGKILL its workers save for a while.
STOPS = {signal.SIGINT: 130, signal.SIGTERM: 130, signal.SIGKILL: -signal.SIGKILL}
Launched = tuple[Path, "subprocess.CompletedProcess[str]"]


def start(words: list[str], cwd: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A launch in the background."""
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "demo", *words]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=nothing, stderr=nothing)


def await_training(store: Path, seconds: float = 200) -> Path:
    """Wait until some stage has saved in mid-training, from now on, and is not done; its folder."""
    began = time.time()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in store.glob("runs/train-*/partial/at-*/manifest.json"):
            run = path.parents[2]
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime > began and not (run / "record.json").exists():
                    return run
        time.sleep(0.005)
    raise AssertionError("no stage was seen in mid-training")


def weights(store: Path) -> dict[str, str]:
    """Hash of the weights of every stage that is done."""
    return {
        path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("runs/*/checkpoint/model.safetensors")
    }


def scores(store: Path) -> dict[str, Any]:
    """Metrics of every cell that is done."""
    return {
        path.parent.name: json.loads(path.read_text())["metrics"]
        for path in store.glob("runs/evaluate-*/record.json")
    }


def same_bits(store: Path) -> str:
    """What survived, once the bits were compared."""
    return f"{len(list(store.glob('runs/*/record.json')))} stages, same bits"


def test_stopped_in_mid_training_and_launched_again_gives_the_same_bits(
    launched: Launched,
    growpoint: Run,
    small: list[str],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    words = [*small, "cluster.save_seconds=0.2"]
    for number, code in STOPS.items():
        process = start(words, tmp_path, environment)
        await_training(tmp_path)
        process.send_signal(number)
        assert process.wait(timeout=120) == code
        assert len(scores(tmp_path)) < len(scores(launched[0]))
    growpoint("launch", "demo", *words, cwd=tmp_path)
    assert weights(tmp_path) == weights(launched[0])
    assert scores(tmp_path) == scores(launched[0])
    came, again = same_bits(tmp_path), "its workers save and stop; `launch` again goes on"
    tell("SIGINT or SIGTERM of a local `launch`", again, "one step", came)
    again = "its workers are left without a last word; `launch` again goes on"
    tell("SIGKILL of a local `launch`", again, "one save interval", came)


def test_a_killed_worker_is_replaced_and_its_job_goes_on(
    launched: Launched, small: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    process = start([*small, "cluster.save_seconds=0.2"], tmp_path, environment)
    stage = await_training(tmp_path)
    worker = json.loads((stage / "state.json").read_text())["pid"]
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    assert process.wait(timeout=300) == 0
    assert weights(tmp_path) == weights(launched[0])
    replaced = "another worker takes its place"
    tell("SIGKILL of a local worker", replaced, "one save interval", same_bits(tmp_path))


def test_two_launches_at_once_share_the_work(
    launched: Launched, small: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    both = [start(small, tmp_path, environment) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert weights(tmp_path) == weights(launched[0])
    for path in tmp_path.glob("runs/*/state.json"):
        assert json.loads(path.read_text())["attempts"] == 1
    for path in tmp_path.glob("runs/train-*/metrics.jsonl"):
        tokens = [json.loads(line)["tokens"] for line in path.read_text().splitlines()]
        assert tokens == sorted(set(tokens))
    tell("two local `launch` at once", "they share the work", "nothing", same_bits(tmp_path))


def test_cancel_stops_a_launch_and_keeps_what_is_done(
    growpoint: Run, small: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    process = start([*small, "cluster.save_seconds=0.2"], tmp_path, environment)
    await_training(tmp_path)
    assert "cancelled the launch" in growpoint("cancel", "demo", cwd=tmp_path).stdout
    assert process.wait(timeout=120) == 1
    assert "nothing is running" in growpoint("cancel", "demo", cwd=tmp_path).stdout
    found = json.loads(growpoint("status", "demo", "--json", cwd=tmp_path).stdout)
    assert found["stages"]["running"] == 0
    assert found["stages"]["done"] > 0


def test_a_sweep_extended_while_it_runs_finishes_both(
    growpoint: Run, small: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """The longer budget cuts the chains of jobs elsewhere; those that run must not mind."""
    first = start([*small, "budgets.at=[1e10]"], tmp_path, environment)
    await_stage(tmp_path)
    growpoint("launch", "demo", *small, cwd=tmp_path)
    assert first.wait(timeout=200) == 0
    states = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/state.json")]
    assert {state["state"] for state in states} == {"done"}
    assert {state["attempts"] for state in states} == {1}


def await_stage(store: Path, seconds: float = 200) -> None:
    """Wait until some stage is done."""
    until = time.monotonic() + seconds
    while not list(store.glob("runs/*/record.json")):
        assert time.monotonic() < until, "no stage was done"
        time.sleep(0.02)


def test_cancel_ends_launches_that_wait_as_well(
    growpoint: Run, small: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    words = [*small, "cluster.save_seconds=0.2"]
    both = [start(words, tmp_path, environment)]
    await_training(tmp_path)
    both.append(start(words, tmp_path, environment))
    until = time.monotonic() + 90
    while len(list(tmp_path.glob("plans/demo/launches/*.json"))) < 2:
        assert time.monotonic() < until, "the second launch did not come so far"
        time.sleep(0.02)
    time.sleep(1)
    growpoint("cancel", "demo", cwd=tmp_path)
    assert [process.wait(timeout=120) for process in both] == [1, 1]
    assert len(scores(tmp_path)) < 24
