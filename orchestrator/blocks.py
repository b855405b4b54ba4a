"""Blocks: where a stretch of a grown tensor comes from, and its bytes when they are computed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import GrowpointError

Values = NDArray[np.floating[Any]]

# The dtypes that arithmetic is done on; all others are copied as bytes only.
FLOATS = ("F16", "BF16", "F32", "F64")


def _decode_bf16(data: bytes) -> Values:
    bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return bits.view(np.float32)


def _encode_bf16(values: Values) -> bytes:
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    # Half to even, and then the upper half of each number: in place this is 15 times faster than
    # as one expression. Values here are finite (Spread sees to it).
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    return rounded.astype("<u4", copy=False).view("<u2")[1::2].tobytes()


_DECODE: dict[str, Callable[[bytes], Values]] = {
    "BF16": _decode_bf16,
    "F16": lambda data: np.frombuffer(data, "<f2").astype(np.float32),
    "F32": lambda data: np.frombuffer(data, "<f4"),
    "F64": lambda data: np.frombuffer(data, "<f8"),
}
_ENCODE: dict[str, Callable[[Values], bytes]] = {
    "BF16": _encode_bf16,
    "F16": lambda values: values.astype("<f2").tobytes(),
    "F32": lambda values: values.astype("<f4").tobytes(),
    "F64": lambda values: values.astype("<f8").tobytes(),
}


def decode(data: bytes, dtype: str) -> Values:
    """Stored numbers in single precision (F64 stays as it is)."""
    return _DECODE[dtype](data)


def encode(values: Values, dtype: str) -> bytes:
    """Numbers as they are stored, rounded once, to nearest with ties to even."""
    return _ENCODE[dtype](values)


def normals(seed: int, key: str, count: int) -> NDArray[np.float32]:
    """Standard normals that depend on (seed, key) alone: neither on order nor on other draws.

    NumPy's ziggurat on a Philox counter whose key is the first 128 bits of sha256("seed:key").
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return generator.standard_normal(count, dtype=np.float32)


@dataclass(frozen=True, eq=False)
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

    def data(self) -> bytes:
        """The block as it is on disk. Raises GrowpointError if the file has become shorter."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size_bytes)
        if len(data) != self.size_bytes:
            raise GrowpointError(
                "a file of the checkpoint became shorter while it was read",
                [("file", self.file)],
                "let nothing write there meanwhile, and repeat the command",
            )
        return data


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard deviation of the tensor that some blocks make up; computed once, when needed."""

    blocks: tuple["Block", ...]

    @cached_property
    def sigma(self) -> float:
        """In double precision. Raises GrowpointError if some values are not finite."""
        parts = [decode(block.data(), block.dtype) for block in self.blocks]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        sigma = float(np.std(values, dtype=np.float64))
        if not np.isfinite(sigma):
            raise GrowpointError(
                "a tensor of the checkpoint has values that are not finite",
                [("tensor", self.blocks[0].name)],
                "grow an earlier checkpoint of this run",
            )
        return sigma


@dataclass(frozen=True, eq=False)
class Noisy:
    """A copy with normal noise of `amount` times its tensor's standard deviation added.

    Source: arXiv 2510.08008 (width growth). Added in single precision, rounded once.
    """

    of: "Block"
    amount: float
    spread: Spread
    seed: int
    key: str

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

    def data(self) -> bytes:
        """The noisy copy."""
        values = decode(self.of.data(), self.dtype)
        scale = np.float32(self.amount * self.spread.sigma)
        return encode(values + scale * normals(self.seed, self.key, values.size), self.dtype)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A copy times `by`."""

    of: "Block"
    by: float

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

    def data(self) -> bytes:
        """The scaled copy; zeros for `by` = 0, whatever the type of the numbers."""
        if self.by == 0:
            return bytes(self.size_bytes)
        return encode(decode(self.of.data(), self.dtype) * np.float32(self.by), self.dtype)


Block = Stored | Noisy | Scaled
