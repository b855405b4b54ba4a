"""The running half of the command line: plan, launch, status, cancel, grow."""

import json
import os
import shlex
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from orchestrator import claim, status, text
from orchestrator.progress import Snapshot, snapshot
from orchestrator.store import Store, write_atomic, write_json
from sweeps import config, data, plan
from sweeps.cluster import Local, Slurm
from sweeps.config import Request
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.plan import Plan
from sweeps.schema import asked, canonical


def requested(arguments: Namespace) -> tuple[Request, Plan]:
    """What the command line asks for, composed, validated and expanded."""
    folder = Path(arguments.config_dir) if arguments.config_dir else None
    request = config.load(arguments.sweep, arguments.overrides, folder)
    corpora: dict[str, Corpus] = {}
    for sweep, _ in request.sweeps:
        key = canonical(asked(sweep.data))
        if key not in corpora:
            corpora[key] = data.corpus(sweep.data)
    made = plan.plan(request.name, request.sweeps, corpora)
    if not made.cells:
        raise GrowpointError(
            f"sweep `{request.name}` has no cells",
            [("arms", "none left after `exclude`")],
            "exclude=[]",
        )
    return request, made


def show_plan(arguments: Namespace) -> int:
    """growpoint plan."""
    from orchestrator import show_plan as shown

    request, made = requested(arguments)
    store = Store(request.store).check()
    if arguments.config:
        print(_config_text(request), end="")
    elif arguments.json:
        print(json.dumps(shown.to_json(store, made, request.cluster), indent=1))
    else:
        shown.show(store, made, request.cluster)
        text.out.print(f"\nnext: {_again('launch', arguments)}")
    return 0


def _again(command: str, arguments: Namespace) -> str:
    """The line that gives `command` the same question."""
    return shlex.join(["growpoint", command, arguments.sweep, *arguments.overrides])


def _config_text(request: Request) -> str:
    return yaml.safe_dump(dict(request.config), sort_keys=False, allow_unicode=True)


def launch(arguments: Namespace) -> int:
    """growpoint launch."""
    request, made = requested(arguments)
    store = Store(request.store)
    store.check()
    if arguments.dry_run:
        from orchestrator import show_plan as shown

        shown.show(store, made, request.cluster)
        return 0
    _same_question(store, made, arguments)
    missing = [stage for stage in made.stages if not store.done(stage.id)]
    _announce(store, made, request, len(missing))
    if not missing:
        _ask_all(store.open(), made, request)
        return 0
    if isinstance(request.cluster, Slurm):
        return _launch_slurm(store, made, request, request.cluster, arguments)
    _ask_all(store.open(), made, request)
    return _launch_here(store, made, request.cluster)


def _announce(store: Store, made: Plan, request: Request, missing: int) -> None:
    done = len(made.stages) - missing
    if not missing:
        text.out.print(f"{made.name}   all {done} stages are done, nothing to run")
        text.out.print(f"next: growpoint fit {made.name}")
        return
    flops = sum(made.flops(stage) for stage in made.stages if not store.done(stage.id))
    where = (
        request.cluster.kind
        if isinstance(request.cluster, Local)
        else f"partition {request.cluster.partition}"
    )
    text.talk.print(
        f"{made.name}   {done} stages done, {missing} to run, {text.flops(flops)} FLOPs on {where}"
        f", store {store.root.resolve()}"
    )


def _ask_all(store: Store, made: Plan, request: Request) -> None:
    for stage in made.stages:
        store.ask(stage)
    folder = store.plan_folder(made.name)
    write_atomic(folder / "config.yaml", _config_text(request).encode())
    write_json(folder / "plan.json", plan.to_json(made))


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
            f"{_again('launch', arguments)} name={made.name}-2, or --replace (runs stay)",
        )


def _launch_here(store: Store, made: Plan, cluster: Local) -> int:
    from orchestrator import local
    from orchestrator.live import reporter

    with _stoppable() as stop, reporter(store, made.name) as report:
        shot = local.launch(store, made.name, cluster, report, stop)
    return _conclude(store, made.name, shot, interrupted=stop())


def _conclude(store: Store, name: str, shot: Snapshot, interrupted: bool) -> int:
    if shot.complete:
        text.out.print(
            f"{name}   all {len(shot.stages)} stages are done\nnext: growpoint fit {name}"
        )
        return 0
    if interrupted:
        text.talk.print(f"stopped; what was done is saved. go on with: growpoint launch {name}")
        return 130
    if shot.count("failed"):
        status.show(store, store.plan(name), shot)
        text.talk.print(f"\nnext: read the log, then `growpoint launch {name}` to try again")
    else:
        text.talk.print(f"{name}   stopped; go on with: growpoint launch {name}")
    return 1


