"""A corpus whose preparation was ended: what is tokenized already is not tokenized again."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.store import read_json, write_json
from sweeps.errors import GrowpointError

logger = logging.getLogger(__name__)

JOURNAL = "unfinished.json"
NOTE_SECONDS = 30.0
PIECE_BYTES = 8 << 20


def note(aside: Path, files: Mapping[str, BinaryIO], said: Mapping[str, Any]) -> None:
    """Write how far the token files in `aside` are whole, once that is safe on disk."""
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    sizes = {name: file.tell() for name, file in files.items()}
    write_json(aside / JOURNAL, {**said, "sizes": sizes})


def taken_over(folder: Path, aside: Path, same: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the furthest earlier preparation of `folder` has noted, its files copied into `aside`.

    None where there is none whose note holds all of `same`. Copied, as whoever wrote them may live
    on: files only ever grow, so what is noted stays as it is.
    """
    noted = [(said, path) for path in leftovers(folder) if (said := _read(path, same))]
    for said, path in sorted(noted, key=lambda one: -int(one[0]["documents"])):
        try:
            for name, size in said["sizes"].items():
                _copy(path / name, aside / name, size)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(path / name, aside / name)
        except OSError as error:
            logger.warning("%s cannot be gone on from: %s", path, error)
            continue
        logger.info("%d documents were tokenized before", said["documents"])
        return said
    return None


def leftovers(folder: Path) -> list[Path]:
    """Folders in which `folder` is or was being prepared."""
    return [path for path in folder.parent.glob(f".{folder.name}.*") if path.is_dir()]


def _read(path: Path, same: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        said = read_json(path / JOURNAL)
    except (GrowpointError, ValueError):
        return None
    return said if said and all(said.get(key) == value for key, value in same.items()) else None


def _copy(source: Path, target: Path, size: int) -> None:
    """The first bytes of a file. Raises OSError if it is shorter."""
    with source.open("rb") as old, target.open("wb") as new:
        while size:
            piece = old.read(min(size, PIECE_BYTES))
            if not piece:
                raise OSError(f"{source} is shorter than was noted")
            new.write(piece)
            size -= len(piece)
