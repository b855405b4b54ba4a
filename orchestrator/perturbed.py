"""Noise on what a checkpoint reads and on its weights: how gently its scores fall.

Every draw is a function of the seed and of a place in the text or a tensor's name. So all
checkpoints read the same noisy text, and tensors of one name and size get the same draws.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from orchestrator.numbers import normals
from orchestrator.tokens import Ids, keyed
from sweeps.data import Corpus


@dataclass(frozen=True)
class Noise:
    """A `share` of input tokens replaced by others, drawn evenly from the corpus's vocabulary.

    What is replaced at a share is also replaced, and by the same, at every higher one.
    """

    share: float
    seed: int
    corpus: Corpus

    def on(self, inputs: Ids, sequences: Ids) -> Ids:
        """[S, T] tokens with noise; `sequences` says which of the held-out text they are."""
        length = inputs.shape[1]
        places = sequences[:, None] * length + np.arange(length)
        # 53 bits, as many as a double holds.
        drawn = (keyed(self.seed, places) >> np.uint64(11)) * 2.0**-53
        others = keyed(self.seed + 1, places) % np.uint64(self.corpus.vocabulary)
        return np.where(drawn < self.share, others.astype(np.int64), inputs)


@torch.no_grad()
def disturb(model: Any, ratio: float, seed: int) -> None:
    """Add to each matrix normal noise of `ratio` of its own standard deviation, in place.

    A matrix is what the last two dimensions of a tensor hold, so each expert of a stack has a
    deviation of its own; norms and biases stay as they are.
    """
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        scale = weight.float().std(dim=(-2, -1), keepdim=True, correction=0) * ratio
        drawn = torch.from_numpy(normals(seed, f"weight_noise:{name}", weight.numel()))
        drawn = drawn.view(weight.shape)
        weight.add_((drawn.to(weight.device) * scale).to(weight.dtype))
