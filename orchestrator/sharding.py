"""A network that is spread over ranks: FSDP2, each decoder layer a unit, first dimension cut.

Weights and moments are fp32 shards; a layer is put together where it computes, in bf16 where the
recipe says so, and its gradient is summed over ranks in fp32. Files are those of a single process.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from orchestrator import models
from orchestrator.headers import Described, written
from orchestrator.ranks import Ranks


def load(
    folder: Path, device: str, precision: Literal["fp32", "bf16"], ranks: Ranks
) -> PreTrainedModel:
    """The network in a checkpoint folder, dealt out by the first rank, which alone reads it.

    Raises GrowpointError on the first rank, and EndedError on the others, for what cannot be read.
    """
    found: list[PreTrainedModel] = []

    def read() -> list[str]:
        found.append(models.load(folder))
        return [name for name, weight in found[0].named_parameters() if weight.requires_grad]

    # What is learnt is not the same in a network that was loaded and in one that was only built.
    learnt = set(ranks.first(read, list[str]))
    model = found[0] if found else models.hollow(folder)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in learnt)
    models.choose_experts(model, device)
    # Other names for the same memory, which outlive the cutting.
    kept = {name: weight.detach() for name, weight in model.named_parameters()}
    _cut(model, device, precision, ranks)
    if not ranks.is_first:
        model.to_empty(device=device)
    for name, weight in model.named_parameters():
        full = kept.pop(name).to(device) if ranks.is_first else _empty(weight, device)
        distributed.broadcast(full.contiguous(), 0)
        copy_into(weight, full)
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)
    return model


def _empty(weight: Tensor, device: str) -> Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype, device=device)


def _cut(
    model: PreTrainedModel, device: str, precision: Literal["fp32", "bf16"], ranks: Ranks
) -> None:
    # Weights alone are rounded, as in the copy that one process computes with: some architectures
    # hand rotary angles from layer to layer in fp32.
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(torch.device(device).type, (ranks.world,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _blocks(model: PreTrainedModel) -> Iterator[torch.nn.Module]:
    """The layers, as transformers names what must stay together."""
    names = set(model._no_split_modules or ())
    yield from (module for module in model.modules() if type(module).__name__ in names)


@torch.no_grad()
def copy_into(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor, or of a tensor that is cut this rank's piece."""
    if not isinstance(target, DTensor):
        target.copy_(whole)
        return
    mesh = target.device_mesh
    pieces = torch.chunk(whole, mesh.size())
    rank = mesh.get_local_rank()
    # The last ranks have nothing of a dimension shorter than the number of ranks.
    if rank < len(pieces):
        target.to_local().copy_(pieces[rank])


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together on every rank; itself where nothing is cut."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(model: PreTrainedModel, ranks: Ranks) -> dict[str, Tensor]:
    """All weights of a network that is cut, whole and in the first rank's host memory.

    All ranks meet here; the others get nothing.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    met: dict[int, Tensor | None] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        # Tied weights are one, which transformers knows by their memory.
        key = id(parameters.get(name, tensor))
        if key not in met:
            found = whole(tensor)
            met[key] = found.to("cpu") if ranks.is_first else None
        if (at_hand := met[key]) is not None:
            kept[name] = at_hand
    return kept


def save(file: Path | None, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write fp32 tensors as safetensors one after the other, so that one at a time is whole.

    All ranks meet here with the same tensors; those without a file write nothing.
    """
    known = list(tensors)
    if file is None:
        for _, tensor in known:
            whole(tensor)
        return
    with file.open("wb") as stream:
        stream.write(written(Described(n, "F32", tuple(t.shape), t.numel() * 4) for n, t in known))
        for _, tensor in known:
            stream.write(whole(tensor).detach().cpu().contiguous().numpy().data)
