"""Growing a checkpoint on disk: planned from headers, then streamed, never loaded as a model."""

import hashlib
import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import conf
from orchestrator import card, checkpoint, growth_check, stream
from orchestrator.along import copy_along
from orchestrator.disk import require_space, written_to
from orchestrator.grow_config import grown_config
from orchestrator.grow_plan import Plan, initializer_range, plan
from orchestrator.growth_report import GrowthReport
from orchestrator.partial import Partial, finished_bytes, growing, publish, summary
from orchestrator.shards import SHARD_BYTES, Shard, shards, write_index
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, expert_map, grown, layer_map
from sweeps.model import Model, from_config
from sweeps.schema import asked

# Raised when the same arguments come to mean other bytes: what a kill left is then begun anew.
BYTES_VERSION = 2

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How growth goes about it; none of these changes a tensor.

    `check` holds the result against its model class, `check_values` looks for values that are not
    finite, `workers` is how many cores to use (all that there are).
    """

    shard_bytes: int = SHARD_BYTES
    allow_unknown: bool = False
    hand_on_code: bool = False
    check: bool = False
    check_values: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class _Growth:
    """All that is known before a byte is written."""

    source: Path
    model: Model
    operators: Sequence[Depth | Width]
    seed: int
    config: str
    planned: Plan
    files: Sequence[Shard]

    @property
    def tensor_bytes(self) -> int:
        return sum(shard.tensor_bytes for shard in self.files)

    def digest(self) -> str:
        """SHA-256 of what decides the bytes: two growths of the same digest share files."""
        whole = hashlib.sha256()
        family = families.load(self.model.family)
        said = {
            "version": BYTES_VERSION,
            "source": _identity(self.source),
            "operators": [asked(operator) for operator in self.operators],
            "seed": self.seed,
            "config": self.config,
            "family": family.model_dump(mode="json"),
        }
        whole.update(json.dumps(said, sort_keys=True).encode())
        for shard in self.files:
            whole.update(f"\n{shard.name}\n".encode())
            whole.update(shard.head())
        return whole.hexdigest()


def grow(
    source: Path,
    target: Path,
    operators: Sequence[Depth | Width],
    seed: int,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress | None = None,
    how: Asked | None = None,
) -> GrowthReport:
    """Grow the checkpoint in `source` by `operators`, in order, into the new folder `target`.

    A pure function of its arguments: neither shard size nor order of writing changes a tensor.
    Memory stays near one tensor. Only weights are grown here: `moments` grows what an optimizer
    remembers. After a kill the same call goes on with the files that are not finished.
    Raises GrowpointError for a source that is not whole or not known, for growth that the family
    cannot hold, for an existing target and a full disk: nothing is left behind.
    """
    begun, how = time.monotonic(), how or Asked(shard_bytes=shard_bytes)
    checkpoint.refuse_existing(target)
    growth = _prepared(source, operators, seed, how)
    _refuse_inside(target, source)
    with written_to(target, growth.tensor_bytes), growing(target, growth.digest()) as place:
        kept = len(place.finished)
        require_space(growth.tensor_bytes - finished_bytes(place), target)
        fingerprint, unchecked, strange = _write(growth, place, how, on_progress)
        _finish(growth, place, str(fingerprint))
        publish(place, target)
    return GrowthReport(
        source=growth.model,
        target=grown(growth.model, operators),
        layers=layer_map(growth.model.layers, operators),
        experts=expert_map(growth.model.experts, operators),
        tensors=len(growth.planned.tensors),
        bytes=growth.tensor_bytes,
        seconds=time.monotonic() - begun,
        dropped=growth.planned.dropped,
        target_folder=target,
        unknown=growth.planned.unknown,
        not_finite=tuple(strange),
        unchecked=unchecked,
        files_kept=kept,
    )


def _prepared(source: Path, operators: Sequence[Depth | Width], seed: int, how: Asked) -> _Growth:
    if how.shard_bytes < 1:
        raise GrowpointError(
            "shards need at least one byte", [("given", how.shard_bytes)], "--shard-bytes 5e9"
        )
    config = checkpoint.read_config(source)
    model = from_config(config)
    _refuse_own_code(config, model, how)
    edited = grown_config(config, operators)
    checkpoint.verify(source, quick=True)
    planned = plan(
        checkpoint.entries(source),
        model,
        operators,
        seed,
        allow_unknown=how.allow_unknown,
        initializer_range=initializer_range(config),
    )
    _check_promise(edited, model, operators)
    files = shards(planned.tensors, how.shard_bytes)
    return _Growth(
        source, model, operators, seed, json.dumps(edited, indent=2) + "\n", planned, files
    )


def _refuse_inside(target: Path, source: Path) -> None:
    if source.resolve() in target.resolve().parents:
        raise GrowpointError(
            "the grown checkpoint would lie within its source, into which nothing is written",
            [("source", source), ("target", target)],
            f"--to {shlex.quote(str(source.resolve().with_name(target.name)))}",
        )


def _refuse_own_code(config: dict[str, Any], model: Model, how: Asked) -> None:
    """Growth runs no code of a checkpoint, but hands it on to whoever loads the result."""
    shipped = (conf.FOLDER / "family" / f"{model.family}.yaml").is_file()
    if "auto_map" in config and not shipped and not how.hand_on_code:
        raise GrowpointError(
            "the checkpoint is loaded by code of its own",
            [("auto_map", ", ".join(sorted(map(str, config["auto_map"]))))],
            "--trust-remote-code, to hand that code on unread; growing runs none of it",
        )


def _identity(source: Path) -> object:
    """What names a source without reading it: its seal, or sizes and times of its files."""
    if checkpoint.read_manifest(source):
        return checkpoint.file_hash(source / checkpoint.MANIFEST)
    known = [(path, path.stat()) for path in checkpoint.weight_files(source)]
    return [[path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns] for path, stat in known]


def _check_promise(
    edited: dict[str, object], model: Model, operators: Sequence[Depth | Width]
) -> None:
    """config.json must describe what was planned; a family file that says otherwise is wrong."""
    written, promised = from_config(edited), grown(model, operators)
    if written != promised:
        raise GrowpointError(
            f"the family {model.family} cannot write the grown sizes into config.json",
            [("planned", promised.model_dump()), ("written", written.model_dump())],
            f"put right conf/family/{model.family}.yaml",
        )


def _write(
    growth: _Growth, place: Partial, how: Asked, on_progress: OnProgress | None
) -> tuple[object, str, list[str]]:
    """All files, and at the same time the source's hash, the model class, the values."""

    def compared(stop: Callable[[], bool]) -> str:
        if not how.check:
            return ""
        return growth_check.compare(place.sketch, growth.config, growth.files, stop)

    def searched(stop: Callable[[], bool]) -> list[str]:
        return growth_check.not_finite(growth.source, stop) if how.check_values else []

    missing = [shard for shard in growth.files if shard.name not in place.finished]
    done = growth.tensor_bytes - sum(shard.tensor_bytes for shard in missing)
    fingerprint, unchecked, strange = stream.write(
        place.folder,
        missing,
        _counter(done, growth.tensor_bytes, on_progress),
        place.add,
        beside=(partial(checkpoint.fingerprint, growth.source), compared, searched),
        workers=how.workers,
    )
    return fingerprint, str(unchecked), list(strange) if isinstance(strange, list) else []


