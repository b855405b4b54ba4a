"""Cross-entropy of the next token without the logits of a whole batch in memory."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from orchestrator import fused

# Logits of so many numbers at once, 256 MB in fp32; with gradients about three times that.
LOGITS = 1 << 26
# The head is taken to be all that makes logits if it reproduces them to so much of the largest.
TOLERANCE = 1e-3


class Losses(NamedTuple):
    """Mean cross-entropy over all labels, and the architecture's own load-balancing loss."""

    loss: Tensor
    router: Tensor | None


class HeadLoss:
    """Next-token losses of a network: [B, T + 1] tokens -> Losses.

    Few logits are computed at once, as transformers has them. Many are made in pieces from the last
    hidden states, and once more in the backward pass: a vocabulary of 50k takes 200 kB a token in
    fp32, thrice with its gradients, which is most of the memory of a small network. The second
    making costs a third of the head's FLOPs; `liger` does without.
    """

    def __init__(
        self, model: PreTrainedModel, logits: int | None = None, liger: bool = False
    ) -> None:
        self._model, self._logits, self._liger = model, logits or LOGITS, liger
        self.kernel = "whole"
        taken = inspect.signature(model.forward).parameters
        self._more = {"output_router_logits": True} if "output_router_logits" in taken else {}
        # A network that is its own base shows no states before the head.
        can = "logits_to_keep" in taken and model.base_model is not model
        self._plain: bool | None = None if can else False

    def prepare(self, tokens: int) -> None:
        """Find out what passes of so many tokens need; else the first of them does.

        From then on `kernel` is a word for it: `whole`, `pieces` or `liger`.
        """
        if self._is_much(tokens):
            device = next(self._model.parameters()).device
            tried = torch.arange(9, device=device)[None] % int(self._model.config.vocab_size)
            if self._splits(tried):
                self.kernel = "pieces" if self._linear() is None else "liger"
            if isinstance(self._model, FSDPModule):
                # A forward pass alone leaves the outermost weights put together.
                self._model.reshard()

    def _is_much(self, tokens: int) -> bool:
        return tokens * int(self._model.config.vocab_size) > self._logits

    def __call__(self, rows: Tensor, **more: Tensor) -> Losses:
        """Losses of one forward pass, which is given `more` as it is."""
        inputs, labels = rows[:, :-1], rows[:, 1:]
        if self._is_much(labels.numel()) and self._splits(rows):
            hidden, came = self._last_hidden(inputs, **more)
            return Losses(self._few_at_once(hidden, labels), _router(came))
        came = self._forward(inputs, **more)
        loss = cross_entropy(came.logits.flatten(0, 1).float(), labels.flatten())
        return Losses(loss, _router(came))

    def _forward(self, inputs: Tensor, **more: Any) -> Any:
        return self._model(input_ids=inputs, use_cache=False, **self._more, **more)

    def _last_hidden(self, inputs: Tensor, **more: Tensor) -> tuple[Tensor, Any]:
        """[B, T, H] before the head, and what the network returned with one logit a row."""
        kept: list[Tensor] = []
        base: nn.Module = self._model.base_model
        watch = base.register_forward_hook(lambda _module, _inputs, came: kept.append(came[0]))
        try:
            came = self._forward(inputs, logits_to_keep=1, **more)
        finally:
            watch.remove()
        return kept[0], came

    @torch.no_grad()
    def _splits(self, rows: Tensor) -> bool:
        """Whether the head alone makes the logits: some architectures scale or cap them."""
        if self._plain is None:
            head = self._model.get_output_embeddings()
            hidden, came = self._last_hidden(rows[:1, :9])
            made, said = head(hidden[:, -1:]).float(), came.logits.float()
            close = (made - said).abs().max() <= TOLERANCE * said.abs().max()
            self._plain = bool(close)
        return self._plain

    def _few_at_once(self, hidden: Tensor, labels: Tensor) -> Tensor:
        head = self._linear()
        if head is None:
            return self._pieces(hidden, labels)
        return fused.mean_loss(head, hidden.flatten(0, 1), labels.flatten())

    def _linear(self) -> nn.Linear | None:
        """The head, if Liger is asked for and knows it."""
        head = self._model.get_output_embeddings()
        return head if self._liger and isinstance(head, nn.Linear) else None

    def _pieces(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over [B, T] labels, a piece of tokens at a time."""
        head = self._model.get_output_embeddings()
        size = max(1, self._logits // int(self._model.config.vocab_size))
        total = hidden.new_zeros((), dtype=torch.float32)
        flat = zip(hidden.flatten(0, 1).split(size), labels.flatten().split(size), strict=True)
        for states, wanted in flat:
            total = total + checkpoint(_summed, head, states, wanted, use_reentrant=False)
        return total / labels.numel()


def _summed(head: Callable[[Tensor], Tensor], states: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(head(states).float(), labels, reduction="sum")


def _router(came: Any) -> Tensor | None:
    found = getattr(came, "aux_loss", None)
    return found if isinstance(found, Tensor) else None
