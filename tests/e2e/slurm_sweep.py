"""A tiny sweep on the SLURM of the tests: caught in mid-training, disturbed, seen to its end."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import ledger
from orchestrator.ledger import Batch
from orchestrator.store import Store
from tests.e2e.conftest import Run
from tests.e2e.test_kill import scores, weights
from tests.slurm.cluster import Cluster
from tests.slurm.matrix import tell

ASKED = ["cluster=slurm", "cluster.partition=gpu", "cluster.cpus=1", "cluster.minutes=30"]
# The cluster of the tests gives a job 1 GB unless told otherwise: torch alone needs half of it.
ASKED += ["cluster.memory_gb=2", "cluster.gpus=0"]
# Every step, so that a caught job always has something to lose and something to go on from.
SAVING = "cluster.save_seconds=0.01"

# 41 stages in 17 jobs. What other tests run is a part of it, so that one undisturbed store,
# the fixture `undisturbed`, tells the right bits for all of them.
WHOLE = [
    "points.at=[0,8192,16384,24576,32768]",
    "budgets.at=[1e10]",
    "arms=[grow,scratch]",
    "exclude=[]",
]
SOME = [*WHOLE[1:], "points.at=[0,8192,16384]", "growth=[{kind: depth}]"]
# One job: a trunk, a growth, a branch, an evaluation.
ONE = ["points.at=[32768]", "growth=[{kind: depth}]", "arms=[grow]", *WHOLE[1:2], "exclude=[]"]

# Tokens that a caught job has still to train on: it must not reach its end before the blow.
LEFT = 4096


@dataclass(frozen=True)
class Caught:
    """A job in mid-training, stopped like a film: its stage, what it has saved, its processes."""

    stage: str
    tokens: int
    job: str
    node: str
    pids: tuple[int, ...]

    def go_on(self) -> None:
        """Let it run again. What SLURM sent meanwhile reaches it first."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no last word."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)

    def signalled(self, number: int) -> bool:
        """Whether a signal waits for it, or has reached it already: SLURM may wake it itself."""
        return any(_pending(pid) >> (number - 1) & 1 for pid in self.pids)


