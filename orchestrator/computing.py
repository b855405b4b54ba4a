"""How a phase is computed: circumstance, which enters no stage."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from orchestrator.memory import MICRO_BATCH_TOKENS
from sweeps.errors import GrowpointError


@dataclass(frozen=True, kw_only=True)
class Computing:
    """On which device and by how many threads of it, so many tokens at once, and what is kept.

    With `activation_checkpointing` the backward pass makes what is inside a layer once more.
    """

    device: str = "cpu"
    threads: int = 1
    micro_batch_tokens: int = MICRO_BATCH_TOKENS
    activation_checkpointing: bool = False


PLAIN = Computing()


def prepare(model: PreTrainedModel, how: Computing) -> None:
    """Have a network compute as asked; weights and their names stay as they are.

    Raises GrowpointError for an architecture that does not offer it.
    """
    if how.activation_checkpointing:
        _forget_activations(model)


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
