"""growpoint launch: a sweep written down, and its jobs run here or submitted to SLURM."""

import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator import fused, notify, provenance, status, text, told, trackers
from orchestrator.commands import again, config_text, reading, requested
from orchestrator.progress import Snapshot, failed, snapshot
from orchestrator.store import Store, read_json, write_atomic, write_rows
from sweeps import plan
from sweeps.cluster import Local, Slurm
from sweeps.config import Request
from sweeps.errors import GrowpointError
from sweeps.plan import Plan
from sweeps.stages import Stage


def launch(arguments: Namespace) -> int:
    """growpoint launch."""
    request, made = requested(arguments)
    store = Store(request.store)
    store.check()
    _require_programs(request)
    if arguments.dry_run:
        from orchestrator import show_plan as shown

        shown.show(store, made, request.cluster)
        return 0
    _same_question(store, made, arguments)
    trackers.require(request.tracker)
    fused.require_installed(request.cluster)
    missing = [stage for stage in made.stages if not store.done(stage.id)]
    _announce(store, made, request, missing)
    if known := failed(store, (stage.id for stage in missing)):
        what = "run again" if arguments.retry == "failed" else "are left: --retry failed runs them"
        text.talk.print(f"{made.name}   {len(known)} stages failed before, and {what}")
    if not missing:
        _ask_all(store.open(), made, request)
        return 0
    if isinstance(request.cluster, Slurm):
        return _launch_slurm(store, made, request, request.cluster, arguments)
    if arguments.unattended:
        raise GrowpointError(
            "--unattended fills up a queue, and this machine has none",
            [("cluster", "local")],
            "cluster=slurm, or leave --unattended away",
        )
    _ask_all(store.open(), made, request)
    return _launch_here(store, made, request.cluster, arguments)


def _require_programs(request: Request) -> None:
    """Refuse commands that cannot be started here; nodes of a cluster may have what is not here."""
    error = told.missing(sweep.recipe for sweep, _ in request.sweeps)
    if error and isinstance(request.cluster, Local):
        raise error
    if error:
        said = ", ".join(f"{key} {value}" for key, value in error.evidence)
        text.talk.print(f"warning: {error.problem} on this machine ({said})", markup=False)


def _announce(store: Store, made: Plan, request: Request, missing: Sequence[Stage]) -> None:
    new, done = len(missing), len(made.stages) - len(missing)
    if not missing:
        text.out.print(f"{made.name}   all {done} stages are done, nothing to run")
        text.out.print(f"next: {reading('fit', store, made.name)}")
        return
    flops = sum(map(made.flops, missing))
    where = (
        request.cluster.kind
        if isinstance(request.cluster, Local)
        else f"partition {request.cluster.partition}"
    )
    text.talk.print(
        f"{made.name}   {done} stages done, {new} to run, {text.flops(flops)} FLOPs on {where}"
        f", store {store.root.resolve()}"
    )


def _ask_all(store: Store, made: Plan, request: Request) -> None:
    store.plan_folder(made.name).mkdir(exist_ok=True)
    notify.ask(store, made.name, request.notify)
    store.ask_all(made.stages)
    folder = store.plan_folder(made.name)
    write_atomic(folder / "config.yaml", config_text(request).encode())
    trackers.remember(folder, request.tracker)
    provenance.write_launch(store, made.name)
    write_rows(folder / "plan.json", _keeping(plan.to_json(made), folder / "plan.json"))