def _counter(done: int, total: int, on_progress: OnProgress | None) -> Callable[[int], None]:
    lock = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if on_progress:
                on_progress(done, total)

    return advance


def _finish(growth: _Growth, place: Partial, fingerprint: str) -> None:
    """All that is not tensors."""
    folder = place.folder
    copy_along(growth.source, folder)
    write_index(folder, growth.files)
    (folder / checkpoint.CONFIG).write_text(growth.config)
    step = card.step(_name(growth.source), fingerprint, growth.operators, growth.seed)
    lineage = [*card.read_lineage(growth.source), step]
    planned = growth.planned
    card.write(folder, growth.model, growth.operators, lineage, planned.dropped, planned.unknown)
    checkpoint.seal(folder, place.finished)


def _name(source: Path) -> str:
    """How a source is called in cards: its last parts, the same wherever the store lies."""
    parts = source.resolve().parts
    return "/".join(parts[-2:] if parts[-1] == "checkpoint" else parts[-1:])


def by_hand(
    source: str,
    target: str,
    operators: Sequence[Depth | Width],
    seed: int = 0,
    on_progress: OnProgress | None = None,
    how: Asked | None = None,
) -> GrowthReport:
    """`growpoint grow`: SOURCE is a checkpoint folder, or a stage's folder that has one."""
    if not operators:
        raise GrowpointError("no growth is given", [("growth", "nothing")], "growth=depth")
    folder = Path(source).expanduser()
    inner = folder / "checkpoint"
    if inner.is_dir() and not (folder / checkpoint.CONFIG).is_file():
        folder = inner
    elif (folder / "stage.json").is_file() and not (folder / checkpoint.CONFIG).is_file():
        raise GrowpointError(
            f"{source} has no checkpoint",
            [("state", _state(folder))],
            "wait for it, or grow from the stage before it",
        )
    elif not folder.exists() and re.fullmatch(r"[\w-]+/[\w.-]+", source):
        raise GrowpointError(
            f"{source} is no folder here, and growth takes no names of the hub",
            [("looked at", folder.absolute())],
            f"hf download {source} --local-dir {folder.name}",
        )
    target_folder = Path(target).expanduser()
    return grow(folder, target_folder, operators, seed, on_progress=on_progress, how=how)


def left_by_interrupt(target: str) -> str:
    """What stays of a growth that was interrupted, for the line that says so."""
    return summary(Path(target).expanduser())


def _state(folder: Path) -> str:
    try:
        said = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return "not begun"
    return str(said.get("state", "not finished")) if isinstance(said, dict) else "not finished"
