"""How figures look. Every colour, size and axis text is here, so that figures agree."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from orchestrator import text
from orchestrator.store import write_atomic

ONE_COLUMN, TWO_COLUMNS = 3.35, 6.9  # inches, so that figures drop into a paper unscaled
GREY = "#595959"

# Okabe-Ito blue and vermilion, plus grey: the orange of that set has a contrast of 2.25 on white.
ARMS = {"grow": "#0072B2", "continue": "#D55E00", "scratch": "#7F7F7F"}
LINES = {"grow": "-", "continue": "--", "scratch": ":"}
_BUDGETS = ("#4B93CF", "#1F66A8", "#08306B")  # one blue, light to dark

AXES = {
    "sunk_flops": "sunk compute (FLOPs)",
    "extra_flops": "extra compute ({power}FLOPs)",
    "total_flops": "total compute (FLOPs)",
    "total_flops_linear": "total compute ({power}FLOPs)",
    "accuracy": "next-token accuracy (%)",
    "loss": "validation loss (nats)",
    "training_loss": "training loss (nats)",
}

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


def panels(count: int, height: float = 2.75) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels side by side with one y axis; one column wide for one panel."""
    figure = Figure(figsize=(ONE_COLUMN if count == 1 else TWO_COLUMNS, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, sharey=True, squeeze=False)
    return figure, list(axes[0])


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


def title(figure: Figure, claim: str, key: str) -> None:
    """Two lines over the panels: a claim in bold, and a grey key of the marks."""
    left = figure.axes[0].get_position().x0
    height = figure.get_size_inches()[1]
    figure.text(left, 1 - 0.07 / height, claim, weight="bold", va="top", size=8.5)
    figure.text(left, 1 - 0.25 / height, key, color=GREY, va="top", size=7)


def margins(figure: Figure, right: float, titled_panels: bool) -> None:
    """Fixed margins in inches; `right` is what the line labels need."""
    width, height = figure.get_size_inches()
    left, gap, count = 0.52, right + 0.14, len(figure.axes)
    each = (width - left - right - 0.05 - (count - 1) * gap) / count
    figure.subplots_adjust(
        left=left / width,
        right=1 - (right + 0.05) / width,
        bottom=0.40 / height,
        top=1 - (0.62 if titled_panels else 0.46) / height,
        wspace=gap / each,
    )


def panel_title(axes: Axes, words: str) -> None:
    """What a panel shows, above it."""
    axes.set_title(words, loc="left", size=8, pad=3)


def text_inches(figure: Figure, words: Sequence[str], size: float = 7) -> float:
    """The width of the widest of some words, as drawn."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    found = 0.0
    for each in words:
        mark = figure.text(0, 0, each, size=size)
        found = max(found, mark.get_window_extent(renderer).width / figure.dpi)
        mark.remove()
    return found


def label_lines(axes: Axes, labels: Sequence[tuple[float, str, str]], header: str = "") -> None:
    """Name lines at their right ends: (y, words, colour) each, in the line's own colour.

    Labels that would overlap are merged into evenly spaced groups around their common centre, and
    all of them are kept within the height of the axes.
    """
    if not labels:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = axes.get_position().height * figure.get_size_inches()[1] * 72
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label[0])
    wanted = [(y - low) / (high - low) * points for y, _, _ in ordered]
    placed = spread(wanted, 8.6, points)
    for at, (_, words, colour) in zip(placed, ordered, strict=True):
        _label(axes, at / points, words, colour)
    if header:
        _label(axes, (placed[-1] + 10.5) / points, header, GREY)


def _label(axes: Axes, height: float, words: str, colour: str) -> None:
    axes.annotate(
        words,
        (1, height),
        xytext=(4, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        color=colour,
        va="center",
        size=7,
        annotation_clip=False,
    )


def spread(wanted: Sequence[float], gap: float, length: float) -> list[float]:
    """Sorted positions moved as little as needed to lie `gap` apart within 0 and `length`."""
    groups = [[position] for position in wanted]
    while True:
        centres = [sum(group) / len(group) for group in groups]
        half = [gap * (len(group) - 1) / 2 for group in groups]
        centres = [
            max(min(centre, length - reach), reach)
            for centre, reach in zip(centres, half, strict=True)
        ]
        clash = next(
            (
                index
                for index in range(len(groups) - 1)
                if centres[index] + half[index] + gap > centres[index + 1] - half[index + 1] + 1e-9
            ),
            None,
        )
        if clash is None:
            break
        groups[clash : clash + 2] = [groups[clash] + groups[clash + 1]]
    return [
        centre - reach + gap * step
        for centre, reach, group in zip(centres, half, groups, strict=True)
        for step in range(len(group))
    ]


def log_flops(axes: Axes, name: str, low: float, high: float, zero: float | None = None) -> None:
    """A log axis of FLOPs that labels decades only, and `0` at `zero` if that is given."""
    axes.set_xscale("log")
    decades = np.arange(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    ticks = [float(10.0**decade) for decade in decades] or [low, high]
    ticks = [tick for tick in ticks if zero is None or tick > 1.8 * zero]
    axes.xaxis.set_major_locator(FixedLocator(([zero] if zero else []) + ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_decade(zero)))
    axes.set_xlabel(AXES[name])


def _decade(zero: float | None) -> Callable[[float, int], str]:
    def words(value: float, _: int) -> str:
        if zero is not None and abs(value / zero - 1) < 1e-6:
            return "0"
        exponent = math.log10(value)
        if abs(exponent - round(exponent)) < 1e-6:
            return f"10{_superscript(round(exponent))}"
        return text.flops(value)

    return words


def linear_flops(axes: Axes, name: str, high: float) -> None:
    """A linear axis of FLOPs with the power of ten in its name and at most five ticks."""
    power = math.floor(math.log10(high))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10**power:g}"))
    axes.set_xlabel(AXES[name].format(power=f"10{_superscript(power)} "))


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


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
