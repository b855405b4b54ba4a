"""The job that fills the queue up: one at a time, never for ever. The real one: test_slurm_*.py."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import follow, ledger, slurm_batch, slurm_limits, slurm_queue, top_up, top_up_job
from orchestrator.ledger import Ledger
from orchestrator.progress import Snapshot, StageState
from orchestrator.slurm import Submitted
from orchestrator.slurm_limits import Limits
from orchestrator.slurm_queue import Queued
from orchestrator.store import Store
from sweeps.cluster import Slurm, TopUp

CLUSTER = Slurm(partition="gpu", gpus=4, constraint="ib", top_up=TopUp(partition="cpu"))


class Queue:
    """A scheduler of a dict: ids, and what it holds under them."""

    def __init__(self) -> None:
        self.lines: dict[str, Queued] = {}
        self.full = False

    def submit(self, store: Store, sweep: str, cluster: Slurm, book: Ledger, *_: Any) -> Any:
        if self.full:
            return None
        batch, number = book.intend(sweep, ["top-up"]), str(100 + len(self.lines))
        self.lines[number] = Queued(number, "PENDING", "BeginTime", batch.name)
        book.acknowledge(batch.name, [number])
        return {"top-up": number}

    def set(self, number: str, state: str) -> None:
        line = self.lines[number]
        self.lines[number] = Queued(number, state, "", line.name)

    def cancel(self, ids: Iterator[str], lines: object) -> None:
        for number in ids:
            self.set(number, "CANCELLED")

    def alive(self) -> list[str]:
        return [number for number, line in self.lines.items() if slurm_queue.alive(line)]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(slurm_queue, "queue", lambda: queue.lines)
    monkeypatch.setattr(slurm_queue, "cancel", queue.cancel)
    monkeypatch.setattr(slurm_batch, "submit", queue.submit)
    monkeypatch.setattr(slurm_limits, "read", lambda cluster: Limits(100, 100, ""))
    return queue


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "plans" / "small").mkdir(parents=True)
    return Store(tmp_path).open()


def a_round(
    monkeypatch: pytest.MonkeyPatch, store: Store, mine: str, submitted: int, *states: str
) -> tuple[str, bool]:
    """One round that submits so much and then finds stages in these states."""
    stages = {str(i): StageState(str(i), state, 0.0, 1.0, {}) for i, state in enumerate(states)}
    monkeypatch.setattr(follow, "fill", lambda *_: Submitted(submitted, ""))
    monkeypatch.setattr(follow, "look", lambda *_, **__: Snapshot(stages))
    return top_up_job.one_round(store, "small", mine)


def test_there_is_one_at_a_time(queue: Queue, store: Store) -> None:
    first = top_up.start(store, "small", CLUSTER, None)
    assert top_up.start(store, "small", CLUSTER, None) == first
    queue.set(first, "RUNNING")
    assert top_up.start(store, "small", CLUSTER, None) == first
    assert queue.alive() == [first]
    queue.set(first, "COMPLETED")
    assert top_up.start(store, "small", CLUSTER, None) != first


def test_one_that_was_lost_before_it_was_acknowledged_is_not_doubled(
    queue: Queue, store: Store
) -> None:
    meant = ledger.read_top_up(store, "small").intend("small", ["top-up"])
    queue.lines["7"] = Queued("7", "PENDING", "", meant.name)
    found = top_up.start(store, "small", CLUSTER, None)
    assert queue.alive() == [found]
    assert found != "7"


def test_a_round_has_one_successor_also_when_it_is_run_twice(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = top_up.start(store, "small", CLUSTER, None)
    queue.set(mine, "RUNNING")
    for _ in range(2):
        assert a_round(monkeypatch, store, mine, 1, "queued") == ("", True)
    assert len(queue.alive()) == 2


@pytest.mark.parametrize(
    ("states", "why"),
    [(("done", "done"), "all stages are done"), (("failed", "blocked"), "nothing is left")],
)
def test_it_ends_with_the_sweep_and_takes_its_successor_along(
    states: tuple[str, ...],
    why: str,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = top_up.start(store, "small", CLUSTER, None)
    queue.set(mine, "RUNNING")
    assert a_round(monkeypatch, store, mine, 0, *states)[0].startswith(why)
    assert queue.alive() == [mine]
    assert not top_up.stands(store, "small")


@pytest.mark.parametrize(
    ("submitted", "state", "ends"),
    [(1, "queued", True), (0, "stopped", True), (0, "queued", False), (0, "running", False)],
)
def test_it_ends_when_nothing_comes_of_its_rounds_but_waits_without_end(
    submitted: int,
    state: str,
    ends: bool,
    queue: Queue,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine, rounds = top_up.start(store, "small", CLUSTER, None), 0
    while rounds < 4 * top_up_job.FRUITLESS_ROUNDS:
        rounds += 1
        queue.set(mine, "RUNNING")
        why, _ = a_round(monkeypatch, store, mine, submitted, state)
        queue.set(mine, "COMPLETED")
        if why:
            break
        [mine] = queue.alive()
    assert bool(why) == ends
    assert not ends or rounds == top_up_job.FRUITLESS_ROUNDS + 1


def test_a_full_queue_leaves_a_round_without_successor(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = top_up.start(store, "small", CLUSTER, None)
    queue.set(mine, "RUNNING")
    queue.full = True
    assert a_round(monkeypatch, store, mine, 0, "queued") == ("", False)
    assert top_up.stands(store, "small")


def test_what_was_cancelled_stays_so(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = top_up.start(store, "small", CLUSTER, None)
    assert top_up.stop(store, "small", "cancelled")
    assert queue.alive() == []
    assert a_round(monkeypatch, store, mine, 1, "queued") == ("nobody wants it", False)
    assert queue.alive() == []
    assert not top_up.stop(store, "small", "cancelled")


def test_it_is_one_process_whatever_the_jobs_are() -> None:
    several = CLUSTER.model_copy(update={"tasks": 8, "nodes": 2})
    assert top_up.settings(several).ranks == 1


def test_it_asks_for_little_and_goes_where_it_is_told() -> None:
    small = top_up.settings(CLUSTER)
    assert (small.partition, small.gpus, small.nodes, small.cpus) == ("cpu", 0, 1, 1)
    assert small.constraint is None
    assert small.additional == {"begin": "now+900"}


def test_the_job_that_runs_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPU_BIND", "quiet")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    with top_up_job._as_logged_in():
        assert not {"SLURM_CPU_BIND", "SUBMITIT_EXECUTOR"} & os.environ.keys()
        assert {"SLURM_CONF", "SBATCH_ACCOUNT"} <= os.environ.keys()
    assert os.environ["SLURM_CPU_BIND"] == "quiet"
