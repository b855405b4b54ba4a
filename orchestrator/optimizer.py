"""AdamW on fp32 weights, with a bf16 copy that computes where the recipe says so."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from orchestrator import sharding
from orchestrator.moments import FILE, MOMENTS, Carried, unlike
from orchestrator.ranks import ALONE, Ranks
from sweeps.recipe import Recipe


class Optimizer:
    """The weights as they are learnt (`model`, fp32) and as they compute (`compute`).

    In fp32 both are the same. In bf16 the copy takes the gradients and follows after each step:
    no autocast, which the grouped product of the experts does not know (PyTorch issue 174763), so
    that everything inside computes in bf16, and sums of many small updates are kept in fp32.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe, ranks: Ranks = ALONE) -> None:
        self.model, self.ranks = model, ranks
        # A network that is spread over ranks is put together in bf16 layer by layer.
        has_twin = recipe.precision == "bf16" and ranks.world == 1
        self.compute = _bf16(model) if has_twin else model
        self._clip = recipe.clip
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = list(self._named.values())
        self._working = [p for p in self.compute.parameters() if p.requires_grad]
        self._adamw = torch.optim.AdamW(
            _groups(self._named, recipe.weight_decay),
            lr=recipe.lr,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            fused=True,
        )
        self._start(0)

    def _start(self, step: int) -> None:
        """Moments of all weights from the beginning, also of those that no token reaches yet."""
        for weight in self._masters:
            self._adamw.state[weight] = {
                "step": torch.tensor(float(step), device=weight.device),
                **{moment: torch.zeros_like(weight) for moment in MOMENTS},
            }

    def collect(self) -> None:
        """Add the gradients of one backward pass to those of the batch, which are fp32."""
        if self.compute is self.model:
            return
        for master, working in zip(self._masters, self._working, strict=True):
            if working.grad is not None:
                found = working.grad.to(master.dtype)
                master.grad = found if master.grad is None else master.grad.add_(found)
                working.grad = None

    def clip(self) -> Tensor:
        """Scale the batch's gradient to at most the recipe's norm; returns the norm it had."""
        for weight in self._masters:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        found = [weight.grad for weight in self._masters if weight.grad is not None]
        norm = sharding.whole(nn.utils.get_total_norm(found))
        nn.utils.clip_grads_with_norm_(self._masters, self._clip, norm)
        return norm

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update, and gradients forgotten."""
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        if self.compute is not self.model:
            torch._foreach_copy_(self._working, self._masters)

    def skip(self) -> None:
        """Count an update that is not made, so that the count follows from the position alone."""
        for weight in self._masters:
            self._adamw.state[weight]["step"] += 1

    def save(self, folder: Path | None) -> None:
        """Write the moments as `exp_avg.NAME` and `exp_avg_sq.NAME`.

        All ranks meet here; those that have no folder write nothing.
        """
        state = self._adamw.state
        tensors = {
            f"{moment}.{name}": state[weight][moment].contiguous()
            for name, weight in self._named.items()
            for moment in MOMENTS
        }
        if self.ranks.world > 1:
            sharding.save(folder / FILE if folder else None, tensors.items())
        elif folder:
            save_file(tensors, folder / FILE)

    def weights(self) -> dict[str, Tensor] | None:
        """Whole weights of a network that is spread over ranks; None for any other.

        All ranks meet here; the first one alone gets them.
        """
        return sharding.weights(self.model, self.ranks) if self.ranks.world > 1 else None

    def load(self, folder: Path, step: int) -> None:
        """Read moments after `step` updates. Raises GrowpointError if they are of other weights."""
        self._start(step)
        with safe_open(folder / FILE, framework="pt") as file:
            wanted = {f"{moment}.{name}" for name in self._named for moment in MOMENTS}
            if wanted != set(file.keys()):
                raise unlike(folder / FILE, min(wanted ^ set(file.keys())))
            for name, weight in self._named.items():
                for moment in MOMENTS:
                    found = file.get_tensor(f"{moment}.{name}")
                    if found.shape != weight.shape:
                        raise unlike(folder / FILE, f"{moment}.{name}")
                    sharding.copy_into(self._adamw.state[weight][moment], found)

    def carry(self, carried: Carried) -> None:
        """Begin with the moments of the phase before. Raises GrowpointError if they do not fit."""
        self._start(carried.updates)
        carried.fill(
            {
                name: {moment: self._adamw.state[weight][moment] for moment in MOMENTS}
                for name, weight in self._named.items()
            }
        )


def _bf16(model: PreTrainedModel) -> PreTrainedModel:
    # Weights only: rotary frequencies are buffers, and lose their meaning in eight bits.
    twin = copy.deepcopy(model)
    for weight in twin.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    return twin


def _groups(named: Mapping[str, nn.Parameter], decay: float) -> list[dict[str, object]]:
    """Matrices decay; norms and biases do not, also those that experts have stacked in rows."""
    decays = {name: weight.ndim >= 2 and "bias" not in name for name, weight in named.items()}
    return [
        {"params": [named[name] for name in named if decays[name]], "weight_decay": decay},
        {"params": [named[name] for name in named if not decays[name]], "weight_decay": 0.0},
    ]
