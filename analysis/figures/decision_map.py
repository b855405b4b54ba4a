"""Grow, continue or start over?"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from scipy import ndimage

from analysis import style
from analysis.evidence import Noise
from analysis.figures.subject import Drawn, NothingToDrawError, panel_name
from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric
from analysis.surface import Decisions, decide

_GRID = (81, 61)  # points of sunk and extra compute
_REACH = 2.0  # times around the runs that is drawn
_SURE = 0.8  # chance of being best below which it is too close to call
_VEIL = 0.62  # white over what was not measured
_ZERO = 1.7  # how far from the map's edge runs with nothing sunk stand
_STIPPLE = 3  # points of the grid from one dot to the next
_DOING = {"grow": "Growing", "continue": "Training on", "scratch": "Starting over"}


@dataclass(frozen=True)
class _Map:
    """The decisions of one growth on a grid: arrays (extra, sunk)."""

    growth: Arm
    sunk: FloatArray  # (sunk,)
    extra: FloatArray  # (extra,)
    winner: np.ndarray  # names of arms; "" where nothing can be expected
    margin: FloatArray  # in the metric's own unit
    close: np.ndarray  # whether it is too close to call
    inside: np.ndarray  # whether runs are around
    ahead: dict[str, FloatArray]  # L of the best other arm less that of this one


def decision_map(arms: list[Arm], metric: Metric, noise: Noise) -> Drawn:
    """Grow, continue or start over? The best by sunk and extra compute, a panel for each growth.

    Hue is the arm, its strength the margin over the next. Dotted is too close to call: a margin
    within the noise of one run, or best in less than 80 % of draws. The dashed box is where runs of
    growing are; around it is pale, up to a factor of two. Drawn columns: variant, growth,
    sunk_flops, extra_flops, winner, margin, chance, too_close, inside. Raises NothingToDrawError
    where nothing is known to compare.
    """
    grown = [arm for arm in arms if arm.which.arm == "grow"]
    kept = [arm for arm in grown if _mappable(arm) and len(_others(arm, arms)) > 1]
    if not kept:
        raise NothingToDrawError(_why_not(grown))
    ends = _ends(kept)
    tables, maps = zip(*(_map(arm, arms, metric, noise, ends) for arm in kept), strict=True)
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


def _mappable(arm: Arm) -> bool:
    """Whether something is expected of it at any sunk and extra compute."""
    known = arm.forecast is not None and not arm.one_budget
    return known and bool((arm.cells["sunk_flops"] > 0).any())


def _why_not(grown: list[Arm]) -> str:
    if any(arm.one_budget for arm in grown):
        return "one extra budget says nothing about others"
    missing = [arm.missing for arm in grown if arm.forecast is None]
    return missing[0] if missing else "nothing was measured to compare growing with"


def _others(arm: Arm, arms: list[Arm]) -> list[Arm]:
    """This growth, training on, and starting over at its size."""
    return [
        each
        for each in arms
        if each.forecast is not None
        and each.which.variant == arm.which.variant
        and (each.which.arm == "continue" or each.which.growth == arm.which.growth)
    ]


def _ends(kept: list[Arm]) -> tuple[float, float, float, float]:
    """Least and most sunk, least and most extra compute of any run of growing."""
    cells = pd.concat([arm.cells for arm in kept])
    some = cells["sunk_flops"][cells["sunk_flops"] > 0]
    extra = cells["extra_flops"]
    return float(some.min()), float(some.max()), float(extra.min()), float(extra.max())


def _map(
    arm: Arm,
    arms: list[Arm],
    metric: Metric,
    noise: Noise,
    ends: tuple[float, float, float, float],
) -> tuple[pd.DataFrame, _Map]:
    sunk = np.geomspace(ends[0] / _REACH, ends[1] * _REACH, _GRID[0])
    extra = np.geomspace(ends[2] / _REACH, ends[3] * _REACH, _GRID[1])
    points = [each.ravel() for each in np.meshgrid(sunk, extra)]
    decided = decide(_others(arm, arms), metric, *points)
    winner = np.array(decided.names())
    winner[~(decided.beyond <= _REACH)] = ""
    slack = noise.value if math.isfinite(noise.value) else 0.0
    # Without a second there is nothing to be close to.
    close = (decided.margin <= slack) | (decided.chance < _SURE)
    box = _ends([arm])
    inside = (points[0] >= box[0] / 1.001) & (points[0] <= box[1] * 1.001)
    inside &= (points[1] >= box[2] / 1.001) & (points[1] <= box[3] * 1.001)
    inside &= decided.beyond <= 1.05
    shape = len(extra), len(sunk)
    table = pd.DataFrame(
        {
            "variant": arm.which.variant,
            "growth": arm.which.growth,
            "sunk_flops": points[0],
            "extra_flops": points[1],
            "winner": winner,
            "margin": decided.margin * metric.shown,
            "chance": decided.chance,
            "too_close": close,
            "inside": inside,
        }
    )
    fields = (each.reshape(shape) for each in (winner, decided.margin, close, inside))
    ahead = {name: each.reshape(shape) for name, each in _ahead(decided, metric).items()}
    return table, _Map(arm, sunk, extra, *fields, ahead)


def _ahead(decided: Decisions, metric: Metric) -> dict[str, FloatArray]:
    """L of the best other arm less that of each arm: where it is zero, two are equal."""
    falling = np.where(np.isnan(decided.expected), np.inf, metric.falling(decided.expected))
    found = {}
    for index, which in enumerate(decided.options):
        rest = np.delete(falling, index, axis=0).min(axis=0)
        with np.errstate(invalid="ignore"):
            found[which.arm] = np.where(
                np.isinf(rest) | np.isinf(falling[index]), np.nan, rest - falling[index]
            )
    return found


def _strongest(maps: tuple[_Map, ...]) -> float:
    margins = np.concatenate([each.margin[each.inside] for each in maps])
    margins = margins[np.isfinite(margins)]
    return float(np.quantile(margins, 0.95)) if len(margins) else 0.0


def _axes(axes: Axes, each: _Map, nothing: bool) -> None:
    """The axes, with a place for runs that have nothing sunk if some panel has such runs."""
    low, high = float(each.sunk[0]), float(each.sunk[-1])
    zero = low / _ZERO if nothing else None
    style.log_flops(axes, "sunk_flops", low if zero is None else zero / 1.25, high, zero)
    style.log_flops(axes, "extra_flops_log", float(each.extra[0]), float(each.extra[-1]), y=True)
    axes.set_ylabel("")


def _paint(axes: Axes, each: _Map, full: float) -> None:
    """Colours, stipples, break-even lines and names, over the page's white."""
    colours = np.ones((*each.winner.shape, 3))
    for row, column in np.ndindex(each.winner.shape):
        if arm := each.winner[row, column]:
            margin = each.margin[row, column]
            strength = 0.0 if math.isnan(margin) else margin / full
            colours[row, column] = to_rgb(style.arm_shade(str(arm), strength))
    veil = np.where(each.inside, 0.0, _VEIL)[..., None]
    shades = veil + (1 - veil) * colours
    axes.pcolormesh(each.sunk, each.extra, shades, shading="nearest", rasterized=True)
    rows, columns = np.indices(each.winner.shape)
    lattice = (rows % _STIPPLE == 0) & ((columns + rows // _STIPPLE) % _STIPPLE == 0)
    dotted = lattice & each.close & (each.winner != "")
    places = np.meshgrid(each.sunk, each.extra)
    axes.plot(places[0][dotted], places[1][dotted], ".", ms=2, color="black", mew=0)
    for level in list(each.ahead.values())[: max(1, len(each.ahead) - 1)]:
        if np.nanmin(level) < 0 < np.nanmax(level):
            axes.contour(each.sunk, each.extra, level, [0.0], colors="black", linewidths=0.9)
    low, high, least, most = _ends([each.growth])
    axes.add_patch(
        Rectangle(
            (low, least), high - low, most - least, fill=False, ls=(0, (4, 2)), lw=0.8, ec="black"
        )
    )
    for arm in style.ARMS:
        _name(axes, each, arm, shades)


def _name(axes: Axes, each: _Map, arm: str, shades: FloatArray) -> None:
    """The name of an arm where its region is widest, clear of dots and lines, if it has room."""
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
        return
    axes.text(
        each.sunk[column],
        each.extra[row],
        arm,
        ha="center",
        va="center",
        color=style.readable_on(to_hex(shades[row, column])),
        weight="bold",
    )


def _marked(each: _Map) -> np.ndarray:
    """The points of the grid under a run's dot or the edge of the box."""
    low, high, least, most = _ends([each.growth])
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


def _dots(axes: Axes, each: _Map) -> None:
    """Runs of growing; those with nothing sunk at the axis' own zero."""
    cells = each.growth.cells
    zero = float(each.sunk[0]) / _ZERO
    place = cells["sunk_flops"].where(cells["sunk_flops"] > 0, zero)
    axes.plot(place, cells["extra_flops"], "o", ms=2.8, color="black", mec="white", mew=0.4)


def _claim(maps: tuple[_Map, ...]) -> str:
    """How much of the box each arm clearly wins, over the growths."""
    clear = {
        arm: [
            float(np.mean((each.winner == arm)[each.inside] & ~each.close[each.inside]))
            for each in maps
        ]
        for arm in _DOING
    }
    shares = {arm: found for arm, found in clear.items() if max(found) >= 0.05}
    if not shares:
        return "Too close to call wherever runs are"
    arm, found = max(shares.items(), key=lambda item: (max(item[1]), item[0]))
    if min(found) >= 0.95:
        return f"{_DOING[arm]} clearly wins wherever runs are"
    said = [f"{arm} {_percent(each)}" for arm, each in shares.items()]
    return f"Clear in the box: {', '.join(said)}"


def _percent(shares: list[float]) -> str:
    low, high = (round(100 * each) for each in (min(shares), max(shares)))
    return f"{high} %" if low == high else f"{low}-{high} %"


def _key(full: float, metric: Metric) -> str:
    return (
        f"full colour: ahead by {metric.text(full)} {metric.unit} · dotted: too close to call\n"
        "dot: run of growing · box: where they are · pale: beyond"
    )
