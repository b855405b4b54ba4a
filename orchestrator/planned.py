"""Tensors in their places: a checkpoint as its family sees it, read from headers alone."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from orchestrator.blocks import Block, Stored
from orchestrator.checkpoint import Entry
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family, Place, Shape
from sweeps.model import Model, sizes, tensors


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What all tensors of one pattern of names share, whatever their layer and expert.

    A name is `head`, the layer, `left`, the expert, `right`; only `head` outside of layers.
    `experts_axis` is where one tensor holds a row (or more) for each expert.
    """

    section: str
    template: str
    shape: Shape
    suffix: str
    head: str
    left: str = ""
    right: str = ""
    experts_axis: int | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether growth may draw here: weights of experts and routers, not biases and norms."""
        stacked = self.section == "expert" and self.experts_axis is not None
        is_matrix = len(self.shape) == (3 if stacked else 2) and self.shape[0] != "1"
        return self.section in ("expert", "router") and is_matrix

    def name(self, layer: int | None, expert: int | None) -> str:
        """The name on disk."""
        if layer is None:
            return self.head
        if expert is None:
            return f"{self.head}{layer}{self.left}{self.right}"
        return f"{self.head}{layer}{self.left}{expert}{self.right}"


# A checkpoint of 700 billion parameters has 90 thousand tensors, four times as many when it is
# grown both ways: so slots, shared parts, and names made when asked for (150 bytes a tensor).
@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One tensor, its bytes in blocks: one for each expert where rows belong to experts."""

    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    layer: int | None = None
    expert: int | None = None

    @property
    def name(self) -> str:
        """Its name on disk."""
        return self.kind.name(self.layer, self.expert)

    @property
    def size_bytes(self) -> int:
        """Length on disk."""
        blocks = self.blocks
        return blocks[0].size_bytes if len(blocks) == 1 else sum(b.size_bytes for b in blocks)


@dataclass(frozen=True)
class Placed:
    """A source's tensors, each in its place, and the names that have none.

    `dropped` belong to layers that only predict ahead; `unknown` are kept as they are, on request.
    """

    tensors: list[Planned]
    dropped: list[str]
    unknown: list[str]


def placed(
    found: Mapping[str, Entry], model: Model, family: Family, allow_unknown: bool = False
) -> Placed:
    """All tensors of a checkpoint in their places.

    Raises GrowpointError for tensors that the family does not know, lacks, or knows otherwise.
    """
    reader = _Reader(family, model.layers)
    known, dropped, unknown = [], [], []
    for name, entry in found.items():
        if reader.predicts(name):
            dropped.append(name)
        elif tensor := reader.known(name, entry):
            known.append(tensor)
        else:
            unknown.append(name)
    others = [reader.unknown(name, found[name]) for name in unknown] if allow_unknown else []
    strange = unknown if not allow_unknown else [t.name for t in others if not _inside(t, model)]
    if strange:
        raise _not_known(family, strange)
    _check_shapes(known, model, family)
    _check_complete(found, known, model)
    return Placed([*known, *others], dropped, unknown)


def _inside(tensor: Planned, model: Model) -> bool:
    return tensor.layer is None or tensor.layer < model.layers


