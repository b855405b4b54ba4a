"""Tokens per second of a whole step of training, beside what transformers does by itself.

    OMP_NUM_THREADS=2 python benchmarks/train.py            # CPU, 3 shapes, about 4 minutes
    python benchmarks/train.py --gpu                        # one GPU, 2 shapes, at most 8 minutes

Each row is the same loop, on the same tokens, with other experts. On a CPU rows take turns in one
process, so that a busy machine is unfair to none of them. On a GPU they come one after the other,
with compiled layers and without, and model FLOPs of a token (docs/flops.md) over the card's peak
give the MFU; a second table says where the time of a step goes.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import train_gpu  # noqa: E402
from benchmarks.train_ways import (  # noqa: E402
    CPU,
    CPU_WAYS,
    EAGER,
    GPU,
    GPU_WAYS,
    THEIRS,
    Row,
    Way,
    outside,
    row,
)
from orchestrator import models  # noqa: E402
from sweeps.model import Model, parameters  # noqa: E402
from sweeps.recipe import Recipe  # noqa: E402

# bf16 products of the dense kind, as the makers say.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


def measure(
    shapes: Mapping[str, tuple[Model, Recipe]], ways: Mapping[str, Way], rounds: int
) -> None:
    """Print a table: a line for each shape and way."""
    print("| shape | experts | tokens/s | of eager | of default | outside |")
    print("|---|---|---:|---:|---:|---:|")
    for shape, (made, recipe) in shapes.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            models.create(made, 0, folder)
            rows = [row(name, way, made, recipe, folder, "cpu") for name, way in ways.items()]
            for number in range(rounds + 2):
                # There and back: what ran before leaves its mark on memory and caches.
                for one in rows if number % 2 else reversed(rows):
                    seconds = one.step()
                    if number >= 2:  # kernels are chosen, memory is taken
                        one.seconds.append(seconds)
            _print(shape, made, rows)


def _print(shape: str, made: Model, rows: Sequence[Row]) -> None:
    active = parameters(made).active
    for one in rows:
        of = [f"{_ratio(one, rows, other):.2f}" for other in (EAGER, THEIRS)]
        cells = [f"{shape} ({active / 1e6:.1f}M active)", one.name]
        cells += [f"{one.tokens_per_second():,.0f}", *of, f"{100 * outside(one, 5):.1f} %"]
        print(f"| {' | '.join(cells)} |", flush=True)


def _ratio(one: Row, rows: Sequence[Row], other: str) -> float:
    """Median over rounds of the other's seconds over this one's in the same round."""
    theirs = next((each.seconds for each in rows if each.name == other), [])
    pairs = zip(theirs, one.seconds, strict=False)
    return statistics.median([b / a for b, a in pairs] or [float("nan")])


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the shapes for one GPU, in bf16")
    parser.add_argument("--rounds", type=int, default=15, help="on a CPU")
    parser.add_argument("--seconds", type=float, default=400, help="on a GPU, in all")
    parser.add_argument("--shape", help="one shape alone")
    asked = parser.parse_args()
    shapes = {n: s for n, s in (GPU if asked.gpu else CPU).items() if asked.shape in (None, n)}
    if not asked.gpu:
        print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
        measure(shapes, CPU_WAYS, asked.rounds)
        return
    if not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU")
    card = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in card), None)
    print(f"{card}, torch {torch.__version__}\n")
    train_gpu.measure(shapes, GPU_WAYS, "cuda", asked.seconds, peak)


if __name__ == "__main__":
    main()
