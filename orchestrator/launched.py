"""What acts on a sweep that was launched, by its name and store: status, cancel."""

import json
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from orchestrator import claim, selected, status, text
from orchestrator.progress import snapshot
from orchestrator.store import Store, write_json
from sweeps.errors import GrowpointError

WATCH_SECONDS = 2.0
# A scheduler is shared, files are not.
QUERY_SECONDS = 30.0


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
    if arguments.watch:
        return _watch(store, name)
    made = store.plan(name)
    shot = snapshot(store, made, queued=_queued(store, name))
    if arguments.json:
        unattended = _unattended(store, name)
        more = {"unattended": unattended} if unattended else {}
        print(json.dumps({**status.to_json(made, shot), **more}, indent=1))
    else:
        status.show(store, made, shot)
        _show_unattended(store, name)
    return 1 if shot.count("failed") else 0


def _watch(store: Store, name: str) -> int:
    """The status again and again, until nothing is left to wait for or Ctrl-C."""
    with Live(console=text.out, auto_refresh=False, screen=False) as live:
        asked, queued = 0.0, frozenset[str]()
        while True:
            if time.monotonic() - asked >= QUERY_SECONDS or not asked:
                asked, queued = time.monotonic(), _queued(store, name)
            made = store.plan(name)
            shot = snapshot(store, made, queued=queued)
            with text.out.capture() as captured:
                status.show(store, made, shot)
                _show_unattended(store, name)
            live.update(Text.from_ansi(captured.get()), refresh=True)
            if not any(shot.count(word) for word in ("running", "queued", "waiting", "stopped")):
                return 1 if shot.count("failed") else 0
            time.sleep(WATCH_SECONDS)


def _queued(store: Store, name: str) -> frozenset[str]:
    if not (store.plan_folder(name) / "ledger.jsonl").exists():
        return frozenset()
    from orchestrator import slurm

    return slurm.queued_stages(store, name)


def _unattended(store: Store, name: str) -> dict[str, Any] | None:
    if not (store.plan_folder(name) / "top_up.json").exists():
        return None
    from orchestrator import top_up

    return top_up.told(store, name)


def _show_unattended(store: Store, name: str) -> None:
    """Who fills the queue up while nobody is logged in, and when next; or why nobody does."""
    said = _unattended(store, name)
    if said is None:
        return
    if said["ended"]:
        text.out.print(f"\n  unattended   ended: {said['ended']}")
    elif said.get("state") == "gone" or "job" not in said:
        text.out.print(f"\n  unattended   its job is gone: growpoint launch {name} --unattended")
    else:
        at = time.strftime("%H:%M", time.localtime(said["at"]))
        text.out.print(f"\n  unattended   job #{said['job']} fills the queue up at {at}")


def cancel(arguments: Namespace) -> int:
    """growpoint cancel: jobs stop, finished stages stay."""
    store, name = located(arguments)
    stage = store.find(arguments.stage) if arguments.stage else None
    chosen = selected.stages(
        store.plan(name), arm=arguments.arm, growth=arguments.growth, stage=stage
    )
    folder = store.plan_folder(name)
    cancelled = 0
    if (folder / "ledger.jsonl").exists():
        from orchestrator import slurm, top_up

        # First, lest it submit again what is cancelled.
        if top_up.stop(store, name, "cancelled"):
            text.out.print(f"{name}   no longer filled up unattended")
        cancelled = slurm.cancel(store, name, chosen)
    if chosen is not None:
        return _cancelled_part(name, cancelled, claim.holder(folder / "launch"))
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


def _cancelled_part(name: str, cancelled: int, holder: dict[str, Any] | None) -> int:
    if holder and not cancelled:
        raise GrowpointError(
            "a launch on one machine is cancelled as a whole",
            [("launch", f"on {holder.get('host')}, pid {holder.get('pid')}")],
            f"growpoint cancel {name}, then launch with the part left out by `exclude`",
        )
    text.out.print(f"{name}   cancelled {cancelled} SLURM jobs")
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
