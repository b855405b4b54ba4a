"""Several processes that do one job together: which of them this is, and how they agree.

The first rank decides and writes. What it decides the others read from a store of keys that lives
beside it, for as long as it takes; in training they meet at every step, for a limited time.
A job of one process has neither store nor process group, and nothing here does anything.
"""

import itertools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from sweeps.errors import GrowpointError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store as Keys

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Until all ranks have started: nodes of one allocation can be minutes apart.
JOIN_SECONDS = 600.0
# The longest that ranks may be apart within a step. Whatever takes the first rank longer (loading,
# hashing what it saved, evaluating) the others sit out at the store, not in the process group.
STEP_SECONDS = 600.0
# A signal is seen between two looks at the store.
LOOK_SECONDS = 5.0
# Until the others have read how the job ended: the store ends with its process. A job ends well
# only if every rank does; one that failed or was stopped has failed for SLURM either way.
LEAVE_SECONDS = {"done": 60.0, "blocked": 60.0, "stopped": 5.0, "failed": 5.0}
# Between a rank's death and the first one's failing in turn, for its last words to arrive.
WORDS_SECONDS = 2.0


# What gloo and NCCL say of a process that no longer answers; they have no class of error for it.
CONNECTION = re.compile(r"connection|socket|timed? ?out|nccl", re.IGNORECASE)


class EndedError(Exception):
    """The first rank has given up what this one takes part in; it says why in its own log."""


class LostError(BaseException):
    """Another rank has died without a word: as if this process had been killed, too.

    No Exception, so that nobody writes down a cause: the scheduler knows it.
    """


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` of its job; `in_node` are the ranks of each node."""

    rank: int = 0
    world: int = 1
    local: int = 0
    in_node: int = 1
    keys: "Keys | None" = None
    _number: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether a flag is set on any rank, for each flag; all ranks meet here."""
        if self.world == 1:
            return flags
        import torch
        from torch import distributed

        # On the CPU even where training is not: a GPU need not be waited for.
        found = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return tuple(map(bool, found.tolist()))

    def mean(self, numbers: "Tensor") -> "Tensor":
        """The mean over ranks, in place; all ranks meet here."""
        if self.world > 1:
            from torch import distributed

            distributed.all_reduce(numbers)
            numbers /= self.world
        return numbers

    def first(self, action: Callable[[], T], kind: Any = None) -> T:
        """What `action` returns on the first rank, which alone performs it; others wait.

        `kind` is the type of the result. Raises EndedError on the others if it fails.
        """
        if not self.is_first:
            said = self.told()
            if "came" not in said:
                raise EndedError(str(said))
            came: T = TypeAdapter(kind).validate_python(said["came"])
            return came
        came = action()
        if self.world > 1:
            self.announce(came=TypeAdapter(kind).dump_python(came, mode="json"))
        return came

    def announce(self, **said: Any) -> None:
        """Tell all others what is done next, or how the job ended (`end`)."""
        if self.keys:
            self.keys.set(f"said/{next(self._number)}", json.dumps(said))

    def told(self) -> dict[str, Any]:
        """The next thing that the first rank announces, however long it takes.

        Raises an error of torch.distributed if the first rank is gone.
        """
        from torch.distributed import DistStoreError

        assert self.keys is not None
        key = f"said/{next(self._number)}"
        while True:
            try:
                self.keys.wait([key], timedelta(seconds=LOOK_SECONDS))
            except DistStoreError:
                continue
            said: dict[str, Any] = json.loads(self.keys.get(key))
            return said

    def complain(self, error: BaseException) -> None:
        """Leave last words for the first rank, which fails when this process is gone."""
        if self.keys:
            text = error.text() if isinstance(error, GrowpointError) else repr(error)
            self.keys.set(f"failed/{self.rank}", text.removeprefix("error: "))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Where another rank's death is what failed, raise GrowpointError with its last words.

        Raises LostError if it left none: it was killed, or its node is gone.
        """
        try:
            yield
        except GrowpointError:
            raise
        except Exception as error:
            if self.world == 1 or not self.is_first:
                raise
            for rank, text in self._complaints():
                logger.exception("rank %d had failed", rank)
                raise GrowpointError(
                    "a rank of the job failed",
                    [("rank", f"{rank} of {self.world}"), *_lines(text)],
                    "put that right, and launch again",
                ) from error
            if isinstance(error, RuntimeError) and CONNECTION.search(str(error)):
                raise LostError(f"a rank of {self.world} is gone: {error}") from error
            raise

    def _complaints(self) -> Iterator[tuple[int, str]]:
        assert self.keys is not None
        deadline = time.monotonic() + WORDS_SECONDS
        while True:
            for rank in range(1, self.world):
                if self.keys.check([f"failed/{rank}"]):
                    yield rank, self.keys.get(f"failed/{rank}").decode()
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)

    def part(self, ending: str = "") -> None:
        """The end of a job: the first rank says how it ended, and goes when the others know."""
        if self.keys is None:
            return
        from torch import distributed

        if not self.is_first:
            self.keys.add("left", 1)
            return
        self.announce(end=ending)
        deadline = time.monotonic() + LEAVE_SECONDS[ending]
        while self.keys.add("left", 0) < self.world - 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        if ending in ("done", "blocked"):
            distributed.destroy_process_group()


ALONE = Ranks()


def _lines(text: str) -> list[tuple[str, str]]:
    return [("says", line.strip()) for line in text.splitlines()[:4]]


def join() -> Ranks:
    """Meet the other processes, as the environment of `torchrun` names them, and take a GPU.

    Where a process sees several GPUs it takes the one of its number on the node.
    """
    import torch
    from torch import distributed

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(local % torch.cuda.device_count())
    wait = timedelta(seconds=JOIN_SECONDS)
    keys, _, _ = next(distributed.rendezvous("env://", rank, world, timeout=wait))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
        store=distributed.PrefixStore("group", keys),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=STEP_SECONDS),
    )
    in_node = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    return Ranks(rank, world, local, in_node, distributed.PrefixStore("growpoint", keys))
