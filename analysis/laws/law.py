"""What a law is: the class is the hypothesis, its fields the parameters, an instance is fitted."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from analysis.metrics import FloatArray, Metric
from orchestrator import text

# A fitted law holds numbers; the solver holds one column per restart, to try thousands at once.
Value = float | FloatArray
UnitName = Literal["1", "flops", "flops/parameter", "parameters", "loss", "1/loss"]
Scope = Literal["surface", "extra", "total", "sizes"]
_TINY_STEP = 1e-30  # of the complex step: no difference is taken, so nothing cancels


@dataclass(frozen=True)
class Design:
    """Where runs are: four arrays of one shape (cells,)."""

    sunk: FloatArray  # FLOPs
    extra: FloatArray  # FLOPs
    source_active: FloatArray  # active parameters before growth
    active: FloatArray  # and after it

    def __getitem__(self, rows: Any) -> "Design":
        return Design(
            self.sunk[rows], self.extra[rows], self.source_active[rows], self.active[rows]
        )

    def __len__(self) -> int:
        return len(self.sunk)

    def per(self, unit: "Unit") -> "Design":
        """The same runs counted in `unit`, where numbers are near one."""
        return Design(
            self.sunk / unit.flops,
            self.extra / unit.flops,
            self.source_active / unit.parameters,
            self.active / unit.parameters,
        )


@dataclass(frozen=True)
class Unit:
    """The measures in which a fit is done: 1e18 FLOPs next to 0.3 is no problem to solve.

    L itself is counted in `falling`, so bounds and tolerances mean the same for a loss in nats or
    bits and for an accuracy in percent or as a fraction. `loss` is what the loss behind an accuracy
    is counted in.
    """

    flops: float
    parameters: float
    falling: float = 1.0
    loss: float = 1.0

    @classmethod
    def of(cls, design: Design, falling: FloatArray | None = None) -> "Unit":
        """The largest total compute and smallest source of a design, and the median of L there."""
        total = float(np.max(design.sunk + design.extra))
        size = 1.0 if falling is None else float(np.median(np.abs(falling)))
        return cls(total, float(np.min(design.source_active)), size or 1.0)

    def size(self, name: UnitName) -> float:
        """How much one unit called `name` is, in FLOPs, parameters and measured loss."""
        return {
            "1": 1.0,
            "flops": self.flops,
            "flops/parameter": self.flops / self.parameters,
            "parameters": self.parameters,
            "loss": self.loss,
            "1/loss": 1 / self.loss,
        }[name]

    def amount(self, of: Literal["", "falling", "loss"]) -> float:
        """How much one unit of L is, or of the loss behind it."""
        return {"": 1.0, "falling": self.falling, "loss": self.loss}[of]


def parameter(
    low: float,
    high: float,
    *starts: float,
    unit: UnitName = "1",
    power: str = "",
    says: str = "",
) -> Any:
    """A parameter between `low` and `high`, both in fitting units (see Unit).

    With `starts` it is nonlinear and searched from each of them, in its logarithm if it is
    positive; without, it enters L linearly and is solved for. Its value in FLOPs is the fitted one
    times `unit`, to the power of the parameter named `power` where one is.
    """
    kind = "linear" if not starts else "log" if low > 0 else "plain"
    amount = "" if starts else "falling"
    meta = {"low": low, "high": high, "starts": starts, "unit": unit, "power": power, "says": says}
    return field(metadata=meta | {"kind": kind, "amount": amount})


@dataclass(frozen=True)
class Law(ABC):
    """A hypothesis on how L falls. Subclasses add parameters and `predict`.

    `slopes` is optional: analytic derivatives make fits several times faster. `words` is what the
    fitted law means where the data are.
    """

    name: ClassVar[str]
    formula: ClassVar[str]  # of the right-hand side
    says: ClassVar[str]
    source: ClassVar[str] = ""
    scope: ClassVar[Scope]  # what may vary: S and X, S, S + X, or S + X and the size
    # Whether un-grown runs, as S with X = 0, are fitted along where there are some.
    with_base: ClassVar[bool] = False
    # Whether errors are of log L, as where sizes differ so much that losses do.
    relative: ClassVar[bool] = False

    @abstractmethod
    def predict(self, design: Design) -> FloatArray:
        """L at every run of the design: (cells,), or (restarts, cells) for columns of values."""

    def slopes(self, design: Design) -> tuple[Value, ...]:
        """Derivatives of L by each parameter, in order; each broadcasts to what `predict` gives.

        By complex step (Squire and Trapp, 1998), which is exact to rounding: `predict` must then
        take complex parameters. Laws that are fitted often override it.
        """
        return tuple(self._slope(each.name, design) for each in fields(self))

    def _slope(self, name: str, design: Design) -> FloatArray:
        moved = replace(self, **{name: getattr(self, name) + 1j * _TINY_STEP})
        return np.imag(moved.predict(design)) / _TINY_STEP

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The parameters, in order."""
        return tuple(each.name for each in fields(cls))

    @classmethod
    def meta(cls, key: str) -> list[Any]:
        """One property of every parameter, in order."""
        return [each.metadata[key] for each in fields(cls)]

    @classmethod
    def linear(cls) -> list[bool]:
        """Which parameters enter L linearly."""
        return [kind == "linear" for kind in cls.meta("kind")]

    @classmethod
    def sized(cls) -> bool:
        """Whether it asks how many parameters are active, which not every table of results says."""
        return any("parameter" in unit for unit in cls.meta("unit"))

    def values(self) -> FloatArray:
        """The parameters of a fitted law as an array."""
        return np.array([float(getattr(self, name)) for name in self.names()])

    def rescaled(self, unit: Unit) -> Self:
        """This law with its parameters turned from fitting units into FLOPs and parameters."""
        new = {}
        for each in fields(self):
            exponent = getattr(self, each.metadata["power"]) if each.metadata["power"] else 1.0
            size = unit.size(each.metadata["unit"]) ** exponent
            new[each.name] = getattr(self, each.name) * size * unit.amount(each.metadata["amount"])
        return replace(self, **new)

    def words(self, middle: Design, metric: Metric) -> str:
        """The law in words, at one run in the middle of the data; L in the metric's own unit."""
        worth = float(sunk_worth(self.predict, middle)[0])
        return (
            f"a FLOP spent before growing is worth {worth:.2g} of one spent after"
            f" (at {place(middle)})"
        )


def power(base: FloatArray, exponent: Value) -> FloatArray:
    """`base` to the power of `exponent`, for positive bases: several times faster than `**`."""
    return np.asarray(np.exp(exponent * np.log(base)))


def sunk_worth(predict: Any, middle: Design) -> FloatArray:
    """How many extra FLOPs one more sunk FLOP replaces at each run of `middle`.

    `predict` maps a design of (cells,) to L of (..., cells); the worth has that shape. Differences
    are of 1 % of the compute, wide enough for draws that are mixtures of fits.
    """
    step = 0.01 * (middle.sunk + middle.extra) / 2
    by_sunk = replace(middle, sunk=middle.sunk + step)
    by_extra = replace(middle, extra=middle.extra + step)
    here = predict(middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((predict(by_sunk) - here) / (predict(by_extra) - here))


def place(middle: Design) -> str:
    """Where a sentence holds."""
    return f"sunk {text.flops(float(middle.sunk[0]))}, extra {text.flops(float(middle.extra[0]))}"


def gain(law: Law, before: Design, after: Design, metric: Metric) -> str:
    """What going from one run to another takes off L, as people read it."""
    fall = float((law.predict(before) - law.predict(after))[0])
    return f"{metric.text(fall)} {metric.unit}"
