"""Claims: who works on what, without locks, on any file system that creates files atomically.

A claim is a file `NAME.<generation>`, made by exclusive creation. The highest generation holds.
Whoever finds the holder dead creates the next generation: of several who try, one succeeds.
Generations are never used twice, so that nobody takes over from somebody who has let go already.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

HEARTBEAT_SECONDS = 5.0
# NFS caches attributes for up to 60 s by default; a holder is given up for dead well after that.
STALE_SECONDS = 150.0


@dataclass
class Claim:
    """A claim that is held; a thread touches its file until it is released."""

    path: Path
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Claim":
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(f"{self.path}.released")
        for old in _generations(self.path.with_suffix(""))[:-1]:
            with contextlib.suppress(FileNotFoundError):
                old[1].unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # One failed touch (a stale NFS handle, say) must not end the heartbeat.
            with contextlib.suppress(OSError):
                os.utime(self.path)

    @property
    def lost(self) -> bool:
        """Whether somebody has taken over, having given this holder up for dead."""
        newest = _generations(self.path.with_suffix(""))
        return bool(newest) and newest[-1][1] != self.path


def take(name: Path, note: str = "") -> Claim | None:
    """The claim called `name`, or None while somebody alive holds it."""
    name.parent.mkdir(parents=True, exist_ok=True)
    generations = _generations(name)
    newest = generations[-1] if generations else (-1, name)
    held = bool(generations) and not newest[1].name.endswith(".released")
    if held and not _dead(newest[1]) and not _earlier_run(newest[1], note):
        return None
    path = name.with_name(f"{name.name}.{newest[0] + 1}")
    # Content must be there from the first moment: written aside, then linked into place.
    aside = name.with_name(
        f".{name.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    )
    aside.write_text(json.dumps(_myself(note)))
    try:
        os.link(aside, path)
    except FileExistsError:
        return None
    finally:
        aside.unlink()
    # The list above may be old by now: this very generation may have come and gone (released).
    if _generations(name)[-1] != (newest[0] + 1, path):
        path.unlink(missing_ok=True)
        return None
    return Claim(path)


def holder(name: Path) -> dict[str, Any] | None:
    """Who holds the claim now: host, pid, since, note. None if nobody alive does."""
    generations = _generations(name)
    if not generations or generations[-1][1].name.endswith(".released"):
        return None
    path = generations[-1][1]
    return None if _dead(path) else _read(path)


def let_go(name: Path, note: str) -> None:
    """End the claim of a holder with this note, on word from elsewhere that it is gone.

    Should it live on after all, it finds its claim lost.
    """
    path = (_generations(name) or [(-1, name)])[-1][1]
    if not path.name.endswith(".released") and _read(path).get("note") == note:
        with contextlib.suppress(OSError):
            path.rename(f"{path}.released")


def wait(
    name: Path, note: str, stop: Callable[[], bool], poll_seconds: float = 0.2
) -> Claim | None:
    """The claim, waiting for its holder as long as need be; None if `stop` turns true before."""
    while not stop():
        claim = take(name, note)
        if claim:
            return claim
        time.sleep(poll_seconds)
    return None


def _generations(name: Path) -> list[tuple[int, Path]]:
    """Generations in order; of one that is both, the released one comes last."""
    found = []
    for path in _listed(name):
        number = path.name.removeprefix(f"{name.name}.").removesuffix(".released")
        if number.isdigit():
            found.append((int(number), path))
    return sorted(found)


def _listed(name: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from (path for path in name.parent.iterdir() if path.name.startswith(f"{name.name}."))


def _myself(note: str) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.time(),
        "note": note,
    }


def _boot() -> str:
    """Identity of this running kernel and process namespace: pids mean something only within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """Start time of a process, which tells a reused pid apart; "" if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _dead(path: Path) -> bool:
    """Whether the holder is gone: its process on this machine, or its heartbeat elsewhere."""
    content = _read(path)
    if content.get("boot") == _boot():
        return _started(int(content["pid"])) != content["started"]
    try:
        return _now(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True


def _earlier_run(path: Path, note: str) -> bool:
    """Whether the holder is an earlier run of the SLURM job that asks, on another machine.

    SLURM runs a job again only when it has given up its node. Should that node live on, its
    process finds the claim lost, and whatever it writes meanwhile is the same bits.
    """
    content = _read(path)
    slurm_job = note.replace("_", "").isdigit()
    return slurm_job and content.get("note") == note and content.get("boot") != _boot()


def _now(folder: Path) -> float:
    """The file system's own clock: hosts disagree, and so may a file server."""
    probe = folder / f".clock.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        # Somebody who may only read, or a full disk: this host's clock must do.
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
