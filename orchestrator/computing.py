"""How a phase is computed: circumstance, which enters no stage."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from orchestrator import fused, models
from orchestrator.memory import MICRO_BATCH_TOKENS
from sweeps.errors import GrowpointError


@dataclass(frozen=True, kw_only=True)
class Computing:
    """On which device and by how many threads of it, so many tokens at once, and what is kept.

    With `activation_checkpointing` the backward pass makes what is inside a layer once more. With
    `compile` PyTorch's compiler makes kernels of each layer, with `liger` Liger's kernel makes the
    loss of the head where it has many logits.
    """

    device: str = "cpu"
    threads: int = 1
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    activation_checkpointing: bool = False
    compile: bool = False
    liger: bool = False


PLAIN = Computing()


def prepare(model: PreTrainedModel, how: Computing) -> None:
    """Have a network compute as asked; weights and their names stay as they are.

    Raises GrowpointError for an architecture, or a machine, that does not offer it.
    """
    if how.liger:
        fused.require(how.device)
    if how.activation_checkpointing and how.compile:
        # PyTorch 2.13 gives up on a layer that does both, and runs it uncompiled without a word.
        raise GrowpointError(
            "layers are not both compiled and computed twice",
            [("compile", "true"), ("activation_checkpointing", "true")],
            "cluster.compile=false, or cluster.activation_checkpointing=false",
        )
    if how.activation_checkpointing:
        _forget_activations(model)
    if how.compile:
        _compile_layers(model)


def _compile_layers(model: PreTrainedModel) -> None:
    # The loop over sorted tokens asks how many each expert gets, which no compiler can know.
    models.choose_experts(model, "cuda")
    names = set(model._no_split_modules or ())
    for layer in model.modules():
        if type(layer).__name__ in names:
            # Not `layer.compile()`, which would take in hooks of the layer.
            layer.forward = torch.compile(layer.forward)


@contextmanager
def compiling(how: Computing) -> Iterator[None]:
    """Raises GrowpointError where layers cannot be compiled: no C++ compiler, no Triton."""
    if not how.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise GrowpointError(
            "the layers cannot be compiled on this machine",
            [("says", said)],
            "cluster.compile=false, or install a C++ compiler (and Triton for a GPU)",
        ) from error


def _forget_activations(model: PreTrainedModel) -> None:
    # transformers renames it in 5.23, and warns of the name that it has in earlier versions.
    enable = getattr(model, "activation_checkpointing_enable", None)
    try:
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    except ValueError as error:
        raise GrowpointError(
            "the architecture offers no activation checkpointing",
            [("model_type", model.config.model_type), ("says", str(error).split(".")[0])],
            "cluster.activation_checkpointing=false",
        ) from error
