"""How a phase fared after growth: the jump of the loss, the way back, copies growing apart."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import checkpoint
from orchestrator.blocks import FLOATS
from orchestrator.slices import Key, Slice, slices
from orchestrator.store import Store
from orchestrator.updates import Sums, products
from sweeps import carried, growth
from sweeps import family as families
from sweeps.model import from_config
from sweeps.stages import Stage


class Jump(NamedTuple):
    """Training loss of a branch against that of its source, in nats a token."""

    source_loss: float
    spike: float
    recovery_tokens: int | None


def jump(source: Sequence[Mapping[str, Any]], branch: Sequence[Mapping[str, Any]]) -> Jump | None:
    """How far the loss of `branch` rose above its source's last, and tokens until it was back.

    Both are lines of metrics.jsonl, whose losses are means over some steps: their last and first
    lines are compared, so a jump shorter than a line is seen in part. None without lines;
    `recovery_tokens` is None if the loss has not come back.
    """
    if not source or not branch:
        return None
    before = float(source[-1]["loss"])
    back = next((int(line["tokens"]) for line in branch if line["loss"] <= before), None)
    spike = max(float(line["loss"]) for line in branch[: _until(branch, back)]) - before
    return Jump(before, round(max(0.0, spike), 6), back)


def _until(branch: Sequence[Mapping[str, Any]], back: int | None) -> int:
    """Lines up to the one that is back; all of them if none is."""
    return next((n for n, line in enumerate(branch, 1) if line["tokens"] == back), len(branch))


def after(store: Store, stage: Stage) -> dict[str, Any]:
    """What a finished phase's record says of growth before it; nothing if there was none."""
    operators = carried.growths(stage)
    source = carried.ungrown(stage.after) if stage.after else None
    if not operators or source is None:
        return {}
    found = jump(_lines(store, source), _lines(store, stage))
    said: dict[str, Any] = {"jump": found._asdict()} if found else {}
    source_of = growth.expert_map(source.model.experts, operators)
    if not all(growth.first_occurrences(source_of)):
        said["copies_cosine"] = alikeness(store.checkpoint(stage.id), source_of)
    return said


def _lines(store: Store, stage: Stage) -> list[dict[str, Any]]:
    path = store.run(stage.id) / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def alikeness(folder: Path, source_of: Sequence[int]) -> float | None:
    """Mean cosine between an expert and the copies of it, over layers: 1 while they are equal.

    `source_of` says of which expert each one was made. None if no expert was copied, or weights
    are quantised.
    """
    found, _ = slices(checkpoint.entries(folder), families.load(_family(folder)))
    cosines = [_cosine(pairs) for pairs in _pairs(found, source_of).values()]
    known = [value for value in cosines if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def _family(folder: Path) -> str:
    return from_config(checkpoint.read_config(folder)).family


def _pairs(
    found: Mapping[Key, Slice], source_of: Sequence[int]
) -> dict[tuple[int | None, int], list[tuple[Slice, Slice]]]:
    """(copy, first of its kind), matrix by matrix, for each layer and copied expert."""
    first = {source: expert for expert, source in reversed(list(enumerate(source_of)))}
    made: dict[tuple[int | None, int], list[tuple[Slice, Slice]]] = {}
    for key, piece in found.items():
        if key.expert is None or piece.group != "experts" or key.expert >= len(source_of):
            continue
        original = first[source_of[key.expert]]
        if original != key.expert:
            pair = (piece, found[key._replace(expert=original)])
            made.setdefault((key.layer, key.expert), []).append(pair)
    return made


def _cosine(pairs: Iterable[tuple[Slice, Slice]]) -> float | None:
    """Of all matrices of two experts as one vector each."""
    total = Sums()
    for pair in pairs:
        if any(each.dtype not in FLOATS for each in pair):
            return None
        total.add(products(pair))
    return None if math.isnan(total.cosine) else total.cosine
