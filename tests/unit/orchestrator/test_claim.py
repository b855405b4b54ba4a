"""Claims: one holder at a time, whoever dies and whoever asks."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import claim


def test_only_one_holds(tmp_path: Path) -> None:
    with claim.take(tmp_path / "claim", "first") as held:  # type: ignore[union-attr]
        assert claim.take(tmp_path / "claim") is None
        assert not held.lost
        found = claim.holder(tmp_path / "claim")
        assert found is not None
        assert found["note"] == "first"
        assert found["pid"] == os.getpid()
    assert claim.holder(tmp_path / "claim") is None


def test_a_released_claim_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(3):
        held = claim.take(tmp_path / "claim")
        assert held is not None
        with held:
            pass
    assert len(list(tmp_path.iterdir())) == 1


def _dead_process(folder: Path) -> None:
    program = (
        "import sys, pathlib; from orchestrator import claim; "
        "claim.take(pathlib.Path(sys.argv[1])); import os; os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder / "claim")], check=False)


def test_a_dead_holder_on_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    _dead_process(tmp_path)
    assert len(list(tmp_path.glob("claim.*"))) == 1
    assert claim.holder(tmp_path / "claim") is None
    assert claim.take(tmp_path / "claim") is not None


def test_a_pid_that_was_used_again_is_not_the_holder(tmp_path: Path) -> None:
    claim.take(tmp_path / "claim")
    path = next(tmp_path.glob("claim.*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))
    assert claim.take(tmp_path / "claim") is not None


def _as_from_elsewhere(folder: Path, age_seconds: float) -> None:
    claim.take(folder / "claim")
    path = next(folder.glob("claim.*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another machine"}))
    then = time.time() - age_seconds
    os.utime(path, (then, then))


def test_a_holder_elsewhere_lives_by_its_heartbeat(tmp_path: Path) -> None:
    _as_from_elsewhere(tmp_path, claim.STALE_SECONDS / 2)
    assert claim.take(tmp_path / "claim") is None


def test_a_silent_holder_elsewhere_is_followed_and_notices(tmp_path: Path) -> None:
    _as_from_elsewhere(tmp_path, claim.STALE_SECONDS * 2)
    old = claim.Claim(next(tmp_path.glob("claim.*")))
    assert claim.take(tmp_path / "claim") is not None
    assert old.lost


def test_a_job_that_slurm_runs_again_elsewhere_follows_itself(tmp_path: Path) -> None:
    held = claim.take(tmp_path / "claim", "7_0")
    assert held is not None
    _as_from_elsewhere(tmp_path, 0)
    assert claim.take(tmp_path / "claim", "7_1") is None
    assert claim.take(tmp_path / "claim", "local") is None
    assert claim.take(tmp_path / "claim", "7_0") is not None
    assert held.lost


def test_the_heartbeat_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "HEARTBEAT_SECONDS", 0.01)
    held = claim.take(tmp_path / "claim")
    assert held is not None
    os.utime(held.path, (1, 1))
    with held:
        for _ in range(200):
            if held.path.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert held.path.stat().st_mtime > 1


def test_one_that_came_and_went_meanwhile_is_not_taken_from(tmp_path: Path) -> None:
    """A list of claims may be old by the time a new one is made."""
    _dead_process(tmp_path)
    stale = claim._generations(tmp_path / "claim")
    held = claim.take(tmp_path / "claim")
    assert held is not None
    with held:
        pass
    third = claim.take(tmp_path / "claim")
    assert third is not None
    with pytest.MonkeyPatch.context() as patch:
        real, lists = claim._generations, [stale]
        patch.setattr(claim, "_generations", lambda name: lists.pop() if lists else real(name))
        assert claim.take(tmp_path / "claim") is None
    assert not third.lost


def _race(folder: str, name: str) -> None:
    log = Path(folder) / "log"
    for _ in range(20):
        held = claim.wait(Path(folder) / "claim", name, lambda: False, poll_seconds=0.001)
        assert held is not None
        with held, log.open("a") as file:
            file.write(f"in {name}\n")
            file.flush()
            time.sleep(0.001)
            file.write(f"out {name}\n")


def test_many_processes_take_turns(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    runners = [context.Process(target=_race, args=(str(tmp_path), f"p{i}")) for i in range(4)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
        assert runner.exitcode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 4 * 20 * 2
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.removeprefix("in ") == left.removeprefix("out ")
