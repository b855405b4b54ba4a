"""Dispatch on this machine: bounded workers, GPUs shared out, nothing run twice."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import claim, notify
from orchestrator.gpus import slots
from orchestrator.progress import Snapshot, failed, snapshot
from orchestrator.store import Store, read_json
from orchestrator.work import exported
from sweeps.cluster import Local
from sweeps.errors import GrowpointError

# A job whose worker dies (out of memory, killed) is tried once more; a second death fails it.
ATTEMPTS = 2
POLL_SECONDS = 0.5
Report = Callable[[Snapshot], None]
Stop = Callable[[], bool]


@dataclass
class Worker:
    """A worker process and the job it has."""

    process: subprocess.Popen[bytes]
    slot: int
    job: str | None = None
    ready: bool = False

    def say(self, **message: Any) -> None:
        """Send one line; a dead worker is noticed elsewhere."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass


@dataclass
class Queue:
    """Which jobs of a plan are over, and which may run now."""

    jobs: Mapping[str, Mapping[str, Any]]
    order: list[str]
    ended: dict[str, str] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def next(self) -> str | None:
        """The most urgent job whose predecessors are done."""
        for job in self.order:
            if job in self.ended or job in self.running:
                continue
            if all(self.ended.get(before) == "done" for before in self.jobs[job]["after"]):
                return job
        return None

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing more can."""
        return not self.running and self.next() is None


def launch(
    store: Store, sweep: str, cluster: Local, report: Report, stop: Stop, again: bool = True
) -> Snapshot:
    """Run what is missing of a launched sweep, or watch another launch that does; repeat at will.

    Returns the last snapshot. What failed is run `again`, or left with what waits for it. When
    `stop` turns true, jobs save at their next step and end.
    """
    name = store.plan_folder(sweep) / "launch"
    cancelled = _cancelled(store, sweep)

    def over() -> bool:
        return stop() or cancelled()

    while not over():
        held = claim.take(name, "launch")
        if held:
            with held:
                return _run(store, sweep, cluster, report, over, again)
        shot = snapshot(store, store.plan(sweep))
        report(shot)
        if shot.complete:
            return shot
        time.sleep(POLL_SECONDS)
    return snapshot(store, store.plan(sweep))


def _cancelled(store: Store, sweep: str) -> Callable[[], bool]:
    """Whether `growpoint cancel` was given from now on; by content, as clocks of hosts differ."""
    path = store.plan_folder(sweep) / "cancel.json"
    before = read_json(path)
    return lambda: path.exists() and read_json(path) != before


def _run(
    store: Store, sweep: str, cluster: Local, report: Report, stop: Stop, again: bool
) -> Snapshot:
    plan = store.plan(sweep)
    queue = _queue(store, plan, again)
    if queue.over:
        return snapshot(store, plan)
    pool = Pool(store, sweep, cluster, queue)
    due = 0.0
    try:
        while not queue.over:
            if stop():
                pool.stop()
                break
            pool.assign()
            pool.listen(POLL_SECONDS)
            if time.monotonic() >= due:
                began = time.monotonic()
                report(snapshot(store, plan))
                # Reading the files of 30,000 stages takes a second: a tenth of the time at most.
                due = time.monotonic() + 10 * (time.monotonic() - began)
    finally:
        pool.close()
    return snapshot(store, plan)


def _queue(store: Store, plan: Mapping[str, Any], again: bool = True) -> Queue:
    jobs = {job["id"]: job for job in plan["jobs"]}
    queue = Queue(jobs, _urgent_first(plan))
    for job in jobs.values():
        if all(store.done(stage) for stage in job["stages"]):
            queue.ended[job["id"]] = "done"
        elif not again and failed(store, job["stages"]):
            queue.ended[job["id"]] = "failed"
    return queue


def _urgent_first(plan: Mapping[str, Any]) -> list[str]:
    """Jobs by the FLOPs of the longest chain that hangs on them: what all wait for comes first."""
    jobs = plan["jobs"]
    hanging = dict.fromkeys((job["id"] for job in jobs), 0.0)
    for job in reversed(jobs):
        hanging[job["id"]] += sum(plan["stages"][stage]["flops"] for stage in job["stages"])
        for before in job["after"]:
            hanging[before] = max(hanging[before], hanging[job["id"]])
    return sorted(hanging, key=lambda job: -hanging[job])


class Pool:
    """The worker processes of one launch."""

    def __init__(self, store: Store, sweep: str, cluster: Local, queue: Queue) -> None:
        self.store, self.sweep, self.cluster, self.queue = store, sweep, cluster, queue
        self.gpus = slots(cluster)
        unfinished = sum(job not in queue.ended for job in queue.jobs)
        self.selector = selectors.DefaultSelector()
        self.workers = [self._start(slot) for slot in range(min(len(self.gpus), unfinished))]
        self.stopping = False

    def _start(self, slot: int) -> Worker:
        log = self.store.plan_folder(self.sweep) / f"worker-{slot}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment(self.gpus[slot]),
                start_new_session=True,
            )
        assert process.stdout is not None
        worker = Worker(process, slot)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _command(self) -> list[str]:
        more = [str(self.store.root.resolve()), self.sweep]
        more += [str(self.cluster.save_seconds), str(self.cluster.threads)]
        return [sys.executable, "-m", "orchestrator.worker", *more]

    def _environment(self, gpu: str | None) -> dict[str, str]:
        threads = str(self.cluster.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        environment |= exported(self.cluster)
        # Without a GPU of its own a worker must see none: all would pile up on the first one.
        return {**environment, "CUDA_VISIBLE_DEVICES": gpu or ""}

    def assign(self) -> None:
        """Give every idle worker a job that can run."""
        for worker in self.workers:
            job = None if worker.job or not worker.ready else self.queue.next()
            if job:
                worker.job = job
                self.queue.running.add(job)
                worker.say(job=job)

    def listen(self, seconds: float) -> None:
        """Wait for workers' answers, at most so long."""
        for key, _ in self.selector.select(seconds):
            worker: Worker = key.data
            line = worker.process.stdout.readline() if worker.process.stdout else b""
            if line:
                self._answered(worker, json.loads(line))
            else:
                self._died(worker)

    def _answered(self, worker: Worker, message: Mapping[str, Any]) -> None:
        if message["event"] == "ready":
            worker.ready = True
            return
        job = message["job"]
        worker.job = None
        self.queue.running.discard(job)
        self.queue.ended[job] = message["ending"]

    def _died(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        code = worker.process.wait()
        if worker.job:
            self._job_lost(worker.job, worker.slot, code)
        elif not worker.ready and not self.stopping:
            self._cannot_start(worker, code)
        if not self.stopping and len(self.workers) < len(self.queue.jobs):
            self.workers.append(self._start(worker.slot))

    def _job_lost(self, job: str, slot: int, code: int) -> None:
        self.queue.running.discard(job)
        self.queue.given[job] = self.queue.given.get(job, 0) + 1
        if self.stopping or self.queue.given[job] < ATTEMPTS:
            return
        self.queue.ended[job] = "failed"
        undone = [s for s in self.queue.jobs[job]["stages"] if not self.store.done(s)]
        if not undone:
            self.queue.ended[job] = "done"
            return
        stage = undone[0]
        why = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        error = f"its worker {why}" + " (out of memory?)" * (code == -9)
        self.store.set_state(stage, "failed", error=error, at=time.time(), log=self._log(slot))
        notify.failed(self.store, self.sweep, stage, error)

    def _log(self, slot: int) -> str:
        return str(self.store.plan_folder(self.sweep) / f"worker-{slot}.log")

    def _cannot_start(self, worker: Worker, code: int) -> None:
        tail = Path(self._log(worker.slot)).read_text().splitlines()[-3:]
        raise GrowpointError(
            "a worker process cannot start",
            [("exit", code), *(("says", line) for line in tail)],
            f"cat {self._log(worker.slot)}",
        )

    def stop(self) -> None:
        """Ask all workers to save and end."""
        self.stopping = True
        for worker in self.workers:
            worker.say(stop=True)

    def close(self) -> None:
        """Wait until every worker has ended; killed if interrupted once more."""
        self.stopping = True
        try:
            for worker in self._ending():
                worker.process.wait()
        except KeyboardInterrupt:
            for worker in self.workers:
                worker.process.kill()
                worker.process.wait()
            raise

    def _ending(self) -> Iterator[Worker]:
        for worker in self.workers:
            if worker.process.stdin:
                # One that has died meanwhile cannot take the rest of what was said to it.
                with contextlib.suppress(BrokenPipeError):
                    worker.process.stdin.close()
        yield from self.workers
