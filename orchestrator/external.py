"""A phase of training that a command of the user's own does: run, stopped, judged, published."""

import contextlib
import math
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import guard, models, phase, returned
from orchestrator.progress import WORK, reached
from orchestrator.tokens import require
from orchestrator.told import Told, told
from sweeps.errors import GrowpointError
from sweeps.stages import Train

# What a command ends with that was stopped and has saved (EX_TEMPFAIL of sysexits.h).
STOPPED = 75
POLL_SECONDS = 0.25
# Lines of the command's own that a failure shows.
SHOWN = 8


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, and whether it had been asked to stop."""

    code: int
    asked: bool


def train(
    do: Train,
    *,
    said: Mapping[str, Any],
    source: Path,
    run: Path,
    corpus: Path,
    resume: Iterable[tuple[Path, int]] = (),
    stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
) -> dict[str, Any] | None:
    """Run the command of the phase `do` and publish what it leaves as `run`/checkpoint.

    `said` is the plan's circumstance of the recipe; `resume` are work folders of shorter phases
    with their tokens, longest first. None if it was stopped, and is to be run again. Raises
    GrowpointError if the command fails, or if what it leaves is not what was asked for.
    """
    require(corpus, do.corpus)
    target, metrics = run / "checkpoint", run / "metrics.jsonl"
    phase.tidy(run / "partial", target)
    for left in run.glob("target-*"):
        shutil.rmtree(left, ignore_errors=True)
    begun = next((pair for pair in resume if pair[0].is_dir()), None)
    returned.in_order(metrics)
    before = reached(run)
    # An orphan of an earlier attempt, should there be one, writes into a folder of its own.
    aside = run / f"target-{secrets.token_hex(4)}"
    places = {
        "stage": run.name,
        "source": source.resolve(),
        "target": aside.resolve(),
        "work": (run / WORK).resolve(),
        "resume": begun[0].resolve() if begun else "",
        "start_tokens": begun[1] if begun else 0,
        "corpus": corpus.resolve(),
        "metrics": metrics.resolve(),
    }
    asked = told(do, said, places, save_seconds)
    try:
        seconds = _run(asked, do, source, aside, run, stop)
        if seconds is None:
            return None
        last = returned.metrics(metrics, do, _tail(run))
        _publish(aside, target, corpus)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if do.ends:
        shutil.rmtree(run / WORK, ignore_errors=True)
    return _came(asked, last, seconds if not before else None, begun)


def _run(
    asked: Told, do: Train, source: Path, aside: Path, run: Path, stop: Callable[[], bool]
) -> float | None:
    """Seconds until the command had left a checkpoint that holds; None if it stopped before."""
    began = time.monotonic()
    while True:
        (run / WORK).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        before = reached(run)
        ended = _ended(asked, run, stop)
        if ended.code == 0:
            try:
                returned.require(aside, source, stop)
                returned.metrics(run / "metrics.jsonl", do, _tail(run))
            except GrowpointError:
                # Some end in good order when they are asked to stop, and say so with 0.
                if not ended.asked:
                    raise
                return None
            return time.monotonic() - began
        if ended.asked:
            return None
        if ended.code != STOPPED:
            raise _failed(asked, ended.code, run)
        if reached(run) <= before or stop():
            return None


def _ended(asked: Told, run: Path, stop: Callable[[], bool]) -> Ended:
    """Run the command to its end; ask it to stop when `stop` turns true, kill it if it does not."""
    out, errors = _logs(run)
    words = [sys.executable, "-I", guard.__file__, asked.start.signal, *asked.words]
    with out.open("ab") as spoken, errors.open("ab") as complained:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=spoken,
            stderr=complained,
            env=dict(asked.environment),
            cwd=run / WORK,
            start_new_session=True,
        )
        try:
            return _watched(process, stop, asked.start.grace_seconds)
        finally:
            # The end of its input tells the guard to kill what is left.
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def _watched(
    process: "subprocess.Popen[bytes]", stop: Callable[[], bool], grace_seconds: float
) -> Ended:
    deadline = math.inf
    while process.poll() is None:
        if deadline == math.inf and stop():
            deadline = time.monotonic() + grace_seconds
            _say(process, b"stop\n")
        if time.monotonic() > deadline:
            _say(process, b"kill\n")
            return Ended(process.wait(), asked=True)
        time.sleep(POLL_SECONDS)
    return Ended(process.returncode, asked=deadline < math.inf)


def _say(process: "subprocess.Popen[bytes]", word: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(word)
        process.stdin.flush()


def _logs(run: Path) -> tuple[Path, Path]:
    """Where this attempt's output and errors go: beside the log of the job itself."""
    (run / "log").mkdir(parents=True, exist_ok=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-command"
    return run / "log" / f"{name}.out.log", run / "log" / f"{name}.err.log"


def _tail(run: Path) -> list[tuple[str, object]]:
    """The last lines that the newest attempt wrote to its errors, or else to its output."""
    for kind in ("err", "out"):
        found = sorted(run.glob(f"log/*-command.{kind}.log"), key=lambda p: p.stat().st_mtime)
        lines = found[-1].read_text(errors="replace").splitlines()[-200:] if found else []
        lines = [line.rstrip()[:200] for line in lines if line.strip()]
        if lines:
            return [*(("says", line) for line in lines[-SHOWN:]), ("log", found[-1])]
    return []


def _failed(asked: Told, code: int, run: Path) -> GrowpointError:
    said = _tail(run)
    log = next((value for key, value in said if key == "log"), run / "log")
    ended = f"signal {code - 128}" if code > 128 else f"status {code}"
    hint = " (out of memory?)" if code == 128 + 9 else ""
    return GrowpointError(
        f"the recipe's command ended with {ended}{hint}",
        [("command", shlex.join(asked.words)), *said],
        f"less {log}",
    )


def _publish(aside: Path, target: Path, corpus: Path) -> None:
    """Give what the command has left its name, sealed, with the corpus's tokenizer beside it."""
    with models.published(target) as folder:
        for path in list(aside.iterdir()):
            path.rename(folder / path.name)
        models.copy_tokenizer(corpus, folder)


def finished(do: Train, run: Path) -> dict[str, Any]:
    """The record of a phase whose checkpoint was published before a kill."""
    last = returned.metrics(run / "metrics.jsonl", do, [])
    return {"trainer": "command", "finished": True, **_numbers(last, None)}


def _came(
    asked: Told, last: Mapping[str, Any], seconds: float | None, begun: tuple[Path, int] | None
) -> dict[str, Any]:
    return {
        "trainer": "command",
        "command": list(asked.words),
        "finished": True,
        **_numbers(last, seconds),
        "resumed_tokens": begun[1] if begun else 0,
        "resumed_from": str(begun[0]) if begun else None,
    }


def _numbers(last: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
    """What the last line says; time as the command has it, or else as it was measured here."""
    return {
        "tokens": int(last["tokens"]),
        "loss": last["loss"],
        "train_seconds": last.get("seconds", seconds),
        "tokens_per_second": last.get("tokens_per_second"),
    }
