"""Suite: how a checkpoint is scored, on held-out text and by tasks of lm-evaluation-harness."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sweeps.schema import Description, Seed

Length = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=10)]


class Choices(Description):
    """Multiple choice: the true continuation of a held-out context among `options`."""

    items: PositiveInt = 200
    context_tokens: PositiveInt = 64
    continuation_tokens: PositiveInt = 16
    options: Annotated[int, Field(ge=2, le=26)] = 4
    seed: Seed = 0


class Benchmark(Description):
    """A task or group of lm-evaluation-harness, by the name that it has there.

    What is not given is the task's own: examples shown before each item (`shots`), all items, and
    the metric that `orchestrator.harness` prefers.
    """

    name: Annotated[str, Field(min_length=1)]
    shots: NonNegativeInt | None = None
    limit: PositiveInt | None = None
    metric: str | None = None


class Suite(Description):
    """How a checkpoint is scored; a changed meaning raises `version`.

    `lengths` score at further lengths of sequences, in tokens. `noise` are shares of the input
    tokens that are replaced, `weight_noise` deviations of noise on weights, in standard deviations
    of these. `include_path` is a folder with tasks of one's own; its place is circumstance, and
    `include_content`, which is filled in when a sweep is made, is what it holds.
    """

    name: str = "heldout"
    version: PositiveInt = 1
    heldout_tokens: PositiveInt = 32768
    sequence_tokens: Length = 128
    choices: Choices | None = None
    lengths: tuple[Length, ...] = ()
    noise: tuple[Share, ...] = ()
    weight_noise: tuple[Ratio, ...] = ()
    noise_seed: Seed = 0
    tasks: tuple[Benchmark, ...] = ()
    include_path: str | None = None
    include_content: str | None = None

    @model_validator(mode="after")
    def _one_sequence(self) -> "Suite":
        if self.heldout_tokens < max((self.sequence_tokens, *self.lengths)):
            raise ValueError("heldout_tokens is less than one sequence")
        if self.include_path and not self.tasks:
            raise ValueError("include_path is given, and no tasks of it")
        return self
