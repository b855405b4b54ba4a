"""The experts of a layer on a CPU: tokens sorted by expert, then one product after the other.

Plain autograd does the same, and moves every row three times as often: for each gather it fills and
adds up a zero gradient, it joins the experts' outputs and cuts their gradients, and it stacks those
of the weights. Each backward pass here writes where its numbers belong, as a gather or a product.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NAME = "growpoint"


def sorted_experts(
    self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """Weighted sum of each token's experts. [T, H], [T, k], [T, k] -> [T, H].

    The eager loop of transformers indexes the stacked weights, and so fills a zero gradient of all
    experts for each expert: quadratic in their number (a third of the step at 64 experts).
    """
    experts, order = torch.sort(top_k_index.reshape(-1))
    counts = torch.bincount(experts, minlength=self.num_experts).tolist()
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    k = top_k_index.shape[1]
    owners = order // k
    rows = _Spread.apply(hidden_states, owners, back, k)
    hidden = _linear(self, rows, counts, "gate_up_proj" if self.has_gate else "up_proj")
    hidden = self._apply_gate(hidden) if self.has_gate else self.act_fn(hidden)
    output = _linear(self, hidden, counts, "down_proj")
    if getattr(self, "has_post_expert_norm", False):
        output = self.post_expert_norm(output)
    weighted = output * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    gathered: Tensor = _Gather.apply(weighted, owners, back, k)
    return gathered.to(hidden_states.dtype)


def _linear(self: Any, rows: Tensor, counts: list[int], name: str) -> Tensor:
    weight, bias = getattr(self, name), getattr(self, f"{name}_bias") if self.has_bias else None
    made: Tensor = _Products.apply(rows, weight if self.is_transposed else weight.mT, bias, counts)
    return made


class _Spread(Function):
    """[T, H] states to [T k, H] rows, a token's for each of its experts, sorted by expert.

    Row i is that of token `owners[i]`; the rows of token t are `back[t k]` to `back[t k + k - 1]`.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, owners: Tensor, back: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.k = k
        return states.index_select(0, owners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return _summed(gradient, back, ctx.k), None, None, None


class _Gather(Function):
    """The reverse: [T k, H] sorted rows to [T, H] sums over each token's experts."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, owners: Tensor, back: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(owners)
        return _summed(rows, back, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (owners,) = ctx.saved_tensors
        return gradient.index_select(0, owners), None, None, None


def _summed(rows: Tensor, back: Tensor, k: int) -> Tensor:
    return rows.index_select(0, back).view(-1, k, rows.shape[-1]).sum(dim=1)


class _Products(Function):
    """[N, K] rows, the first `counts[0]` of them times the first of [E, K, M] weights, and so on.

    With a row of [E, M] added, if there is a bias.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, counts: list[int]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.counts, ctx.has_bias = counts, bias is not None
        made = rows.new_empty(len(rows), weight.shape[2])
        parts = zip(made.split(counts), rows.split(counts), weight.unbind(0), strict=True)
        for number, (out, inputs, matrix) in enumerate(parts):
            if bias is None:
                torch.mm(inputs, matrix, out=out)
            else:
                torch.addmm(bias[number], inputs, matrix, out=out)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight = torch.empty_like(rows), torch.empty_like(weight)
        counts = ctx.counts
        above = gradient.split(counts)
        for out, part, matrix in zip(of_rows.split(counts), above, weight.unbind(0), strict=True):
            torch.mm(part, matrix.t(), out=out)
        # Of an expert without tokens a product over no rows: zeros.
        for out, inputs, part in zip(of_weight.unbind(0), rows.split(counts), above, strict=True):
            torch.mm(inputs.t(), part, out=out)
        of_bias = torch.stack([part.sum(dim=0) for part in above]) if ctx.has_bias else None
        return of_rows, of_weight, of_bias, None
