"""How figures look. Every colour, size and axis text is here, so that figures agree."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from analysis.labels import GREY, label_lines, spread, text_inches
from analysis.scales import (
    AXES,
    linear_flops,
    log_flops,
    metric_axis,
    power_of,
    scaled_numbers,
    superscript,
)
from orchestrator.store import write_atomic

__all__ = [
    "ARMS",
    "AXES",
    "GREY",
    "LINES",
    "arm_shade",
    "budget_colours",
    "csv",
    "drawing",
    "first_of_rows",
    "label_lines",
    "linear_flops",
    "log_flops",
    "margins",
    "metric_axis",
    "panel_title",
    "panels",
    "power_of",
    "readable_on",
    "save",
    "scaled_numbers",
    "spread",
    "sunk_colour",
    "superscript",
    "text_inches",
    "title",
]

LEFT = 0.62  # inches, for the numbers and the name of a y axis
ONE_COLUMN, TWO_COLUMNS = 3.35, 6.9  # inches, so that figures drop into a paper unscaled
Share = Literal["row"] | bool

# Okabe-Ito blue and vermilion, plus grey: the orange of that set has a contrast of 2.25 on white.
ARMS = {"grow": "#0072B2", "continue": "#D55E00", "scratch": "#7F7F7F"}
LINES = {"grow": "-", "continue": "--", "scratch": ":"}
_BUDGETS = ("#4B93CF", "#1F66A8", "#08306B")  # one blue, light to dark

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "growpoint",
    "savefig.dpi": 200,
    "path.simplify": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style, inside only: importing or drawing never changes a notebook's own."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _STYLE.items():
            mpl.rcParams[name] = value  # type: ignore[index]
        yield


def panels(
    count: int, height: float = 2.75, across: int = 3, share: Share = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `across` side by side; one column wide for one panel.

    `height` is that of one row in inches. `share` says which panels have a y axis in common: all,
    or those of one row.
    """
    rows, wide = math.ceil(count / across), min(count, across)
    figure = Figure(figsize=(ONE_COLUMN if wide == 1 else TWO_COLUMNS, height * rows))
    FigureCanvasAgg(figure)
    axes = [at for row in figure.subplots(rows, wide, sharey=share, squeeze=False) for at in row]
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def sunk_colour(sunk: float, low: float, high: float) -> str:
    """Viridis from 0.59 to 0 on a log scale, darker for more; nothing sunk is scratch grey.

    On white, viridis keeps a contrast of 3 only up to 0.599, so its pale end is cut off.
    """
    if sunk <= 0:
        return ARMS["scratch"]
    span = math.log(high / low) if high > low else 1.0
    share = math.log(sunk / low) / span if high > low else 1.0
    return to_hex(mpl.colormaps["viridis"](0.59 * (1 - min(max(share, 0.0), 1.0))))


def budget_colours(count: int) -> list[str]:
    """Steps of one blue, light to dark."""
    if count <= len(_BUDGETS):
        return list(_BUDGETS[len(_BUDGETS) - count :]) if count < 3 else list(_BUDGETS)
    ramp = mpl.colors.LinearSegmentedColormap.from_list("budgets", _BUDGETS)
    return [to_hex(ramp(step)) for step in np.linspace(0, 1, count)]


def arm_shade(arm: str, strength: float) -> str:
    """An arm's colour by how clearly it wins: `strength` 0 is pale, 1 the full colour.

    The palest is dark enough that each arm is still told from the others and from the page.
    """
    share = 0.42 + 0.58 * min(max(strength, 0.0), 1.0)
    full, white = np.array(to_rgb(ARMS[arm])), np.ones(3)
    return to_hex(share * full + (1 - share) * white)


def readable_on(colour: str) -> str:
    """Black or white, whichever stands out more on a colour (WCAG relative luminance)."""
    value = np.array(to_rgb(colour))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ [0.2126, 0.7152, 0.0722]) < 0.179 else "black"


def title(figure: Figure, claim: str, key: str, left: float = LEFT) -> None:
    """Two lines over the panels, from `left` inches: a bold claim, and a grey key of the marks.

    A line that is too long for the page is set smaller.
    """
    width, height = figure.get_size_inches()
    left = min(figure.axes[0].get_position().x0, left / width)
    for words, down, size, weight, colour in (
        (claim, 0.07, 8.5, "bold", "black"),
        (key, 0.25, 7, "normal", GREY),
    ):
        fits = (width * (1 - left) - 0.05) / text_inches(figure, [words], size, weight)
        figure.text(
            left,
            1 - down / height,
            words,
            weight=weight,
            color=colour,
            va="top",
            size=size * min(1.0, fits),
        )


def margins(
    figure: Figure,
    right: float,
    titled_panels: bool,
    left: float = LEFT,
    key_lines: int = 1,
) -> None:
    """Fixed margins in inches; `right` is what the line labels need beside each panel."""
    width, height = figure.get_size_inches()
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    rows, count = grid.nrows, grid.ncols
    top, bottom = (0.62 if titled_panels else 0.46) + 0.12 * (key_lines - 1), 0.40
    gap, down = right + 0.14, bottom + (0.22 if titled_panels else 0.10)
    each = (width - left - right - 0.05 - (count - 1) * gap) / count
    tall = (height - top - bottom - (rows - 1) * down) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - (right + 0.05) / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=gap / each,
        hspace=down / tall,
    )


def first_of_rows(axes: Sequence[Axes]) -> list[Axes]:
    """The panels at the left, which name the y axis."""
    return [at for at in axes if (place := at.get_subplotspec()) is None or place.is_first_col()]


def panel_title(axes: Axes, words: str, whole_row: bool = False) -> None:
    """What a panel shows, above it; set smaller, then cut, if it would run into the next one.

    With `whole_row` the other panels of its row have no titles. Call it when the axes have their final place.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    left, width = axes.get_position().x0, figure.get_size_inches()[0]
    others = [] if whole_row else [at.get_position().x0 for at in figure.axes]
    room = width * (min((x for x in others if x > left + 0.01), default=1.0) - left) - 0.06
    size = 8.0
    while size > 5.5 and text_inches(figure, [words], size) > room:
        size -= 0.5
    kept = words
    while len(kept) > 4 and text_inches(figure, [kept], size) > room:
        kept = f"{kept[:-2]}…"
    axes.set_title(kept, loc="left", size=size, pad=3)


def save(figure: Figure, drawn: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write NAME.pdf, .svg, .png and, of what was drawn, .csv; a rerun writes the same bytes."""
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {
            "CreationDate": None,
            "ModDate": None,
            "Producer": "growpoint",
            "Creator": "growpoint",
        },
        "svg": {"Date": None, "Creator": "growpoint"},
        "png": {"Software": None},
    }
    paths = []
    for kind, entries in metadata.items():
        buffer = BytesIO()
        with drawing():
            figure.savefig(buffer, format=kind, metadata=entries)
        paths.append(folder / f"{name}.{kind}")
        write_atomic(paths[-1], buffer.getvalue())
    paths.append(folder / f"{name}.csv")
    write_atomic(paths[-1], csv(drawn).encode())
    return paths


def csv(drawn: pd.DataFrame) -> str:
    """What was drawn, in eight digits: more would differ between machines."""
    return drawn.to_csv(index=False, float_format="%.8g", lineterminator="\n")
