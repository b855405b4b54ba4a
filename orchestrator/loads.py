"""How evenly the router spreads tokens over experts, counted where it hands them out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Of the module of a layer's experts: so that a compiled layer asks for no module by its identity,
# and equal layers are compiled once.
SEEN = "_growpoint_tokens_seen"


class Loads:
    """Tokens that each expert got since `clear`, layer by layer, as the router really chose.

    Counted before the experts compute, so grouped routing, biases for balance and ties are all in
    it; router logits alone would not tell. Architectures that compute their experts in another way
    show nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen: list[Tensor] = []
        experts: list[Any] = [module for module in model.modules() if _is_experts(module)]
        for module in experts:
            device = next(module.parameters()).device
            seen = torch.zeros(module.num_experts, dtype=torch.int64, device=device)
            setattr(module, SEEN, seen)
            module.register_forward_pre_hook(_count)
            self._seen.append(seen)
        self._counts = [torch.zeros_like(seen) for seen in self._seen]

    def clear(self) -> None:
        """Forget what was counted."""
        for found in self._counts:
            found.zero_()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A forward pass that counts; others do not, as those that a backward pass repeats."""
        for seen in self._seen:
            seen.zero_()
        yield
        for found, seen in zip(self._counts, self._seen, strict=True):
            found.add_(seen)

    def counts(self) -> Tensor | None:
        """[layers, experts] tokens; None if nothing was seen."""
        found = [counts for counts in self._counts if bool(counts.any())]
        return torch.stack(found) if found else None


@torch.no_grad()
def _count(module: Any, arguments: Sequence[Any]) -> None:
    # (hidden [T, H], chosen experts [T, k], their weights [T, k])
    if len(arguments) < 2:
        return
    chosen = arguments[1].reshape(-1)
    seen = getattr(module, SEEN)
    # Not bincount, which makes a GPU wait.
    seen.scatter_add_(0, chosen.clamp(0, module.num_experts - 1), torch.ones_like(chosen))


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
