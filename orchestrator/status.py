"""`growpoint status`: cells by arm and growth point, what runs, what failed and why."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator import text
from orchestrator.progress import STATES, Snapshot, StageState
from orchestrator.store import Store

# Stages of one state that are told in full; --json has all.
SHOWN = 8
MARKS = {
    "running": "~",
    "queued": "q",
    "waiting": ".",
    "stopped": ".",
    "failed": "!",
    "blocked": "x",
}


def cell_state(plan: Mapping[str, Any], shot: Snapshot, stage_id: str | None) -> str:
    """The word for a cell: that of the stage it waits for, or done."""
    here = shot.stages[stage_id].state if stage_id else "done"
    if here in {"done", "failed", "blocked", "running"}:
        return here
    while stage_id:
        entry = plan["stages"][stage_id]
        state = shot.stages[stage_id].state
        if state in {"failed", "running", "blocked"}:
            return state
        stage_id = entry["starts_from"]
    return here


def to_json(plan: Mapping[str, Any], shot: Snapshot) -> dict[str, Any]:
    """The status as data: totals, cells and unfinished stages."""
    return {
        "sweep": plan["sweep"],
        "complete": shot.complete,
        "flops": shot.flops,
        "flops_done": shot.flops_done,
        "stages": {state: shot.count(state) for state in STATES},
        "cells": [
            {
                "label": cell["label"],
                "stage": cell["stage"],
                "state": cell_state(plan, shot, cell["stage"]),
            }
            for cell in plan["cells"]
        ],
        "unfinished": [
            {**stage.details, "stage": stage.id, "state": stage.state, "share": stage.share}
            for stage in shot.stages.values()
            if stage.state != "done"
        ],
    }


def show(store: Store, plan: Mapping[str, Any], shot: Snapshot) -> None:
    """Print the status."""
    states = [cell_state(plan, shot, cell["stage"]) for cell in plan["cells"]]
    done = states.count("done")
    head = f"{plan['sweep']}   {done} of {len(states)} cells done"
    text.out.print(f"{head} · {text.flops(shot.flops_done)} of {text.flops(shot.flops)} FLOPs\n")
    text.out.print(_table(plan, states))
    shown = {MARKS[state]: state for state in states if state in MARKS}
    if shown:
        text.out.print(
            "\n  " + "   ".join(f"{mark} {state}" for mark, state in sorted(shown.items()))
        )
    labels = _labels(plan)
    for line in _details(store, shot, labels):
        text.out.print(line)


def _table(plan: Mapping[str, Any], states: Sequence[str]) -> Any:
    points = sorted({cell["sunk_flops"] for cell in plan["cells"]})
    grid: dict[tuple[str, str], dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
    for cell, state in zip(plan["cells"], states, strict=True):
        grid[cell["arm"], cell["growth"]][cell["sunk_flops"]].append(state)
    rows = [
        [arm, growth, *(_entry(row.get(point, [])) for point in points)]
        for (arm, growth), row in grid.items()
    ]
    heads = [
        "arm",
        "growth",
        *("sunk " * (index == 0) + (text.flops(p) if p else "0") for index, p in enumerate(points)),
    ]
    return text.table(heads, rows, right=range(2, len(heads)))


def _entry(states: Sequence[str]) -> str:
    """`3/3`, or the mark of the worst state with the count that is done."""
    if not states:
        return ""
    done = sum(state == "done" for state in states)
    worst = min(states, key=STATES.index)
    if done == len(states):
        return f"{done}/{len(states)}"
    return f"{done}/{len(states)} {MARKS[worst]}" if done else MARKS[worst]


def _where(details: Mapping[str, Any]) -> str:
    """`node n1, 14 min ago`."""
    ago = text.seconds(time.time() - details.get("at", time.time()))
    return f"node {details['host']}, {ago} ago" if details.get("host") else f"{ago} ago"


def _labels(plan: Mapping[str, Any]) -> dict[str, str]:
    """A readable name for each stage: that of the first cell that wants it."""
    labels: dict[str, str] = {}
    for cell in plan["cells"]:
        stage = cell["stage"]
        while stage and stage not in labels:
            labels[stage] = cell["label"]
            stage = plan["stages"][stage]["starts_from"]
    return labels


def _details(store: Store, shot: Snapshot, labels: Mapping[str, str]) -> Iterator[str]:
    told = {"failed": _failed, "running": _running, "stopped": _stopped}
    for state, tell in told.items():
        stages = [stage for stage in shot.stages.values() if stage.state == state]
        # A job that merely ran out of its time says nothing that needs to be read.
        stages = [stage for stage in stages if state != "stopped" or "scheduler" in stage.details]
        for stage in stages[:SHOWN]:
            yield f"\n  {state:<9} {stage.id}   {labels.get(stage.id, '')}" + tell(store, stage)
        if len(stages) > SHOWN:
            yield f"\n  {state:<9} and {len(stages) - SHOWN} more: growpoint status ... --json"
    blocked = [stage for stage in shot.stages.values() if stage.state == "blocked"]
    causes = sorted({str(stage.details.get("cause")) for stage in blocked})
    if blocked:
        named = ", ".join(causes[:SHOWN]) + (", ..." if len(causes) > SHOWN else "")
        yield f"\n  blocked   {len(blocked)} stages wait for {named}"


def _failed(store: Store, stage: StageState) -> str:
    lines = str(stage.details.get("error", "")).splitlines() or ["no message"]
    lines += [f"log: {stage.details.get('log', store.run(stage.id) / 'log')}"]
    return f", {_where(stage.details)}" + "".join(f"\n            {line}" for line in lines)


def _running(store: Store, stage: StageState) -> str:
    return f"   {stage.share:.0%}"


def _stopped(store: Store, stage: StageState) -> str:
    return f", {_where(stage.details)}\n            {stage.details.get('error', '')}"
