"""Trackers: where curves are shown besides a sweep's own files; circumstance, never hashed."""

from typing import Annotated, Literal

from pydantic import Field

from sweeps.schema import Description


class Nowhere(Description):
    """In metrics.jsonl alone, which is always written."""

    kind: Literal["none"] = "none"


class TensorBoard(Description):
    """Event files for TensorBoard, a folder for each stage."""

    kind: Literal["tensorboard"] = "tensorboard"
    folder: str | None = None


class Wandb(Description):
    """Weights & Biases, a run for each stage; offline it writes folders for `wandb sync`."""

    kind: Literal["wandb"] = "wandb"
    project: str | None = None
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"
    tags: tuple[str, ...] = ()


Tracker = Annotated[Nowhere | TensorBoard | Wandb, Field(discriminator="kind")]