def _keeping(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """`new` with what jobs of an earlier cut of the sweep need: they may run or be queued still."""
    old = read_json(path)
    if old is None:
        return new
    now = {job["id"] for job in new["jobs"]}
    earlier = {job["id"]: job for job in (*old.get("earlier_jobs", ()), *old["jobs"])}
    kept = [job for job in earlier.values() if job["id"] not in now]
    needed = ("commands", "data", "heldout_tokens", "include_paths", "sources")
    merged = {key: {**old.get(key, {}), **new[key]} for key in needed}
    return {**new, **merged, "earlier_jobs": kept}


def _same_question(store: Store, made: Plan, arguments: Namespace) -> None:
    """Refuse to forget cells of an earlier launch: its name answers for them."""
    if arguments.replace or not (store.plan_folder(made.name) / "plan.json").exists():
        return
    before = {cell["stage"]: cell["label"] for cell in store.plan(made.name)["cells"]}
    lost = [label for stage, label in before.items() if stage not in made.by_id]
    if lost:
        raise GrowpointError(
            f"sweep `{made.name}` was launched with another question",
            [("lost", f"{len(lost)} of its {len(before)} cells, such as {lost[0]}")],
            f"{again('launch', arguments, f'name={made.name}-2')}, or --replace (runs stay)",
        )


def _launch_here(store: Store, made: Plan, cluster: Local, arguments: Namespace) -> int:
    from orchestrator import local
    from orchestrator.live import reporter

    with _stoppable() as stop, reporter(store, made.name) as report:
        retry = arguments.retry == "failed"
        shot = local.launch(store, made.name, cluster, report, stop, retry)
    return _conclude(store, made.name, shot, again("launch", arguments), interrupted=stop())


def _conclude(store: Store, name: str, shot: Snapshot, line: str, interrupted: bool) -> int:
    if shot.complete:
        text.out.print(f"{name}   all {len(shot.stages)} stages are done")
        text.out.print(f"next: {reading('fit', store, name)}")
        return 0
    if interrupted:
        text.talk.print(f"stopped; what was done is saved. go on with: {line}")
        return 130
    if shot.count("failed"):
        # The sweep may have been extended meanwhile: shown is what its name answers for now.
        current = store.plan(name)
        status.show(store, current, snapshot(store, current))
        left = f"{shot.count('failed')} stages failed, {shot.count('blocked')} wait for them"
        notify.stuck(store, name, f"nothing is left that can run: {left}")
        text.talk.print(f"\nnext: read the log, then try again: {line}")
    else:
        text.talk.print(f"{name}   stopped; go on with: {line}")
    return 1


@contextmanager
def _stoppable(
    says: str = "stopping: jobs save at their next step (once more to kill them)",
) -> Iterator[Any]:
    """A stop flag set by Ctrl-C or SIGTERM; a second Ctrl-C interrupts for good."""
    asked_to_stop = [False]

    def ask(number: int, frame: FrameType | None) -> None:
        if asked_to_stop[0]:
            raise KeyboardInterrupt
        asked_to_stop[0] = True
        text.talk.print(says)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked_to_stop[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _launch_slurm(
    store: Store, made: Plan, request: Request, cluster: Slurm, arguments: Namespace
) -> int:
    from orchestrator import slurm, slurm_check, top_up

    slurm_check.check_ranks(cluster, made.stages)
    longest_minutes = slurm_check.check(cluster, store, arguments.unattended)
    if not arguments.yes and not _confirmed():
        return 1
    _ask_all(store.open(), made, request)
    retry = arguments.retry == "failed"
    with top_up.beside(store, made.name, cluster, longest_minutes, arguments.unattended):
        submitted = slurm.submit(store, made.name, cluster, longest_minutes, retry)
    text.out.print(f"  submitted    {submitted.jobs} jobs   {submitted.ids}")
    if submitted.waiting:
        text.out.print(
            f"  not yet      {submitted.waiting} jobs: the queue is full by {submitted.because}"
        )
    text.out.print(f"  store        {store.root.resolve()}")
    if arguments.follow:
        return _follow(store, made.name, cluster, longest_minutes, again("launch", arguments))
    if submitted.waiting and not top_up.stands(store, made.name):
        text.out.print(f"fill it up with: {again('launch', arguments, '--unattended', '--yes')}")
    text.out.print(f"follow with: {reading('status', store, made.name)}")
    return 0


def _follow(store: Store, name: str, cluster: Slurm, longest_minutes: int | None, line: str) -> int:
    from orchestrator import follow
    from orchestrator.live import reporter

    with _stoppable("no longer following; queued jobs go on") as stop:
        with reporter(store, name) as report:
            shot = follow.follow(store, name, cluster, longest_minutes, report, stop)
        return _conclude(store, name, shot, line, interrupted=stop())


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise GrowpointError(
            "nobody is there to confirm the submission", [], "growpoint launch ... --yes"
        )
    return input("submit? [y/N] ").strip().lower() in {"y", "yes"}
