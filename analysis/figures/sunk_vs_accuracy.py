"""Does sunk compute survive growth?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import evidence, style
from analysis.compare import ensemble
from analysis.figures.band import band
from analysis.figures.subject import NothingToDrawError, panel_name
from analysis.fit import Fit
from analysis.fits import Fits
from analysis.forecasts import ByLaws
from analysis.laws import Design
from analysis.metrics import Metric
from analysis.sample import Which
from orchestrator import text

_ORDER = ["variant", "growth", "extra_flops", "kind", "sunk_flops", "seed", "value", "low", "high"]


def sunk_vs_accuracy(
    frame: pd.DataFrame, found: Fits | None, metric: Metric
) -> tuple[Figure, pd.DataFrame]:
    """Does sunk compute survive growth? One line for each extra budget, one dot for each run.

    The band is the 90 % interval of refitted laws; without fits only runs and their means appear.
    Runs from scratch with such a budget are at zero. Drawn columns: variant, growth, extra_flops,
    kind (run, annealed run, scratch run, mean, fit), sunk_flops, seed, value, low, high. Raises
    NothingToDrawError without a grown run.
    """
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    if grown.empty:
        raise NothingToDrawError("no grown run is finished")
    if (grown["budget"] == "total").all() and not _levels(grown, 2):
        raise NothingToDrawError("no two runs have the same extra budget, for the total was fixed")
    groups = [
        (Which(str(variant), "grow", str(growth)), rows)
        for (variant, growth), rows in grown.groupby(["variant", "growth"])
    ]
    scratch = [_scratch(frame, which, rows) for which, rows in groups]
    with style.drawing():
        figure, axes = style.panels(len(groups))
        zero = _zero(pd.concat([grown, *scratch]))
        drawn = [
            pd.concat([_scratch_dots(at, which, runs, metric, zero), panel], ignore_index=True)
            for at, (which, rows), runs in zip(axes, groups, scratch, strict=True)
            for panel in [_sunk_panel(at, which, rows, found, metric, zero)]
        ]
        labels = [text.flops(level) for level in np.unique(evidence.levels(grown["extra_flops"]))]
        named = style.metric_axis(metric.name, frame)
        _finish(figure, axes, named, groups, [*labels, "extra FLOPs"])
        for at, panel in zip(axes, drawn, strict=True):
            _label_budgets(at, panel)
        made = pd.concat(drawn, ignore_index=True)
        _sunk_axes(axes, grown, zero)
        style.title(figure, _sunk_claim(found, metric), _sunk_key(set(made["kind"])))
    return figure, made


def _levels(rows: pd.DataFrame, least: int) -> list[float]:
    """Extra budgets that so many growth points have."""
    return [
        level
        for level, runs in evidence.by_level(rows, "extra_flops")
        if len(np.unique(evidence.levels(runs["sunk_flops"]))) >= least
    ]


def _scratch(frame: pd.DataFrame, which: Which, grown: pd.DataFrame) -> pd.DataFrame:
    """Runs from scratch at the size of a growth whose budget some grown run has as extra."""
    same = (frame["variant"] == which.variant) & (frame["growth"] == which.growth)
    runs = frame[same & (frame["arm"] == "scratch")]
    near = [
        bool((np.abs(np.log(grown["extra_flops"] / budget)) <= np.log(1.05)).any())
        for budget in runs["extra_flops"]
    ]
    return runs[np.array(near, bool)]


def _scratch_dots(
    axes: Axes, which: Which, runs: pd.DataFrame, metric: Metric, zero: float | None
) -> pd.DataFrame:
    value = runs[metric.column] * metric.shown
    place = np.full(len(runs), zero or 1.0)
    axes.plot(
        place, value, "D", ms=2.6, color=style.ARMS["scratch"], mec="white", mew=0.3, zorder=3
    )
    made = _rows("scratch run", runs["sunk_flops"], value, seed=runs["seed"])
    made = made.assign(extra_flops=runs["extra_flops"].to_numpy(float))
    return made.assign(variant=which.variant, growth=which.growth)[_ORDER]


def _sunk_key(kinds: set[str]) -> str:
    marks = ["dot: run"]
    marks += ["open: annealed source"] if "annealed run" in kinds else []
    marks += ["grey: scratch"] if "scratch run" in kinds else []
    marks += ["line, band: laws, 90 %"] if "fit" in kinds else []
    marks += ["dotted: mean"] if "mean" in kinds else []
    return " · ".join(marks)


def _sunk_axes(axes: list[Axes], grown: pd.DataFrame, zero: float | None) -> None:
    """The same sunk axis on every panel."""
    positive = grown["sunk_flops"][grown["sunk_flops"] > 0]
    for at in axes:
        if positive.empty:
            at.set_xticks([1.0], ["0"])
            at.set_xlabel(style.AXES["sunk_flops"])
            continue
        low, high = float(positive.min()), float(positive.max())
        style.log_flops(at, "sunk_flops", (zero or low) / 1.5, high * 1.25, zero)


def _zero(rows: pd.DataFrame) -> float | None:
    """Where on a log axis the runs with nothing sunk stand."""
    positive = rows["sunk_flops"][rows["sunk_flops"] > 0]
    if not (rows["sunk_flops"] == 0).any() or positive.empty:
        return None
    return float(positive.min()) / 3


def _sunk_panel(
    axes: Axes,
    which: Which,
    rows: pd.DataFrame,
    found: Fits | None,
    metric: Metric,
    zero: float | None,
) -> pd.DataFrame:
    level = evidence.levels(rows["extra_flops"])
    parts = []
    for at, colour in zip(
        np.unique(level), style.budget_colours(len(np.unique(level))), strict=True
    ):
        runs = rows[level == at]
        value = runs[metric.column] * metric.shown
        place = runs["sunk_flops"].where(runs["sunk_flops"] > 0, zero or 1.0)
        _draw_runs(axes, place, value, runs["annealed"], colour)
        dots = _rows("run", runs["sunk_flops"], value, seed=runs["seed"]).assign(extra_flops=at)
        dots["kind"] = np.where(runs["annealed"], "annealed run", "run")
        parts.append(dots)
        line = _sunk_line(_column_fits(found, which, metric, float(at)), runs, metric)
        _draw_line(axes, line, colour, zero)
        parts.append(line.assign(extra_flops=at))
    made = pd.concat(parts, ignore_index=True).assign(variant=which.variant, growth=which.growth)
    return made[_ORDER]


def _draw_runs(
    axes: Axes, place: pd.Series, value: pd.Series, annealed: pd.Series, colour: str
) -> None:
    """A dot for each run, open where the source's learning rate had been cooled down."""
    for rows, face, edge, width in (
        (~annealed, colour, "white", 0.3),
        (annealed, "white", colour, 0.7),
    ):
        axes.plot(place[rows], value[rows], "o", ms=2.6, color=face, mec=edge, mew=width, zorder=3)


