"""The experts of a layer on a CPU: tokens sorted by expert, then one product after the other."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NAME = "growpoint"
# From so many experts on whose down projections are smaller, a loop in Python costs more than it
# saves: 64 experts of 64 x 192 ran at 0.92 of the speed of grouped_mm with two threads and 0.99
# with one, 32 of 96 x 192 at 0.97 and 1.01, but 64 of 256 x 512 at 1.03.
MANY, SMALL = 32, 1 << 15


def sorted_experts(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of each token's experts. [T, H], [T, k], [T, k] -> [T, H].

    As `grouped_mm`, but with `unbind`, whose backward writes each expert's gradient once. The
    eager loop of transformers indexes the stacked weights, and so fills a zero gradient of all
    experts for each expert: quadratic in their number (a third of the step at 64 experts).
    """
    tokens, k = top_k_index.shape
    experts, order = torch.sort(top_k_index.reshape(-1))
    counts = torch.bincount(experts, minlength=self.num_experts)[: self.num_experts].tolist()
    rows = hidden_states[order // k]
    pieces = [
        _one(self, number, inputs, up, down)
        for number, (inputs, up, down) in enumerate(
            zip(
                rows.split(counts),
                (self.gate_up_proj if self.has_gate else self.up_proj).unbind(0),
                self.down_proj.unbind(0),
                strict=True,
            )
        )
        if counts[number]
    ]
    weighted = torch.cat(pieces) * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted[back].view(tokens, k, -1).sum(dim=1).to(hidden_states.dtype)


def suits(model: nn.Module) -> bool:
    """Whether the loop is at least as quick as `grouped_mm` for the experts of a network."""
    found = (getattr(module, "down_proj", None) for module in model.modules())
    stacks = [each for each in found if isinstance(each, Tensor) and each.ndim == 3]
    return not any(len(each) >= MANY and each[0].numel() < SMALL for each in stacks)


def _one(self: Any, number: int, inputs: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """One expert's output for its tokens."""
    bias = "gate_up_proj_bias" if self.has_gate else "up_proj_bias"
    hidden = _linear(self, inputs, up, bias, number)
    hidden = self._apply_gate(hidden) if self.has_gate else self.act_fn(hidden)
    output = _linear(self, hidden, down, "down_proj_bias", number)
    return self.post_expert_norm(output) if getattr(self, "has_post_expert_norm", False) else output


def _linear(self: Any, inputs: Tensor, weight: Tensor, bias: str, number: int) -> Tensor:
    added = getattr(self, bias)[number] if self.has_bias else None
    return linear(inputs, weight.t() if self.is_transposed else weight, added)
