"""Cell: one row of a sweep's answer."""

from dataclasses import dataclass
from typing import Literal

from sweeps import cost
from sweeps.amounts import Unit
from sweeps.exclude import Arm
from sweeps.series import Source
from sweeps.stages import Stage


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the answer: an arm at a growth point, with a budget, for one seed."""

    arm: Arm
    growth: str
    point: int
    budget: int
    seed: int
    of: Literal["extra", "total"]
    budget_asked: float
    budget_unit: Unit
    source: Stage
    trained: Stage
    stage: Stage
    annealed: bool
    origin: Source | None = None
    variant: tuple[tuple[str, str], ...] = ()

    @property
    def sunk_tokens(self) -> int:
        """Tokens of the source checkpoint; 0 when starting over."""
        return cost.trained_tokens(self.source)

    @property
    def sunk_flops(self) -> float:
        """FLOPs of the source checkpoint; 0 when starting over."""
        return cost.trained_flops(self.source)

    @property
    def extra_tokens(self) -> int:
        """Tokens trained after the source point."""
        return cost.trained_tokens(self.trained) - self.sunk_tokens

    @property
    def extra_flops(self) -> float:
        """FLOPs trained after the source point."""
        return cost.flops(self.trained)

    @property
    def label(self) -> str:
        """`grow depth x2 · sunk 8.0e17 · extra 4.0e17 · seed 0`, and from which checkpoint."""
        words = [self.arm if self.growth == "-" else f"{self.arm} {self.growth}"]
        words += [f"from {self.origin.name}"] if self.origin else []
        words += [
            f"sunk {self.sunk_flops:.2g}",
            f"extra {self.extra_flops:.2g}",
            f"seed {self.seed}",
        ]
        return " · ".join(words + [f"{key}={value}" for key, value in self.variant])
