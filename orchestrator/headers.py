"""Headers of safetensors files: which tensors lie where, read and written without a tensor."""

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.errors import GrowpointError

# Bits of one element, by the names that safetensors headers use.
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
# The library that defines the format refuses larger headers.
MAX_HEADER_BYTES = 100_000_000


class DamagedError(GrowpointError):
    """A checkpoint's own files are not as they were: it must be fetched or made again."""


class Entry(NamedTuple):
    """One tensor in a safetensors file: its bytes are file[start:end]."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Described(NamedTuple):
    """What a header says of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def damaged(path: Path, says: str) -> DamagedError:
    """The user's error for a file of a checkpoint that cannot be used."""
    return DamagedError(
        "a file of the checkpoint is damaged",
        [("file", path), ("says", says)],
        "fetch or make the checkpoint again",
    )


def header(path: Path) -> dict[str, Entry]:
    """Tensors of one safetensors file. Raises GrowpointError unless the file is whole."""
    length, described = _described(path)
    try:
        found = {name: _entry(path, 8 + length, said) for name, said in described.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"its header cannot be read: {error}") from error
    _check_extent(path, 8 + length, path.stat().st_size, found)
    return found


def _described(path: Path) -> tuple[int, dict[str, Any]]:
    """Length of a file's header, and what it says of each tensor."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise damaged(path, f"{size} bytes are too few for its header, it is truncated")
            described = json.loads(file.read(length))
        if not isinstance(described, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, OSError) as error:
        raise damaged(path, f"its header cannot be read: {error}") from error
    described.pop("__metadata__", None)
    return length, described


def _entry(path: Path, origin: int, said: Mapping[str, Any]) -> Entry:
    start, end = said["data_offsets"]
    shape = tuple(int(size) for size in said["shape"])
    bits = prod(shape) * BITS[said["dtype"]]
    if end - start != -(-bits // 8):
        raise ValueError(f"{said['dtype']} {list(shape)} does not take {end - start} bytes")
    return Entry(path, said["dtype"], shape, origin + start, origin + end)


def _check_extent(path: Path, origin: int, size: int, found: Mapping[str, Entry]) -> None:
    position = origin
    for entry in sorted(found.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise damaged(path, f"its tensors leave a gap or overlap at byte {position}")
        position = entry.end
    if size != position:
        word = "truncated" if size < position else "followed by something else"
        raise damaged(path, f"{size} bytes instead of {position}, it is {word}")


def written(tensors: Iterable[Described]) -> bytes:
    """The head of a file that holds these tensors one after the other.

    Source: the safetensors format: eight bytes of length, then JSON, padded with blanks.
    """
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape, size_bytes in tensors:
        offsets = [position, position + size_bytes]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
