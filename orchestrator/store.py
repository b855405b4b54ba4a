"""The store: what was asked, what came out, and who works on it. Files are the truth."""

import contextlib
import errno
import json
import os
import secrets
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sweeps import stages
from sweeps.errors import GrowpointError
from sweeps.stages import Stage, Train, passed_until, phase_key

VERSION = 1
MARK = "growpoint.json"
# Each file waits twice for the disk: one after the other took 3.2 ms each, eight at once 0.5 ms.
WRITERS = 8


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder.

    Raises GrowpointError when the disk is full or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, last through a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> GrowpointError:
    """The user's error for a store that is full or cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    problem = "the store is full" if full else "the store cannot be written"
    return GrowpointError(
        problem,
        [("path", path), ("says", error.strerror or error)],
        "free some space and repeat the command" if full else "store=FOLDER that you may write to",
    )


def write_json(path: Path, value: object) -> None:
    """Write readable JSON atomically."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_rows(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, each entry's own entries on a line each: it takes a fifth as long."""
    text = ",\n".join(f"{_json(key)}: {_rows(entries)}" for key, entries in value.items())
    write_atomic(path, f"{{\n{text}\n}}\n".encode())


def _rows(entries: object) -> str:
    if isinstance(entries, dict) and entries:
        rows = (f" {_json(key)}: {_json(row)}" for key, row in entries.items())
        return "{\n" + ",\n".join(rows) + "\n}"
    if isinstance(entries, list) and entries:
        return "[\n" + ",\n".join(f" {_json(row)}" for row in entries) + "\n]"
    return _json(entries)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, None without a file. Raises GrowpointError if damaged."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise GrowpointError(
            "a file of the store cannot be read",
            [("file", path), ("says", error)],
            f"move it away, and repeat the command: mv {path} {path}.damaged",
        ) from error
    if not isinstance(value, dict):
        raise GrowpointError(
            "a file of the store is not an object", [("file", path)], f"mv {path} {path}.damaged"
        )
    return value


