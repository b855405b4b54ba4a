"""Does growth keep the profile of weight norms over depth?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import style
from analysis.metrics import FloatArray

# More panels than these are too narrow to be read; then lines share one.
_PANELS = 4
_NAMES = {"experts": "Expert", "shared": "Shared-expert", "dense": "Dense-layer"}


def norm_profile(frame: pd.DataFrame, group: str = "experts") -> tuple[Figure, pd.DataFrame]:
    """Does growth keep the profile? A panel for each checkpoint, over the first one's profile.

    `frame` has a row for each layer: checkpoint, layer, source_layer, copy, and a column for each
    group of weights, of which `group` is drawn; all of it is returned as what was drawn. The first
    profile is stretched to the depth of each panel. More than four checkpoints share one panel.
    """
    names = list(dict.fromkeys(frame["checkpoint"]))
    with style.drawing():
        if len(names) > _PANELS:
            figure = _lines(frame, names, group)
        else:
            figure = _small_multiples(frame, names, group)
    return figure, frame


def _small_multiples(frame: pd.DataFrame, names: list[str], group: str) -> Figure:
    figure, axes = style.panels(len(names), 2.3, across=_PANELS)
    first = _profile(frame, names[0], group)
    for number, (at, name) in enumerate(zip(axes, names, strict=True)):
        rows = frame[frame["checkpoint"] == name]
        if number:
            at.plot(
                _depth(first) * len(rows) - 0.5, first, color=style.GREY, ls=(0, (3, 2)), lw=0.9
            )
        _panel(at, rows, group, style.ARMS["grow"] if number else "black")
    style.margins(figure, 0.0, True)
    _norm_axis(axes[0], frame[group])
    for at, name in zip(axes, names, strict=True):
        _layers(at)
        style.panel_title(at, _fitted(figure, at, name))
    key = "filled: original layer · open: copy" if frame["copy"].any() else "dot: layer"
    more = f" · dashed: {names[0]}, stretched to this depth" if len(names) > 1 else ""
    title = f"{_NAMES.get(group, group.capitalize())} weight norms, layer by layer"
    style.title(figure, title, key + more)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, group: str, colour: str) -> None:
    axes.plot(rows["layer"], rows[group], color=colour, lw=0.9, zorder=2)
    for copies, face in ((False, colour), (True, "white")):
        some = rows[rows["copy"] == copies]
        axes.plot(
            some["layer"], some[group], "o", ms=3.2, color=colour, mfc=face, mew=0.8, zorder=3
        )


def _lines(frame: pd.DataFrame, names: list[str], group: str) -> Figure:
    """All profiles over relative depth, named at their ends."""
    figure, (axes,) = style.panels(1)
    colours = style.budget_colours(len(names))
    labels = []
    for name, colour in zip(names, colours, strict=True):
        values = _profile(frame, name, group)
        axes.plot(_depth(values), values, color=colour, marker="o", ms=2.2, lw=0.9)
        last = values[np.isfinite(values)][-1:]
        labels += [(float(value), _short(name, 18), colour) for value in last]
    words = [label[1] for label in labels]
    style.margins(figure, style.text_inches(figure, words) + 0.08, False)
    axes.set_xlabel(style.AXES["relative_depth"])
    _norm_axis(axes, frame[group])
    axes.set_xlim(0, 1)
    style.label_lines(axes, labels)
    title = f"{_NAMES.get(group, group.capitalize())} weight norms"
    style.title(figure, title, "dot: layer, in the middle of its share of the depth")
    return figure


def _profile(frame: pd.DataFrame, name: str, group: str) -> FloatArray:
    rows = frame[frame["checkpoint"] == name].sort_values("layer", kind="stable")
    found: FloatArray = rows[group].to_numpy(float)
    return found


def _depth(values: FloatArray) -> FloatArray:
    """Each layer's middle, as a share of the whole depth."""
    return (np.arange(len(values)) + 0.5) / max(1, len(values))


def _norm_axis(axes: Axes, norms: pd.Series) -> None:
    """A linear axis with the power of ten in its name; norms that hardly differ look so."""
    low, high = float(norms.min()), float(norms.max())
    if not (np.isfinite(high) and high > 0):
        axes.set_ylabel(style.AXES["weight_norm"].format(power=""))
        return
    middle, half = (low + high) / 2, max(high - low, 0.1 * high) * 0.55
    axes.set_ylim(middle - half, middle + half)
    style.scaled_numbers(axes.yaxis, "weight_norm", high)


def _layers(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(style.AXES["layer"])


def _fitted(figure: Figure, axes: Axes, name: str) -> str:
    """A panel's name, shortened to the panel's width."""
    width = axes.get_position().width * figure.get_size_inches()[0]
    length = len(name)
    while length > 4 and style.text_inches(figure, [_short(name, length)], 8) > width:
        length -= 1
    return _short(name, length)


def _short(name: str, length: int) -> str:
    """The end of a name tells more than its beginning."""
    return name if len(name) <= length else "…" + name[len(name) - length + 1 :]
