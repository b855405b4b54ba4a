"""Why a stage is new: the nearest finished one, and the keys in which the two differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import Store
from sweeps.plan import Plan
from sweeps.stages import Stage


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
    found = [novelty for stage in roots if (novelty := _nearest(stage, finished))]
    distinct = list({novelty.changes: novelty for novelty in reversed(found)}.values())[::-1]
    return distinct[:limit], len(new) - min(len(distinct), limit)


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
            candidates.append((len(changes), other, changes))
    if not candidates:
        return None
    _, like, changes = min(candidates)
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
