"""Why a stage is new: the nearest finished one, and the keys in which the two differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import Store, beginnings, phases
from sweeps import cost
from sweeps.plan import Plan
from sweeps.stages import Stage, Train

LOOKED_AT = 50


@dataclass(frozen=True)
class Novelty:
    """A new stage, the nearest finished one of its kind, and how they differ."""

    stage: Stage
    like: str
    changes: tuple[str, ...]


def explain(store: Store, plan: Plan, limit: int = 5) -> tuple[list[Novelty], int]:
    """New stages that are new for a reason of their own, and the number of the rest.

    Stages that are new only because one before them is new are counted, not listed.
    """
    new = [stage for stage in plan.stages if not store.done(stage.id)]
    finished = _finished(store)
    roots = [stage for stage in new if stage.after is None or store.done(stage.after.id)]
    distinct: dict[tuple[str, ...], Novelty] = {}
    # Each root is held against everything that is finished, and most give the same reason.
    for stage in roots[:LOOKED_AT]:
        novelty = _nearest(stage, finished)
        if novelty:
            distinct.setdefault(novelty.changes, novelty)
        if len(distinct) == limit:
            break
    return list(distinct.values()), len(new) - len(distinct)


def spared_flops(store: Store, plan: Plan) -> float:
    """FLOPs that new phases save by going on from finished shorter ones, also other sweeps'."""
    known = phases(store)
    new = [stage for stage in plan.stages if not store.done(stage.id)]
    return sum(_spared(store, plan, stage, known) for stage in new)


def _spared(store: Store, plan: Plan, stage: Stage, known: Mapping[str, list[str]]) -> float:
    if not isinstance(stage.do, Train):
        return 0.0
    begun = [cost.flops(other) for other in beginnings(store, stage, known)]
    resumed = cost.flops(stage) - plan.flops(stage)
    return max(0.0, max(begun, default=0.0) - resumed)


def _finished(store: Store) -> dict[str, Mapping[str, Any]]:
    """stage.json of every finished stage in the store."""
    found = {}
    for path in store.root.glob("runs/*/record.json"):
        asked = path.parent / "stage.json"
        if asked.exists():
            found[path.parent.name] = json.loads(asked.read_text())
    return found


def _nearest(stage: Stage, finished: Mapping[str, Mapping[str, Any]]) -> Novelty | None:
    mine = dict(_flat(json.loads(stage.text)))
    candidates = []
    for other, asked in finished.items():
        if asked["do"]["kind"] == stage.do.kind:
            changes = _changes(dict(_flat(asked)), mine)
            # One after the same stage says more than one that shares the settings alone.
            elsewhere = asked["after"] != mine.get("after")
            candidates.append((elsewhere, len(changes), other, changes))
    if not candidates:
        return None
    _, _, like, changes = min(candidates)
    return Novelty(stage, like, tuple(changes))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Sequence[str]:
    keys = sorted(set(old) | set(new))
    shown = {key: (old.get(key, "default"), new.get(key, "default")) for key in keys}
    return [f"{key} {was} -> {now}" for key, (was, now) in shown.items() if was != now]


def _flat(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves; the verb's own `do.` is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")
    else:
        yield path.removeprefix("do."), value
