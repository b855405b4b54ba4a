"""Writing planned tensors as safetensors shards: ranges are copied within the kernel."""

import errno
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from orchestrator.blocks import Block, Stored
from orchestrator.checkpoint import BITS, INDEX, SINGLE, damaged
from orchestrator.grow_plan import Planned

SHARD_BYTES = 5_000_000_000
COPY_BYTES = 32 << 20
# What copy_file_range answers where it cannot copy: other file system, old kernel, no support.
CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)

Progress = Callable[[int], None]


def write(folder: Path, tensors: Sequence[Planned], shard_bytes: int, advance: Progress) -> None:
    """Write all tensors into `folder`, with an index if there are several files.

    A file has at most `shard_bytes` unless one tensor alone is larger. `advance` is told the bytes
    written since it was told last.
    """
    shards = list(split(tensors, shard_bytes))
    names = _names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, advance)
    if len(shards) > 1:
        pairs = zip(names, shards, strict=True)
        weight_map = {tensor.name: name for name, shard in pairs for tensor in shard}
        total = sum(tensor.size_bytes for tensor in tensors)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def split(tensors: Sequence[Planned], shard_bytes: int) -> Iterator[list[Planned]]:
    """Tensors of each file, in order."""
    shard: list[Planned] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.size_bytes > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.size_bytes
    yield shard


def _write_shard(path: Path, shard: Sequence[Planned], advance: Progress) -> None:
    # Wider numbers first: readers map the file, and numbers must lie at multiples of their size.
    ordered = sorted(shard, key=lambda tensor: -BITS[tensor.dtype])
    header = _header(ordered)
    size = len(header) + sum(tensor.size_bytes for tensor in ordered)
    with path.open("xb", buffering=0) as file:
        _reserve(file.fileno(), size)
        _write_all(file.fileno(), header)
        blocks = merged(block for tensor in ordered for block in tensor.blocks)
        for block, data in _computed(blocks):
            if isinstance(block, Stored):
                _copy(block, file.fileno(), advance)
            else:
                _write_all(file.fileno(), data.result() if data else b"")
                advance(block.size_bytes)


def _reserve(descriptor: int, size: int) -> None:
    """Claim the space at once, so that a full disk is known before the work is done."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _computed(blocks: Iterable[Block]) -> Iterator[tuple[Block, Future[bytes] | None]]:
    """Blocks in order, those with arithmetic computed a few ahead on the cores that we may use."""
    cores = min(8, len(os.sched_getaffinity(0)))
    waiting: deque[tuple[Block, Future[bytes] | None]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for block in blocks:
            waiting.append((block, None if isinstance(block, Stored) else pool.submit(block.data)))
            if len(waiting) > cores:
                yield waiting.popleft()
        yield from waiting


def _header(tensors: Sequence[Planned]) -> bytes:
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        offsets = [position, position + tensor.size_bytes]
        described[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        position = offsets[1]
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def merged(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same bytes in fewer blocks: neighbours in the source are copied at once."""
    pending: Stored | None = None
    for block in blocks:
        if pending and isinstance(block, Stored) and _follows(block, pending):
            pending = replace(pending, end=block.end)
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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy(block: Stored, descriptor: int, advance: Progress) -> None:
    by_kernel = True
    with block.file.open("rb", buffering=0) as source:
        position = block.start
        while position < block.end:
            count = min(COPY_BYTES, block.end - position)
            copied = None
            if by_kernel:
                copied = _kernel_copy(source.fileno(), descriptor, count, position)
            if copied is None:
                by_kernel = False
                data = os.pread(source.fileno(), count, position)
                _write_all(descriptor, data)
                copied = len(data)
            if copied == 0:
                raise damaged(block.file, "it became shorter while it was read")
            position += copied
            advance(copied)


def _kernel_copy(source: int, target: int, count: int, position: int) -> int | None:
    """Bytes copied within the kernel; None where that is not possible."""
    try:
        return os.copy_file_range(source, target, count, position)
    except OSError as error:
        if error.errno in CANNOT_COPY:
            return None
        raise
