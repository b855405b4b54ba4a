"""Growing a checkpoint on disk: planned from headers, then streamed, never loaded as a model."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import card, checkpoint, shards, text
from orchestrator.grow_config import grown_config
from orchestrator.grow_plan import Plan, plan
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, expert_map, grown, layer_map
from sweeps.model import Model, from_config, parameters

# Small files that go along, by their endings; what belongs to training or to us does not.
ALONG = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".vocab", ".merges")
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
NOT_ALONG = (
    checkpoint.CONFIG,
    checkpoint.INDEX,
    checkpoint.MANIFEST,
    card.LINEAGE,
    "stage.json",
    "state.json",
    "record.json",
    "progress.json",
    "trainer_state.json",
    "training.json",
    "optimizer.json",
)

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class GrowthReport:
    """What a growth made: sizes before and after, source maps, bytes of tensors, wall seconds."""

    source: Model
    target: Model
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    tensors: int
    bytes: int
    seconds: float
    dropped: tuple[str, ...] = ()
    target_folder: Path = Path()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "folder": str(self.target_folder),
            "source": self.source.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "layers": list(self.layers),
            "experts": list(self.experts),
            "tensors": self.tensors,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "dropped": list(self.dropped),
        }

    def text(self) -> str:
        """As printed: sizes, maps, where it lies."""
        before, after = self.source, self.target
        lines = [
            ("grown", self.target_folder),
            ("layers", _change(before.layers, after.layers, self.layers)),
            ("experts", _change(before.experts, after.experts, self.experts)),
            ("top-k", _change(before.top_k, after.top_k)),
            ("params", " -> ".join(text.params(parameters(m).total) for m in (before, after))),
            ("written", f"{_gigabytes(self.bytes)} in {text.seconds(self.seconds)}"),
        ]
        if self.dropped:
            lines.append(("left out", f"{len(self.dropped)} tensors that predict further ahead"))
        return "\n".join(f"  {key:<9} {value}" for key, value in lines)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _change(before: int, after: int, source: Sequence[int] = ()) -> str:
    if before == after:
        return str(before)
    drawn = " ".join(map(str, source[:16])) + (" ..." if len(source) > 16 else "")
    return f"{before} -> {after}" + (f"   from {drawn}" if source else "")


def grow(
    source: Path,
    target: Path,
    operators: Sequence[Depth | Width],
    seed: int,
    *,
    shard_bytes: int = shards.SHARD_BYTES,
    on_progress: OnProgress | None = None,
) -> GrowthReport:
    """Grow the checkpoint in `source` by `operators`, in order, into the new folder `target`.

    A pure function of its arguments: neither shard size nor order of writing changes a tensor.
    Memory stays near one tensor. Only weights are grown; every phase of training starts with fresh
    optimizer moments. Raises GrowpointError for a source that is not whole or not known, for growth
    that the family cannot hold, for an existing target and a full disk: nothing is left behind.
    """
    begun = time.monotonic()
    if shard_bytes < 1:
        raise GrowpointError(
            "shards need at least one byte", [("given", shard_bytes)], "--shard-bytes 5000000000"
        )
    checkpoint.refuse_existing(target)
    config = checkpoint.read_config(source)
    model = from_config(config)
    edited = grown_config(config, operators)
    checkpoint.verify(source)
    planned = plan(checkpoint.entries(source), model, operators, seed)
    _check_promise(edited, model, operators)
    lineage = [
        *card.read_lineage(source),
        card.step(_name(source), checkpoint.fingerprint(source), operators, seed),
    ]
    with _appearing(target, _total(planned)) as folder:
        _copy_along(source, folder)
        shards.write(folder, planned.tensors, shard_bytes, _counter(planned, on_progress))
        (folder / checkpoint.CONFIG).write_text(json.dumps(edited, indent=2) + "\n")
        card.write(folder, model, operators, lineage, planned.dropped)
        checkpoint.seal(folder)
    return GrowthReport(
        source=model,
        target=grown(model, operators),
        layers=layer_map(model.layers, operators),
        experts=expert_map(model.experts, operators),
        tensors=len(planned.tensors),
        bytes=_total(planned),
        seconds=time.monotonic() - begun,
        dropped=planned.dropped,
        target_folder=target,
    )


def _total(planned: Plan) -> int:
    return sum(tensor.size_bytes for tensor in planned.tensors)


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


def _counter(planned: Plan, on_progress: OnProgress | None) -> Callable[[int], None]:
    total, done = _total(planned), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_progress:
            on_progress(done, total)

    return advance


def _copy_along(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        small = path.suffix in ALONG or path.name.upper().startswith(LICENCES)
        if small and path.is_file() and path.name not in NOT_ALONG:
            shutil.copyfile(path, folder / path.name)


@contextlib.contextmanager
def _appearing(target: Path, size: int) -> Iterator[Path]:
    """A folder beside `target` that takes its name when all went well, and vanishes otherwise."""
    own = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
    folder = target.parent / f".{target.name}.{own}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_left_over(target)
        folder.mkdir()
        yield folder
        checkpoint.publish(folder, target)
    except OSError as error:
        raise _unwritable(target, size, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left_over(target: Path) -> None:
    """Remove what killed processes of this machine left of earlier attempts."""
    prefix = f".{target.name}.{socket.gethostname()}."
    for path in target.parent.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix).split(".")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _unwritable(target: Path, size: int, error: OSError) -> GrowpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    evidence: list[tuple[str, object]] = [("needs", _gigabytes(size))]
    if full:
        evidence.append(("free", _gigabytes(shutil.disk_usage(target.parent).free)))
    return GrowpointError(
        "the disk is full" if full else "the grown checkpoint cannot be written",
        [("target", target), *evidence, ("says", error.strerror or error)],
        "free some space, or name a target on another disk: --to FOLDER"
        if full
        else "name a target where you may write: --to FOLDER",
    )


def _name(source: Path) -> str:
    """How a source is called in cards: its last parts, the same wherever the store lies."""
    parts = source.resolve().parts
    return "/".join(parts[-2:] if parts[-1] == "checkpoint" else parts[-1:])


def by_hand(
    source: str,
    target: str,
    operators: Sequence[Depth | Width],
    seed: int = 0,
    shard_bytes: int = shards.SHARD_BYTES,
    on_progress: OnProgress | None = None,
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
    return grow(
        folder,
        Path(target).expanduser(),
        operators,
        seed,
        shard_bytes=shard_bytes,
        on_progress=on_progress,
    )


def _state(folder: Path) -> str:
    try:
        said = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return "not begun"
    return str(said.get("state", "not finished")) if isinstance(said, dict) else "not finished"
