"""Checkpoint folders on disk: what is in them, whether they are whole, and how they appear."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.store import sync
from sweeps.errors import GrowpointError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MANIFEST = "manifest.json"

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


class Entry(NamedTuple):
    """One tensor in a safetensors file: its bytes are file[start:end]."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint. Raises GrowpointError if there is none or it is damaged."""
    if not (folder / CONFIG).is_file():
        raise GrowpointError(
            f"{folder} has no checkpoint",
            [("lacks", CONFIG), ("found", _found(folder))],
            "name a folder in Hugging Face layout: config.json beside *.safetensors",
        )
    return _object(folder / CONFIG)


def _found(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it is not a JSON object")
    return value


def damaged(path: Path, says: str) -> GrowpointError:
    """The user's error for a file of a checkpoint that cannot be used."""
    return GrowpointError(
        "a file of the checkpoint is damaged",
        [("file", path), ("says", says)],
        "fetch or make the checkpoint again",
    )


def entries(folder: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint by name, from the headers alone.

    One file or several with an index. Raises GrowpointError for files that are missing, truncated
    or contradict their header or the index.
    """
    found: dict[str, Entry] = {}
    for path in weight_files(folder):
        for name, entry in header(path).items():
            if name in found:
                raise damaged(path, f"{name} is in {found[name].file.name} as well")
            found[name] = entry
    absent = [name for name in _index(folder) if name not in found]
    if absent:
        raise damaged(folder / INDEX, f"no file holds {absent[0]} ({len(absent)} such tensors)")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint. Raises GrowpointError if one is missing."""
    names = sorted(set(_index(folder).values())) or [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        pickled = any(folder.glob("pytorch_model*.bin"))
        raise GrowpointError(
            f"{folder} has no checkpoint"
            if names == [SINGLE]
            else "a file of the checkpoint is missing",
            [("lacks", ", ".join(missing)), ("found", _found(folder))],
            "load it and save_pretrained: only safetensors are read, never pickles"
            if pickled
            else "fetch or make the checkpoint again",
        )
    return [folder / name for name in names]


def _index(folder: Path) -> Mapping[str, str]:
    path = folder / INDEX
    if not path.is_file():
        return {}
    names = _object(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise damaged(path, "it has no weight_map")
    outside = [name for name in names.values() if Path(str(name)).name != name]
    if outside:
        raise damaged(path, f"it points out of the folder: {outside[0]}")
    return names


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def seal(folder: Path) -> None:
    """Write manifest.json: bytes and SHA-256 of every file, sorted by name."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST
    )
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        hashes = pool.map(file_hash, [folder / name for name in names])
        files = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": found}
            for name, found in zip(names, hashes, strict=True)
        }
    text = json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n")


def verify(folder: Path, quick: bool = False) -> None:
    """Raise GrowpointError unless the checkpoint is whole.

    Configuration and headers are always checked. With a manifest so are sizes and, unless `quick`,
    hashes; a folder without one (a third party's) passes on its headers.
    """
    sealed = read_manifest(folder)
    for name, said in sealed.items():
        _check_size(folder / name, int(said["bytes"]))
    read_config(folder)
    entries(folder)
    if quick:
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        hashes = pool.map(file_hash, [folder / name for name in sealed])
        for name, found in zip(sealed, hashes, strict=True):
            _check_hash(folder / name, str(sealed[name]["sha256"]), found)


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Files by name as they were sealed; empty for a folder that never was."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    files = _object(path).get("files")
    if not isinstance(files, dict) or not all(
        isinstance(said, dict) and {"bytes", "sha256"} <= set(said) for said in files.values()
    ):
        raise damaged(path, "it does not list files with their bytes and sha256")
    return files


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise GrowpointError(
            "a file of the checkpoint is missing",
            [("file", path), ("sealed", f"{expected} bytes")],
            "fetch or make the checkpoint again",
        )
    size = path.stat().st_size
    if size != expected:
        word = "truncated" if size < expected else "longer than it was"
        raise damaged(path, f"{size} bytes instead of {expected}, it is {word}")


def _check_hash(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise GrowpointError(
            "a file of the checkpoint is not what was sealed",
            [("file", path), ("sealed", f"sha256 {expected}"), ("found", f"sha256 {found}")],
            "fetch or make the checkpoint again",
        )


def fingerprint(folder: Path) -> str:
    """SHA-256 that names a checkpoint's content: of its manifest, or of all files if not sealed."""
    if (folder / MANIFEST).is_file():
        return file_hash(folder / MANIFEST)
    whole = hashlib.sha256()
    for path in [folder / CONFIG, *weight_files(folder)]:
        whole.update(f"{file_hash(path)}  {path.name}\n".encode())
    return whole.hexdigest()


def publish(temporary: Path, folder: Path) -> None:
    """Make a finished folder appear under its name, at once and for good.

    Raises GrowpointError if something is there already.
    """
    refuse_existing(folder)
    for path in [*temporary.rglob("*"), temporary]:
        sync(path)
    temporary.rename(folder)
    sync(folder.parent)


def refuse_existing(folder: Path) -> None:
    """Raise GrowpointError if there is something at `folder`."""
    if folder.exists() or folder.is_symlink():
        raise GrowpointError(
            f"{folder} exists already",
            [("found", _found(folder))],
            "name a folder that does not exist",
        )
