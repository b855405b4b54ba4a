"""A folder that is not there until it is whole, and whose finished files outlive a kill.

Beside the target `NAME` lies `.NAME.growing`: a claim (who works on it), a journal (which files are
finished, of which plan), `sketch` (heads to be checked), and `files`, which becomes the target by
one rename.
"""

import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import checkpoint, claim
from orchestrator.store import read_json, write_json
from orchestrator.stream import kept
from sweeps.errors import GrowpointError

JOURNAL = "journal.json"
SKETCH = "sketch"


@dataclass(frozen=True)
class Partial:
    """Files on their way to a target, and the hashes of those that are finished."""

    root: Path
    plan: str
    finished: dict[str, str]
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        """What becomes the target."""
        return self.root / "files"

    @property
    def sketch(self) -> Path:
        """Where its heads are held against the model class; a kill leaves it behind."""
        return self.root / SKETCH

    def add(self, name: str, sha256: str) -> None:
        """Remember a file that is safe on disk."""
        with self.lock:
            self.finished[name] = sha256
            try:
                write_json(self.root / JOURNAL, {"plan": self.plan, "finished": self.finished})
            except GrowpointError as error:
                # It speaks of a store; a disk is full here.
                raise error.__cause__ or error from None


def place(target: Path) -> Path:
    """Where the files of a target lie until it is whole."""
    return target.with_name(f".{target.name}.growing")


@contextlib.contextmanager
def growing(target: Path, plan: str) -> Iterator[Partial]:
    """Claim the place beside `target`, with the files that an earlier attempt finished.

    `plan` is a digest of all that decides the bytes; what another plan left is removed. After an
    error nothing stays; after a kill or an interrupt finished files do. Raises GrowpointError while
    somebody else works on the same target, or if it exists.
    """
    root = place(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear(root)
    with _claimed(root, target):
        try:
            checkpoint.refuse_existing(target)
            partial = _found(root, plan)
            yield partial
        except KeyboardInterrupt:
            if not _finished(root, plan):
                _remove(root)
            raise
        except BaseException:
            _remove(root)
            raise
        _remove(root)


def publish(partial: Partial, target: Path) -> None:
    """Give the finished folder its name, for good."""
    checkpoint.publish(partial.folder, target)


@contextlib.contextmanager
def _claimed(root: Path, target: Path) -> Iterator[None]:
    held = claim.take(root / "claim", "grow")
    if held is None:
        who = claim.holder(root / "claim") or {}
        raise GrowpointError(
            "another growth is writing the same checkpoint",
            [("target", target), ("host", who.get("host", "?")), ("process", who.get("pid", "?"))],
            "wait for it, or name another target: --to FOLDER",
        )
    with held:
        yield


def _finished(root: Path, plan: str) -> dict[str, str]:
    """Files and hashes in the journal, if it is that of this plan."""
    try:
        said: Mapping[str, object] = read_json(root / JOURNAL) or {}
    except GrowpointError:
        return {}
    names = said.get("finished")
    if said.get("plan") != plan or not isinstance(names, dict):
        return {}
    return {str(name): str(found) for name, found in names.items() if Path(name).name == name}


def _found(root: Path, plan: str) -> Partial:
    """What is finished and still has its hash stays; all else goes."""
    folder, finished = root / "files", _finished(root, plan)
    shutil.rmtree(root / SKETCH, ignore_errors=True)
    good = kept(folder, finished) if finished else []
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in good:
            _delete(path)
    folder.mkdir(exist_ok=True)
    return Partial(root, plan, {name: finished[name] for name in good})


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove(root: Path) -> None:
    """Out of everybody's way first: whoever claims next begins with a folder of their own."""
    aside = root.with_name(f"{root.name}.{os.getpid()}.{secrets.token_hex(3)}.removed")
    with contextlib.suppress(OSError):
        root.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _clear(root: Path) -> None:
    """What a kill left of a removal."""
    for path in root.parent.glob(f"{root.name}.*.removed"):
        shutil.rmtree(path, ignore_errors=True)


def finished_bytes(partial: Partial) -> int:
    """Bytes that need not be written again."""
    return sum((partial.folder / name).stat().st_size for name in partial.finished)


def summary(target: Path) -> str:
    """One line for somebody who interrupted: what stays, and how it goes on."""
    root = place(target)
    try:
        said = json.loads((root / JOURNAL).read_text())
        return f"{len(said['finished'])} finished files stay in {root}; the same command goes on"
    except (OSError, ValueError, KeyError, TypeError):
        return "nothing stays of it"
