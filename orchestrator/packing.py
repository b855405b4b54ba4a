"""Documents in one row that do not see each other: positions that begin anew, and whether they do.

Where positions begin anew and no mask is given, transformers lets no token attend across
(`find_packed_sequence_indices` in its masking_utils). A class may leave positions out of its masks,
and layers that carry a state never look at them; so a network shows first that it keeps documents
apart.
"""

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from sweeps.errors import GrowpointError

# Tokens of each of the two documents that a network is shown.
SHOWN = 8
# What the first document may change in the second, as a share of what it changes without masks,
# and of the largest logit: rounding is far below both.
SHARE, ROUNDING = 1e-2, 1e-5


def positions(inputs: Tensor, end: int) -> Tensor:
    """Positions of [B, T] tokens that count from each document's beginning; `end` ends one."""
    index = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    begins = torch.zeros_like(index)
    begins[:, 1:] = torch.where(inputs[:, :-1] == end, index[:, 1:], 0)
    return index - begins.cummax(dim=1).values


@torch.no_grad()
def require_apart(network: PreTrainedModel) -> None:
    """Raise GrowpointError if a document changes the logits of the one behind it in a row.

    The same second document stands behind two different first ones, with positions that begin
    anew and with such that do not; a network in which nothing reaches across either way passes.
    """
    was_training = network.training
    network.eval()
    device, vocabulary = next(network.parameters()).device, int(network.config.vocab_size)
    second = (torch.arange(SHOWN) * 7 + 3) % vocabulary
    first = torch.stack([torch.arange(SHOWN) * 5 + 1, torch.arange(SHOWN) * 3 + 2]) % vocabulary
    rows = torch.cat([first, second.expand(2, -1)], dim=1).to(device)
    apart = torch.arange(SHOWN, device=device).repeat(2).expand(2, -1)
    masked, largest = _crossing(network, rows, apart)
    open_, _ = _crossing(network, rows, torch.arange(2 * SHOWN, device=device).expand(2, -1))
    network.train(was_training)
    if isinstance(network, FSDPModule):
        # A forward pass alone leaves the outermost weights together.
        network.reshard()
    if masked > SHARE * open_ + ROUNDING * largest:
        raise GrowpointError(
            "this network lets documents of one row see each other",
            [
                ("model", type(network).__name__),
                ("attention", getattr(network.config, "_attn_implementation", "unknown")),
                ("logits change by", f"{masked:.2g} of {largest:.2g}"),
            ],
            "recipe.document_masks=false",
        )


def _crossing(network: PreTrainedModel, rows: Tensor, places: Tensor) -> tuple[float, float]:
    """How far the second documents' logits differ, and the largest logit."""
    logits = network(input_ids=rows, position_ids=places, use_cache=False).logits.float()
    second = logits[:, SHOWN:]
    return float((second[0] - second[1]).abs().max()), float(logits.abs().max())
