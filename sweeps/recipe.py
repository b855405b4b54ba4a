"""Recipe: everything but model and data that changes the weights."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from sweeps.errors import GrowpointError
from sweeps.schema import Description
from sweeps.steps import Batches, BatchSteps, SequenceSteps, batches, require_steps

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
    """How a phase of training moves the weights: AdamW over batches of equal sequences.

    `batch_steps` and `sequence_steps` begin a phase with other batches; with `document_masks`
    no token attends across the end of a document (docs/training.md).
    """

    says_kind: ClassVar[bool] = False
    kind: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=HIGHEST_LR)] = 3e-4
    schedule: Schedule = Constant()
    warmup_tokens: Annotated[int, Field(ge=0)] = 0
    batch_sequences: PositiveInt = 16
    sequence_tokens: Annotated[int, Field(ge=2)] = 128
    batch_steps: BatchSteps = ()
    sequence_steps: SequenceSteps = ()
    document_masks: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip: Annotated[float, Field(gt=0)] = 1.0
    router_loss: Annotated[float, Field(ge=0)] = 0.01
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _steps_fit(self) -> "Recipe":
        require_steps(self.sequence_tokens, self.batch_steps, self.sequence_steps)
        return self

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step, after all steps of the batch size."""
        return self.batch_sequences * self.sequence_tokens

    @property
    def batches(self) -> Batches:
        """The batches of a phase, from its beginning."""
        return batches(
            self.batch_sequences, self.sequence_tokens, self.batch_steps, self.sequence_steps
        )

    def lr_at(self, tokens: int, end_tokens: float) -> float:
        """Learning rate of the step that starts after `tokens` of the phase.

        `end_tokens` is infinite for phases whose end is open.
        """
        ahead = tokens + self.batches.at(tokens).tokens
        warm = min(1.0, ahead / self.warmup_tokens) if self.warmup_tokens else 1.0
        return self.lr * warm * self.schedule.factor(tokens, end_tokens)


class Branch(Description):
    """What a branch does unlike its trunk: re-warm, peak, schedule, AdamW's state at its start.

    Steps of the batch size and of the sequence length are the trunk's unless given; none: `[]`.
    Controls that are trained on without growth get the very same, so that the comparison is fair.
    """

    lr_ratio: Annotated[float, Field(gt=0, le=100)] = 1.0
    warmup_tokens: Annotated[int, Field(ge=0)] | None = None
    schedule: Schedule | None = None
    batch_steps: BatchSteps | None = None
    sequence_steps: SequenceSteps | None = None
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
        said = {"batch_steps": self.batch_steps, "sequence_steps": self.sequence_steps}
        made = trunk.model_copy(
            update={
                "lr": trunk.lr * self.lr_ratio,
                "warmup_tokens": warmup,
                "schedule": self.schedule or trunk.schedule,
                **{key: steps for key, steps in said.items() if steps is not None},
            }
        )
        require_steps(made.sequence_tokens, made.batch_steps, made.sequence_steps)
        return made
