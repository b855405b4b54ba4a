"""What growth makes of each tensor: planned from headers alone, before a byte is written."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from orchestrator.blocks import FLOATS, Block, Noisy, Scaled, Spread
from orchestrator.checkpoint import Entry
from orchestrator.planned import Kind, Planned, placed
from orchestrator.redrawn import Drawn, Hidden, Redrawn, hidden_of
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family
from sweeps.growth import Depth, Width, expert_map, first_occurrences, grown
from sweeps.model import Model, sizes

# What model classes draw new weights with, unless their config.json says otherwise.
INITIALIZER_RANGE = 0.02


def initializer_range(config: Mapping[str, Any]) -> float:
    """The standard deviation of new weights, by a config.json or as most model classes have it."""
    given = config.get("initializer_range")
    if isinstance(given, int | float) and isfinite(given) and given >= 0:
        return float(given)
    return INITIALIZER_RANGE


@dataclass(frozen=True)
class Plan:
    """A whole grown checkpoint, and names of the source that are left out or that are not known."""

    tensors: tuple[Planned, ...]
    dropped: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def plan(
    found: Mapping[str, Entry],
    model: Model,
    operators: Sequence[Depth | Width],
    seed: int,
    *,
    allow_unknown: bool = False,
    initializer_range: float = INITIALIZER_RANGE,
) -> Plan:
    """The tensors after growth. Raises GrowpointError for what the family does not account for.

    With `allow_unknown`, tensors that the family does not know are copied as they are; those
    inside of layers follow the layers. New weights have the standard deviation
    `initializer_range`, which config.json gives.
    """
    family = families.load(model.family)
    source = placed(found, model, family, allow_unknown)
    current, experts = source.tensors, model.experts
    for operator in operators:
        if isinstance(operator, Depth):
            current = list(_deepened(current, model, family, operator))
        elif operator.experts != "kept":
            _refuse_quantised(current, operator, family)
            widening = _Widening(operator, family, model, seed, initializer_range)
            current = [tensor for each in current for tensor in widening.tensors(each)]
        model = grown(model, [operator])
    current.sort(key=_Order(_occurrence(expert_map(experts, operators))).key)
    return Plan(tuple(current), tuple(source.dropped), tuple(source.unknown))


def _occurrence(source: Sequence[int]) -> list[int]:
    """How many copies of the same original lie before each expert."""
    seen: dict[int, int] = {}
    counts = []
    for index in source:
        seen[index] = seen.get(index, -1) + 1
        counts.append(seen[index])
    return counts


class _Order:
    """By layer of the result, copies after originals, then as in the source.

    So neighbouring ranges are copied at once: a layer's originals, and then each set of copies.
    """

    def __init__(self, occurrence: Sequence[int]) -> None:
        self.occurrence = occurrence
        self.files: dict[object, str] = {}

    def key(self, tensor: Planned) -> tuple[int, int, str, int]:
        """What tensors are sorted by."""
        # The embedding first, the head last.
        rank = -1 if tensor.kind.section == "embedding" else 1 << 60
        rank = rank if tensor.layer is None else tensor.layer
        copy = 0 if tensor.expert is None else self.occurrence[tensor.expert]
        if not tensor.blocks:
            return rank, copy, "", 0
        first = tensor.blocks[0].stored
        file = self.files.get(first.file) or self.files.setdefault(first.file, str(first.file))
        return rank, copy, file, first.start


def _deepened(
    current: Sequence[Planned], model: Model, family: Family, depth: Depth
) -> Iterator[Planned]:
    by_layer: dict[int | None, list[Planned]] = {}
    for tensor in current:
        by_layer.setdefault(tensor.layer, []).append(tensor)
    yield from by_layer.get(None, ())
    source = depth.source_of(model.layers)
    zeroed = family.zeroed_by_depth if depth.copies == "zeroed" else ()
    for layer, (index, original) in enumerate(zip(source, first_occurrences(source), strict=True)):
        for tensor in by_layer.get(index, ()):
            zero = not original and tensor.kind.template in zeroed
            blocks = _scaled(tensor.blocks, 0.0) if zero else tensor.blocks
            yield Planned(tensor.kind, tensor.dtype, tensor.shape, blocks, layer, tensor.expert)


def _scaled(blocks: Sequence[Block], by: float) -> tuple[Block, ...]:
    return tuple(Scaled(block, by) for block in blocks)


class _Widening:
    """One width growth: what it makes of each tensor."""

    def __init__(
        self, width: Width, family: Family, model: Model, seed: int, initializer_range: float
    ) -> None:
        self.width, self.family, self.seed, self.deviation = width, family, seed, initializer_range
        self.sizes = sizes(model, family)
        self.source = width.source_of(model.experts)
        self.copied = [not original for original in first_occurrences(self.source)]
        self.becomes: list[list[int]] = [[] for _ in range(model.experts)]
        for expert, index in enumerate(self.source):
            self.becomes[index].append(expert)
        self.hidden: dict[str, Hidden] = {}

    def tensors(self, tensor: Planned) -> Iterator[Planned]:
        """One tensor, or one expert's tensor under the names of all that come from it."""
        kind = tensor.kind
        divided = kind.template in _divided(self.family, self.width)
        if kind.experts_axis is not None:
            blocks = self._rows(tensor)
            blocks = _scaled(blocks, 1 / self.width.factor) if divided else blocks
            shape, axis = tensor.shape, kind.experts_axis
            shape = (*shape[:axis], len(self.source), *shape[axis + 1 :])
            yield Planned(kind, tensor.dtype, shape, blocks, tensor.layer)
        elif tensor.expert is None:
            yield tensor
        else:
            for expert, blocks in self._single(tensor):
                blocks = _scaled(blocks, 1 / self.width.factor) if divided else blocks
                yield Planned(kind, tensor.dtype, tensor.shape, blocks, tensor.layer, expert)

    def _single(self, tensor: Planned) -> Iterator[tuple[int, tuple[Block, ...]]]:
        spread = self._spread(tensor, tensor.blocks)
        for expert in self.becomes[tensor.expert or 0]:
            if self.copied[expert] and self._changes(tensor.kind):
                key = tensor.kind.name(tensor.layer, expert)
                made = (self._copy(tensor, b, expert, key, spread) for b in tensor.blocks)
                yield expert, tuple(made)
            else:
                yield expert, tensor.blocks

    def _rows(self, tensor: Planned) -> tuple[Block, ...]:
        """A router, or stacked experts: copies are further rows of the same tensor."""
        blocks = [tensor.blocks[index] for index in self.source]
        if not self._changes(tensor.kind):
            return tuple(blocks)
        # A router's row is too short to have a spread of its own; a stacked expert is a tensor.
        router = tensor.kind.section == "router"
        whole = self._spread(tensor, tensor.blocks) if router else None
        for row, (block, copied) in enumerate(zip(blocks, self.copied, strict=True)):
            if copied:
                spread = whole or self._spread(tensor, (block,))
                blocks[row] = self._copy(tensor, block, row, f"{tensor.name}[{row}]", spread)
        return tuple(blocks)

    def _spread(self, tensor: Planned, blocks: tuple[Block, ...]) -> Spread | None:
        kind = tensor.kind
        return Spread(blocks) if kind.is_matrix and kind.section in self.width.noisy else None

    def _changes(self, kind: Kind) -> bool:
        """Whether copies of such a tensor are anything but copies."""
        biases = kind.section == "expert" and self.width.experts == "random"
        return bool(_draws(kind, self.width)) or biases

    def _copy(
        self, tensor: Planned, block: Block, expert: int, key: str, spread: Spread | None
    ) -> Block:
        """What a copy becomes of an expert's numbers, or of its row in a router."""
        kind, width = tensor.kind, self.width
        drawn = width.experts if kind.section == "expert" else width.router
        if drawn == "random":
            # A new expert has no bias; `_changes` lets no other vector come here.
            new = Drawn(block, self.deviation, self.seed, key)
            return new if kind.is_matrix else Scaled(block, 0.0)
        if not kind.is_matrix:
            return block
        if spread:
            block = Noisy(block, width.noise, spread, self.seed, key)
        if kind.section == "expert" and width.redrawn:
            owner = f"layer {tensor.layer}, expert {expert}"
            hidden = self._hidden(tensor)
            block = Redrawn(block, hidden, width.redrawn, self.seed, owner, key)
        return block

    def _hidden(self, tensor: Planned) -> Hidden:
        template = tensor.kind.template
        if template not in self.hidden:
            stacked = tensor.kind.experts_axis is not None
            shape = tensor.kind.shape[1:] if stacked else tensor.kind.shape
            alternating = template in self.family.alternating
            self.hidden[template] = hidden_of(shape, self.sizes, alternating)
        return self.hidden[template]


