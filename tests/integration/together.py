"""Processes that train together on this machine, over gloo, kept alive between phases."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sweeps.stages import Train

NEVER = 10**6


def after(steps: int) -> Callable[[], bool]:
    """A stop flag that turns true after so many steps; after -N it fails instead."""
    asked = iter(range(NEVER))

    def stop() -> bool:
        is_time = next(asked) >= abs(steps)
        if is_time and steps < 0:
            raise MemoryError("there is no more memory")
        return is_time

    return stop


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Together:
    """`world` processes in one folder; each call is one phase that all of them train."""

    def __init__(self, folder: Path, tokens: Path, world: int = 2) -> None:
        self.folder, self.tokens = folder, tokens
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(free_port()), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "tests.integration.rank_process", str(folder)]
        self.processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(world)
        ]

    def __enter__(self) -> "Together":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            assert process.stdin
            assert process.stdout
            process.stdin.close()
            process.stdout.close()
        for process in self.processes:
            process.wait(60)

    def train(
        self,
        do: Train,
        name: str,
        source: Path,
        stop: Sequence[int] = (NEVER, NEVER),
        micro_batch_tokens: int = 16384,
        carried: dict[str, Any] | None = None,
        **more: Any,
    ) -> list[dict[str, Any]]:
        """What every rank says came of it; rank r is asked to stop after `stop[r]` steps.

        More: `broken` are batches that are no number on the last rank, `logits` at once, and what
        `train` is told of how to compute (`how`).
        """
        asked = {
            "do": do.model_dump(mode="json"),
            "name": name,
            "source": str(source),
            "tokens": str(self.tokens),
            "stop": list(stop),
            "micro_batch_tokens": micro_batch_tokens,
            "carried": carried,
            **more,
        }
        for process in self.processes:
            assert process.stdin
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
        return [self._answer(process) for process in self.processes]

    def _answer(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout
        said: dict[str, Any] = json.loads(process.stdout.readline())
        return said
