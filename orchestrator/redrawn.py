"""Blocks of new numbers: experts drawn at random, whole or a share of their hidden dimension."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.blocks import Copy, bytearray_of, encode, normals
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.family import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Large blocks are drawn in pieces of this many numbers, each from a key of its own. It is part of
# what a seed means: another size would draw other numbers.
PIECE = 1 << 20


class Hidden(NamedTuple):
    """Where one expert's matrix holds its hidden dimension.

    `shape` is [rows, columns] and `axis` one of them, with `size` entries for each of `parts`:
    gate and up in one tensor are two, in turns if `alternating`, else the gate's half first.
    """

    shape: tuple[int, int]
    axis: int
    size: int
    parts: int = 1
    alternating: bool = False

    def part(self, number: int, chosen: "NDArray[Any]") -> "NDArray[Any]":
        """Indices along `axis` of some hidden dimensions in one part."""
        return chosen * self.parts + number if self.alternating else chosen + number * self.size


def hidden_of(shape: Shape, known: Mapping[str, int], alternating: bool) -> Hidden:
    """Read off one expert's shape in a family's file: `[2*expert_hidden, hidden]`.

    Raises GrowpointError for a shape that does not name `expert_hidden` along one axis.
    """
    axes = [axis for axis, words in enumerate(shape) if "expert_hidden" in re.split(r"\W+", words)]
    numbers = families.shape(shape, known)
    size = known["expert_hidden"]
    if len(axes) != 1 or len(shape) != 2 or numbers[axes[0]] % size:
        raise GrowpointError(
            "a family's shape does not say where an expert's hidden dimension lies",
            [("shape", f"[{', '.join(shape)}]")],
            "name it by expert_hidden, along one of two axes, or leave out redrawn",
        )
    parts = numbers[axes[0]] // size
    return Hidden((numbers[0], numbers[1]), axes[0], size, parts, alternating)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn(Copy):
    """New weights in place of a copy: normal around zero, as a model class draws its own.

    Source: arXiv 2510.08008 (the baseline of random experts).
    """

    deviation: float
    seed: int
    key: str

    def data(self) -> bytes:
        """The new numbers; nothing is read."""
        count = self.size_bytes // _item_bytes(self.dtype)
        pieces = range(0, count, PIECE)
        return b"".join(
            encode(_normals(self.seed, self.key, at, count, 0.0, self.deviation), self.dtype)
            for at in pieces
        )


@dataclass(frozen=True, slots=True, eq=False)
class Redrawn(Copy):
    """A copy with a share of its hidden dimensions drawn anew; all other numbers keep their bits.

    `owner` names the expert and chooses the dimensions, the same in gate, up, and down; `key` names
    the tensor and draws the numbers, normal with the mean and standard deviation of those that
    they replace (of gate and of up, where one tensor holds both). Source: arXiv 2502.19261,
    section 3 (diversity re-initialisation).
    """

    hidden: Hidden
    share: float
    seed: int
    owner: str
    key: str

    def data(self) -> bytearray:
        """The copy, in part redrawn. Raises GrowpointError if replaced values are not finite."""
        import numpy as np

        hidden, chosen = self.hidden, dimensions(self.seed, self.owner, self.hidden, self.share)
        data = bytearray_of(self.of.data())
        words = np.frombuffer(data, f"<u{_item_bytes(self.dtype)}").reshape(hidden.shape)
        for number in range(hidden.parts):
            at = hidden.part(number, chosen)
            index = (at,) if hidden.axis == 0 else (slice(None), at)
            old = words[index]
            new = self._anew(old.tobytes(), f"{self.key}:redrawn:{number}")
            words[index] = np.frombuffer(new, words.dtype).reshape(old.shape)
        return data

    def _anew(self, replaced: bytes, key: str) -> bytes:
        from orchestrator import numbers

        count, total, squares = numbers.sums(replaced, self.dtype)
        deviation = numbers.deviation(count, total, squares)
        if not isfinite(deviation):
            raise GrowpointError(
                "a tensor of the checkpoint has values that are not finite",
                [("tensor", self.name)],
                "grow an earlier checkpoint of this run",
            )
        # The last bits of a sum depend on the processor: to a thousandth of the deviation.
        grid = deviation / 1024
        mean = round(total / count / grid) * grid if deviation else total / count
        return b"".join(
            encode(_normals(self.seed, key, at, count, mean, deviation), self.dtype)
            for at in range(0, count, PIECE)
        )


def dimensions(seed: int, owner: str, hidden: Hidden, share: float) -> "NDArray[Any]":
    """The hidden dimensions of an expert that are redrawn, in rising order: at least one."""
    import numpy as np

    count = max(1, round(share * hidden.size))
    # Sorting random numbers, not a generator's `choice`, whose stream may change with NumPy.
    order = np.argsort(normals(seed, f"{owner}: hidden dimensions", hidden.size), kind="stable")
    return np.sort(order[:count])


def _normals(
    seed: int, key: str, start: int, count: int, mean: float, deviation: float
) -> "NDArray[Any]":
    import numpy as np

    values = normals(seed, f"{key}:{start}", min(PIECE, count - start))
    return values * np.float32(deviation) + np.float32(mean)


def _item_bytes(dtype: str) -> int:
    return {"F64": 8, "F32": 4}.get(dtype, 2)
