"""Eight-bit floats and the scales that go with them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import GrowpointError


def _e4m3() -> NDArray[np.float32]:
    """Bias 7, no infinities, all ones for NaN: arXiv 2209.05433, table 1."""
    bits = np.arange(256)
    sign, exponent, mantissa = np.where(bits & 128, -1.0, 1.0), (bits >> 3) & 15, bits & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    values = np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    return np.where(bits & 127 == 127, np.nan, sign * values).astype(np.float32)


def _e5m2() -> NDArray[np.float32]:
    """The upper half of a half-precision number."""
    return (np.arange(256, dtype="<u2") << 8).view("<f2").astype(np.float32)


TABLES: dict[str, Callable[[], NDArray[np.float32]]] = {
    "F8_E4M3": cache(_e4m3),
    "F8_E5M2": cache(_e5m2),
}


def decode(data: bytes, dtype: str) -> NDArray[np.float32]:
    """Stored bytes in single precision."""
    return TABLES[dtype]()[np.frombuffer(data, np.uint8)]


def factors(
    scales: NDArray[Any], first: int, last: int, shape: tuple[int, int], block: tuple[int, int]
) -> NDArray[Any]:
    """What rows `first` to `last` of a quantised matrix are to be multiplied with.

    `scales` has one number for the matrix, for each row, or for each block of `block` numbers.
    """
    if scales.size == 1:
        return scales.reshape(1, 1)
    rows, columns = np.arange(first, last), np.arange(shape[1])
    if scales.size == shape[0]:
        return scales.reshape(-1, 1)[rows]
    if scales.shape != (-(-shape[0] // block[0]), -(-shape[1] // block[1])):
        raise GrowpointError(
            "the scales of a quantised tensor are not understood",
            [("shape", list(shape)), ("scales", list(scales.shape)), ("block", list(block))],
            "save the checkpoint in bf16 first",
        )
    found: NDArray[Any] = scales[rows // block[0]][:, columns // block[1]]
    return found