def _pending(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return -1
    masks = [line.split()[1] for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return int(masks[0], 16) | int(masks[1], 16)


@dataclass
class Sweep:
    """A sweep under test, in a store of its own."""

    slurm: Cluster
    growpoint: Run
    store: Path
    words: Sequence[str]
    name: str = "few"
    began: float = field(default_factory=time.monotonic)

    def launch(self, *more: str, **how: Any) -> "subprocess.CompletedProcess[str]":
        """`growpoint launch`, its exit code asserted."""
        return self.growpoint(*self.line(*more), cwd=self.store, **how)

    def line(self, *more: str) -> list[str]:
        """The words after `growpoint`."""
        return ["launch", "demo", *self.words, f"name={self.name}", *ASKED, *more, "--yes"]

    def status(self) -> dict[str, Any]:
        """`growpoint status` as data; its exit code is asserted to tell of a failure."""
        said = self.growpoint("status", self.name, "--json", cwd=self.store, code=None)
        found: dict[str, Any] = json.loads(said.stdout)
        assert said.returncode == bool(found["stages"]["failed"])
        return found

    def becomes(self, state: str, stage: str = "") -> None:
        """Wait until `status` tells that a stage, or any, is in a state, and no job is left.

        Accounting hears of the end of a job seconds after it has left the queue.
        """

        def told() -> bool:
            unfinished = self.status()["unfinished"]
            return any(one["state"] == state and stage in one["stage"] for one in unfinished)

        self.until(lambda: not self.queue() and told(), 90)

    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.store / "plans" / self.name / "plan.json").read_text()
        )
        return found

    def tokens(self, stage: str) -> int:
        """Length of a phase."""
        return int(self.plan()["stages"][stage]["tokens"])

    def done(self) -> list[str]:
        """Stages that are done."""
        return [one for one in self.plan()["stages"] if self.record(one).exists()]

    def complete(self) -> bool:
        return len(self.done()) == len(self.plan()["stages"])

    def record(self, stage: str) -> Path:
        return self.store / "runs" / stage / "record.json"

    def state(self, stage: str) -> str:
        """What a stage's job said last."""
        path = self.store / "runs" / stage / "state.json"
        return str(json.loads(path.read_text())["state"]) if path.exists() else "waiting"

    def attempts(self) -> dict[str, int]:
        """How often each stage was begun."""
        paths = self.store.glob("runs/*/state.json")
        return {path.parent.name: json.loads(path.read_text())["attempts"] for path in paths}

    def ledger(self) -> list[str]:
        """Whole lines of the ledger."""
        path = self.store / "plans" / self.name / "ledger.jsonl"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def batches(self) -> list[Batch]:
        """What the launches meant to submit, and SLURM's ids of it."""
        return list(ledger.read(Store(self.store), self.name).batches.values())

    def queue(self, *more: str) -> list[str]:
        """SLURM's ids of what is in its queue."""
        return self.slurm.run("squeue", "-h", "-r", "-o", "%i", *more).split()

    def until(self, reached: Callable[[], bool], seconds: float = 240, asking: bool = True) -> None:
        """Wait for something to come true; say what SLURM thinks if it does not.

        Not `asking`, nothing is hastened: without a controller each question takes 9 s.
        """
        deadline, hastened = time.monotonic() + seconds, 0.0
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(self._told())
            if asking and time.monotonic() - hastened > 1:
                hastened = time.monotonic()
                # The controller may be away.
                with contextlib.suppress(subprocess.CalledProcessError):
                    self._hasten()
            time.sleep(0.01)

    def _hasten(self) -> None:
        """What an administrator would do: requeued jobs may start, slow nodes serve again.

        SLURM holds a requeued job back for two minutes on most clusters, and drains a node on which
        a killed job is slow to die.
        """
        for line in self.slurm.run("squeue", "-h", "-t", "PENDING", "-o", "%A %r").splitlines():
            job, _, reason = line.partition(" ")
            if reason == "BeginTime":
                self.slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")
        for line in self.slurm.run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").splitlines():
            node, _, state = line.partition(" ")
            if state.startswith("drain"):
                self.slurm.run("scontrol", "update", f"nodename={node}", "state=resume")

    def _told(self) -> str:
        said = [("squeue", "-r"), ("sinfo", "-N", "-l"), ("scontrol", "show", "job")]
        lines = [self.slurm.run(*command) for command in said]
        logs = sorted(self.store.glob(f"plans/{self.name}/slurm/*/*.err"))
        return "\n".join([*lines, *(path.read_text()[-2000:] for path in logs)])

    def end(self, undisturbed: Path, seconds: float = 240) -> None:
        """See the sweep to its end, to the bits of a run that nothing befell."""
        self.until(self.complete, seconds)
        for measure in (weights, scores):
            assert measure(self.store).items() <= measure(undisturbed).items()

    def caught(self, before: Caught | None = None, further: int = 0, asking: bool = True) -> Caught:
        """A job in mid-training that has saved so many tokens more than it had `before`."""
        found: list[Caught] = []

        def catch() -> bool:
            found.extend(self._catch(before, further))
            return bool(found)

        self.until(catch, asking=asking)
        return found[0]

    def _catch(self, before: Caught | None, further: int) -> Iterator[Caught]:
        for stage, tokens in self._saved():
            last = before.tokens if before and before.stage == stage else 0
            if tokens > last + further and tokens <= self.tokens(stage) - LEFT:
                pids = tuple(self._processes())
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                state = json.loads((self.store / "runs" / stage / "state.json").read_text())
                job = str(state.get("allocation", ""))
                one = Caught(stage, tokens, job, str(state.get("host", "")), pids)
                if pids and state["state"] == "running" and not self.record(stage).exists():
                    yield one
                    return
                one.go_on()

    def _saved(self) -> list[tuple[str, int]]:
        """Unfinished stages with the tokens that they have saved."""
        with contextlib.suppress(FileNotFoundError):
            paths = list(self.store.glob("runs/train-*/partial/at-*/manifest.json"))
            saved = [(p.parents[2].name, int(p.parent.name.removeprefix("at-"))) for p in paths]
            return [(stage, at) for stage, at in saved if not self.record(stage).exists()]
        return []

    def _processes(self) -> Iterator[int]:
        """The processes of this store's jobs, as this machine numbers them."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                program, *words = path.read_bytes().split(b"\0")
                ours = any(word.startswith(bytes(self.store)) for word in words)
                if b"python" in program and b"submitit.core._submit" in words and ours:
                    yield int(path.parent.name)

    def ready(self) -> None:
        """Clear away what an earlier test has left in the queue, and of its nodes."""
        self.slurm.run("scancel", "--me")
        self.until(lambda: not self.queue(), 120)
        self._hasten()

    def tell(self, injected: str, happens: str, lost: str) -> None:
        """A row of docs/reliability.md, about this sweep."""
        again = sum(attempts - 1 for attempts in self.attempts().values())
        stages = f"{len(self.done())} of {len(self.plan()['stages'])} stages, same bits"
        seconds = time.monotonic() - self.began
        tell(injected, happens, lost, f"{stages}, {again} attempts repeated, {seconds:.0f} s")
