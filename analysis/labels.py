"""Words beside lines: how wide they are, and where they go so that none hides another."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

GREY = "#595959"


def text_inches(
    figure: Figure, words: Sequence[str], size: float = 7, weight: str = "normal"
) -> float:
    """The width of the widest of some words, as drawn."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    found = 0.0
    for each in words:
        mark = figure.text(0, 0, each, size=size, weight=weight)
        found = max(found, mark.get_window_extent(renderer).width / figure.dpi)
        mark.remove()
    return found


def label_lines(axes: Axes, labels: Sequence[tuple[float, str, str]], header: str = "") -> None:
    """Name lines at their right ends: (y, words, colour) each, in the line's own colour.

    Labels that would overlap are merged into evenly spaced groups around their common centre, and
    all of them are kept within the height of the axes; more than fit are drawn smaller.
    """
    if not labels:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = axes.get_position().height * figure.get_size_inches()[1] * 72
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label[0])
    wanted = [(y - low) / (high - low) * points for y, _, _ in ordered]
    gap = min(8.6, points / max(len(ordered) - 1, 1))
    placed = spread(wanted, gap, points)
    size = 7 * min(1.0, gap / 8.6 + 0.05)
    for at, (_, words, colour) in zip(placed, ordered, strict=True):
        _label(axes, at / points, words, colour, size)
    if header:
        _label(axes, (placed[-1] + 10.5) / points, header, GREY, 7)


def _label(axes: Axes, height: float, words: str, colour: str, size: float) -> None:
    axes.annotate(
        words,
        (1, height),
        xytext=(4, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        color=colour,
        va="center",
        size=size,
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
