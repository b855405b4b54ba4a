"""How fast does each growth point pay?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import evidence, style
from analysis.metrics import Metric
from orchestrator import text

_SEEN = 1.645  # standard errors in a 90 % whisker


def accuracy_vs_extra(frame: pd.DataFrame, metric: Metric) -> tuple[Figure, pd.DataFrame]:
    """How fast does each growth point pay? One line for each sunk level, the control beside them.

    Lines join means over seeds, dots are runs with 90 % whiskers of their evaluation. Drawn
    columns: panel, arm, sunk_flops, extra_flops, seed, value, low, high.
    """
    groups = _extra_panels(frame)
    positive = frame["sunk_flops"][frame["sunk_flops"] > 0]
    ends = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    with style.drawing():
        figure, axes = style.panels(len(groups))
        drawn, labels = [], []
        for at, (name, rows) in zip(axes, groups, strict=True):
            panel, marks = _extra_panel(at, rows, metric, ends)
            drawn.append(panel.assign(panel=name))
            labels.append(marks)
        words = [mark[1] for marks in labels for mark in marks]
        style.margins(figure, style.text_inches(figure, [*words, "sunk FLOPs"]) + 0.08, True)
        axes[0].set_ylabel(style.AXES[metric.name])
        for at, (name, _), marks in zip(axes, groups, labels, strict=True):
            style.panel_title(at, name)
            style.linear_flops(at, "extra_flops", float(frame["extra_flops"].max()))
            style.label_lines(at, marks, "sunk FLOPs")
        style.title(
            figure,
            "What extra compute buys",
            "dot: run, 90 % of its evaluation · line: mean of seeds",
        )
    columns = ["panel", "arm", "sunk_flops", "extra_flops", "seed", "value", "low", "high"]
    return figure, pd.concat(drawn, ignore_index=True)[columns]


def _extra_panels(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A panel for each growth, with starting over at its size, and one for the control."""
    found = []
    for (variant, growth), rows in frame.groupby(["variant", "growth"]):
        name = "not grown" if growth == "-" else str(growth)
        found.append((f"{name} ({variant})" if variant else name, rows))
    return sorted(found, key=lambda each: each[0].startswith("not grown"))


def _extra_panel(
    axes: Axes, rows: pd.DataFrame, metric: Metric, ends: tuple[float, float]
) -> tuple[pd.DataFrame, list[tuple[float, str, str]]]:
    parts, labels = [], []
    groups = [
        (str(arm), sunk, runs)
        for arm, cells in rows.groupby("arm")
        for sunk, runs in evidence.by_level(cells, "sunk_flops")
    ]
    for arm, sunk, runs in groups:
        colour = style.sunk_colour(sunk, *ends)
        drawn = _runs(runs, metric).assign(arm=arm, sunk_flops=sunk)
        low, value, high = (drawn[name].to_numpy(float) for name in ("low", "value", "high"))
        axes.errorbar(
            drawn["extra_flops"],
            value,
            np.array([value - low, high - value]),
            fmt="o",
            ms=2.4,
            color=colour,
            elinewidth=0.6,
            mec="white",
            mew=0.3,
            zorder=3,
        )
        means = [
            (at, float(each["value"].mean()))
            for at, each in evidence.by_level(drawn, "extra_flops")
        ]
        axes.plot(
            *zip(*means, strict=True),
            color=colour,
            ls=style.LINES["scratch"] if arm == "scratch" else "-",
        )
        name = "scratch" if arm == "scratch" else text.flops(sunk) if sunk else "0"
        labels.append((means[-1][1], name, colour))
        parts.append(drawn)
    return pd.concat(parts, ignore_index=True), labels


def _runs(runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    value = runs[metric.column] * metric.shown
    half = _SEEN * runs[f"{metric.column}_se"] * metric.shown
    columns = {"extra_flops": runs["extra_flops"], "seed": runs["seed"], "value": value}
    return pd.DataFrame(columns | {"low": value - half, "high": value + half}).reset_index(
        drop=True
    )
