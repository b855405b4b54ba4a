"""Recipe: everything but model and data that changes the weights; Suite: how they are scored."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from sweeps.errors import GrowpointError
from sweeps.schema import Description, Seed

Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
HIGHEST_LR = 10.0

# What a phase that follows another begins with: moments of zero, or those of the phase before it,
# grown as the weights were.
OptimizerState = Literal["fresh", "carried"]


class Constant(Description):
    """The same learning rate to the end; needs no end, so budgets share one branch."""

    kind: Literal["constant"] = "constant"

    def factor(self, tokens: float, end_tokens: float) -> float:
        """Share of the peak learning rate after `tokens` of a phase that ends at `end_tokens`."""
        return 1.0

    def free_until(self, end_tokens: int) -> int:
        """Tokens of a phase during which its end does not matter yet."""
        return end_tokens


class Wsd(Description):
    """Constant, then down over the last share of the phase (warm-up, stable, decay).

    Source: Hägele et al., arXiv 2405.18392 (one trunk, a cooldown branch for each budget).
    """

    kind: Literal["wsd"] = "wsd"
    cooldown: Share = 0.2
    shape: Literal["linear", "sqrt"] = "linear"
    final: Ratio = 0.0

    def factor(self, tokens: float, end_tokens: float) -> float:
        """Share of the peak learning rate after `tokens` of a phase that ends at `end_tokens`."""
        start = self.free_until(int(end_tokens)) if math.isfinite(end_tokens) else math.inf
        if tokens <= start:
            return 1.0
        gone = min(1.0, (tokens - start) / max(1.0, end_tokens - start))
        left = 1 - math.sqrt(gone) if self.shape == "sqrt" else 1 - gone
        return self.final + (1 - self.final) * left

    def free_until(self, end_tokens: int) -> int:
        """Tokens of a phase during which its end does not matter yet."""
        return int(end_tokens * (1 - self.cooldown))


class Cosine(Description):
    """Half a cosine from the peak to `final`; the end is known from the start."""

    kind: Literal["cosine"] = "cosine"
    final: Ratio = 0.1

    def factor(self, tokens: float, end_tokens: float) -> float:
        """Share of the peak learning rate after `tokens` of a phase that ends at `end_tokens`."""
        gone = min(1.0, tokens / end_tokens)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * gone)) / 2

    def free_until(self, end_tokens: int) -> int:
        """Tokens of a phase during which its end does not matter yet."""
        return 0


Schedule = Annotated[Constant | Wsd | Cosine, Field(discriminator="kind")]


class Recipe(Description):
    """How a phase of training moves the weights: AdamW over batches of equal sequences."""

    says_kind: ClassVar[bool] = False
    kind: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=HIGHEST_LR)] = 3e-4
    schedule: Schedule = Constant()
    warmup_tokens: Annotated[int, Field(ge=0)] = 0
    batch_sequences: PositiveInt = 16
    sequence_tokens: Annotated[int, Field(ge=2)] = 128
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip: Annotated[float, Field(gt=0)] = 1.0
    router_loss: Annotated[float, Field(ge=0)] = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_sequences * self.sequence_tokens

    def lr_at(self, tokens: int, end_tokens: float) -> float:
        """Learning rate of the step that starts after `tokens` of the phase.

        `end_tokens` is infinite for phases whose end is open.
        """
        ahead = tokens + self.batch_tokens
        warm = min(1.0, ahead / self.warmup_tokens) if self.warmup_tokens else 1.0
        return self.lr * warm * self.schedule.factor(tokens, end_tokens)


class Branch(Description):
    """What a branch does unlike its trunk: re-warm, peak, schedule, AdamW's state at its start.

    Controls that are trained on without growth get the very same, so that the comparison is fair.
    """

    lr_ratio: Annotated[float, Field(gt=0, le=100)] = 1.0
    warmup_tokens: Annotated[int, Field(ge=0)] | None = None
    schedule: Schedule | None = None
    optimizer_state: OptimizerState = "fresh"

    def recipe(self, trunk: Recipe) -> Recipe:
        """The branch's recipe."""
        warmup = trunk.warmup_tokens if self.warmup_tokens is None else self.warmup_tokens
        if trunk.lr * self.lr_ratio > HIGHEST_LR:
            raise GrowpointError(
                "the peak learning rate of the branches is too high",
                [("peak", f"{trunk.lr * self.lr_ratio:g}"), ("needs", f"at most {HIGHEST_LR:g}")],
                f"branch.lr_ratio={HIGHEST_LR / trunk.lr:g}",
            )
        return trunk.model_copy(
            update={
                "lr": trunk.lr * self.lr_ratio,
                "warmup_tokens": warmup,
                "schedule": self.schedule or trunk.schedule,
            }
        )


class Choices(Description):
    """Multiple choice: the true continuation of a held-out context among `options`."""

    items: PositiveInt = 200
    context_tokens: PositiveInt = 64
    continuation_tokens: PositiveInt = 16
    options: Annotated[int, Field(ge=2, le=26)] = 4
    seed: Seed = 0


class Suite(Description):
    """How a checkpoint is scored; a changed meaning raises `version`."""

    name: str = "heldout"
    version: PositiveInt = 1
    heldout_tokens: PositiveInt = 32768
    sequence_tokens: Annotated[int, Field(ge=2)] = 128
    choices: Choices | None = None

    @model_validator(mode="after")
    def _one_sequence(self) -> "Suite":
        if self.heldout_tokens < self.sequence_tokens:
            raise ValueError("heldout_tokens is less than one sequence")
        return self