class Store:
    """A folder with runs/, plans/ and data/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runs = str(root / "runs")

    def open(self) -> "Store":
        """Create what is missing. Raises GrowpointError for a newer or unwritable store."""
        self.check()
        if not (self.root / "runs" / MARK).exists():
            write_json(self.root / "runs" / MARK, {"version": VERSION})
        try:
            for name in ("plans", "data"):
                (self.root / name).mkdir(exist_ok=True)
            if not os.access(self.root / "runs", os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise unwritable(self.root, error) from error
        return self

    def check(self) -> "Store":
        """Refuse a store that a newer growpoint has written."""
        mark = read_json(self.root / "runs" / MARK) or {"version": VERSION}
        if int(mark["version"]) > VERSION:
            raise GrowpointError(
                "the store was written by a newer growpoint",
                [("store", self.root), ("version", mark["version"]), ("known", f"up to {VERSION}")],
                "update growpoint, or give another store=FOLDER",
            )
        return self

    def run(self, stage_id: str) -> Path:
        """Folder of a stage."""
        return self.root / "runs" / stage_id

    def checkpoint(self, stage_id: str) -> Path:
        """Folder of the checkpoint that a stage leaves."""
        return self.run(stage_id) / "checkpoint"

    def corpus(self, corpus_id: str) -> Path:
        """Folder of a corpus's tokens."""
        return self.root / "data" / corpus_id

    def plan_folder(self, name: str) -> Path:
        """Folder of a sweep's plan and results."""
        return self.root / "plans" / name

    def plan(self, name: str) -> dict[str, Any]:
        """plan.json of a sweep. Raises GrowpointError if it was never launched."""
        found = read_json(self.plan_folder(name) / "plan.json")
        if found is None:
            there = sorted(path.parent.name for path in self.root.glob("plans/*/plan.json"))
            raise GrowpointError(
                f"sweep `{name}` was not launched in this store",
                [("store", self.root.resolve()), ("launched", ", ".join(there) or "none")],
                f"growpoint launch {name}",
            )
        return found

    def done(self, stage_id: str) -> bool:
        """Whether a stage is finished: its record is there."""
        # A plan of 10,000 cells asks for 20,000 stages: a Path would take ten times as long.
        return os.path.exists(f"{self._runs}/{stage_id}/record.json")  # noqa: PTH110

    def record(self, stage_id: str) -> dict[str, Any] | None:
        """What came out of a stage; None while it is unfinished."""
        return read_json(self.run(stage_id) / "record.json")

    def finish(self, stage_id: str, record: Mapping[str, Any]) -> None:
        """Write the record, by whose appearance the stage is done."""
        write_json(self.run(stage_id) / "record.json", record)

    def state(self, stage_id: str) -> dict[str, Any]:
        """The last state a job wrote: {state, ...}; `waiting` before any."""
        if not os.path.exists(f"{self._runs}/{stage_id}/state.json"):  # noqa: PTH110
            return {"state": "waiting"}
        return read_json(self.run(stage_id) / "state.json") or {"state": "waiting"}

    def set_state(self, stage_id: str, state: str, **more: object) -> None:
        """Write state.json."""
        write_json(self.run(stage_id) / "state.json", {"state": state, **more})

    def ask(self, stage: Stage) -> Path:
        """The stage's folder, with stage.json written as its lineage asks, and those before it."""
        self.ask_all([stage])
        return self.run(stage.id)

    def ask_all(self, asked: Iterable[Stage]) -> None:
        """Write the stage.json of stages, and of those before them, where it is missing."""
        lineages = {each.id: each for stage in asked for each in stage.lineage}
        paths = {stage_id: self.run(stage_id) / "stage.json" for stage_id in lineages}
        missing = [stage_id for stage_id, path in paths.items() if not path.exists()]
        with ThreadPoolExecutor(WRITERS) as pool:
            writing = pool.map(lambda i: write_atomic(paths[i], lineages[i].text.encode()), missing)
            # The first that fails ends it here.
            for _ in writing:
                pass

    def stage(self, stage_id: str) -> Stage:
        """The very stage that a folder was made for, following its lineage from file to file."""
        path = self.run(stage_id) / "stage.json"
        try:
            text = path.read_text()
        except OSError as error:
            raise GrowpointError(
                f"there is no stage `{stage_id}`",
                [("store", self.root.resolve())],
                "growpoint status SWEEP",
            ) from error
        stage = stages.build(text, self.stage)
        if stage.text != text or stage.id != stage_id:
            raise GrowpointError(
                "a stage.json is not what its folder's name says",
                [("file", path), ("content", stage.id)],
                f"move the folder away: mv {path.parent} {path.parent}.damaged",
            )
        return stage

    def find(self, prefix: str) -> str:
        """The one stage id that begins with `prefix` (with or without its verb)."""
        runs = self.root / "runs"
        names = sorted(path.parent.name for path in runs.glob("*/stage.json"))
        found = [n for n in names if n.startswith(prefix) or n.partition("-")[2].startswith(prefix)]
        if prefix in names:
            return prefix
        if not found:
            raise GrowpointError(
                f"no stage begins with `{prefix}`",
                [("store", self.root.resolve()), ("stages", len(names))],
                f"ls {runs}",
            )
        if len(found) > 1:
            raise GrowpointError(
                f"`{prefix}` is short for {len(found)} stages",
                [("found", ", ".join(found[:6]) + (", ..." if len(found) > 6 else ""))],
                "give one more digit",
            )
        return found[0]

    def metrics(self, stage_id: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a line that a kill cut short is left out."""
        return list(self._metrics(stage_id))

    def _metrics(self, stage_id: str) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            for line in (self.run(stage_id) / "metrics.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)


def phases(store: Store) -> dict[str, list[int]]:
    """Lengths in tokens of finished open train stages, ascending, by `phase_key`.

    A damaged stage.json is left out: it may belong to a sweep that nobody asks about.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for path in store.root.glob("runs/train-*/stage.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            text = path.read_text()
            do = json.loads(text)["do"]
            if not do.get("ends") and store.done(path.parent.name):
                found[phase_key(text)].append(int(do["tokens"]))
    return {key: sorted(lengths) for key, lengths in found.items()}


def beginnings(store: Store, stage: Stage, known: Mapping[str, list[int]]) -> Iterator[Stage]:
    """Finished shorter phases that this one passes through, longest first; `known`: `phases`."""
    if not isinstance(stage.do, Train):
        return
    lengths = known.get(phase_key(stage.text), [])
    for tokens in reversed(lengths[: bisect_right(lengths, passed_until(stage.do))]):
        shorter = stage.do.model_copy(update={"tokens": tokens, "ends": False})
        begun = Stage(shorter, stage.after)
        if store.done(begun.id):
            yield begun