def _column_fits(found: Fits | None, which: Which, metric: Metric, level: float) -> list[Fit]:
    if found is None:
        return []
    groups = found.groups(metric.name)
    at = Which(which.variant, which.arm, which.growth, level)
    return [fit for fit in ensemble(groups.get(at, [])) if fit.sample is not None]


def _sunk_line(laws: list[Fit], runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The mix of laws with its band, or the means of runs where no law was fitted."""
    sunk = runs["sunk_flops"]
    if not laws:
        means = runs.groupby("sunk_flops")[metric.column].mean() * metric.shown
        return _rows("mean", pd.Series(means.index), means)
    positive = sunk[sunk > 0]
    grid = np.geomspace(positive.min(), positive.max(), 41)
    grid = np.concatenate([[0.0] if (sunk == 0).any() else [], grid])
    sizes = [
        np.full(len(grid), runs[name].median())
        for name in ("source_active_params", "active_params")
    ]
    design = Design(grid, np.full(len(grid), runs["extra_flops"].median()), *sizes)
    line = band(ByLaws(tuple(laws)), design, metric)
    return _rows("fit", pd.Series(grid), line["value"], line["low"], line["high"])


def _rows(
    kind: str,
    sunk: pd.Series,
    value: pd.Series,
    low: pd.Series | float = np.nan,
    high: pd.Series | float = np.nan,
    seed: pd.Series | None = None,
) -> pd.DataFrame:
    columns = {"sunk_flops": sunk, "value": value, "low": low, "high": high}
    plain = {name: np.asarray(each) for name, each in columns.items()}
    seeds = pd.array(np.asarray(seed), dtype="Int64") if seed is not None else pd.NA
    made = pd.DataFrame(plain | {"seed": seeds}).assign(kind=kind)
    return made.astype({"seed": "Int64"})


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str, zero: float | None) -> None:
    some = line[line["sunk_flops"] > 0]
    dashes = "-" if (line["kind"] == "fit").all() else (0, (1, 1.5))
    axes.plot(some["sunk_flops"], some["value"], color=colour, ls=dashes)
    axes.fill_between(some["sunk_flops"], some["low"], some["high"], color=colour, alpha=0.18, lw=0)
    nothing = line[line["sunk_flops"] == 0]
    if zero is not None and len(nothing):
        # Zero has no place on a log axis: its line is a dash of its own, off the curve.
        ends = np.array([zero / 1.25, zero * 1.25])
        axes.plot(ends, np.repeat(nothing["value"], 2), color=colour, ls=dashes)
        low, high = (np.repeat(nothing[name].to_numpy(float), 2) for name in ("low", "high"))
        axes.fill_between(ends, low, high, color=colour, alpha=0.18, lw=0)


def _label_budgets(axes: Axes, drawn: pd.DataFrame) -> None:
    levels = np.unique(drawn["extra_flops"][~drawn["kind"].str.endswith("run")])
    ends = []
    for level, colour in zip(levels, style.budget_colours(len(levels)), strict=True):
        line = drawn[(drawn["extra_flops"] == level) & ~drawn["kind"].str.endswith("run")]
        last = line.sort_values("sunk_flops", kind="stable")["value"].iloc[-1]
        ends.append((float(last), text.flops(float(level)), colour))
    style.label_lines(axes, ends, "extra FLOPs")


def _finish(
    figure: Figure,
    axes: list[Axes],
    y_axis: str,
    groups: list[tuple[Which, pd.DataFrame]],
    labels: list[str],
) -> None:
    """Margins, the shared y axis, and what each panel is."""
    style.margins(figure, style.text_inches(figure, labels) + 0.08, bool(groups))
    for at in style.first_of_rows(axes):
        at.set_ylabel(y_axis)
    for at, (which, _) in zip(axes, groups, strict=True):
        style.panel_title(at, panel_name(which.variant, which.growth))


def _sunk_claim(found: Fits | None, metric: Metric) -> str:
    """The claim that the correlations bear, and no larger one."""
    rows = [row for row in found.correlations if row.metric == metric.name] if found else []
    if not rows:
        return f"{metric.name.capitalize()} after growth"
    sign = 1 if metric.top is not None else -1
    pays = [sign * row.spearman > 0 and row.spearman_p < 0.05 for row in rows]
    if all(pays):
        return "Sunk compute pays after growth"
    return "Sunk compute pays in some cases" if any(pays) else "No effect of sunk compute shown"
