"""The metrics that laws are fitted to, and the one place that knows which way is better."""

import math
import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A measured quantity.

    Every law describes something that falls towards a floor as compute grows. A loss does so
    itself; an accuracy does as its *shortfall* from `top`. `falling` and `rising` convert
    there and back, so no law, fit or comparison needs to know a sign.
    """

    name: str
    column: str  # of the records
    top: float | None  # the perfect score of an accuracy; None for a loss
    symbol: str  # what a law's formula calls the falling quantity
    unit: str  # as printed after a difference
    shown: float  # a printed number is the value times this
    digits: int

    @property
    def kind(self) -> str:
        """What it is where only that matters: `loss` or `accuracy`."""
        return "loss" if self.top is None else "accuracy"

    def falling(self, values: FloatArray) -> FloatArray:
        """The quantity that laws describe: lower is better."""
        return values if self.top is None else self.top - values

    def rising(self, falling: FloatArray) -> FloatArray:
        """From a law's quantity back to the metric."""
        return falling if self.top is None else self.top - falling

    def measured(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of records that have this metric: tables made elsewhere may lack it."""
        return frame.dropna(subset=[self.column])

    def possible(self, values: FloatArray) -> FloatArray:
        """`values` without what the metric cannot be: intervals of laws know no such limits."""
        return np.clip(values, 0.0, self.top)

    def text(self, value: float, sign: str = "") -> str:
        """A value or difference as people read it: losses in nats, accuracies in percent."""
        if math.isnan(value):
            return "unknown"
        return f"{value * self.shown:{sign}.{self.digits}f}"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", 1.0, "1 - accuracy", "points", 100.0, 2),
        Metric("loss", "val_loss", None, "loss", "nats", 1.0, 4),
    )
}

# What laws are not fitted to unless they are asked to.
_ASKED_FOR = {
    "choice_accuracy": replace(
        METRICS["accuracy"], name="choice_accuracy", column="choice_accuracy"
    )
}


def named(name: str) -> Metric | None:
    """The metric of a name; None if there is none.

    What a suite measures beside the first ones is called after what it is like, then where it was
    measured: `loss@1024` at another length, `accuracy@noise0.1` under noise, `accuracy:hellaswag`
    by a task. `docs/evaluation.md` has all of them.
    """
    known = METRICS | _ASKED_FOR
    if name in known:
        return known[name]
    stem, mark, place = re.match(r"([^@:]*)([@:]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    if not (stem in METRICS and mark and place):
        return None
    return replace(METRICS[stem], name=name, column=f"{METRICS[stem].column}{mark}{place}")


def measured(frame: pd.DataFrame) -> tuple[Metric, ...]:
    """Every metric that some row of records has, those first that laws are fitted to unasked."""
    names = {each.column: name for name, each in (METRICS | _ASKED_FOR).items()}
    for column in map(str, frame.columns):
        for metric in METRICS.values():
            place = column.removeprefix(metric.column)
            if column.startswith(metric.column) and place[:1] in ("@", ":"):
                names.setdefault(column, f"{metric.name}{place}")
    found = (named(name) for column, name in names.items() if not column.endswith("_se"))
    return tuple(
        each
        for each in found
        if each and each.column in frame and np.isfinite(frame[each.column]).any()
    )
