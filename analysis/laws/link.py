# ruff: noqa: RUF009 - a parameter is a field, and dataclasses call for fields like this
"""Accuracy behind a loss law: the loss is fitted first, then what accuracy goes with it."""

from dataclasses import dataclass, fields, make_dataclass
from dataclasses import field as dataclass_field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from analysis.laws.law import Design, Law, Value, parameter
from analysis.metrics import FloatArray, Metric

SUFFIX = "_link"


@dataclass(frozen=True)
class AccuracyLink(Law):
    """The shortfall of an accuracy is a sigmoid of a loss, which follows a law of its own.

    Subclasses are made by `linked`; they have the parameters of their loss law as well, which are
    fitted to losses alone and then held.
    """

    loss_law: ClassVar[type[Law]]

    M: Value = parameter(0, 20, says="shortfall at chance")
    k: Value = parameter(0.05, 50, 0.5, 2, 6, unit="1/loss", says="steepness of the link")
    L0: Value = parameter(-5, 5, 0.3, 1, 1.5, unit="loss", says="loss in the middle of the link")

    def predict(self, design: Design) -> FloatArray:
        return np.asarray(self.M * _sigmoid(self.k * (self.loss().predict(design) - self.L0)))

    def slopes(self, design: Design) -> tuple[Value, ...]:
        behind = self.loss()
        above = behind.predict(design) - self.L0
        share = _sigmoid(self.k * above)
        by_loss = self.M * self.k * share * (1 - share)
        through = (by_loss * each for each in behind.slopes(design))
        return share, by_loss / self.k * above, -by_loss, *through

    def loss(self) -> Law:
        """The loss law behind it."""
        return self.loss_law(*(getattr(self, name) for name in self.loss_law.names()))

    @classmethod
    def link_names(cls) -> tuple[str, ...]:
        """The parameters of the link itself."""
        return tuple(each.name for each in fields(AccuracyLink))

    def words(self, middle: Design, metric: Metric) -> str:
        value, by_loss = self.predict(middle)[0], self.M * self.k
        share = value / self.M
        slope = float(by_loss * share * (1 - share))
        said = f"0.1 nats less loss are {metric.text(0.1 * slope)} {metric.unit}"
        return f"{said}; {super().words(middle, metric)}"


def _sigmoid(at: Any) -> Any:
    # Bounded, so that a step into nowhere does not overflow; complex parameters pass.
    return 1 / (1 + np.exp(-np.where(np.abs(at) < 300, at, 300 * np.sign(np.real(at)))))


def _held(each: Any) -> Any:
    """A parameter of the loss law as one that the link takes over."""
    changed: dict[str, object] = {"starts": ()}
    if each.metadata["kind"] == "linear":
        changed |= {"kind": "plain", "amount": "loss"}
    return dataclass_field(metadata=dict(each.metadata) | changed)


@cache
def _linked(law: Any) -> type[AccuracyLink]:
    namespace = {
        "name": law.name + SUFFIX,
        "formula": f"M / (1 + exp(-k (L - L0))), L = {law.formula}",
        "says": f"accuracy goes with the loss, and for that {law.says}",
        "source": law.source,
        "scope": law.scope,
        "with_base": law.with_base,
        "loss_law": law,
        "__doc__": f"Accuracy by way of the loss, which follows {law.name}.",
        "__module__": __name__,
    }
    taken = [(each.name, Value, _held(each)) for each in fields(law)]
    made = make_dataclass(
        f"{law.__name__}Link", taken, bases=(AccuracyLink,), namespace=namespace, frozen=True
    )
    assert issubclass(made, AccuracyLink)
    return made


def linked(law: type[Law]) -> type[AccuracyLink]:
    """The accuracy law that rests on a loss law; the same class each time."""
    return _linked(law)
