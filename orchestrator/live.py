"""Live progress of a launch: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from orchestrator import text
from orchestrator.progress import Pace, Snapshot, snapshot
from orchestrator.store import Store

LINE_SECONDS = 10.0


@contextmanager
def reporter(store: Store, sweep: str) -> Iterator[Callable[[Snapshot], None]]:
    """A function that shows snapshots as they come."""
    first = snapshot(store, store.plan(sweep))
    pace = Pace.start(first)
    if text.talk.is_terminal:
        with Live(console=text.talk, refresh_per_second=4, transient=True) as live:
            yield lambda shot: live.update(_drawn(sweep, shot, pace))
    else:
        yield _Lines(sweep, pace).show


class _Lines:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, sweep: str, pace: Pace) -> None:
        self.sweep, self.pace, self.last = sweep, pace, time.monotonic()

    def show(self, shot: Snapshot) -> None:
        if time.monotonic() - self.last < LINE_SECONDS:
            return
        self.last = time.monotonic()
        text.talk.print(f"{self.sweep}   {_words(shot, self.pace)}")


def _words(shot: Snapshot, pace: Pace) -> str:
    left = pace.left_seconds(shot)
    words = [f"{shot.count('done')} of {len(shot.stages)} stages"]
    words += [f"{shot.flops_done / max(1.0, shot.flops):.0%} of the FLOPs"]
    words += ["preparing the corpus"] if shot.preparing else []
    words += [f"{count} {state}" for state in ("running", "failed") if (count := shot.count(state))]
    words += [f"about {text.seconds(left)} to go"] if left is not None else []
    return " · ".join(words)


def _drawn(sweep: str, shot: Snapshot, pace: Pace) -> Table:
    grid = Table.grid()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}")
    )
    bar.add_task(
        sweep, total=max(1.0, shot.flops), completed=int(shot.flops_done), words=_words(shot, pace)
    )
    grid.add_row(bar)
    for stage in shot.stages.values():
        if stage.state == "running":
            grid.add_row(f"  {stage.id}  {stage.share:4.0%}")
    return grid
