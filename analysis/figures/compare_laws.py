"""Which laws do the runs prefer?"""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analysis import style
from analysis.compare import compare, ensemble
from analysis.figures.subject import Drawn, NothingToDrawError
from analysis.fit import Fit
from analysis.fits import Fits
from analysis.metrics import Metric
from analysis.sample import Which
from orchestrator import text

_ROW = 0.155  # inches


def compare_laws(found: Fits | None, metric: Metric) -> Drawn:
    """Which laws do the runs prefer? Held-out error above the best law's, by cells.

    Whiskers are a standard error over source checkpoints, paired with the best law. Drawn columns:
    variant, arm, growth, extra_flops, law, behind, behind_se, delta_aicc, mixed, diagnosis. Raises
    NothingToDrawError where no two laws were fitted to the same cells.
    """
    rows = _rows(found, metric)
    lines = len(rows) + len(rows.groupby("cells", sort=False))
    with style.drawing():
        figure, (axes,) = style.panels(1, 0.82 + _ROW * lines)
        left = style.text_inches(figure, list(rows["law"])) + 0.14
        numbers = rows[["behind", "behind_se", "delta_aicc"]].to_numpy(float)
        words = [_beside(behind, se, delta, metric) for behind, se, delta in numbers]
        right = style.text_inches(figure, [*words, _HEADER]) + 0.10
        style.margins(figure, right, False, left)
        _draw(axes, rows, words)
        axes.xaxis.set_major_locator(
            MaxNLocator(max(1, int((style.ONE_COLUMN - left - right) / 0.4)))
        )
        axes.set_xlabel(style.AXES[f"behind_{metric.kind}"])
        axes.xaxis.label.set_horizontalalignment("right")
        axes.xaxis.label.set_x(1.0)
        style.title(figure, _claim(rows), "whisker: ± SE · blue: in the mix · grey: left out", 0.07)
    return figure, rows.drop(columns="cells")


_HEADER = "behind ± SE · ΔAICc"


def _rows(found: Fits | None, metric: Metric) -> pd.DataFrame:
    known = found.groups(metric.name) if found else {}
    surfaces = {(which.variant, which.growth) for which in known if which.extra_flops is None}
    rows = [
        row
        for which, fits in known.items()
        if len(fits) > 1
        and (which.extra_flops is None or (which.variant, which.growth) not in surfaces)
        for row in _group(which, fits, metric)
    ]
    if not rows:
        raise NothingToDrawError("no two laws could be fitted to the same cells")
    return pd.DataFrame(rows)


def _group(which: Which, fits: list[Fit], metric: Metric) -> list[dict[str, object]]:
    mixed = {fit.law.name for fit in ensemble(fits)}
    budget = f", extra {text.flops(which.extra_flops)}" if which.extra_flops else ""
    return [
        {
            "variant": which.variant,
            "arm": which.arm,
            "growth": which.growth,
            "extra_flops": math.nan if which.extra_flops is None else which.extra_flops,
            "law": row.fit.law.name,
            "behind": row.behind * metric.shown,
            "behind_se": row.behind_se * metric.shown,
            "delta_aicc": row.delta_aicc,
            "mixed": row.fit.law.name in mixed,
            "diagnosis": row.fit.diagnosis(),
            "cells": f"{which.label()}{budget}, {row.fit.cells} cells",
        }
        for row in compare(fits)
    ]


def _beside(behind: float, se: float, delta: float, metric: Metric) -> str:
    size = f"{behind:.{metric.digits}f} ± {se:.{metric.digits}f}" if behind or se else "best"
    return f"{size}  ·  {delta:.0f}"


def _draw(axes: Axes, rows: pd.DataFrame, words: list[str]) -> None:
    """A line of text for each law, and one above each set of cells."""
    at, places = 0.0, []
    left = -72 * axes.get_position().x0 * style.ONE_COLUMN
    for cells, group in rows.groupby("cells", sort=False):
        _say(axes, 0, at, left + 5, str(cells), style.GREY)
        places += [at + 1 + index for index in range(len(group))]
        axes.vlines(0, at + 0.5, at + len(group) + 0.5, color=style.GREY, lw=0.6, zorder=0)
        at += len(group) + 1
    _say(axes, 1, 0.0, 5, _HEADER, style.GREY)
    columns = (rows[name] for name in ("behind", "behind_se", "mixed"))
    for place, said, behind, se, mixed in zip(places, words, *columns, strict=True):
        colour = style.ARMS["grow"] if mixed else style.ARMS["scratch"]
        axes.errorbar(behind, place, xerr=se, fmt="o", ms=3.4, color=colour, elinewidth=1.0)
        _say(axes, 1, place, 5, said, colour if mixed else style.GREY)
    axes.set_yticks(places, list(rows["law"]))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(at - 0.4, -0.7)
    axes.spines["left"].set_visible(False)


def _say(axes: Axes, x: float, y: float, points: float, words: str, colour: str) -> None:
    """Words on a row, so many points beside the left (0) or right (1) end of the axes."""
    axes.annotate(
        words,
        (x, y),
        xytext=(points, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        size=7,
        color=colour,
        annotation_clip=False,
    )


def _claim(rows: pd.DataFrame) -> str:
    grown = rows[rows["arm"] == "grow"]
    kept, all_laws = int(grown["mixed"].sum()), len(grown)
    if kept == all_laws:
        return "The runs cannot tell the laws of growing apart"
    named = grown.loc[grown["mixed"], "law"]
    if kept == 1:
        return f"Of growing, {named.iloc[0]} is believed alone"
    return f"{kept} of {all_laws} laws of growing are believed"
