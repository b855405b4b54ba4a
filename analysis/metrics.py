"""The metrics that laws are fitted to, and the one place that knows which way is better."""

import math
from dataclasses import dataclass

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