@contextmanager
def _stoppable() -> Iterator[Any]:
    """A stop flag set by Ctrl-C or SIGTERM; a second Ctrl-C interrupts for good."""
    asked_to_stop = [False]

    def ask(number: int, frame: FrameType | None) -> None:
        if asked_to_stop[0]:
            raise KeyboardInterrupt
        asked_to_stop[0] = True
        text.talk.print("stopping: jobs save at their next step (once more to kill them)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked_to_stop[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _launch_slurm(
    store: Store, made: Plan, request: Request, cluster: Slurm, arguments: Namespace
) -> int:
    from orchestrator import slurm

    slurm.check(cluster, store)
    if not arguments.yes and not _confirmed():
        return 1
    _ask_all(store.open(), made, request)
    submitted = slurm.submit(store, made.name, cluster)
    text.out.print(f"  submitted    {submitted.jobs} jobs   {submitted.ids}")
    text.out.print(
        f"  store        {store.root.resolve()}\nfollow with: growpoint status {made.name}"
    )
    return 0


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise GrowpointError(
            "nobody is there to confirm the submission", [], "growpoint launch ... --yes"
        )
    return input("submit? [y/N] ").strip().lower() in {"y", "yes"}


def located(arguments: Namespace) -> tuple[Store, str]:
    """The store and name of a sweep that was launched, without composing its question anew."""
    store = Path()
    name = (
        Path(arguments.sweep).stem
        if arguments.sweep.endswith((".yaml", ".yml"))
        else arguments.sweep
    )
    for override in arguments.overrides:
        key, _, value = override.partition("=")
        if key not in {"store", "name"}:
            raise GrowpointError(
                f"`{override}` changes the question, and this command reads what was launched",
                [("known", "store, name")],
                f"growpoint launch {name} {override} name=NEW, then {arguments.command} NEW",
            )
        store, name = (Path(value), name) if key == "store" else (store, value)
    return Store(store).check(), name


def show_status(arguments: Namespace) -> int:
    """growpoint status."""
    store, name = located(arguments)
    made = store.plan(name)
    shot = snapshot(store, made, queued=_queued(store, name))
    if arguments.json:
        print(json.dumps(status.to_json(made, shot), indent=1))
    else:
        status.show(store, made, shot)
    return 1 if shot.count("failed") else 0


def _queued(store: Store, name: str) -> frozenset[str]:
    if not (store.plan_folder(name) / "ledger.jsonl").exists():
        return frozenset()
    from orchestrator import slurm

    return slurm.queued_stages(store, name)


def cancel(arguments: Namespace) -> int:
    """growpoint cancel: jobs stop, finished stages stay."""
    store, name = located(arguments)
    store.plan(name)
    folder = store.plan_folder(name)
    cancelled = 0
    if (folder / "ledger.jsonl").exists():
        from orchestrator import slurm

        cancelled = slurm.cancel(store, name)
    holder = claim.holder(folder / "launch")
    if holder:
        write_json(folder / "cancel.json", {"at": time.time(), "pid": os.getpid()})
        _wait_for_end(folder)
    words = [f"{cancelled} SLURM jobs"] * bool(cancelled)
    words += [f"the launch on {holder.get('host')}"] if holder else []
    text.out.print(
        f"{name}   cancelled {' and '.join(words)}" if words else f"{name}   nothing is running"
    )
    return 0


def _wait_for_end(folder: Path, seconds: float = 120.0) -> None:
    """Wait until the launch has let its workers save and end."""
    until = time.monotonic() + seconds
    while claim.holder(folder / "launch"):
        if time.monotonic() > until:
            raise GrowpointError(
                "the launch does not end",
                [("asked", f"{seconds:.0f} s ago")],
                f"cat {folder}/worker-0.log",
            )
        time.sleep(0.2)


def grow(arguments: Namespace) -> int:
    """growpoint grow: one checkpoint on disk."""
    from orchestrator import grow as growth

    operators = config.growth(arguments.overrides)
    report = growth.by_hand(
        arguments.source, arguments.to, operators, arguments.seed, arguments.shard_bytes
    )
    if arguments.json:
        print(json.dumps(_report_json(report), indent=1))
    else:
        text.out.print(report.text())
    return 0


def _report_json(report: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report.to_dict()
    return found
