"""Are the updates of two lineages orthogonal? Cosines, tensor by tensor, through the growth maps.

Source: arXiv 2510.08008 (orthogonality of growth: first moments before and after it).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import lineage
from orchestrator.blocks import FLOATS
from orchestrator.headers import Entry, header
from orchestrator.lineage import Maps
from orchestrator.opened import Opened
from orchestrator.slices import GROUPS, PIECE, Key, Slice, read, slices
from sweeps.errors import GrowpointError
from sweeps.growth import first_occurrences

MOMENTS, FIRST = "optimizer.safetensors", "exp_avg."


class Trained(NamedTuple):
    """One lineage: a checkpoint, and what training made of it."""

    before: Opened
    after: Opened


class Part(NamedTuple):
    """What a cosine is over: a group in a layer, apart for originals and for copies.

    Layers are those of the second lineage and of the first; none for what is outside of layers.
    """

    group: str
    layer: int | None
    source_layer: int | None
    is_copy: bool


@dataclass
class Sums:
    """Of two updates: products, squares of each, how many numbers."""

    product: float = 0.0
    first: float = 0.0
    second: float = 0.0
    numbers: int = 0

    def add(self, other: "Sums") -> None:
        """Pool with another part."""
        self.product += other.product
        self.first += other.first
        self.second += other.second
        self.numbers += other.numbers

    @property
    def cosine(self) -> float:
        """NaN where one of the two did not move."""
        scale = math.sqrt(self.first) * math.sqrt(self.second)
        return self.product / scale if scale > 0 else math.nan


@dataclass(frozen=True)
class Compared:
    """Cosines of updates, and of Adam's first moments where both ends have them."""

    updates: dict[Part, Sums]
    moments: dict[Part, Sums]
    without_moments: tuple[str, ...]


def compare(first: Trained, second: Trained) -> Compared:
    """Cosines of what two lineages did to the same weights.

    Tensors are matched through the growths in which the lineages differ, copies with their
    original. First moments are those at the end of each. Reads four tensors in pieces at a time.
    Raises GrowpointError for lineages that share no network.
    """
    if len(first.before.steps) > len(second.before.steps):
        first, second = second, first
    ends = [_slices(end) for pair in (first, second) for end in pair]
    _same_network(first, ends[0], ends[1])
    _same_network(second, ends[2], ends[3])
    origin = _Origin(*_relative(first.before, second.before))
    pairs = list(origin.pairs(ends[1], ends[3]))
    updates = _sums(
        (part, [ends[0][a], ends[1][a], ends[2][b], ends[3][b]]) for part, a, b in pairs
    )
    without = tuple(end.name for end in (first.after, second.after) if not _has_moments(end))
    moments = {} if without else _moments(first.after, second.after, origin)
    return Compared(updates, moments, without)


def _slices(end: Opened) -> dict[Key, Slice]:
    return slices(end.found, end.family)[0]


def _has_moments(end: Opened) -> bool:
    return (end.folder / MOMENTS).is_file()


def _moments(first: Opened, second: Opened, origin: "_Origin") -> dict[Part, Sums]:
    ends = [slices(_first_moments(end.folder), end.family)[0] for end in (first, second)]
    pairs = origin.pairs(ends[0], ends[1])
    return _sums((part, [ends[0][a], ends[1][b]]) for part, a, b in pairs)


def _first_moments(folder: Path) -> dict[str, Entry]:
    found = header(folder / MOMENTS)
    return {name.removeprefix(FIRST): each for name, each in found.items() if FIRST in name[:8]}


def _same_network(pair: Trained, before: Mapping[Key, Slice], after: Mapping[Key, Slice]) -> None:
    one, other = ({key: each.shape for key, each in end.items()} for end in (before, after))
    if one == other:
        return
    differs = sorted(_shown(key) for key, _ in one.items() ^ other.items())[0]
    raise GrowpointError(
        "the two ends of an update are not the same network",
        [("before", pair.before.name), ("after", pair.after.name), ("differs in", differs)],
        "give a checkpoint and what it was trained into: --updates BEFORE AFTER",
    )


def _shown(key: Key) -> str:
    layer = "" if key.layer is None else f" of layer {key.layer}"
    return key.template + layer + ("" if key.expert is None else f", expert {key.expert}")


