"""Where each cell's result comes from: the chain of stages behind it, their logs and states."""

import datetime
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis import records
from orchestrator import text
from orchestrator.store import Store

Link = tuple[str, str]  # words, and the way from the page's folder


@dataclass(frozen=True)
class Step:
    """One stage of a lineage."""

    stage: str
    says: str  # the tokens it trains on
    state: str
    error: str
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Run:
    """A planned cell, and the stages that lead to its score."""

    cell: str
    stage: str
    steps: tuple[Step, ...]

    @property
    def state(self) -> str:
        """That of the first stage that is not done: what the rest is waiting for."""
        return next((step.state for step in self.steps if step.state != "done"), "done")


def runs(store: Store, name: str) -> list[Run]:
    """Every planned cell of a sweep, in the plan's order, finished or not."""
    plan = store.plan(name)
    step = functools.cache(functools.partial(_step, store, plan["stages"], store.plan_folder(name)))
    return [_run(cell, plan["stages"], step) for cell in plan["cells"]]


def _run(
    cell: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]], step: Callable[[str], Step]
) -> Run:
    way = records.chain(stages, str(cell["stage"]))
    return Run(str(cell["label"]), str(cell["stage"]), tuple(step(each) for each in way))


def _step(
    store: Store, stages: Mapping[str, Mapping[str, Any]], folder: Path, stage_id: str
) -> Step:
    tokens = int(stages[stage_id]["tokens"])
    said = store.state(stage_id)
    done = store.done(stage_id)
    return Step(
        stage=stage_id,
        says=f"{text.tokens(tokens)} tokens" if tokens else "",
        state="done" if done else str(said["state"]),
        error="" if done else str(said.get("error", "")),
        links=tuple(_links(store.run(stage_id), folder)),
    )


def _links(run: Path, folder: Path) -> Iterator[Link]:
    """What a stage has written down about how it went; what is empty says nothing."""
    logs = [path for path in sorted(run.glob("log/*")) if path.is_file() and path.stat().st_size]
    for index, path in enumerate(logs, 1):
        yield f"log {index}" if len(logs) > 1 else "log", way_to(path, folder)
    if (steps := run / "metrics.jsonl").is_file():
        yield "steps", way_to(steps, folder)


def way_to(path: Path, folder: Path) -> str:
    """A relative link from a page in `folder`."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def finished(store: Store, name: str) -> tuple[str, str] | None:
    """The days, in UTC, on which the first and the last stage of a sweep finished."""
    found = [store.record(stage) for stage in store.plan(name)["stages"]]
    times = [float(each["finished_at"]) for each in found if each and "finished_at" in each]
    if not times:
        return None
    first, last = (
        datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat()
        for at in (min(times), max(times))
    )
    return first, last
