"""Batches whose loss is not a number, wherever a process trains."""

import math
from collections.abc import Collection

import pytest
from torch import Tensor

from orchestrator.head_loss import Losses
from orchestrator.loop import Loop


def break_losses(patched: pytest.MonkeyPatch, tokens: Collection[int]) -> list[int]:
    """Break the batches at these positions, gradients included; returns those that were met."""
    real, met = Loop._losses, []

    def losses(self: Loop, rows: Tensor) -> Losses:
        found = real(self, rows)
        if self.position.tokens not in tokens:
            return found
        met.append(self.position.tokens)
        return Losses(found.loss * math.nan, found.router)

    patched.setattr(Loop, "_losses", losses)
    return met