def _relative(first: Opened, second: Opened) -> tuple[Maps, Maps]:
    """The maps of both lineages to the last network that they share."""
    shared = 0
    for one, other in zip(first.steps, second.steps, strict=False):
        if one.what != other.what:
            break
        shared += 1
    found = [
        lineage.maps(each.steps[shared:], each.model.layers, each.model.experts)
        for each in (first, second)
    ]
    roots = [(max(each.layers) + 1, max(each.experts) + 1) for each in found]
    if roots[0] != roots[1] or first.model.family != second.model.family:
        raise GrowpointError(
            "the two lineages do not come from one network",
            [
                (each.name, f"{each.model.family}, from {layers} layers and {experts} experts")
                for each, (layers, experts) in zip((first, second), roots, strict=True)
            ],
            "name lineages of which one was grown from the other, or both from a third",
        )
    return found[0], found[1]


class _Origin:
    """Whose counterpart each tensor of the second lineage is in the first."""

    def __init__(self, first: Maps, second: Maps) -> None:
        self.layers = [first.layers.index(root) for root in second.layers]
        self.experts = [first.experts.index(root) for root in second.experts]
        self.is_layer = first_occurrences(second.layers)
        self.is_expert = first_occurrences(second.experts)

    def pairs(
        self, first: Mapping[Key, Slice], second: Mapping[Key, Slice]
    ) -> Iterator[tuple[Part, Key, Key]]:
        """What each slice belongs to, its counterpart, and itself."""
        for key, each in second.items():
            layer = None if key.layer is None else self.layers[key.layer]
            expert = None if key.expert is None else self.experts[key.expert]
            other = Key(key.template, layer, expert)
            if other not in first or first[other].shape != each.shape:
                raise _unmatched(each, first.get(other))
            copied = (key.layer is not None and not self.is_layer[key.layer]) or (
                key.expert is not None and not self.is_expert[key.expert]
            )
            yield Part(each.group, key.layer, layer, copied), other, key


def _unmatched(each: Slice, other: Slice | None) -> GrowpointError:
    return GrowpointError(
        "a tensor of one lineage has no counterpart in the other",
        [
            ("tensor", each.name),
            ("shape", list(each.shape)),
            ("other", list(other.shape) if other else "no such tensor"),
        ],
        "compare checkpoints in the same layout, both as save_pretrained writes them",
    )


def _sums(pairs: Iterable[tuple[Part, Sequence[Slice]]]) -> dict[Part, Sums]:
    found: dict[Part, Sums] = defaultdict(Sums)
    for part, of in pairs:
        strange = next((each for each in of if each.dtype not in FLOATS), None)
        if strange is not None:
            raise GrowpointError(
                "updates of quantised weights cannot be told from their rounding",
                [("tensor", strange.name), ("dtype", strange.dtype)],
                "compare checkpoints in bf16 or single precision",
            )
        found[part].add(products(of))
    return dict(found)


def products(of: Sequence[Slice]) -> Sums:
    """Of two slices, or of the differences of two pairs (before, after, before, after)."""
    total = Sums(numbers=of[0].numbers)
    for start in range(0, total.numbers, PIECE):
        stop = min(total.numbers, start + PIECE)
        values = [read(each, start, stop).astype(float) for each in of]
        one, other = values if len(values) == 2 else (values[1] - values[0], values[3] - values[2])
        total.add(Sums(float(one @ other), float(one @ one), float(other @ other)))
    return total


def pooled(found: Mapping[Part, Sums]) -> dict[tuple[str, str], Sums]:
    """Sums over layers by group and `original`, `copy` or `all`; the group `all` is everything."""
    made: dict[tuple[str, str], Sums] = defaultdict(Sums)
    for part, sums in found.items():
        for group in (part.group, "all"):
            for kind in ("copy" if part.is_copy else "original", "all"):
                made[group, kind].add(sums)
    return {key: made[key] for group in (*GROUPS, "all") for key in _kinds(group) if key in made}


def _kinds(group: str) -> list[tuple[str, str]]:
    return [(group, kind) for kind in ("original", "copy", "all")]


def rows(found: Compared) -> list[dict[str, Any]]:
    """One row for each part, as plain data: of the table by layers."""
    return [
        {
            "group": part.group,
            "layer": part.layer,
            "source_layer": part.source_layer,
            "copy": part.is_copy,
            "numbers": sums.numbers,
            "update_cosine": sums.cosine,
            "first_moment_cosine": found.moments[part].cosine
            if part in found.moments
            else math.nan,
        }
        for part, sums in found.updates.items()
    ]
