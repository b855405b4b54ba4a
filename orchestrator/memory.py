"""Memory of a phase: how many tokens pass at once, and what to do where they do not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from sweeps.errors import GrowpointError
from sweeps.recipe import Recipe

if TYPE_CHECKING:
    from orchestrator.computing import Computing

# Of one forward and backward pass, unless the cluster says otherwise; longer batches are summed up
# from several. More tokens keep a GPU busier, but logits of a 50k vocabulary take 200 kB a token.
MICRO_BATCH_TOKENS = 16384
# How PyTorch's allocator of main memory says it, in a plain RuntimeError.
MAIN_MEMORY = ("can't allocate memory", "not enough memory")


@contextmanager
def holding_the_state() -> Iterator[None]:
    """Raises GrowpointError where a network and its optimizer do not fit into memory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_short(error):
            raise
        raise GrowpointError(
            "the network and its optimizer's state do not fit into memory",
            [("says", _says(error))],
            "a GPU with more memory (cluster.gpu_type), or on CPUs a larger cluster.memory_gb",
        ) from None


@contextmanager
def holding_a_pass(recipe: Recipe, how: "Computing") -> Iterator[None]:
    """Raises GrowpointError where a forward and backward pass does not fit into memory."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_short(error):
            raise
        length = recipe.sequence_tokens
        most = max(step.tokens for step in recipe.batches.stretches)
        at_once = max(length, min(most, how.micro_batch_tokens) // length * length)
        fewer = max(1, at_once // length // 2) * length
        raise GrowpointError(
            "a pass of training does not fit into memory",
            [("at once", f"{at_once} tokens in rows of up to {length}"), ("says", _says(error))],
            _fewer(at_once, fewer, how),
        ) from None


def _fewer(at_once: int, fewer: int, how: "Computing") -> str:
    knobs = [f"cluster.micro_batch_tokens={fewer}"] if fewer < at_once else []
    knobs += [] if how.activation_checkpointing else ["cluster.activation_checkpointing=true"]
    if knobs:
        return f"{' or '.join(knobs)}, and launch again"
    return "a GPU with more memory (cluster.gpu_type): one sequence alone is too much"


def _is_short(error: Exception) -> bool:
    short = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return short or any(words in str(error) for words in MAIN_MEMORY)


def _says(error: Exception) -> str:
    """The first two sentences: what follows advises on settings of the allocator."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return ". ".join(line.split(". ")[:2])
