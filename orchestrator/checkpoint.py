"""Checkpoint folders on disk: what is in them, whether they are whole, and how they appear."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.headers import BITS as BITS
from orchestrator.headers import DamagedError, Entry, damaged, header
from orchestrator.store import sync
from sweeps.errors import GrowpointError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MANIFEST = "manifest.json"
# Large enough for the system's calls, small enough for a core's cache.
READ_BYTES = 1 << 18


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint. Raises GrowpointError if there is none or it is damaged."""
    if not (folder / CONFIG).is_file():
        raise DamagedError(
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
        raise DamagedError(
            f"{folder} has no checkpoint"
            if names == [SINGLE]
            else "a file of the checkpoint is missing",
            [("lacks", ", ".join(missing)), ("found", _found(folder))],
            _conversion(folder) if pickled else "fetch or make the checkpoint again",
        )
    return [folder / name for name in names]


def _conversion(folder: Path) -> str:
    """Pickles are never read here, since they may run code; transformers does it with care."""
    source = folder.resolve()
    target = source.with_name(f"{source.name}-safetensors")
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M; "
        "M.from_pretrained(sys.argv[1], dtype='auto').save_pretrained(sys.argv[2])"
    )
    convert = shlex.join(["python", "-c", code, str(source), str(target)])
    return f"{convert} && cp -n {shlex.quote(str(source))}/*token* {shlex.quote(str(target))}"


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


def file_hash(path: Path, stop: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 of a file's bytes, in hex; of those read so far if `stop` turns true."""
    whole, buffer = hashlib.sha256(), bytearray(READ_BYTES)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while (count := file.readinto(buffer)) and not stop():
                whole.update(view[:count])
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    return whole.hexdigest()


def _hashes(paths: Iterable[Path], stop: Callable[[], bool] = lambda: False) -> list[str]:
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(lambda path: file_hash(path, stop), paths))


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write manifest.json: bytes and SHA-256 of every file, sorted by name.

    `known` are hashes by name that were taken while the files were written.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST
    )
    found = dict(known or {})
    others = [name for name in names if name not in found]
    found |= zip(others, _hashes(folder / name for name in others), strict=True)
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": found[name]} for name in names
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
    if not quick and sealed:
        fingerprint(folder)


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
        raise DamagedError(
            "a file of the checkpoint is missing",
            [("file", path), ("sealed", f"{expected} bytes")],
            "fetch or make the checkpoint again",
        )
    size = path.stat().st_size
    if size != expected:
        word = "truncated" if size < expected else "longer than it was"
        raise damaged(path, f"{size} bytes instead of {expected}, it is {word}")


def fingerprint(folder: Path, stop: Callable[[], bool] = lambda: False) -> str:
    """SHA-256 that names a checkpoint's content: of its manifest, or of all files if not sealed.

    Every file is read once. Raises GrowpointError if one is not what was sealed.
    """
    sealed = read_manifest(folder)
    paths = [folder / name for name in sealed] or [folder / CONFIG, *weight_files(folder)]
    hashes = _hashes(paths, stop)
    if stop():
        return ""
    if not sealed:
        lines = (f"{found}  {path.name}\n" for path, found in zip(paths, hashes, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    for path, said, found in zip(paths, sealed.values(), hashes, strict=True):
        if found != said["sha256"]:
            raise DamagedError(
                "a file of the checkpoint is not what was sealed",
                [
                    ("file", path),
                    ("sealed", f"sha256 {said['sha256']}"),
                    ("found", f"sha256 {found}"),
                ],
                "fetch or make the checkpoint again",
            )
    return file_hash(folder / MANIFEST)


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
