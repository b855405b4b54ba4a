"""What growth makes of each tensor: planned from headers alone, before a byte is written."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from orchestrator.blocks import FLOATS, Block, Noisy, Scaled, Spread, Stored
from orchestrator.checkpoint import Entry
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family, Place
from sweeps.growth import Depth, Width, first_occurrences, grown
from sweeps.model import Model, sizes, tensors


@dataclass(frozen=True)
class Planned:
    """One tensor, its bytes in blocks: one for each expert where rows belong to experts."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    place: Place
    suffix: str = ""
    experts_axis: int | None = None

    @property
    def size_bytes(self) -> int:
        """Length on disk."""
        return sum(block.size_bytes for block in self.blocks)

    @property
    def is_noisy(self) -> bool:
        """Whether copies get noise: weights of experts and routers do, biases and norms do not."""
        stacked = self.place.section == "expert" and self.experts_axis is not None
        is_matrix = len(self.place.shape) == (3 if stacked else 2) and prod(self.shape[:-1]) > 1
        return self.place.section in ("expert", "router") and is_matrix

    def at(self, family: Family, **where: Any) -> "Planned":
        """The same tensor as that of another layer or expert."""
        place = self.place._replace(**where)
        name = (family.prefix + place.template).format(layer=place.layer, expert=place.expert)
        return replace(self, name=name + self.suffix, place=place)


@dataclass(frozen=True)
class Plan:
    """A whole grown checkpoint, and the tensors of the source that have no place in it."""

    tensors: tuple[Planned, ...]
    dropped: tuple[str, ...]


def plan(
    found: Mapping[str, Entry], model: Model, operators: Sequence[Depth | Width], seed: int
) -> Plan:
    """The tensors after growth. Raises GrowpointError for what the family does not account for."""
    family = families.load(model.family)
    current, dropped = _source(found, model, family)
    for operator in operators:
        if isinstance(operator, Depth):
            current = list(_deepened(current, model, family, operator))
        else:
            _refuse_quantised(current, operator, family)
            current = list(_widened(current, model, family, operator, seed))
        model = grown(model, [operator])
    return Plan(tuple(sorted(current, key=_order)), tuple(dropped))


def _order(tensor: Planned) -> tuple[int, str, int]:
    # By layer of the result, within it as in the source: neighbouring ranges are copied at once.
    rank = {"embedding": -1, "head": 1 << 60, "outside": 1 << 60}.get(tensor.place.section, 0)
    first = tensor.blocks[0]
    while not isinstance(first, Stored):
        first = first.of
    return rank or tensor.place.layer or 0, str(first.file), first.start


def _source(
    found: Mapping[str, Entry], model: Model, family: Family
) -> tuple[list[Planned], list[str]]:
    """The source's tensors, each in its place, and those of layers that only predict ahead."""
    placed, dropped, unknown = [], [], []
    for name, entry in found.items():
        if _predicts(name, model, family):
            dropped.append(name)
        elif tensor := _placed(name, entry, family):
            placed.append(tensor)
        else:
            unknown.append(name)
    if unknown:
        raise GrowpointError(
            f"{family.name} does not know {len(unknown)} of the checkpoint's tensors",
            [("tensors", ", ".join(unknown[:4]) + (", ..." if len(unknown) > 4 else ""))],
            f"add them to conf/family/{family.name}.yaml, if they belong there",
        )
    _check_shapes(placed, model, family)
    _check_complete(placed, model)
    return placed, dropped


def _predicts(name: str, model: Model, family: Family) -> bool:
    before, _ = family.prefix.split("{layer}")
    layer = name.removeprefix(before).split(".")[0] if name.startswith(before) else ""
    return bool(family.predicts) and layer.isdigit() and int(layer) >= model.layers


def _placed(name: str, entry: Entry, family: Family) -> Planned | None:
    for suffix in ("", *family.quantised):
        place = families.place(family, name.removesuffix(suffix)) if name.endswith(suffix) else None
        if place:
            axis = place.shape.index("experts") if "experts" in place.shape else None
            stored = Stored(entry.file, entry.start, entry.end, entry.dtype, name)
            blocks = (stored,) if axis is None else _split(stored, entry.shape[axis])
            return Planned(name, entry.dtype, entry.shape, blocks, place, suffix, axis)
    return None


def _split(stored: Stored, count: int) -> tuple[Block, ...]:
    each = stored.size_bytes // max(1, count)
    starts = range(stored.start, stored.start + each * count, each) if each else ()
    return tuple(replace(stored, start=start, end=start + each) for start in starts)


