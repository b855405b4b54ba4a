"""Arithmetic on stored numbers, in chunks that fit a core's cache, and the noise of growth."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import cache
from math import fsum, isfinite, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
Data = bytes | bytearray
Change = Callable[[Values, int], None]

# Numbers worked on at a time. Temporaries of a whole tensor cost more than the arithmetic: with
# chunks of 32 to 256 thousand noise takes 3 ns a number, with whole tensors of 3 MB twice that.
CHUNK = 1 << 16
CELLS = 1 << 16
# Normals are multiples of this: it hides the last bits, in which mathematical libraries differ.
GRID = 2.0**-20
# The last bits of a sum depend on the order of summation, hence on the processor.
SIGMA_BITS = 16


class _Buffers(threading.local):
    """One set for each thread."""

    def __init__(self) -> None:
        self.bits = np.empty(CHUNK, np.uint32)
        self.rounded = np.empty(CHUNK, np.uint32)
        self.drawn = np.empty(CHUNK, np.float32)
        self.double = np.empty(CHUNK, np.float64)


_buffers = _Buffers()


def _from_bf16(words: NDArray[np.uint16]) -> Values:
    """In this thread's buffer."""
    bits = _buffers.bits[: words.size]
    np.copyto(bits, words)
    np.left_shift(bits, 16, out=bits)
    return bits.view(np.float32)


def _into_bf16(values: Values, words: NDArray[np.uint16]) -> None:
    # Half to even, then the upper half of each number. Values here are finite: `spread` sees to it.
    bits, rounded = values.view(np.uint32), _buffers.rounded[: values.size]
    np.right_shift(bits, 16, out=rounded)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, 0x7FFF, out=rounded)
    np.add(rounded, bits, out=rounded)
    words[:] = rounded.view("<u2")[1::2]


_STORED = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}


def _chunks(data: Data, dtype: str) -> Iterator[NDArray[Any]]:
    numbers = np.frombuffer(data, _STORED[dtype])
    for start in range(0, numbers.size, CHUNK):
        yield numbers[start : start + CHUNK]


def _decoded(chunk: NDArray[Any], dtype: str) -> Values:
    if dtype == "BF16":
        return _from_bf16(chunk)
    return chunk.astype(np.float32) if dtype == "F16" else chunk


def decode(data: Data, dtype: str) -> Values:
    """Stored numbers in single precision (F64 stays as it is)."""
    if dtype == "BF16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return _decoded(np.frombuffer(data, _STORED[dtype]), dtype)


def encode(values: Values, dtype: str) -> bytes:
    """Numbers as they are stored, rounded once, to nearest with ties to even."""
    if dtype != "BF16":
        return values.astype(_STORED[dtype]).tobytes()
    words = np.empty(values.size, "<u2")
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    for start in range(0, flat.size, CHUNK):
        _into_bf16(flat[start : start + CHUNK], words[start : start + CHUNK])
    return words.tobytes()


def change(data: bytearray, dtype: str, by: Change) -> None:
    """Let `by` change all numbers in place, a chunk of single precision at a time (F64: double).

    It is given the numbers and how many came before them.
    """
    position = 0
    for chunk in _chunks(data, dtype):
        values = _decoded(chunk, dtype)
        by(values, position)
        if dtype == "BF16":
            _into_bf16(values, chunk)
        elif dtype == "F16":
            chunk[:] = values
        position += chunk.size


def sums(data: Data, dtype: str) -> tuple[int, float, float]:
    """Count, sum, and sum of squares, in double precision."""
    count, parts, squares = 0, [], []
    for chunk in _chunks(data, dtype):
        double = _buffers.double[: chunk.size]
        np.copyto(double, _decoded(chunk, dtype))
        parts.append(float(double.sum()))
        # Not `dot`: a library for linear algebra would use threads of its own here.
        squares.append(float(np.einsum("i,i->", double, double)))
        count += chunk.size
    if not all(map(isfinite, squares)):
        return count, float("nan"), float("nan")
    return count, fsum(parts), fsum(squares)


def deviation(count: int, total: float, squares: float) -> float:
    """Standard deviation, rounded to 16 bits so that every processor finds the same."""
    if not count or not isfinite(squares):
        return float("nan") if count else 0.0
    variance = max(0.0, squares / count - (total / count) ** 2)
    mantissa, exponent = np.frexp(sqrt(variance))
    return float(np.ldexp(round(float(mantissa) * 2**SIGMA_BITS), int(exponent) - SIGMA_BITS))


def all_finite(data: Data, dtype: str) -> bool:
    """Whether there is neither an infinity nor a NaN, by the bits of the exponents."""
    exponents = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000)}
    word, mask = exponents.get(dtype, ("<u8", 0x7FF0000000000000))
    words = np.frombuffer(data, word)
    chunks = (words[start : start + CHUNK] for start in range(0, words.size, CHUNK))
    return not any(((chunk & mask) == mask).any() for chunk in chunks)


@cache
def _quantiles() -> NDArray[np.float32]:
    """Medians of 65,536 cells, equally probable under the normal distribution, of variance one.

    Symmetric, so that odd moments are zero; kurtosis 2.9995 instead of 3; the largest is 4.32.
    """
    normal = NormalDist()
    upper = [normal.inv_cdf((2 * cell + 1) / (2 * CELLS)) for cell in range(CELLS // 2, CELLS)]
    scale = sqrt(fsum(value * value for value in upper) / len(upper))
    rounded = np.array([round(value / scale / GRID) * GRID for value in upper], np.float32)
    return np.concatenate([-rounded[::-1], rounded])


class _Draw:
    """A stream of normals that depends on (seed, key) alone, times a scale.

    Sixteen random bits choose a cell of `_quantiles`. The bits are raw words of SFC64, whose stream
    NumPy keeps for ever (that of its own normals it does not), seeded by sha256("seed:key").
    """

    def __init__(self, seed: int, key: str, scale: float = 1.0) -> None:
        digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
        self.bits = np.random.SFC64(int.from_bytes(digest, "little"))
        self.table = _quantiles() if scale == 1 else _quantiles() * np.float32(scale)

    def fill(self, out: NDArray[np.float32]) -> None:
        """The next numbers; four at a time, so only the last piece may have another length."""
        words = self.bits.random_raw(-(-out.size // 4)).view("<u2")[: out.size]
        # Every word is an index; `clip` spares numpy a check and a copy.
        np.take(self.table, words, out=out, mode="clip")


def normals(seed: int, key: str, count: int) -> NDArray[np.float32]:
    """Standard normals that depend on (seed, key) alone: neither on order nor on other draws."""
    drawn, draw = np.empty(count, np.float32), _Draw(seed, key)
    for start in range(0, count, CHUNK):
        draw.fill(drawn[start : start + CHUNK])
    return drawn


def add_noise(data: bytearray, dtype: str, scale: float, seed: int, key: str) -> None:
    """Add `scale` times `normals(seed, key, ...)` in single precision, and round once."""
    draw = _Draw(seed, key, scale)

    def add(values: Values, _: int) -> None:
        drawn = _buffers.drawn[: values.size]
        draw.fill(drawn)
        np.add(values, drawn, out=values)

    change(data, dtype, add)


def multiply(data: bytearray, dtype: str, by: float) -> None:
    """Multiply in single precision, and round once."""

    def scale(values: Values, _: int) -> None:
        np.multiply(values, np.float32(by), out=values)

    change(data, dtype, scale)
