"""May one believe the law?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import evidence, groups, style
from analysis.compare import compare, ensemble
from analysis.evidence import Noise
from analysis.figures.subject import Drawn, NothingToDrawError, panel_name
from analysis.fit import Fit, design
from analysis.fits import Fits
from analysis.metrics import FloatArray, Metric
from analysis.sample import Which

_BY = {"predicted": "prediction", "sunk_flops": "sunk", "extra_flops": "extra"}


@dataclass(frozen=True)
class _Panel:
    """One panel: where its dots are, and a straight line through them."""

    by: str
    places: FloatArray
    slope: float  # of the residuals, per `unit`
    se: float
    unit: str

    @property
    def clear(self) -> bool:
        """Whether the line is further from flat than two standard errors."""
        return abs(self.slope) > 2 * self.se


def residuals(frame: pd.DataFrame, found: Fits | None, metric: Metric, noise: Noise) -> Drawn:
    """May one believe the law? What the best law in each mix leaves, over what it knows.

    One row of panels for each growth: over the prediction, sunk and extra compute. Grey is one
    standard deviation of a run. Drawn columns: variant, growth, law, sunk_flops, extra_flops, seed,
    annealed, predicted, residual. Raises NothingToDrawError where no law was fitted.
    """
    parts = list(_left(frame, found, metric))
    if not parts:
        raise NothingToDrawError("no law of growing could be fitted")
    drawn = pd.concat(parts, ignore_index=True)
    columns = [name for name in _BY if name != "extra_flops" or _budgets(drawn) > 1]
    slopes = []
    with style.drawing():
        figure, axes = style.panels(
            len(parts) * len(columns), 2.0 if len(parts) > 1 else 2.4, len(columns), "row"
        )
        style.margins(figure, 0.06, True, 0.66)
        for row, left in enumerate(parts):
            across = axes[row * len(columns) : (row + 1) * len(columns)]
            slopes += _row(across, left, columns, metric, noise)
        style.title(figure, _claim(slopes), _key(noise, drawn), 0.66)
    return figure, drawn.drop(columns="cells")


def _budgets(drawn: pd.DataFrame) -> int:
    return len(np.unique(evidence.levels(drawn["extra_flops"])))


def _left(frame: pd.DataFrame, found: Fits | None, metric: Metric) -> Iterator[pd.DataFrame]:
    """What the best law of the mix leaves: a surface if there is one, else one extra budget."""
    known = found.groups(metric.name) if found else {}
    best: dict[tuple[str, str], tuple[Which, Fit]] = {}
    for which, fits in known.items():
        at = (which.variant, which.growth)
        if which.arm == "grow" and fits[0].sample is not None and at not in best:
            best[at] = (which, compare(ensemble(fits))[0].fit)
    rows = dict(groups.selections(frame))
    for (variant, growth), (which, fit) in sorted(best.items(), key=lambda item: item[0]):
        cells = rows[which]
        assert fit.sample is not None
        predicted = metric.rising(fit.sample.point(design(cells))) * metric.shown
        yield pd.DataFrame(
            {
                "variant": variant,
                "growth": growth,
                "law": fit.law.name,
                "sunk_flops": cells["sunk_flops"],
                "extra_flops": cells["extra_flops"],
                "seed": cells["seed"],
                "annealed": cells["annealed"],
                "predicted": predicted,
                "residual": cells[metric.column] * metric.shown - predicted,
                "cells": panel_name(variant, growth),
            }
        )


def _row(
    axes: list[Axes], left: pd.DataFrame, columns: list[str], metric: Metric, noise: Noise
) -> list[_Panel]:
    first = left.iloc[0]
    style.panel_title(axes[0], f"{first['cells']}: {first['law']}, {len(left)} cells", True)
    axes[0].set_ylabel(style.AXES[f"residual_{metric.kind}"])
    spread = noise.value * metric.shown
    high = max(float(left["residual"].abs().max()), spread if math.isfinite(spread) else 0.0)
    axes[0].set_ylim(-1.15 * high, 1.6 * high)
    made = []
    for at, name in zip(axes, columns, strict=True):
        panel = _panel(at, left, name, metric)
        if math.isfinite(spread):
            at.axhspan(-spread, spread, color=style.GREY, alpha=0.15, lw=0)
        at.axhline(0, color=style.GREY, lw=0.6)
        _dots(at, panel, left)
        at.text(0.98, 0.99, _said(panel), transform=at.transAxes, ha="right", va="top", size=7)
        made.append(panel)
    return made


def _panel(axes: Axes, left: pd.DataFrame, name: str, metric: Metric) -> _Panel:
    """The axis of a panel, and the line; nothing sunk is put a third of the least that was."""
    value = left[name].to_numpy(float)
    high = float(value.max())
    if name == "predicted":
        axes.set_xlabel(style.AXES[f"predicted_{metric.kind}"])
        unit = "point" if metric.top is not None else "nat"
        return _Panel(name, value, *_line(value, left), f"per {unit}")
    if name == "extra_flops":
        style.linear_flops(axes, name, high)
        size = style.power_of(high)
        by = f"per 10{style.superscript(size)}"
        return _Panel(name, value, *_line(value / 10.0**size, left), by)
    least = float(value[value > 0].min()) if (value > 0).any() else 1.0
    zero = least / 3 if (value == 0).any() else None
    places = np.where(value > 0, value, least / 3)
    style.log_flops(axes, name, (zero or least) / 1.5, max(high, least) * 1.5, zero)
    return _Panel(name, places, *_line(np.log10(places), left), "per tenfold")


def _line(x: FloatArray, left: pd.DataFrame) -> tuple[float, float]:
    """Slope of the residuals by least squares, and its standard error; NaN at one place."""
    if len(x) < 3 or np.ptp(x) == 0:
        return math.nan, math.nan
    y = left["residual"].to_numpy(float)
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))


def _dots(axes: Axes, panel: _Panel, left: pd.DataFrame) -> None:
    colour = style.ARMS["grow"]
    for open_, edge, width in ((False, "white", 0.3), (True, colour, 0.7)):
        rows = (left["annealed"] == open_).to_numpy()
        axes.plot(
            panel.places[rows],
            left["residual"].to_numpy(float)[rows],
            "o",
            ms=2.8,
            color="white" if open_ else colour,
            mec=edge,
            mew=width,
        )


def _said(panel: _Panel) -> str:
    if math.isnan(panel.slope):
        return ""
    power = style.power_of(panel.se) if panel.se > 0 else 0
    digits = max(0, int(panel.se < 3 * 10.0**power) - power)
    size = f"{panel.slope:+.{digits}f}".replace("-", "−")
    return f"slope {size} ± {panel.se:.{digits}f} {panel.unit}"


def _claim(panels: list[_Panel]) -> str:
    """Where a trend is left, if anywhere."""
    known = [name for name in _BY if any(panel.by == name and panel.se > 0 for panel in panels)]
    trends = [name for name in known if any(p.by == name and p.clear for p in panels)]
    if not known:
        return "What the laws leave"
    if not trends:
        return f"No trend is left over {_over(known, 'or')}"
    return f"A trend is left over {_over(trends, 'and')}"


def _over(names: list[str], join: str) -> str:
    compute = f" {join} ".join(_BY[name] for name in names if name != "predicted")
    if not compute:
        return "the prediction"
    return f"{compute} compute"


def _key(noise: Noise, drawn: pd.DataFrame) -> str:
    marks = ["dot: run"]
    marks += ["open: annealed source"] if drawn["annealed"].any() else []
    marks += [f"grey: ± one run ({noise.source})"] if math.isfinite(noise.value) else []
    return " · ".join([*marks, "slope ± SE"])
