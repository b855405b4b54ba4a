"""What happened?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import evidence, style
from analysis.metrics import FloatArray
from analysis.figures.subject import Drawn, panel_name
from orchestrator import text


def smoothed(values: FloatArray) -> FloatArray:
    """A centred mean over about a thirtieth of a curve; its ends keep what they have."""
    window = max(1, len(values) // 30) * 2 + 1
    rolled = pd.Series(values).rolling(window, center=True, min_periods=1).mean()
    return rolled.to_numpy(float)


def loss_curves(curves: pd.DataFrame) -> Drawn:
    """What happened? Training loss of one seed's trunk and of the branches that grew from it.

    `curves` is that of `records.curves`; what is drawn is the same with a column `smoothed`. The
    loss scale is that of the branches that had something sunk, with their spikes; the trunk's
    beginning is above it.
    """
    groups = list(curves.groupby("growth"))
    branches = curves[curves["part"] == "branch"]
    positive = branches["sunk_flops"][branches["sunk_flops"] > 0]
    ends = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    with style.drawing():
        figure, axes = style.panels(len(groups))
        drawn, labels = [], []
        for at, (_, rows) in zip(axes, groups, strict=True):
            parts, marks = _curve_panel(at, rows, ends)
            drawn += parts
            labels.append(marks)
        words = [mark[1] for marks in labels for mark in marks]
        style.margins(figure, style.text_inches(figure, [*words, "sunk FLOPs"]) + 0.08, True)
        for at in style.first_of_rows(axes):
            at.set_ylabel(style.AXES["training_loss"])
        axes[0].set_ylim(*_loss_range(curves))
        for at, (name, _), marks in zip(axes, groups, labels, strict=True):
            growth, _, variant = str(name).rstrip(")").partition(" (")
            style.panel_title(at, panel_name(variant, growth))
            _total_axis(at, branches)
            style.label_lines(at, marks, "sunk FLOPs")
        made = pd.concat(drawn, ignore_index=True)
        style.title(figure, _claim(made), "dashed: trunk · triangle: growth · pale: unsmoothed")
    return figure, made


def _curve_panel(
    axes: Axes, rows: pd.DataFrame, ends: tuple[float, float]
) -> tuple[list[pd.DataFrame], list[tuple[float, str, str]]]:
    parts, labels = [], []
    lines = [
        (str(part), sunk, line)
        for part, each in rows.groupby("part")
        for sunk, line in evidence.by_level(each, "sunk_flops")
    ]
    for part, sunk, raw in lines:
        line = raw.sort_values("total_flops", kind="stable")
        line = line.assign(smoothed=smoothed(line["loss"].to_numpy(float)))
        trunk = part == "trunk"
        colour = style.GREY if trunk else style.sunk_colour(sunk, *ends)
        axes.plot(line["total_flops"], line["loss"], color=colour, lw=0.4, alpha=0.35)
        axes.plot(
            line["total_flops"], line["smoothed"], color=colour, lw=1.1, ls="--" if trunk else "-"
        )
        parts.append(line)
        if not trunk:
            first = line.iloc[0]
            axes.plot(
                first["total_flops"], first["loss"], "^", ms=4, color=colour, mec="white", mew=0.4
            )
            labels.append(
                (float(line["smoothed"].iloc[-1]), text.flops(sunk) if sunk else "0", colour)
            )
    return parts, labels


def _claim(drawn: pd.DataFrame) -> str:
    """How much loss growing costs at once, and after how much of a branch that is made good.

    Medians, for single steps are noisy, against the smoothed trunk at the growth point; branches
    with nothing sunk have no such point.
    """
    jumps, regained = [], []
    for _, rows in drawn.groupby("growth"):
        trunk = rows[rows["part"] == "trunk"].sort_values("total_flops", kind="stable")
        for sunk, line in evidence.by_level(rows[rows["part"] == "branch"], "sunk_flops"):
            if sunk <= 0 or trunk.empty:
                continue
            before = float(np.interp(sunk, trunk["total_flops"], trunk["smoothed"]))
            back = np.flatnonzero(line["smoothed"].to_numpy(float) <= before)
            jumps.append(float(line["loss"].iloc[0]) - before)
            regained.append(back[0] / len(line) if len(back) else 1.0)
    if not jumps:
        return "Training loss of each branch"
    jump, share = float(np.median(jumps)), float(np.median(regained))
    if jump <= 0:
        return "Growing costs no loss at most growth points"
    cost = f"Growing costs {jump:.2f} nats at first"
    if share >= 1:
        return f"{cost}, which most branches never regain"
    return f"{cost}, regained after {max(100 * share, 1):.0f} % of a branch"


def _loss_range(curves: pd.DataFrame) -> tuple[float, float]:
    shown = curves[(curves["part"] == "branch") & (curves["sunk_flops"] > 0)]
    shown = curves if shown.empty else shown
    ends = curves[curves["part"] == "branch"].groupby(["growth", "sunk_flops"])["loss"].last()
    low, high = float(curves["loss"].min()), float(max(shown["loss"].max(), ends.max()))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _total_axis(axes: Axes, branches: pd.DataFrame) -> None:
    high = float(branches["total_flops"].max())
    starts = branches["sunk_flops"][branches["sunk_flops"] > 0]
    low = float(starts.min() if len(starts) else branches["total_flops"].min())
    axes.set_xlim(low / 1.6, high * 1.06)
    if high / low > 10:
        style.log_flops(axes, "total_flops", low / 1.6, high * 1.15)
    else:
        style.linear_flops(axes, "total_flops_linear", high)
