"""The disk that a checkpoint is written to: whether it has room, and its errors as the user's."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.growth_report import gigabytes
from sweeps.errors import GrowpointError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ELSEWHERE = "free some space, or name a target on another disk: --to FOLDER"


def require_space(needs_bytes: int, target: Path) -> None:
    """Raise GrowpointError if the disk of a target has less room."""
    free = shutil.disk_usage(target.parent).free
    if needs_bytes > free:
        raise GrowpointError(
            "the disk is too full for the grown checkpoint",
            [
                ("target", target),
                ("needs", gigabytes(needs_bytes)),
                ("free", gigabytes(free)),
                ("lacks", gigabytes(needs_bytes - free)),
            ],
            ELSEWHERE,
        )


@contextlib.contextmanager
def written_to(target: Path, size_bytes: int) -> Iterator[None]:
    """Errors of the system while a target is written, as GrowpointError."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        raise GrowpointError(
            "the disk is full" if full else "the grown checkpoint cannot be written",
            [
                ("target", target),
                ("needs", gigabytes(size_bytes)),
                ("says", error.strerror or error),
            ],
            ELSEWHERE if full else "name a target where you may write: --to FOLDER",
        ) from error
