"""Where a source is left, and what may be spent after it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from sweeps.fits import require_distinct
from sweeps.schema import Description

Unit = Literal["tokens", "flops"]
PointUnit = Literal["tokens", "flops", "steps"]
PositiveAmount = Annotated[float, Field(gt=0)]


class Points(Description):
    """Where the source's trunk is left: what is sunk so far; 0 is the untrained network.

    Of a series of existing checkpoints, which ones: those that are exactly there.
    """

    unit: PointUnit = "tokens"
    at: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "Points":
        require_distinct("points.at", self.at)
        return self


class Budgets(Description):
    """What may be spent: `extra` after the source point, or in `total` with what is sunk."""

    of: Literal["extra", "total"] = "extra"
    unit: Unit = "flops"
    at: Annotated[tuple[PositiveAmount, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "Budgets":
        require_distinct("budgets.at", self.at)
        return self