def _divided(family: Family, width: Width) -> tuple[str, ...]:
    return family.tensors_divided_by_width if width.sums_copies else ()


def _draws(kind: Kind, width: Width) -> str:
    """The key of a width that asks for numbers to be drawn in copies of such a tensor, if any."""
    if not kind.is_matrix:
        return ""
    drawn = width.experts if kind.section == "expert" else width.router
    if drawn == "random":
        return "experts" if kind.section == "expert" else "router"
    if kind.section == "expert" and width.redrawn:
        return "redrawn"
    return "noise" if kind.section in width.noisy else ""


# For each key that asks for arithmetic on experts: what cannot be done, and what can.
QUANTISED = {
    "noise": ("noise cannot be added to quantised experts", "noise: 0"),
    "redrawn": ("quantised experts cannot be redrawn in part", "redrawn: 0, noise: 0"),
    "experts": ("quantised experts cannot be drawn at random", "experts: copied, noise: 0"),
    "router": ("a quantised router cannot be drawn at random", "router: copied, noise: 0"),
    "": ("quantised tensors cannot be divided, which this family's gates need", ""),
}


def _refuse_quantised(current: Iterable[Planned], width: Width, family: Family) -> None:
    divided = _divided(family, width)
    for tensor in current:
        if tensor.dtype in FLOATS and not tensor.kind.suffix:
            continue
        key = _draws(tensor.kind, width)
        if not key and tensor.kind.template not in divided:
            continue
        problem, instead = QUANTISED[key]
        way = f"growth='[{{kind: width, {instead}}}]', or " if instead else ""
        raise GrowpointError(
            problem,
            [("tensor", tensor.name), ("dtype", tensor.dtype)],
            f"{way}save the checkpoint in bf16 first",
        )
