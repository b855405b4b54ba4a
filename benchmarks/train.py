"""Tokens per second of a whole step of training, beside what transformers does by itself.

    OMP_NUM_THREADS=2 python benchmarks/train.py            # CPU, 3 shapes, about 4 minutes
    python benchmarks/train.py --gpu                        # one GPU, 2 shapes, at most 8 minutes

Each row is the same loop, on the same tokens, with other experts; rows take turns in one process,
so that a busy machine is unfair to none of them. On a GPU the model FLOPs of a token
(docs/flops.md) over the card's peak give the MFU.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator import models  # noqa: E402
from orchestrator.computing import Computing  # noqa: E402
from orchestrator.loop import Loop  # noqa: E402
from orchestrator.phase import Position  # noqa: E402
from sweeps import cost  # noqa: E402
from sweeps.data import Corpus  # noqa: E402
from sweeps.model import Model, parameters  # noqa: E402
from sweeps.recipe import Recipe  # noqa: E402
from sweeps.stages import Train  # noqa: E402

OURS, THEIRS, EAGER = "growpoint", "transformers' default (grouped_mm)", "transformers' eager"
EXPERTS = {OURS: "", THEIRS: "grouped_mm", EAGER: "eager"}
# bf16 products of the dense kind, as the makers say.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


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
GPU = {
    "150M active": (
        model(12, 768, 12, experts=32, top_k=4, expert_hidden=768, vocabulary=50304),
        Recipe(batch_sequences=32, sequence_tokens=2048, precision="bf16"),
    ),
    "1B active": (
        model(16, 2048, 16, experts=32, top_k=8, expert_hidden=1024, vocabulary=50304),
        Recipe(batch_sequences=16, sequence_tokens=4096, precision="bf16"),
    ),
}


class Random:
    """A stream of random tokens; the same for all rows."""

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
    seconds: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)

    def tokens_per_second(self) -> float:
        """By the median step."""
        return self.loop.recipe.batch_tokens / statistics.median(self.seconds)


def loops(
    made: Model, recipe: Recipe, names: Sequence[str], folder: Path, device: str
) -> Iterator[Row]:
    """A loop for each way, all from the same weights."""
    models.create(made, 0, folder)
    do = Train(tokens=recipe.batch_tokens * 10**6, recipe=recipe, corpus=Corpus.model_construct())
    stream: Any = Random(made.vocabulary, recipe.sequence_tokens)
    for name in names:
        loop = Loop(do, folder, Position(), stream, how=Computing(device=device))
        if EXPERTS[name]:
            loop.optimizer.compute.set_experts_implementation(EXPERTS[name])
        yield Row(name, loop)


def step(row: Row, device: str) -> None:
    """One step, timed to its end on the device."""
    _wait(device)
    began = time.perf_counter()
    row.loop.step()
    _wait(device)
    row.seconds.append(time.perf_counter() - began)
    row.loop.settle()


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


@contextmanager
def timed(row: Row, device: str) -> Iterator[None]:
    """Share out the time of steps: the network's passes, the clip, the update."""
    optimizer, loop = row.loop.optimizer, row.loop
    places = ((loop, "_backward"), (optimizer, "clip"), (optimizer, "step"))
    for place, name in places:
        setattr(place, name, _measured(getattr(place, name), name, row.parts, device))
    try:
        yield
    finally:
        for place, name in places:
            delattr(place, name)


def _measured(
    call: Callable[..., Any], name: str, parts: dict[str, float], device: str
) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        _wait(device)
        began = time.perf_counter()
        came = call(*arguments)
        _wait(device)
        parts[name] = parts.get(name, 0.0) + time.perf_counter() - began
        return came

    return run


def overhead(row: Row, device: str, steps: int) -> float:
    """Share of a step that is neither the network's passes nor clip and update."""
    row.parts.clear()
    whole = 0.0
    with timed(row, device):
        for _ in range(steps):
            before = len(row.seconds)
            step(row, device)
            whole += row.seconds.pop(before)
    return 1 - sum(row.parts.values()) / whole


def measure(
    shapes: Mapping[str, tuple[Model, Recipe]],
    names: Sequence[str],
    device: str,
    rounds: int,
    peak_flops: float | None,
) -> None:
    """Print a table: a line for each shape and way."""
    print("| shape | experts | tokens/s | of eager | of default | outside | MFU |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for shape, (made, recipe) in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = list(loops(made, recipe, names, Path(folder) / "model", device))
            for number in range(rounds + 2):
                # There and back: what ran before leaves its mark on memory and caches.
                for row in rows if number % 2 else reversed(rows):
                    step(row, device)
                    if number < 2:  # kernels are chosen, memory is taken
                        row.seconds.clear()
            _print(shape, made, recipe, rows, device, peak_flops)


def _print(
    shape: str,
    made: Model,
    recipe: Recipe,
    rows: Sequence[Row],
    device: str,
    peak_flops: float | None,
) -> None:
    speeds = {row.name: row.tokens_per_second() for row in rows}
    flops = 3 * cost.forward_flops_per_token(made, recipe.sequence_tokens)
    active = parameters(made).active
    for row in rows:
        of = [f"{_ratio(row, rows, other):.2f}" for other in (EAGER, THEIRS)]
        outside = f"{100 * overhead(row, device, 5):.1f} %"
        mfu = f"{100 * speeds[row.name] * flops / peak_flops:.1f} %" if peak_flops else "-"
        cells = [f"{shape} ({active / 1e6:.1f}M active)", row.name, f"{speeds[row.name]:,.0f}"]
        print(f"| {' | '.join([*cells, *of, outside, mfu])} |", flush=True)


def _ratio(row: Row, rows: Sequence[Row], other: str) -> float:
    """Median over rounds of the other's seconds over this one's in the same round."""
    theirs = next((each.seconds for each in rows if each.name == other), [])
    pairs = zip(theirs, row.seconds, strict=False)
    return statistics.median([b / a for b, a in pairs] or [float("nan")])


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the shapes for one GPU, in bf16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shape", help="one shape alone")
    asked = parser.parse_args()
    shapes = {n: s for n, s in (GPU if asked.gpu else CPU).items() if asked.shape in (None, n)}
    if not asked.gpu:
        print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
        measure(shapes, tuple(EXPERTS), "cpu", asked.rounds, None)
        return
    card = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in card), None)
    print(f"{card}, torch {torch.__version__}\n")
    measure(shapes, (THEIRS,), "cuda", asked.rounds, peak)


if __name__ == "__main__":
    main()
