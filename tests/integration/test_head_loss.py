"""Losses in pieces are the losses: values and gradients, for every family."""

from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.head_loss import HeadLoss, Losses
from tests.integration.tiny_families import FAMILIES, network, tiny

ROWS = torch.randint(0, 64, (3, 25), generator=torch.Generator().manual_seed(2))


def found(model: Any, logits: int) -> tuple[Losses, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    came = HeadLoss(model, logits)(ROWS)
    whole = came.loss if came.router is None else came.loss + 0.1 * came.router
    whole.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return came, {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_pieces_make_the_same_loss_and_gradients(name: str) -> None:
    model = network(tiny(name)).train()
    whole, expected = found(model, 1 << 26)
    pieces, grads = found(model, 7 * 64)  # seven tokens at a time, and a rest of five
    torch.testing.assert_close(pieces.loss, whole.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pieces.router, whole.router, rtol=0, atol=0)
    assert grads.keys() == expected.keys()
    for key, grad in grads.items():
        torch.testing.assert_close(grad, expected[key], rtol=1e-4, atol=1e-6)


def widest(model: Any, logits: int) -> int:
    """The most logits that the head has made at once."""
    seen: list[int] = []
    head = model.get_output_embeddings()
    watch = head.register_forward_hook(lambda _m, _i, came: seen.append(came.numel()))
    HeadLoss(model, logits)(ROWS)
    watch.remove()
    return max(seen)


def test_no_more_logits_are_made_than_allowed() -> None:
    model = network(tiny("olmoe"))
    assert widest(model, 1 << 26) == ROWS[:, 1:].numel() * 64
    assert widest(model, 7 * 64) == 7 * 64


def test_logits_that_are_more_than_the_head_are_left_whole() -> None:
    """granitemoe divides its logits by a number of its own."""
    model = network(tiny("granitemoe"))
    assert widest(model, 7 * 64) == 7 * 64
    model.config.logits_scaling = 4.0
    assert widest(model, 7 * 64) == ROWS[:, 1:].numel() * 64
