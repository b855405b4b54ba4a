"""Slices: where each matrix of a checkpoint lies on disk, whichever layout holds its experts."""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.blocks import FLOATS, decode, shortened
from orchestrator.headers import BITS, Entry
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Family, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Numbers in memory at once: 8 MB as they are squared, whatever the size of a tensor.
PIECE = 1 << 20


class Key(NamedTuple):
    """Which slice: a tensor by its family's name, its layer, and the expert that owns it."""

    template: str
    layer: int | None
    expert: int | None


class Slice(NamedTuple):
    """One expert's part of a tensor, or a tensor that is of no expert: file[start:end]."""

    name: str
    place: Place
    file: Path
    dtype: str
    start: int
    end: int
    shape: tuple[int, ...]
    row: int | None = None

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def expressions(self) -> tuple[str, ...]:
        """Its shape in the family's words."""
        return tuple(word for word in self.place.shape if word != "experts")

    @property
    def group(self) -> str:
        """The group of parameters it belongs to."""
        return group(self.place)


GROUPS = (
    "experts",
    "shared",
    "dense",
    "router",
    "attention",
    "norms",
    "vectors",
    "embedding",
    "head",
)
_SECTIONS = {
    "expert": "experts",
    "sparse": "shared",
    "dense": "dense",
    "router": "router",
    "layer": "attention",
    "outside": "embedding",
    "embedding": "embedding",
    "head": "head",
}


def group(place: Place) -> str:
    """`norms` for their weights, `vectors` for biases and gates of one row, else by section."""
    own = tuple(word for word in place.shape if word != "experts")
    router = place.section == "router" and len(place.shape) == 2
    if len(own) >= 2 and own[0] != "1":
        return _SECTIONS[place.section]
    if router:
        return "router"
    return "norms" if "norm" in place.template else "vectors"


def slices(found: Mapping[str, Entry], family: Family) -> tuple[dict[Key, Slice], list[str]]:
    """All slices of a checkpoint, and the names of tensors that the family does not know."""
    made: dict[Key, Slice] = {}
    unknown = []
    for name, entry in found.items():
        place = families.place(family, name)
        if place is None:
            if not _is_scale(name, found, family):
                unknown.append(name)
            continue
        for index, each in enumerate(_split(name, entry, place)):
            expert = index if "experts" in place.shape else place.expert
            made[Key(place.template, place.layer, expert)] = each
    return made, unknown


def _is_scale(name: str, found: Mapping[str, Entry], family: Family) -> bool:
    """Whether it holds the scales of another tensor. Raises GrowpointError for packed numbers."""
    for suffix in family.quantised:
        of = name.removesuffix(suffix)
        if of != name and of in found:
            return True
        if of != name and families.place(family, of):
            raise GrowpointError(
                "packed four-bit numbers cannot be read",
                [("tensor", name), ("dtype", found[name].dtype)],
                "save the checkpoint in bf16 first",
            )
    return False


def _split(name: str, entry: Entry, place: Place) -> list[Slice]:
    if "experts" not in place.shape or not entry.shape:
        return [Slice(name, place, entry.file, entry.dtype, entry.start, entry.end, entry.shape)]
    count, inner = entry.shape[0], entry.shape[1:]
    each = (entry.end - entry.start) // max(1, count)
    return [
        Slice(f"{name}[{row}]", place, entry.file, entry.dtype, start, start + each, inner, row)
        for row in range(count)
        for start in (entry.start + row * each,)
    ]


def read(piece: Slice, first: int, last: int) -> "NDArray[Any]":
    """Numbers `first` to `last` of a slice, one-dimensional, in at least single precision.

    Raises GrowpointError for a type that has no numbers of its own, and for a file cut short.
    """
    size = BITS[piece.dtype] // 8
    with piece.file.open("rb") as file:
        file.seek(piece.start + first * size)
        data = file.read((last - first) * size)
    if len(data) != (last - first) * size:
        raise shortened(piece.file)
    return decoded(data, piece)


def decoded(data: bytes, piece: Slice) -> "NDArray[Any]":
    """Stored bytes as numbers; eight-bit floats without their scales."""
    from orchestrator import eightbit

    if piece.dtype in FLOATS:
        return decode(data, piece.dtype)
    if piece.dtype in eightbit.TABLES:
        return eightbit.decode(data, piece.dtype)
    raise GrowpointError(
        f"numbers of type {piece.dtype} cannot be read",
        [("tensor", piece.name), ("read", ", ".join([*FLOATS, *eightbit.TABLES]))],
        "save the checkpoint in bf16 first",
    )