def _not_known(family: Family, names: Sequence[str]) -> GrowpointError:
    return GrowpointError(
        f"{family.name} does not know {len(names)} of the checkpoint's tensors",
        [("tensors", _some(names))],
        f"add them to conf/family/{family.name}.yaml, if they belong there; or --allow-unknown,"
        " to copy them as they are",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


@dataclass(frozen=True)
class _Reader:
    """Reads names into places; what tensors have in common is made once."""

    family: Family
    layers: int
    kinds: dict[tuple[str, str], Kind] = field(default_factory=dict)
    shapes: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    @property
    def around(self) -> tuple[str, str]:
        """What stands before and after the number of a layer."""
        before, after = self.family.prefix.split("{layer}")
        return before, after

    def predicts(self, name: str) -> bool:
        if name.startswith(self.family.ahead):
            return True
        before, _ = self.around
        if not self.family.predicts or not name.startswith(before):
            return False
        layer = name[len(before) :].split(".", 1)[0]
        return layer.isdigit() and int(layer) >= self.layers

    def known(self, name: str, entry: Entry) -> Planned | None:
        for suffix in ("", *self.family.quantised):
            if not name.endswith(suffix):
                continue
            if place := families.place(self.family, name.removesuffix(suffix)):
                kind = self.kinds.get((place.template, suffix)) or self._kind(place, suffix)
                return self._planned(kind, name, entry, place.layer, place.expert)
        return None

    def unknown(self, name: str, entry: Entry) -> Planned:
        """A tensor without a place: outside of layers, or inside of one."""
        before, after = self.around
        found = re.match(rf"^{re.escape(before)}(\d+){re.escape(after)}", name)
        rest = name[found.end() :] if found else name
        kind = self.kinds.get((rest, "?"))
        if kind is None:
            head, left = (before, after + rest) if found else (name, "")
            kind = self.kinds[rest, "?"] = Kind("unknown", rest, (), "", head, left)
        return self._planned(kind, name, entry, int(found[1]) if found else None, None)

    def _kind(self, place: Place, suffix: str) -> Kind:
        axis = place.shape.index("experts") if "experts" in place.shape else None
        before, after = self.around
        left, _, right = place.template.partition("{expert}")
        head = before if place.layer is not None else place.template + suffix
        kind = Kind(
            place.section, place.template, place.shape, suffix, head, after + left, right + suffix,
            axis,
        )  # fmt: skip
        self.kinds[place.template, suffix] = kind
        return kind

    def _planned(
        self, kind: Kind, name: str, entry: Entry, layer: int | None, expert: int | None
    ) -> Planned:
        dtype, shape = sys.intern(entry.dtype), self.shapes.setdefault(entry.shape, entry.shape)
        count = 1 if kind.experts_axis is None else shape[kind.experts_axis]
        each = (entry.end - entry.start) // max(1, count)
        starts = range(entry.start, entry.start + each * count, each) if each else ()
        blocks = tuple(Stored(entry.file, at, at + each, dtype, name) for at in starts)
        return Planned(kind, dtype, shape, blocks, layer, expert)


def _check_shapes(known: Iterable[Planned], model: Model, family: Family) -> None:
    numbers = sizes(model, family)
    expected: dict[str, tuple[int, ...]] = {}
    for tensor in known:
        kind, axis = tensor.kind, tensor.kind.experts_axis
        if kind.template not in expected:
            expected[kind.template] = families.shape(kind.shape, numbers)
        shape = expected[kind.template]
        # Scales and packed numbers have shapes of their own.
        rows = axis is None or tensor.shape[axis : axis + 1] == (model.experts,)
        fits = rows if kind.suffix else tensor.shape == shape
        if not fits or (tensor.layer or 0) >= model.layers or (tensor.expert or 0) >= model.experts:
            raise GrowpointError(
                "a tensor of the checkpoint does not fit its config.json",
                [
                    ("tensor", tensor.name),
                    ("shape", list(tensor.shape)),
                    ("expected", list(shape)),
                    ("config", f"{model.layers} layers, {model.experts} experts"),
                ],
                "fetch or make the checkpoint again",
            )
        if axis is not None and prod(tensor.shape[:axis]) != 1:
            raise GrowpointError(
                f"{family.name} does not have the experts first in `{kind.template}`",
                [("shape", list(kind.shape))],
                f"put right conf/family/{family.name}.yaml: docs/families.md says how",
            )


def _check_complete(found: Iterable[str], known: Iterable[Planned], model: Model) -> None:
    suffixed = (tensor for tensor in known if tensor.kind.suffix)
    present = {*found, *(tensor.name.removesuffix(tensor.kind.suffix) for tensor in suffixed)}
    layouts = (tensors(model), tensors(model, stacked=True))
    missing = [[t.name for t in layout if t.name not in present] for layout in layouts]
    if all(missing):
        fewest = min(missing, key=len)
        raise GrowpointError(
            f"the checkpoint lacks {len(fewest)} tensors that its config.json asks for",
            [("tensors", _some(fewest))],
            "fetch or make the checkpoint again",
        )
