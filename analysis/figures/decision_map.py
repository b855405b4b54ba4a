"""Grow, continue or start over?"""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy import ndimage

from analysis import style
from analysis.coordinates import Mask
from analysis.evidence import Noise
from analysis.figures.decided import Map, ends, mappable, mapped, others, why_not
from analysis.figures.subject import Drawn, NothingToDrawError, panel_name
from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric

_VEIL = 0.62  # white over what was not measured
_ZERO = 1.7  # how far from the map's edge runs with nothing sunk stand
_STIPPLE = 3  # points of the grid from one dot to the next
_DOING = {"grow": "Growing", "continue": "Training on", "scratch": "Starting over"}


def decision_map(arms: list[Arm], metric: Metric, noise: Noise) -> Drawn:
    """Grow, continue or start over? The best by sunk and extra compute, a panel for each growth.

    Hue is the arm, its strength the margin over the next. Dotted is too close to call: a margin
    within the noise of one run, or best in less than 80 % of draws. The dashed box is where runs of
    growing are; around it is pale, up to a factor of two. Drawn columns: variant, growth,
    sunk_flops, extra_flops, winner, margin, chance, too_close, inside. Raises NothingToDrawError
    where nothing is known to compare.
    """
    grown = [arm for arm in arms if arm.which.arm == "grow"]
    kept = [arm for arm in grown if mappable(arm) and len(others(arm, arms)) > 1]
    if not kept:
        raise NothingToDrawError(why_not(grown))
    around = ends(kept)
    tables, maps = zip(*(mapped(arm, arms, metric, noise, around) for arm in kept), strict=True)
    nothing = any((arm.cells["sunk_flops"] == 0).any() for arm in kept)
    full = max(_strongest(maps), 2 * noise.value if math.isfinite(noise.value) else 0.0, 1e-12)
    with style.drawing():
        figure, axes = style.panels(len(kept), 3.0)
        style.margins(figure, 0.08, True, key_lines=2)
        for at, each in zip(axes, maps, strict=True):
            style.panel_title(at, panel_name(each.growth.which.variant, each.growth.which.growth))
            _axes(at, each, nothing)
            _paint(at, each, full)
            _dots(at, each)
        for at in style.first_of_rows(axes):
            at.set_ylabel(style.AXES["extra_flops_log"])
        style.title(figure, _claim(maps), _key(full, metric))
    return figure, pd.concat(tables, ignore_index=True)


def _strongest(maps: tuple[Map, ...]) -> float:
    margins = np.concatenate([each.margin[each.inside] for each in maps])
    margins = margins[np.isfinite(margins)]
    return float(np.quantile(margins, 0.95)) if len(margins) else 0.0


def _axes(axes: Axes, each: Map, nothing: bool) -> None:
    """The axes, with a place for runs that have nothing sunk if some panel has such runs."""
    low, high = float(each.sunk[0]), float(each.sunk[-1])
    zero = low / _ZERO if nothing else None
    style.log_flops(axes, "sunk_flops", low if zero is None else zero / 1.25, high, zero)
    style.log_flops(axes, "extra_flops_log", float(each.extra[0]), float(each.extra[-1]), y=True)
    axes.set_ylabel("")


def _paint(axes: Axes, each: Map, full: float) -> None:
    """Colours, stipples, break-even lines and names, over the page's white."""
    shades = _shades(each, full)
    axes.pcolormesh(each.sunk, each.extra, shades, shading="nearest", rasterized=True)
    dotted = _lattice(each.winner.shape) & each.close & (each.winner != "")
    for arm in style.ARMS:
        dotted &= ~_name(axes, each, arm, shades)
    places = np.meshgrid(each.sunk, each.extra)
    axes.plot(places[0][dotted], places[1][dotted], ".", ms=2, color="black", mew=0)
    for level in list(each.ahead.values())[: max(1, len(each.ahead) - 1)]:
        if (level < 0).any() and (level > 0).any():
            axes.contour(each.sunk, each.extra, level, [0.0], colors="black", linewidths=0.9)
    low, high, least, most = ends([each.growth])
    axes.add_patch(
        Rectangle(
            (low, least), high - low, most - least, fill=False, ls=(0, (4, 2)), lw=0.8, ec="black"
        )
    )


