"""Writing grown files: ranges are copied within the kernel, arithmetic runs ahead of the writing,
hashing follows it."""

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.blocks import Block, Data, Stored, shortened
from orchestrator.checkpoint import file_hash
from orchestrator.following import Flushing, Hashing
from orchestrator.shards import Shard

# Short enough for the hash to follow closely, while all is in memory.
COPY_BYTES = 8 << 20
# Computed blocks that wait for being written, in bytes for each file: the largest block comes atop.
AHEAD_BYTES = 32 << 20
# Files written at once: more would only grow the memory, as one file takes two cores.
FILES_AT_ONCE = 4
# What copy_file_range answers where it cannot copy: other file system, old kernel, no support.
CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)

Progress = Callable[[int], None]
Finished = Callable[[str, str], None]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class StoppedError(Exception):
    """Writing was given up because something else failed."""


@dataclass(frozen=True)
class Stream:
    """Where files go, who is told of progress, and whether to stop."""

    folder: Path
    advance: Progress
    pool: ThreadPoolExecutor
    stop: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Raise StoppedError if writing was given up."""
        if self.stop.is_set():
            raise StoppedError


def write(
    folder: Path,
    files: Sequence[Shard],
    advance: Progress,
    finished: Finished,
    beside: Sequence[Callable[[Callable[[], bool]], object]] = (),
    workers: int | None = None,
) -> list[object]:
    """Write files into `folder`, and do what is `beside` at the same time; its results.

    `advance` is told the bytes written since it was told last; `finished` the name and SHA-256 of
    each file once it is safe on disk. What is `beside` is given a function that says when to give
    up: as soon as anything fails, when the first error is raised.
    """
    count = workers or cores()
    with ThreadPoolExecutor(min(8, count)) as arithmetic:
        stream = Stream(folder, advance, arithmetic)
        with (
            ThreadPoolExecutor(min(FILES_AT_ONCE, count)) as writers,
            ThreadPoolExecutor(max(1, len(beside))) as others,
        ):
            more = [others.submit(each, stream.stop.is_set) for each in beside]
            written = [writers.submit(_file, stream, shard, finished) for shard in files]
            try:
                _all([*more, *written])
            finally:
                stream.stop.set()
                for each in written:
                    each.cancel()
        return [each.result() for each in more]


def _all(futures: Sequence[Future[Any]]) -> None:
    waiting = set(futures)
    while waiting:
        # In short turns: a signal is only seen between them.
        done, waiting = wait(waiting, timeout=0.5, return_when="FIRST_EXCEPTION")
        for future in done:
            future.result()


def _file(stream: Stream, shard: Shard, finished: Finished) -> None:
    stream.go_on()
    head = shard.head()
    with (stream.folder / shard.name).open("w+b", buffering=0) as file:
        descriptor = file.fileno()
        _reserve(descriptor, len(head) + shard.tensor_bytes)
        with Hashing(descriptor) as hashing, Flushing(descriptor) as flushing:
            _write_all(descriptor, head)
            hashing.reach(len(head))
            for block, data in _computed(shard.blocks(), stream.pool):
                for count in _appended(block, data, descriptor):
                    hashing.reach(count)
                    flushing.reach(count)
                    stream.advance(count)
                    stream.go_on()
            found = hashing.finish()
        os.fsync(descriptor)
    finished(shard.name, found)


def _appended(block: Block, data: "Future[Data] | None", descriptor: int) -> Iterator[int]:
    if isinstance(block, Stored):
        yield from _copied(block, descriptor)
    elif data:
        _write_all(descriptor, data.result())
        yield block.size_bytes


def _reserve(descriptor: int, size: int) -> None:
    """Claim the space at once, so that a full disk is known before the work is done."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _computed(
    blocks: Iterable[Block], pool: ThreadPoolExecutor
) -> "Iterator[tuple[Block, Future[Data] | None]]":
    """Blocks in order, those with arithmetic begun as long as what waits is not too much."""
    waiting: deque[tuple[Block, Future[Data] | None]] = deque()
    ahead = 0
    try:
        for block in blocks:
            future = None if isinstance(block, Stored) else pool.submit(block.data)
            waiting.append((block, future))
            ahead += block.size_bytes if future else 0
            while ahead > AHEAD_BYTES or not waiting[0][1]:
                first, data = waiting.popleft()
                yield first, data
                ahead -= first.size_bytes if data else 0
                # The last reference to its bytes, which are megabytes.
                del data
                if not waiting:
                    break
        while waiting:
            yield waiting.popleft()
    finally:
        for _, data in waiting:
            if data:
                data.cancel()


def _write_all(descriptor: int, data: Data) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copied(block: Stored, descriptor: int) -> Iterator[int]:
    """Append a range of a file; yields the bytes of each step.

    copy_file_range shares the bytes instead (XFS, btrfs) where both ranges begin alike within their
    file system's blocks; elsewhere the kernel copies.
    """
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
                raise shortened(block.file)
            position += copied
            yield copied


def _kernel_copy(source: int, target: int, count: int, position: int) -> int | None:
    """Bytes copied within the kernel; None where that is not possible."""
    try:
        return os.copy_file_range(source, target, count, position)
    except OSError as error:
        if error.errno in CANNOT_COPY:
            return None
        raise


def kept(folder: Path, names: dict[str, str]) -> list[str]:
    """Files of a folder that still have the hash by their name."""
    present = [name for name in names if (folder / name).is_file()]
    with ThreadPoolExecutor(min(FILES_AT_ONCE, cores())) as pool:
        found = pool.map(lambda name: file_hash(folder / name), present)
        return [name for name, hashed in zip(present, found, strict=True) if hashed == names[name]]
