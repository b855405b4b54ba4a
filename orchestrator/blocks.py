"""Blocks: where a stretch of a grown tensor comes from, and its bytes when they are computed.

Arithmetic loads NumPy when it is first done: a growth that only copies bytes stays small.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from sweeps.errors import GrowpointError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.numbers import Values
    from orchestrator.redrawn import Drawn, Redrawn

Data = bytes | bytearray
# Stored bytes, or arithmetic on blocks: with size_bytes, dtype, name, stored, and data().
Block: TypeAlias = "Stored | Noisy | Scaled | Drawn | Redrawn"

# The dtypes that arithmetic is done on; all others are copied as bytes only.
FLOATS = ("F16", "BF16", "F32", "F64")


def decode(data: Data, dtype: str) -> "Values":
    """Stored numbers in single precision (F64 stays as it is)."""
    from orchestrator import numbers

    return numbers.decode(data, dtype)


def encode(values: "Values", dtype: str) -> bytes:
    """Numbers as they are stored, rounded once, to nearest with ties to even."""
    from orchestrator import numbers

    return numbers.encode(values, dtype)


def normals(seed: int, key: str, count: int) -> "NDArray[np.float32]":
    """Standard normals that depend on (seed, key) alone: neither on order nor on other draws."""
    from orchestrator import numbers

    return numbers.normals(seed, key, count)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Bytes of a source tensor, unchanged."""

    file: Path
    start: int
    end: int
    dtype: str
    name: str

    @property
    def size_bytes(self) -> int:
        """Length of the block."""
        return self.end - self.start

    @property
    def stored(self) -> "Stored":
        """Itself."""
        return self

    def data(self) -> bytearray:
        """The block as it is on disk. Raises GrowpointError if the file has become shorter."""
        data = bytearray(self.size_bytes)
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            view = memoryview(data)
            while view:
                count = file.readinto(view)
                if not count:
                    raise shortened(self.file)
                view = view[count:]
        return data


def shortened(file: Path) -> GrowpointError:
    """The user's error for a source that somebody else changes."""
    return GrowpointError(
        "a file of the checkpoint became shorter while it was read",
        [("file", file)],
        "let nothing write there meanwhile, and repeat the command",
    )


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard deviation of the tensor that some blocks make up; computed once, when needed."""

    blocks: tuple["Block", ...]

    @cached_property
    def sigma(self) -> float:
        """Of 16 significant bits. Raises GrowpointError if some values are not finite."""
        from orchestrator import numbers

        parts = [numbers.sums(block.data(), block.dtype) for block in self.blocks]
        count, total, squares = (sum(column) for column in zip(*parts, strict=True))
        sigma = numbers.deviation(int(count), total, squares)
        # Squares of finite numbers in double precision may still be too large to add up.
        if sigma != sigma or sigma == float("inf"):
            raise GrowpointError(
                "a tensor of the checkpoint has values that are not finite",
                [("tensor", self.blocks[0].name)],
                "grow an earlier checkpoint of this run",
            )
        return sigma


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """What a block computed from another has in common with it: place, type and length."""

    of: "Block"

    @property
    def size_bytes(self) -> int:
        """Length of the block."""
        return self.of.size_bytes

    @property
    def dtype(self) -> str:
        """Type of the numbers."""
        return self.of.dtype

    @property
    def name(self) -> str:
        """The source tensor."""
        return self.of.name

    @property
    def stored(self) -> Stored:
        """The source's bytes."""
        return self.of.stored


@dataclass(frozen=True, slots=True, eq=False)
class Noisy(Copy):
    """A copy with normal noise of `amount` times its tensor's standard deviation added.

    Source: arXiv 2510.08008 (width growth). Added in single precision, rounded once.
    """

    amount: float
    spread: Spread
    seed: int
    key: str

    def data(self) -> bytearray:
        """The noisy copy."""
        from orchestrator import numbers

        scale = self.amount * self.spread.sigma
        data = bytearray_of(self.of.data())
        numbers.add_noise(data, self.dtype, scale, self.seed, self.key)
        return data


@dataclass(frozen=True, slots=True, eq=False)
class Scaled(Copy):
    """A copy times `by`."""

    by: float

    def data(self) -> Data:
        """The scaled copy; zeros for `by` = 0, whatever the type of the numbers."""
        if self.by == 0:
            return bytes(self.size_bytes)
        from orchestrator import numbers

        data = bytearray_of(self.of.data())
        numbers.multiply(data, self.dtype, self.by)
        return data


def bytearray_of(data: Data) -> bytearray:
    """The same bytes to be changed in place; not copied if they are free to be changed."""
    return data if isinstance(data, bytearray) else bytearray(data)
