"""`growpoint logs`: what a stage's jobs wrote last."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from orchestrator import ledger, text
from orchestrator.launched import located
from orchestrator.store import Store
from sweeps.errors import GrowpointError

FOLLOW_SECONDS = 0.5


def show(arguments: Namespace) -> int:
    """Print the end of a stage's newest log, and of SLURM's own if that is newer."""
    store, _ = located(arguments)
    stage = store.find(arguments.stage)
    found = sorted(_logs(store, stage), key=lambda path: path.stat().st_mtime)
    if not found:
        raise GrowpointError(
            f"{stage} has no log yet",
            [("state", store.state(stage)["state"]), ("folder", store.run(stage) / "log")],
            f"growpoint status {arguments.sweep}",
        )
    path = found[-1]
    text.talk.print(str(path))
    lines = path.read_text(errors="replace").splitlines()
    print("\n".join(lines[-arguments.lines :]))
    if arguments.follow:
        _follow(path)
    return 0


def _logs(store: Store, stage: str) -> Iterator[Path]:
    """The stage's own logs, and those that SLURM keeps of its newest allocation."""
    yield from (store.run(stage) / "log").glob("*.log")
    slurm_id = str(store.state(stage).get("allocation") or "")
    for path in store.root.glob("plans/*/ledger.jsonl") if slurm_id else ():
        sweep = path.parent.name
        batch = ledger.read(store, sweep).batch_of(slurm_id)
        if batch:
            folder = store.plan_folder(sweep) / "slurm" / batch.name
            yield from folder.glob(f"{slurm_id}_*_log.err")


def _follow(path: Path) -> None:
    """Print what is written until interrupted."""
    with path.open(errors="replace") as file:
        file.seek(0, 2)
        while True:
            more = file.read()
            sys.stdout.write(more)
            sys.stdout.flush()
            if not more:
                time.sleep(FOLLOW_SECONDS)
