"""The guard of a command: nothing that it starts outlives it, and its status is passed on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import guard


def guarded(*words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", guard.__file__, "TERM", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def say(process: "subprocess.Popen[bytes]", word: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(word)
    process.stdin.flush()


def wait_for(path: Path, seconds: float = 20) -> str:
    until = time.monotonic() + seconds
    while not (path.is_file() and path.read_text().strip()):
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text().strip()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def ended(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait(timeout=30)
    for pipe in (process.stdin, process.stderr):
        assert pipe is not None
        pipe.close()
    return code


@pytest.mark.parametrize(("word", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_status_is_passed_on(word: str, code: int) -> None:
    assert ended(guarded("bash", "-c", word)) == code


def test_a_program_that_is_not_there() -> None:
    process = guarded("/nowhere/program")
    assert process.stderr is not None
    assert b"/nowhere/program: No such file" in process.stderr.read()
    assert ended(process) == guard.NOT_FOUND


def test_stop_sends_the_signal_once_and_waits(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        f"trap 'echo stopped >> {said}; exit 75' TERM; echo up > {said}; while :; do sleep .1; done"
    )
    process = guarded("bash", "-c", script)
    wait_for(said)
    say(process, b"stop\n")
    assert ended(process) == 75
    assert said.read_text().split() == ["up", "stopped"]


def test_the_warning_of_slurm_does_not_end_a_command(tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = guarded("bash", "-c", f"echo $$ > {said}; sleep 30 & wait; exit 4")
    os.kill(int(wait_for(said)), signal.SIGUSR2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    say(process, b"kill\n")
    assert ended(process) == 137


@pytest.mark.parametrize("how", ["kill", "end of input", "ends by itself"])
def test_nothing_is_left_behind(how: str, tmp_path: Path) -> None:
    """A process in a session of its own, that ignores the polite signals, goes as well."""
    said = tmp_path / "said"
    deep = f"setsid bash -c 'trap : TERM; echo $$ > {said}; while :; do sleep .1; done' &"
    rest = f"until [ -s {said} ]; do sleep .05; done" if how == "ends by itself" else "wait"
    process = guarded("bash", "-c", f"{deep} {rest}")
    pid = int(wait_for(said))
    endings: dict[str, Callable[[], None]] = {
        "kill": lambda: say(process, b"kill\n"),
        "end of input": lambda: process.stdin.close() if process.stdin else None,
        "ends by itself": lambda: None,
    }
    endings[how]()
    assert ended(process) == (0 if how == "ends by itself" else 137)
    assert not alive(pid)
