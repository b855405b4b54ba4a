"""The table of one GPU: ways to train come one after the other, as few fit beside each other."""

import gc
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.train_ways import COMPILED, Row, Way, outside, row
from orchestrator import models
from sweeps import cost
from sweeps.model import Model, parameters
from sweeps.recipe import Recipe

# What a kernel does, by its name, the first that fits; read off the sources of PyTorch 2.13.
KINDS = {
    # Inductor names a kernel after the operations that it feeds: first.
    "fused by compiler or Liger": "triton_(poi|red|per)|liger|element_mul|cpp_fused",
    "experts' products": "group",
    "attention": "flash|fmha|sdp|attention|cudnn_generated",
    "products": "gemm|nvjet|cutlass|cublas|xmma|splitk|::mm|::addmm|::bmm",
    "optimizer": "adam|multi_tensor|foreach",
    "copies": "memcpy|memset|copy",
}
REST = "other"
WARM_STEPS = 2
LEAST_STEPS = 3
Shapes = Mapping[str, tuple[Model, Recipe]]


@dataclass(frozen=True)
class Measured:
    """What a way of training came to; shares are of the step's time."""

    tokens_per_second: float
    first_step_seconds: float
    outside_share: float
    memory_gb: float
    shares: Mapping[str, float]
    longest: Sequence[tuple[str, float]]


def measure(
    shapes: Shapes, ways: Mapping[str, Way], device: str, seconds: float, peak_flops: float | None
) -> None:
    """Print speeds, and where time goes, of all ways in all shapes; it takes about `seconds`."""
    each = seconds / (len(shapes) * len(ways))
    spent: list[str] = []
    print("| shape | way | tokens/s | of theirs | MFU | outside | first step | memory |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for shape, (made, recipe) in shapes.items():
        found = _all(made, recipe, ways, device, each)
        theirs = found.get(COMPILED)
        for name, one in found.items():
            cells = _cells(one, theirs, made, recipe, peak_flops)
            active = parameters(made).active / 1e6
            print(f"| {shape} ({active:.0f}M) | {name} | {' | '.join(cells)} |", flush=True)
            if isinstance(one, Measured):
                spent.append(f"| {shape} | {name} | {' | '.join(_spent(one))} |")
    kinds = [*KINDS, REST, "idle"]
    print(f"\n| shape | way | {' | '.join(kinds)} | longest |")
    print(f"|---|---|{'---:|' * len(kinds)}---|", *spent, sep="\n")


def _all(
    made: Model, recipe: Recipe, ways: Mapping[str, Way], device: str, seconds: float
) -> dict[str, Measured | str]:
    found: dict[str, Measured | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        models.create(made, 0, Path(folder) / "model")
        for name, way in ways.items():
            try:
                found[name] = _one(name, way, made, recipe, Path(folder) / "model", device, seconds)
            except Exception as error:
                # Whatever one way cannot do, the time on the GPU was paid for the others.
                said = str(error) or type(error).__name__
                found[name] = said.splitlines()[0][:80]
            gc.collect()
            # Else the next way, or shape, finds layers that were compiled for this one.
            torch._dynamo.reset()
            if device != "cpu":
                torch.cuda.empty_cache()
    return found


def _one(
    name: str,
    way: Way,
    made: Model,
    recipe: Recipe,
    folder: Path,
    device: str,
    seconds: float,
) -> Measured:
    began = time.monotonic()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    mine = row(name, way, made, recipe, folder, device)
    first = mine.step()
    for _ in range(WARM_STEPS):
        mine.step()
    while len(mine.seconds) < LEAST_STEPS or time.monotonic() - began < 0.8 * seconds:
        mine.seconds.append(mine.step())
    memory = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else 0.0
    shares, longest = _where_time_goes(mine, statistics.median(mine.seconds))
    return Measured(
        mine.tokens_per_second(), first, outside(mine, LEAST_STEPS), memory, shares, longest
    )


def _where_time_goes(mine: Row, step_seconds: float) -> tuple[dict[str, float], list[Any]]:
    """Shares of a step by kinds of kernels, and the longest kernels."""
    is_gpu = mine.device != "cpu"
    activity = ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as watched:
        mine.step()
    seconds: dict[str, float] = {}
    for event in watched.key_averages():
        took = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        seconds[event.key] = seconds.get(event.key, 0.0) + took / 1e6
    # Under the profiler a step is slower; kernels are not.
    shares = dict.fromkeys([*KINDS, REST], 0.0)
    for name, took in seconds.items():
        shares[_kind(name)] += took / step_seconds
    order = sorted(seconds.items(), key=lambda item: -item[1])[:3]
    return shares, [(name, took / step_seconds) for name, took in order]


def _kind(name: str) -> str:
    fits = (kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower()))
    return next(fits, REST)


def _cells(
    one: Measured | str,
    theirs: Measured | str | None,
    made: Model,
    recipe: Recipe,
    peak_flops: float | None,
) -> list[str]:
    if isinstance(one, str):
        return [one, *"-----"]
    # Forward and backward, without what activation checkpointing would make again.
    flops = 3 * cost.forward_flops_per_token(made, recipe.sequence_tokens)
    speed = one.tokens_per_second
    compared = isinstance(theirs, Measured)
    return [
        f"{speed:,.0f}",
        f"{speed / theirs.tokens_per_second:.2f}" if compared else "-",
        f"{speed * flops / peak_flops:.1%}" if peak_flops else "-",
        f"{one.outside_share:.1%}",
        f"{one.first_step_seconds:.1f} s",
        f"{one.memory_gb:.1f} GB",
    ]


def _spent(one: Measured) -> list[str]:
    idle = max(0.0, 1 - sum(one.shares.values()))
    longest = ", ".join(f"`{name[:60]}` {share:.0%}" for name, share in one.longest)
    return [*(f"{share:.0%}" for share in (*one.shares.values(), idle)), longest]
