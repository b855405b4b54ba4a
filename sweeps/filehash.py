"""SHA-256 of files; those of large ones are remembered, as nobody reads a terabyte to plan."""

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from sweeps.errors import GrowpointError

# Smaller files are read faster than a memory of them is kept (about 1 GB/s).
REMEMBERED_BYTES = 64_000_000


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes. Raises GrowpointError if it cannot be read.

    A large file that has kept its path, inode, size and time of change is not read again.
    """
    try:
        known = path.stat()
        if known.st_size < REMEMBERED_BYTES:
            return _read(path)
        mark = [known.st_ino, known.st_size, known.st_mtime_ns]
        return _remembered(path.resolve(), mark)
    except OSError as error:
        raise GrowpointError(
            "a file of the corpus cannot be read", [("file", path), ("says", error.strerror)]
        ) from error


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered(path: Path, mark: list[int]) -> str:
    memory = _load()
    if memory.get(str(path), {}).get("mark") == mark:
        return str(memory[str(path)]["sha256"])
    found = _read(path)
    # Without a home to write to, the file is read again next time.
    with contextlib.suppress(OSError):
        _save({**_load(), str(path): {"mark": mark, "sha256": found}})
    return found


def _file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "growpoint" / "hashes.json"


def _load() -> dict[str, Any]:
    try:
        memory = json.loads(_file().read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _save(memory: dict[str, Any]) -> None:
    _file().parent.mkdir(parents=True, exist_ok=True)
    aside = _file().with_name(f".hashes.{os.getpid()}.{secrets.token_hex(4)}")
    aside.write_text(json.dumps(memory, indent=1))
    aside.replace(_file())
