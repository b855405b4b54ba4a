"""How fast does each growth point pay?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import evidence, style
from analysis.figures.subject import Drawn, NothingToDrawError, panel_name
from analysis.metrics import Metric
from orchestrator import text

_COLUMNS = ["panel", "arm", "sunk_flops", "extra_flops", "seed", "value", "low", "high"]
_SEEN = 1.645  # standard errors in a 90 % whisker


def accuracy_vs_extra(frame: pd.DataFrame, metric: Metric) -> Drawn:
    """How fast does each growth point pay? One line for each sunk level, the control beside them.

    Lines join means over seeds, dots are runs with 90 % whiskers of their evaluation. Drawn
    columns: panel, arm, sunk_flops, extra_flops, seed, value, low, high.
    Raises NothingToDrawError where there is one extra budget.
    """
    if len(np.unique(evidence.levels(frame["extra_flops"]))) < 2:
        raise NothingToDrawError("one extra budget")
    if all(
        len(np.unique(evidence.levels(runs["extra_flops"]))) < 2 for runs in _growth_points(frame)
    ):
        raise NothingToDrawError("no growth point has two extra budgets")
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
        for at in style.first_of_rows(axes):
            at.set_ylabel(style.metric_axis(metric.name, frame))
        for at, (name, _), marks in zip(axes, groups, labels, strict=True):
            style.panel_title(at, name)
            style.linear_flops(at, "extra_flops", float(frame["extra_flops"].max()))
            style.label_lines(at, marks, "sunk FLOPs")
        made = pd.concat(drawn, ignore_index=True)[_COLUMNS]
        style.title(figure, _claim(made, metric), _key(made))
    return figure, made


def _growth_points(frame: pd.DataFrame) -> list[pd.DataFrame]:
    return [
        runs
        for _, rows in frame.groupby(["variant", "arm", "growth"])
        for _, runs in evidence.by_level(rows, "sunk_flops")
    ]


def _key(drawn: pd.DataFrame) -> str:
    known = np.isfinite(drawn["low"]).any()
    whiskers = ", 90 % of its evaluation" if known else ""
    return f"dot: run{whiskers} · line: mean of seeds"


def _claim(drawn: pd.DataFrame, metric: Metric) -> str:
    """What the least and the most extra budget differ by, after growing."""
    gains = []
    grown = drawn[drawn["arm"] == "grow"]
    budgets = evidence.levels(grown["extra_flops"]) if len(grown) else np.array([])
    for _, rows in grown.assign(budget=budgets).groupby(["panel", "sunk_flops"]):
        means = rows.groupby("budget")["value"].mean()
        if len(means) > 1 and set(means.index[[0, -1]]) == {budgets.min(), budgets.max()}:
            gains.append(float(means.iloc[-1] - means.iloc[0]))
    if not gains:
        return f"{metric.name.capitalize()} by extra compute"
    times = float(budgets.max() / budgets.min())
    better = np.array(gains) if metric.top is not None else -np.array(gains)
    said = f"{times:.2g} times the extra compute"
    if better.min() <= 0 < better.max():
        return f"{said} helps after some growths, not all"
    if better.max() <= 0:
        return f"{said} helps after no growth"
    digits = metric.digits - 1
    low, high = (f"{end:.{digits}f}" for end in (better.min(), better.max()))
    size = low if low == high else f"{low} to {high}"
    verb = "adds" if metric.top is not None else "takes off"
    return f"{said} {verb} {size} {metric.unit}"


def _extra_panels(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A panel for each growth, with starting over at its size, and one for the control."""
    found = []
    for (variant, growth), rows in frame.groupby(["variant", "growth"]):
        found.append((panel_name(str(variant), str(growth)), rows))
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
