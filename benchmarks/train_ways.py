"""Ways to train the same network on the same tokens, each as a loop that is timed step by step."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator import fused
from orchestrator.computing import Computing
from orchestrator.head_loss import HeadLoss
from orchestrator.loop import Loop
from orchestrator.phase import Position
from sweeps.data import Corpus
from sweeps.model import Model
from sweeps.recipe import Recipe
from sweeps.stages import Train

# More logits than any batch has: the whole of them at once, as transformers makes them.
ALL_LOGITS = 1 << 62


@dataclass(frozen=True)
class Way:
    """How experts, layers and the head's loss are computed; "" are the experts that we choose."""

    experts: str = ""
    compile: bool = False
    liger: bool = False
    whole_logits: bool = False


OURS, THEIRS, EAGER = "growpoint", "transformers' default (grouped_mm)", "transformers' eager"
COMPILED = "transformers' grouped_mm, compiled"
CPU_WAYS = {OURS: Way(), THEIRS: Way("grouped_mm"), EAGER: Way("eager")}
_LIGER = {"growpoint, compiled, Liger": Way(compile=True, liger=True)}
GPU_WAYS = {
    OURS: Way(),
    "growpoint, compiled": Way(compile=True),
    **(_LIGER if importlib.util.find_spec(fused.PACKAGE) else {}),
    "transformers' grouped_mm": Way("grouped_mm", whole_logits=True),
    COMPILED: Way("grouped_mm", compile=True, whole_logits=True),
}


def model(layers: int, hidden: int, heads: int, **sizes: int) -> Model:
    """A network of the OLMoE architecture."""
    heads_of = {"heads": heads, "kv_heads": heads, "head_dim": hidden // heads}
    return Model(family="olmoe", layers=layers, hidden=hidden, positions=4096, **heads_of, **sizes)


FEW = Recipe(batch_sequences=16, sequence_tokens=128)
CPU = {
    "E8 k2": (model(4, 128, 4, experts=8, top_k=2, expert_hidden=128, vocabulary=1024), FEW),
    "E16 k2": (model(4, 192, 6, experts=16, top_k=2, expert_hidden=192, vocabulary=2048), FEW),
    "E64 k8": (model(4, 192, 6, experts=64, top_k=8, expert_hidden=64, vocabulary=2048), FEW),
}
# Weights, moments and gradients take 20 bytes a parameter: 11 GB and 58 GB.
GPU = {
    "150M active": (
        model(12, 768, 12, experts=32, top_k=4, expert_hidden=512, vocabulary=50304),
        Recipe(batch_sequences=32, sequence_tokens=2048, precision="bf16"),
    ),
    "1B active": (
        model(16, 2048, 16, experts=32, top_k=8, expert_hidden=768, vocabulary=50304),
        Recipe(batch_sequences=16, sequence_tokens=4096, precision="bf16"),
    ),
}


class Random:
    """A stream of random tokens; the same for all ways."""

    def __init__(self, vocabulary: int, tokens: int) -> None:
        self._vocabulary, self._tokens = vocabulary, tokens

    def batch(self, tokens: int, sequences: int) -> Any:
        """[sequences, T + 1] tokens at a position."""
        drawn = np.random.default_rng(tokens)
        return drawn.integers(0, self._vocabulary, (sequences, self._tokens + 1), dtype=np.int64)


@dataclass
class Row:
    """One way to train, and the seconds of each of its steps."""

    name: str
    loop: Loop
    device: str
    seconds: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)

    def tokens_per_second(self) -> float:
        """By the median step."""
        return self.loop.recipe.batch_tokens / statistics.median(self.seconds)

    def step(self) -> float:
        """One step; the seconds to its end on the device."""
        wait(self.device)
        began = time.perf_counter()
        self.loop.step()
        wait(self.device)
        seconds = time.perf_counter() - began
        self.loop.settle()
        return seconds


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def row(name: str, way: Way, made: Model, recipe: Recipe, folder: Path, device: str) -> Row:
    """A loop that trains the network in `folder` that way."""
    do = Train(tokens=recipe.batch_tokens * 10**6, recipe=recipe, corpus=Corpus.model_construct())
    stream: Any = Random(made.vocabulary, recipe.sequence_tokens)
    # All of a batch in passes that fit beside the state: the larger the quicker.
    most = 16384 if device == "cpu" or _memory_gb() > 100 else 8192
    how = Computing(device=device, micro_batch_tokens=most, compile=way.compile, liger=way.liger)
    loop = Loop(do, folder, Position(), stream, how=how)
    compute = loop.optimizer.compute
    if way.whole_logits:
        loop._head_loss = HeadLoss(compute, ALL_LOGITS)
    if way.experts:
        compute.set_experts_implementation(way.experts)
    return Row(name, loop, device)


def _memory_gb() -> float:
    return float(torch.cuda.get_device_properties(0).total_memory) / 1e9


def outside(row: Row, steps: int) -> float:
    """Share of a step that is neither the network's passes nor clip and update."""
    row.parts.clear()
    with _timed(row):
        whole = sum(row.step() for _ in range(steps))
    return 1 - sum(row.parts.values()) / whole


@contextmanager
def _timed(row: Row) -> Iterator[None]:
    """Share out the time of steps: the network's passes, the clip, the update."""
    optimizer, loop = row.loop.optimizer, row.loop
    places = ((loop, "_backward"), (optimizer, "clip"), (optimizer, "step"))
    for place, name in places:
        setattr(place, name, _measured(getattr(place, name), name, row))
    try:
        yield
    finally:
        for place, name in places:
            delattr(place, name)


def _measured(call: Callable[..., Any], name: str, row: Row) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        wait(row.device)
        began = time.perf_counter()
        came = call(*arguments)
        wait(row.device)
        row.parts[name] = row.parts.get(name, 0.0) + time.perf_counter() - began
        return came

    return run
