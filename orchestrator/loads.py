"""How evenly the router spreads tokens over experts, counted where it hands them out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Loads:
    """Tokens that each expert got since `clear`, layer by layer, as the router really chose.

    Counted before the experts compute, so grouped routing, biases for balance and ties are all in
    it; router logits alone would not tell. Architectures that compute their experts in another way
    show nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._counts: dict[nn.Module, Tensor] = {}
        self._layers = [module for module in model.modules() if _is_experts(module)]
        for module in self._layers:
            module.register_forward_pre_hook(self._count)

    def clear(self) -> None:
        """Forget what was counted."""
        self._counts.clear()

    @torch.no_grad()
    def _count(self, module: Any, arguments: Sequence[Any]) -> None:
        # (hidden [T, H], chosen experts [T, k], their weights [T, k])
        if len(arguments) < 2:
            return
        chosen = arguments[1].reshape(-1)
        # Not bincount, which makes a GPU wait.
        found = chosen.new_zeros(module.num_experts)
        found.scatter_add_(0, chosen.clamp(0, module.num_experts - 1), torch.ones_like(chosen))
        before = self._counts.get(module)
        self._counts[module] = found if before is None else before + found

    def counts(self) -> Tensor | None:
        """[layers, experts] tokens; None if nothing was seen."""
        found = [self._counts[module] for module in self._layers if module in self._counts]
        return torch.stack(found) if found else None


def _is_experts(module: Any) -> bool:
    """Whether all experts of a layer are this one module, which is told who gets which token."""
    weight = getattr(module, "down_proj", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 3 and hasattr(module, "num_experts")


def balance(counts: Tensor | None) -> dict[str, float | int | None]:
    """`expert_load`: the busiest expert's tokens over the mean, averaged over layers; 1 is even.

    `idle_experts`: experts of all layers that got no token. `counts` is [layers, experts].
    """
    if counts is None:
        return {"expert_load": None, "idle_experts": None}
    found = counts.double()
    mean = found.mean(dim=1).clamp(min=1e-12)
    return {
        "expert_load": round(float((found.amax(dim=1) / mean).mean()), 4),
        "idle_experts": int((counts == 0).sum()),
    }
