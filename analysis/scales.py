"""Axes of figures: what they are called, and which of their numbers are written."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

AXES = {
    "sunk_flops": "sunk compute (FLOPs)",
    "sunk_share": "share spent before growing (%)",
    "extra_flops": "extra compute ({power}FLOPs)",
    "extra_flops_log": "extra compute (FLOPs)",
    "total_flops": "total compute (FLOPs)",
    "total_flops_linear": "total compute ({power}FLOPs)",
    "accuracy": "next-token accuracy (%)",
    "any_accuracy": "accuracy (%)",
    "loss": "validation loss (nats)",
    "training_loss": "training loss (nats)",
    "predicted_accuracy": "predicted accuracy (%)",
    "predicted_loss": "predicted loss (nats)",
    "residual_accuracy": "observed − predicted (points)",
    "residual_loss": "observed − predicted (nats)",
    "behind_accuracy": "held-out error above the best (points)",
    "behind_loss": "held-out error above the best (nats)",
    "weight_norm": "weight norm / √numel{power}",
    "layer": "layer",
    "relative_depth": "depth (share of the layers)",
}
_NUMBER_POINTS = 3.9  # the width of one character of a tick's label, and a bit of air


def metric_axis(metric: str, frame: pd.DataFrame) -> str:
    """The name of a metric's axis; which accuracy a table made elsewhere means, it does not say."""
    if metric not in AXES:
        return f"{metric} ({'nats' if metric.startswith('loss') else '%'})"
    own = frame["stage"].ne("").any()
    return AXES[metric if own or metric != "accuracy" else "any_accuracy"]


def log_flops(
    axes: Axes, name: str, low: float, high: float, zero: float | None = None, *, y: bool = False
) -> None:
    """A log axis of FLOPs that is seen from `low` to `high`, and `0` at `zero` if that is given.

    Decades are labelled; where there are few of them, steps between as well, if there is room. Call
    it when the axes have their final place.
    """
    axis = axes.yaxis if y else axes.xaxis
    (axes.set_yscale if y else axes.set_xscale)("log")
    (axes.set_ylim if y else axes.set_xlim)(low, high)
    decades = math.log10(high / low)
    ticks = _log_ticks(1.8 * zero if zero else low, high, _points(axes, y) / decades, y)
    axis.set_major_locator(FixedLocator(([zero] if zero else []) + ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_power(zero)))
    axis.set_label_text(AXES[name])


def _points(axes: Axes, y: bool) -> float:
    """The length of an axis in points."""
    figure, place = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    width, height = figure.get_size_inches()
    return float(72 * (height * place.height if y else width * place.width))


def _log_ticks(low: float, high: float, points: float, y: bool) -> list[float]:
    """The finest of three sets of round numbers that have room, at so many points a decade."""
    decades = range(math.floor(math.log10(low) - 1e-9), math.ceil(math.log10(high) + 1e-9) + 1)
    need = 11.0 if y else 6.5 * _NUMBER_POINTS  # `2×10²⁰`, its exponent small
    found: list[float] = []
    steps: tuple[float, ...]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        every = [step * 10.0**decade for decade in decades for step in steps]
        found = [tick for tick in every if low * 0.999 <= tick <= high * 1.001]
        gaps = np.diff(np.log10(found)) * points
        if len(found) > 1 and math.log10(high / low) < 2 and gaps.min() >= need:
            break
    if found:
        return found
    steps = (1, 1.5, 2, 3, 5, 7)  # one of which lies in every range that is wider than 1.67
    every = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in every if low <= tick <= high][:1]


def _power(zero: float | None) -> Callable[[float, int], str]:
    def words(value: float, _: int) -> str:
        if zero is not None and abs(value / zero - 1) < 1e-6:
            return "0"
        exponent = math.floor(math.log10(value) + 1e-9)
        mantissa = value / 10.0**exponent
        front = "" if abs(mantissa - 1) < 1e-6 else f"{mantissa:.2g}×"
        return f"{front}10{superscript(exponent)}"

    return words


def linear_flops(axes: Axes, name: str, high: float) -> None:
    """A linear axis of FLOPs with the power of ten in its name and at most five ticks."""
    power = power_of(high)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**power:g}"))
    axes.set_xlabel(AXES[name].format(power=f"10{superscript(power)} "))


def scaled_numbers(axis: Axis, name: str, high: float) -> None:
    """A linear axis of plain numbers, with the power of ten in its name unless that is near one."""
    power = power_of(high)
    power = 0 if -1 <= power <= 1 else power
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    shown = FuncFormatter(lambda value, _: f"{value / 10**power:.4g}")
    axis.set_major_formatter(shown if power else ScalarFormatter(useOffset=False))
    words = f" (10{superscript(power)})" if power else ""
    axis.set_label_text(AXES[name].format(power=words))


def power_of(value: float) -> int:
    """The power of ten of a number: 19 for 3.4e19."""
    return math.floor(math.log10(value) + 1e-9)


def superscript(number: int) -> str:
    """A whole number as an exponent is written."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
