"""Why a stage is new: the nearest finished one, and the keys in which the two differ."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import Store, beginnings, phases, read_json
from sweeps import cost
from sweeps.errors import GrowpointError
from sweeps.plan import Plan
from sweeps.stages import Stage, Train

LOOKED_AT = 50
Flat = Mapping[str, Any]


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


def _spared(store: Store, plan: Plan, stage: Stage, known: Mapping[str, list[int]]) -> float:
    if not isinstance(stage.do, Train):
        return 0.0
    longest = next(beginnings(store, stage, known), None)
    resumed = cost.flops(stage) - plan.flops(stage)
    return max(0.0, cost.flops(longest) - resumed) if longest else 0.0


def _finished(store: Store) -> dict[str, Flat]:
    """stage.json of every finished stage in the store, flat; a damaged one is left out."""
    found: dict[str, Flat] = {}
    for path in store.root.glob("runs/*/record.json"):
        with contextlib.suppress(GrowpointError):
            asked = read_json(path.parent / "stage.json")
            if asked is not None:
                found[path.parent.name] = dict(_flat(asked))
    return found


def _nearest(stage: Stage, finished: Mapping[str, Flat]) -> Novelty | None:
    mine = dict(_flat(json.loads(stage.text)))
    # One after the same stage says more than one that shares the settings alone.
    candidates = [
        (asked.get("after") != mine.get("after"), _distance(asked, mine), other)
        for other, asked in finished.items()
        if asked.get("kind") == stage.do.kind
    ]
    if not candidates:
        return None
    like = min(candidates)[-1]
    return Novelty(stage, like, tuple(_changes(finished[like], mine)))


def _distance(old: Flat, new: Flat) -> int:
    """In how many keys two stages differ."""
    return len({key for key, _ in old.items() ^ new.items()})


def _changes(old: Flat, new: Flat) -> Sequence[str]:
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
