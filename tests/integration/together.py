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

import pytest
import torch
from safetensors.torch import load_file

from orchestrator import models, train
from orchestrator.computing import Computing
from sweeps.data import Corpus
from sweeps.recipe import Recipe
from sweeps.stages import Train
from tests.integration.tiny_olmoe import MODEL

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


RECIPE = Recipe(lr=1e-3, warmup_tokens=256, batch_sequences=4, sequence_tokens=16)


class Place:
    """A folder with a corpus and a fresh network, where one process trains, and where two do."""

    def __init__(self, folder: Path, corpus: Corpus, tokens: Path, pair: Together) -> None:
        self.folder, self.corpus, self.tokens, self.pair = folder, corpus, tokens, pair
        models.create(MODEL, 0, folder / "init")

    def do(self, batches: int, state: str = "fresh", **changes: Any) -> Train:
        recipe = RECIPE.model_copy(update=changes)
        return Train.model_validate(
            {
                "tokens": batches * recipe.batch_tokens,
                "recipe": recipe,
                "corpus": self.corpus,
                "optimizer_state": state,
            }
        )

    def alone(self, do: Train, name: str, rows: int, **more: Any) -> train.Outcome:
        """Train in this process, `rows` sequences in a forward and backward pass."""
        return train.train(
            do,
            target=self.folder / name,
            partial=self.folder / f"{name}.partial",
            stream_folder=self.tokens,
            metrics=self.folder / f"{name}.jsonl",
            log_every_steps=1,
            how=Computing(micro_batch_tokens=rows * RECIPE.sequence_tokens),
            **{"source": self.folder / "init", **more},
        )

    def both(self, do: Train, name: str, rows: int, **more: Any) -> list[dict[str, Any]]:
        """Train in the two processes; what both say."""
        more.setdefault("source", self.folder / "init")
        tokens = rows * RECIPE.sequence_tokens
        return self.pair.train(do, name, micro_batch_tokens=tokens, **more)

    def require_same(self, one: str, other: str, tolerance: float = 1e-5) -> None:
        """Weights, moments and the curve agree, and so do the files' names and settings."""
        for file in ("model.safetensors", "optimizer.safetensors"):
            first, second = (load_file(self.folder / name / file) for name in (one, other))
            torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)
        names = [{p.name for p in (self.folder / name).iterdir()} for name in (one, other)]
        assert names[0] == names[1]
        configs = [(self.folder / name / "config.json").read_text() for name in (one, other)]
        assert configs[0] == configs[1]
        for key in ("step", "tokens", "lr", "loss", "router_loss", "grad_norm"):
            curves = [[line[key] for line in self.lines(name)] for name in (one, other)]
            if curves[0] != curves[1]:  # both may be null
                assert curves[0] == pytest.approx(curves[1], rel=tolerance)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(s) for s in (self.folder / f"{name}.jsonl").read_text().splitlines()]
