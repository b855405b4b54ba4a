"""Which tensors lie in which file of a grown checkpoint, and the heads of those files."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.blocks import Block, Stored
from orchestrator.checkpoint import INDEX, SINGLE
from orchestrator.headers import BITS, Described, written
from orchestrator.planned import Planned

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Shard:
    """One file: its name and its tensors in their order."""

    name: str
    tensors: tuple[Planned, ...]

    def head(self) -> bytes:
        """What stands before the tensors; made when asked for, as it may be megabytes."""
        return written(
            Described(tensor.name, tensor.dtype, tensor.shape, tensor.size_bytes)
            for tensor in self.tensors
        )

    @property
    def tensor_bytes(self) -> int:
        """Length of the file without its head."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def blocks(self) -> Iterator[Block]:
        """What is written, in as few blocks as possible."""
        return merged(block for tensor in self.tensors for block in tensor.blocks)


def shards(tensors: Sequence[Planned], shard_bytes: int) -> list[Shard]:
    """Files of at most `shard_bytes`, unless one tensor alone is larger, and of about one size."""
    parts = list(_split(tensors, shard_bytes))
    count = len(parts)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    # Wider numbers first: readers map the file, and numbers must lie at multiples of their size.
    ordered = [sorted(part, key=lambda tensor: -BITS[tensor.dtype]) for part in parts]
    pairs = zip(names if count > 1 else [SINGLE], ordered, strict=True)
    return [Shard(name, tuple(part)) for name, part in pairs]


def _split(tensors: Sequence[Planned], shard_bytes: int) -> Iterator[list[Planned]]:
    total = sum(tensor.size_bytes for tensor in tensors)
    # Files are written side by side: the last one should not be the longest wait.
    enough = -(-total // max(1, -(-total // shard_bytes)))
    part: list[Planned] = []
    size = 0
    for tensor in tensors:
        if part and (size >= enough or size + tensor.size_bytes > shard_bytes):
            yield part
            part, size = [], 0
        part.append(tensor)
        size += tensor.size_bytes
    yield part


def index(files: Sequence[Shard]) -> dict[str, Any] | None:
    """What model.safetensors.index.json says; None if there is one file."""
    if len(files) == 1:
        return None
    total = sum(shard.tensor_bytes for shard in files)
    weight_map = {tensor.name: shard.name for shard in files for tensor in shard.tensors}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def write_index(folder: Path, files: Sequence[Shard]) -> None:
    """Write the index, if the checkpoint needs one."""
    if (said := index(files)) is not None:
        (folder / INDEX).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def sketch(folder: Path, config: str, files: Sequence[Shard]) -> None:
    """A checkpoint without bytes: heads, config, and index, its files sparse behind their heads."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    write_index(folder, files)
    for shard in files:
        head = shard.head()
        with (folder / shard.name).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + shard.tensor_bytes)


def merged(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same bytes in fewer blocks: neighbours in the source are copied at once."""
    pending: Stored | None = None
    for block in blocks:
        if pending and isinstance(block, Stored) and _follows(block, pending):
            pending = Stored(pending.file, pending.start, block.end, pending.dtype, pending.name)
            continue
        if pending:
            yield pending
        pending = block if isinstance(block, Stored) else None
        if not isinstance(block, Stored):
            yield block
    if pending:
        yield pending


def _follows(block: Stored, before: Stored) -> bool:
    return (block.file, block.start) == (before.file, before.end)