def _check_shapes(placed: Iterable[Planned], model: Model, family: Family) -> None:
    known = sizes(model, family)
    for tensor in placed:
        layer, expert = tensor.place.layer or 0, tensor.place.expert or 0
        expected = families.shape(tensor.place.shape, known)
        axis = tensor.experts_axis
        if tensor.suffix:  # scales and packed numbers have shapes of their own
            fits = axis is None or tensor.shape[axis] == model.experts
        else:
            fits = tensor.shape == expected
        if not fits or layer >= model.layers or expert >= model.experts:
            raise GrowpointError(
                "a tensor of the checkpoint does not fit its config.json",
                [
                    ("tensor", tensor.name),
                    ("shape", list(tensor.shape)),
                    ("expected", list(expected)),
                    ("config", f"{model.layers} layers, {model.experts} experts"),
                ],
                "fetch or make the checkpoint again",
            )
        if axis is not None and prod(tensor.shape[:axis]) != 1:
            raise ValueError(f"{family.name}: experts must lie first in {tensor.place.template}")


def _check_complete(placed: Iterable[Planned], model: Model) -> None:
    present = {tensor.name.removesuffix(tensor.suffix) for tensor in placed}
    layouts = (tensors(model), tensors(model, stacked=True))
    missing = [[t.name for t in layout if t.name not in present] for layout in layouts]
    if all(missing):
        fewest = min(missing, key=len)
        raise GrowpointError(
            f"the checkpoint lacks {len(fewest)} tensors that its config.json asks for",
            [("tensors", ", ".join(fewest[:4]) + (", ..." if len(fewest) > 4 else ""))],
            "fetch or make the checkpoint again",
        )


def _deepened(
    current: Sequence[Planned], model: Model, family: Family, depth: Depth
) -> Iterator[Planned]:
    by_layer: dict[int | None, list[Planned]] = {}
    for tensor in current:
        by_layer.setdefault(tensor.place.layer, []).append(tensor)
    yield from by_layer.get(None, ())
    source = depth.source_of(model.layers)
    for layer, (index, original) in enumerate(zip(source, first_occurrences(source), strict=True)):
        for tensor in by_layer.get(index, ()):
            zeroed = (
                depth.copies == "zeroed"
                and not original
                and tensor.place.template in family.zeroed_by_depth
            )
            copy = _scaled(tensor, 0.0) if zeroed else tensor
            yield copy.at(family, layer=layer)


def _scaled(tensor: Planned, by: float) -> Planned:
    return replace(tensor, blocks=tuple(Scaled(block, by) for block in tensor.blocks))


def _widened(
    current: Sequence[Planned], model: Model, family: Family, width: Width, seed: int
) -> Iterator[Planned]:
    source = width.source_of(model.experts)
    copies = [not original for original in first_occurrences(source)]
    becomes: dict[int, list[tuple[int, bool]]] = {}
    for expert, (index, copied) in enumerate(zip(source, copies, strict=True)):
        becomes.setdefault(index, []).append((expert, copied))
    for tensor in current:
        if tensor.place.expert is not None:
            yield from _single(tensor, family, becomes[tensor.place.expert], width, seed)
        elif tensor.experts_axis is not None:
            wide = _rows(tensor, source, copies, width, seed)
            divided = tensor.place.template in family.tensors_divided_by_width
            keeps = width.top_k == "scaled"
            yield _scaled(wide, 1 / width.factor) if divided and keeps else wide
        else:
            yield tensor


def _single(
    tensor: Planned, family: Family, becomes: Sequence[tuple[int, bool]], width: Width, seed: int
) -> Iterator[Planned]:
    """One expert's tensor under the names of all that come from it."""
    spread = Spread(tensor.blocks)
    for expert, copied in becomes:
        copy = tensor.at(family, expert=expert)
        if copied and width.noise and tensor.is_noisy:
            noisy = (Noisy(b, width.noise, spread, seed, copy.name) for b in tensor.blocks)
            copy = replace(copy, blocks=tuple(noisy))
        yield copy


def _rows(
    tensor: Planned, source: Sequence[int], copies: Sequence[bool], width: Width, seed: int
) -> Planned:
    """A router, or stacked experts: copies are further rows of the same tensor."""
    assert tensor.experts_axis is not None
    # A router's row is too short to have a spread of its own; a stacked expert is a tensor.
    whole = Spread(tensor.blocks) if tensor.place.section == "router" else None
    blocks: list[Block] = []
    for row, (index, copied) in enumerate(zip(source, copies, strict=True)):
        block = tensor.blocks[index]
        if copied and width.noise and tensor.is_noisy:
            spread = whole or Spread((block,))
            block = Noisy(block, width.noise, spread, seed, f"{tensor.name}[{row}]")
        blocks.append(block)
    shape = list(tensor.shape)
    shape[tensor.experts_axis] = len(source)
    return replace(tensor, shape=tuple(shape), blocks=tuple(blocks))


def _refuse_quantised(current: Iterable[Planned], width: Width, family: Family) -> None:
    divides = family.tensors_divided_by_width if width.top_k == "scaled" else ()
    for tensor in current:
        noisy = width.noise > 0 and tensor.is_noisy
        if (noisy or tensor.place.template in divides) and (
            tensor.dtype not in FLOATS or tensor.suffix
        ):
            raise GrowpointError(
                "noise cannot be added to quantised experts",
                [("tensor", tensor.name), ("dtype", tensor.dtype)],
                "growth='[{kind: width, noise: 0}]', or save the checkpoint in bf16 first",
            )