def _shades(each: Map, full: float) -> FloatArray:
    """Red, green and blue of every point: (extra, sunk, 3)."""
    strength = np.nan_to_num(each.margin / full)
    colours = np.ones((*each.winner.shape, 3))
    for arm in style.ARMS:
        won = (each.winner == arm)[..., None]
        colours = np.where(won, style.arm_shades(arm, strength), colours)
    veil = np.where(each.inside, 0.0, _VEIL)[..., None]
    return np.asarray(veil + (1 - veil) * colours)


def _lattice(shape: tuple[int, ...]) -> Mask:
    """Points of the grid that a stipple may be on."""
    rows, columns = np.indices(shape)
    return np.asarray((rows % _STIPPLE == 0) & ((columns + rows // _STIPPLE) % _STIPPLE == 0))


def _name(axes: Axes, each: Map, arm: str, shades: FloatArray) -> Mask:
    """The name of an arm where its region is widest, clear of dots and lines, if it has room.

    Gives the points of the grid that it covers.
    """
    place, figure = axes.get_position(), axes.get_figure(root=True)
    assert figure is not None
    inches = figure.get_size_inches()
    rows, columns = each.winner.shape
    step = 72 * np.array([inches[1] * place.height / rows, inches[0] * place.width / columns])
    region = np.pad((each.winner == arm) & ~_marked(each), 1)
    half = np.array([5.0, 36 * style.text_inches(figure, [arm], 8, "bold")])  # of the name, points
    # Distances are counted in names, which are wider than high.
    room = ndimage.distance_transform_edt(region, sampling=step / half)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(room)), room.shape)
    if room[row, column] < 1.1:
        return np.zeros(each.winner.shape, bool)
    axes.text(
        each.sunk[column],
        each.extra[row],
        arm,
        ha="center",
        va="center",
        color=style.readable_on(shades[row, column]),
        weight="bold",
    )
    reach = np.abs(np.indices(each.winner.shape) - np.array([[[row]], [[column]]]))
    return np.asarray((reach * (step / half)[:, None, None] < 1.2).all(axis=0))


def _marked(each: Map) -> Mask:
    """The points of the grid under a run's dot or the edge of the box."""
    low, high, least, most = ends([each.growth])
    found = np.zeros(each.winner.shape, bool)
    left, right, under, over = (
        int(np.argmin(np.abs(np.log(grid / at))))
        for grid, at in (
            (each.sunk, low),
            (each.sunk, high),
            (each.extra, least),
            (each.extra, most),
        )
    )
    found[[under, over], left : right + 1] = True
    found[under : over + 1, [left, right]] = True
    some = each.growth.cells[each.growth.cells["sunk_flops"] > 0]
    for sunk, extra in zip(some["sunk_flops"], some["extra_flops"], strict=True):
        row = np.argmin(np.abs(np.log(each.extra / extra)))
        found[row, np.argmin(np.abs(np.log(each.sunk / sunk)))] = True
    return found


def _dots(axes: Axes, each: Map) -> None:
    """Runs of growing; those with nothing sunk at the axis' own zero."""
    cells = each.growth.cells
    zero = float(each.sunk[0]) / _ZERO
    place = cells["sunk_flops"].where(cells["sunk_flops"] > 0, zero)
    axes.plot(place, cells["extra_flops"], "o", ms=2.8, color="black", mec="white", mew=0.4)


def _claim(maps: tuple[Map, ...]) -> str:
    """How much of the box each arm clearly wins, over the growths."""
    clear = {arm: [_share(each, arm) for each in maps] for arm in _DOING}
    shares = {arm: found for arm, found in clear.items() if max(found) >= 0.05}
    if not shares:
        return "Too close to call wherever runs are"
    arm, found = max(shares.items(), key=lambda item: (max(item[1]), item[0]))
    if min(found) >= 0.95:
        return f"{_DOING[arm]} clearly wins wherever runs are"
    said = [f"{arm} {_percent(each)}" for arm, each in shares.items()]
    return f"Clear in the box: {', '.join(said)}"


def _share(each: Map, arm: str) -> float:
    won = ((each.winner == arm) & ~each.close)[each.inside]
    return float(won.mean()) if len(won) else 0.0


def _percent(shares: list[float]) -> str:
    low, high = (round(100 * each) for each in (min(shares), max(shares)))
    return f"{high} %" if low == high else f"{low}-{high} %"


def _key(full: float, metric: Metric) -> str:
    return (
        f"full colour: ahead by {metric.text(full)} {metric.unit} · dotted: too close to call\n"
        "dot: run of growing · box: where they are · pale: beyond"
    )
