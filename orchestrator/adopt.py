"""Adopting an existing checkpoint: a stage's checkpoint/ whose weights stay where they are.

Weights are cloned where the file system can (btrfs, XFS: a copy of its own that takes no space),
and are symbolic links to the source elsewhere: 14 GB are not copied to be read. Hard links would
outlive the source, but they change its inode's count, are refused for other people's files by
Linux's default (fs.protected_hardlinks), and do not cross file systems. Small files are copied. The
manifest seals what the links led to, so a source that changes or vanishes is an error wherever it
is read next, and adopting it again is too: its content is the stage's identity.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator import checkpoint
from orchestrator.store import sync, unwritable
from sweeps import hub, places
from sweeps.errors import GrowpointError
from sweeps.places import Folder, Place, Snapshot
from sweeps.stages import Adopted

PLACE: TypeAdapter[Folder | Snapshot] = TypeAdapter(Place)
# From linux/fs.h: make a file share the blocks of another.
FICLONE = 0x40049409

# Small files that go along, by their endings; what belongs to training or to a store does not.
ALONG = (".json", ".txt", ".model", ".jinja", ".tiktoken")
NOT_ALONG = (
    checkpoint.MANIFEST,
    "stage.json",
    "state.json",
    "record.json",
    "training.json",
    "optimizer.json",
    "trainer_state.json",
)


def adopt(adopted: Adopted, said: Mapping[str, Any], target: Path) -> None:
    """Make `target` the checkpoint that a plan adopts; `said` is what the plan knows of its place.

    Fetches a hub's snapshot unless it is cached. Raises GrowpointError if the checkpoint is not
    there, is not whole, or is no longer the one that was planned; then nothing is left behind.
    """
    place = PLACE.validate_python(said["place"])
    source = hub.fetch(place) if isinstance(place, Snapshot) else Path(place.path)
    if not source.is_dir():
        raise _gone(place)
    places.require_whole(source, place)
    with _appearing(target) as folder:
        _gather(source, folder)
        checkpoint.entries(folder)
        checkpoint.seal(folder)
        sealed = checkpoint.read_manifest(folder)
        hashes = {name: str(file["sha256"]) for name, file in sealed.items()}
        _require_planned(adopted, place, source, hashes)


def _gather(source: Path, folder: Path) -> None:
    weights = places.weight_names(source)
    for name in weights:
        _reference(source / name, folder / name)
    for path in sorted(source.iterdir()):
        small = path.suffix in ALONG and path.name not in (*NOT_ALONG, *weights)
        if small and path.is_file():
            shutil.copyfile(path, folder / path.name)


def _reference(source: Path, target: Path) -> None:
    """Clone a file, or link to it: `target` then has the bytes of `source` without a copy."""
    real = source.resolve()
    with real.open("rb") as origin, target.open("wb") as clone, contextlib.suppress(OSError):
        fcntl.ioctl(clone.fileno(), FICLONE, origin.fileno())
        return
    target.unlink()
    target.symlink_to(real)


def _require_planned(
    adopted: Adopted, place: Folder | Snapshot, source: Path, hashes: Mapping[str, str]
) -> None:
    """Hold what was read against what was planned."""
    if isinstance(place, Snapshot):
        # A commit names its files; the cache names large ones by the hash that the hub has of them.
        for name in places.weight_names(source):
            promised = (source / name).resolve().name
            if len(promised) == 64 and promised != hashes[name]:
                raise _damaged(place, name, promised, hashes[name])
        return
    names = (places.CONFIG, *places.weight_names(source))
    found = places.content_of({name: hashes[name] for name in names})
    if found != adopted.content:
        raise GrowpointError(
            "a checkpoint of the series has changed since the sweep was planned",
            [("checkpoint", place), ("planned", adopted.content), ("found", found)],
            "put the planned files back, or plan and launch again under another name=NEW",
        )


def _damaged(place: Snapshot, name: str, promised: str, found: str) -> GrowpointError:
    file = hub.cached(place) / name
    return GrowpointError(
        "a file of the hub's cache is not what the hub has",
        [("file", file), ("hub", f"sha256 {promised}"), ("found", f"sha256 {found}")],
        f"rm {file.resolve()} {file}, then launch again",
    )


def _gone(place: Folder | Snapshot) -> GrowpointError:
    return GrowpointError(
        "a checkpoint of the series is not where it was planned",
        [("checkpoint", place)],
        "put it back, or plan and launch again with series.folder=FOLDER",
    )


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name if all goes well, and vanishes otherwise."""
    checkpoint.refuse_existing(target)
    aside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        yield aside
        checkpoint.refuse_existing(target)
        # Not what links lead to: read-only file systems such as squashfs refuse to sync a file.
        for path in [*(path for path in aside.iterdir() if not path.is_symlink()), aside]:
            sync(path)
        aside.rename(target)
        sync(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
