"""When to grow if the total is fixed?"""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import evidence, style
from analysis.evidence import Noise
from analysis.figures.band import band
from analysis.figures.subject import Drawn, NothingToDrawError, panel_name
from analysis.fit import GROWTH_POINTS
from analysis.forecast import Arm, ByLaws
from analysis.metrics import FloatArray, Metric
from orchestrator import text

_SHARES = np.linspace(0, 0.99, 100)
_REACH = 2.0  # times the measured range up to which a line is drawn, dashed
_FLAGS = {"extrapolated": False, "best": False, "near_best": False}
_PLACE = ["variant", "growth", "total_flops", "kind", "share", "sunk_flops", "extra_flops"]
_COLUMNS = [*_PLACE, "seed", "value", "low", "high", *_FLAGS]


def fixed_total(frame: pd.DataFrame, arms: list[Arm], metric: Metric, noise: Noise) -> Drawn:
    """When to grow if the total is fixed? The metric by the share spent before, a line a total.

    The bar marks the shares that are as good as the best within the noise of one run, which matters
    more than the best. Up to three totals among those that runs have. Drawn columns: variant,
    growth, total_flops, kind (line, mean, continue, run), share (%), sunk_flops, extra_flops, seed,
    value, low, high, extrapolated, best, near_best. Raises NothingToDrawError where no law
    says when.
    """
    grown = [arm for arm in arms if arm.which.arm == "grow"]
    kept = [arm for arm in grown if _has_line(arm) or _held_fixed(arm)]
    if not kept:
        raise NothingToDrawError(_why_not(grown))
    with style.drawing():
        figure, axes = style.panels(len(kept))
        drawn = [_panel(at, arm, arms, metric, noise) for at, arm in zip(axes, kept, strict=True)]
        words = [text.flops(total) for part in drawn for total in part["total_flops"].unique()]
        made = pd.concat(drawn, ignore_index=True)
        key = _key(made, len(kept) == 1)
        right = style.text_inches(figure, [*words, "total FLOPs"]) + 0.08
        style.margins(figure, right, True, key_lines=1 + key.count("\n"))
        for at in style.first_of_rows(axes):
            at.set_ylabel(style.metric_axis(metric.name, frame))
        for at, arm, part in zip(axes, kept, drawn, strict=True):
            style.panel_title(at, panel_name(arm.which.variant, arm.which.growth))
            at.set_xlabel(style.AXES["sunk_share"])
            at.set_xlim(-4, 104)
            at.set_xticks([0, 25, 50, 75, 100])
            style.label_lines(at, _labels(part), "total FLOPs")
        style.title(figure, _claim(made, metric), key)
    return figure, made


def _why_not(grown: list[Arm]) -> str:
    if any(arm.one_budget for arm in grown):
        return "one extra budget says nothing about others"
    missing = [arm.missing for arm in grown if arm.missing]
    return missing[0] if missing else f"no growth has {GROWTH_POINTS} growth points"


def _has_line(arm: Arm) -> bool:
    """Whether laws say what any share would bring."""
    points = arm.cells["sunk_flops"].nunique()
    whole = isinstance(arm.forecast, ByLaws) and not arm.one_budget
    return whole and points >= GROWTH_POINTS


def _held_fixed(arm: Arm) -> list[float]:
    """Totals that the sweep has held fixed and split in three ways and more."""
    if not (arm.cells["budget"] == "total").all():
        return []
    return [
        level
        for level, runs in evidence.by_level(arm.cells, "total_flops")
        if len(np.unique(evidence.levels(runs["sunk_flops"]))) >= GROWTH_POINTS
    ]


def _totals(arm: Arm) -> list[float]:
    """Those that the sweep held fixed, else three in the middle of what was measured."""
    if found := _held_fixed(arm):
        return found[-3:]
    levels = np.unique(evidence.levels(arm.cells["total_flops"]))
    wanted = np.geomspace(levels[0], levels[-1], 5)[1:4]
    nearest = {float(levels[np.argmin(np.abs(np.log(levels / each)))]) for each in wanted}
    return sorted(nearest)


def _panel(axes: Axes, arm: Arm, arms: list[Arm], metric: Metric, noise: Noise) -> pd.DataFrame:
    parts = []
    totals = _totals(arm)
    controls = [each for each in arms if each.which.arm == "continue" and each.forecast is not None]
    control = next((each for each in controls if each.which.variant == arm.which.variant), None)
    for total, colour in zip(totals, style.budget_colours(len(totals)), strict=True):
        line = _line(arm, total, metric, noise) if _has_line(arm) else _means(arm, total, metric)
        _draw_line(axes, line, colour)
        runs = _runs(arm, total, metric)
        axes.plot(
            runs["share"], runs["value"], "o", ms=2.6, color=colour, mec="white", mew=0.3, zorder=4
        )
        whole = _never(control, total, metric) if control else line.iloc[:0]
        _draw_never(axes, whole, colour)
        parts.append(pd.concat([line, whole, runs], ignore_index=True).assign(total_flops=total))
    made = pd.concat(parts, ignore_index=True)
    return made.assign(variant=arm.which.variant, growth=arm.which.growth)[_COLUMNS]


def _line(arm: Arm, total: float, metric: Metric, noise: Noise) -> pd.DataFrame:
    """What laws expect of every share, up to twice outside what was measured."""
    beyond = arm.beyonds(_SHARES * total, (1 - _SHARES) * total)
    shares, beyond = _SHARES[beyond <= _REACH], beyond[beyond <= _REACH]
    made = _expected(arm, shares * total, (1 - shares) * total, metric)
    falling = metric.falling(made["value"].to_numpy(float) / metric.shown)
    searched = beyond <= 1.05 if (beyond <= 1.05).sum() >= 3 else np.ones(len(beyond), bool)
    star = int(np.argmin(np.where(searched, falling, np.inf)))
    slack = noise.value if math.isfinite(noise.value) else 0.0
    return made.assign(
        kind="line",
        share=100 * shares,
        extrapolated=beyond > 1.05,
        best=np.arange(len(falling)) == star,
        near_best=searched & (falling <= falling[star] + slack),
    )


def _expected(arm: Arm, sunk: FloatArray, extra: FloatArray, metric: Metric) -> pd.DataFrame:
    assert arm.forecast is not None
    design = arm.design(sunk, extra)
    return band(arm.forecast, design, metric).assign(sunk_flops=sunk, extra_flops=extra)


def _means(arm: Arm, total: float, metric: Metric) -> pd.DataFrame:
    """Means of the runs of a total, where no law says what lies between them."""
    runs = _runs(arm, total, metric)
    means = [
        {"share": rows["share"].mean(), "sunk_flops": at, "value": rows["value"].mean()}
        for at, rows in evidence.by_level(runs, "sunk_flops")
    ]
    made = pd.DataFrame(means).assign(kind="mean", low=np.nan, high=np.nan)
    return made.assign(extra_flops=total - made["sunk_flops"], **_FLAGS)


def _never(arm: Arm, total: float, metric: Metric) -> pd.DataFrame:
    """What the whole budget brings without growing; nothing if that is far from what was run."""
    if (
        float(arm.beyonds(np.array([total]), np.zeros(1))[0]) > _REACH
        or not arm.reaches(np.array([total]), np.zeros(1))[0]
    ):
        return pd.DataFrame()
    made = _expected(arm, np.array([total]), np.zeros(1), metric)
    return made.assign(kind="continue", share=100.0, **_FLAGS)


def _runs(arm: Arm, total: float, metric: Metric) -> pd.DataFrame:
    at = np.abs(np.log(arm.cells["total_flops"] / total)) <= math.log(1.05)
    runs = arm.cells[at]
    value = runs[metric.column] * metric.shown
    columns = {name: runs[name] for name in ("sunk_flops", "extra_flops", "seed")}
    share = 100 * runs["sunk_flops"] / runs["total_flops"]
    made = pd.DataFrame(columns | {"share": share, "value": value})
    return made.assign(kind="run", low=np.nan, high=np.nan, **_FLAGS)


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str) -> None:
    if (line["kind"] == "mean").all():
        axes.plot(line["share"], line["value"], color=colour, ls=(0, (1, 1.5)))
        return
    axes.fill_between(line["share"], line["low"], line["high"], color=colour, alpha=0.15, lw=0)
    axes.plot(line["share"], line["value"], color=colour, lw=0.8, ls=(0, (3, 2)))
    inside = line["value"].where(~line["extrapolated"])
    axes.plot(line["share"], inside, color=colour)
    axes.plot(
        line["share"],
        line["value"].where(line["near_best"]),
        color=colour,
        lw=4,
        alpha=0.55,
        solid_capstyle="butt",
    )
    best = line[line["best"]]
    axes.plot(best["share"], best["value"], "*", ms=8, color=colour, mec="white", mew=0.5, zorder=5)


def _draw_never(axes: Axes, whole: pd.DataFrame, colour: str) -> None:
    if len(whole):
        low, value, high = (whole[name].to_numpy(float) for name in ("low", "value", "high"))
        reach = np.abs(np.array([value - low, high - value]))
        axes.errorbar(
            whole["share"], value, reach, fmt="s", ms=3.6, color=colour, mfc="white", elinewidth=0.8
        )


def _labels(drawn: pd.DataFrame) -> list[tuple[float, str, str]]:
    totals = list(drawn["total_flops"].unique())
    ends = []
    for total, colour in zip(totals, style.budget_colours(len(totals)), strict=True):
        line = drawn[(drawn["total_flops"] == total) & (drawn["kind"] != "run")]
        last = line.sort_values("share", kind="stable")["value"].iloc[-1]
        ends.append((float(last), text.flops(float(total)), colour))
    return ends


def _claim(drawn: pd.DataFrame, metric: Metric) -> str:
    """When it is best to grow, if at all; an end of what was searched is no optimum."""
    if not (drawn["kind"] == "line").any():
        return f"{metric.name.capitalize()} by when the model was grown"
    groups = [rows for _, rows in drawn.groupby(["variant", "growth", "total_flops"])]
    lines = [rows[rows["kind"] == "line"] for rows in groups]
    if all(_never_beats(rows, metric) for rows in groups):
        return "Not growing at all is better than any share"
    if all(_span(_near(line)) >= 0.9 * _span(_searched(line)) for line in lines):
        return "When to grow hardly matters where runs are"
    best = [float(line["share"][line["best"]].iloc[0]) for line in lines]
    if all(at == _searched(line).max() for at, line in zip(best, lines, strict=True)):
        return "The later the better, where runs are"
    if all(at == _searched(line).min() for at, line in zip(best, lines, strict=True)):
        return "The earlier the better, where runs are"
    near = [_near(line) for line in lines]
    good = _percent(min(each.min() for each in near), max(each.max() for each in near))
    return f"Grow at {_percent(min(best), max(best))} ({good} are as good)"


def _never_beats(rows: pd.DataFrame, metric: Metric) -> bool:
    """Whether the un-grown model is ahead with its whole interval."""
    whole, best = rows[rows["kind"] == "continue"], rows[rows["best"].astype(bool)]
    if whole.empty or best.empty:
        return False
    worst = whole["high" if metric.top is None else "low"].iloc[0]
    ahead = best["value"].iloc[0] - worst
    return bool((ahead if metric.top is None else -ahead) > 0)


def _near(line: pd.DataFrame) -> pd.Series:
    return line["share"][line["near_best"].astype(bool)]


def _searched(rows: pd.DataFrame) -> pd.Series:
    inside = ~rows["extrapolated"].astype(bool)
    return rows["share"][inside] if inside.sum() >= 3 else rows["share"]


def _span(shares: pd.Series) -> float:
    return float(shares.max() - shares.min()) if len(shares) else 0.0


def _percent(low: float, high: float) -> str:
    return f"{low:.0f} %" if round(low) == round(high) else f"{low:.0f}-{high:.0f} %"


def _key(drawn: pd.DataFrame, narrow: bool) -> str:
    kinds = set(drawn["kind"])
    marks = ["line, band: laws, 90 %", "star: best", "bar: as good"] if "line" in kinds else []
    marks += ["dotted: mean"] if "mean" in kinds else []
    marks += ["dashed: extrapolated"] if drawn["extrapolated"].astype(bool).any() else []
    marks += ["square: never grown"] if "continue" in kinds else []
    marks += ["dot: run"]
    half = 3 if narrow else len(marks)
    lines = (" · ".join(each) for each in (marks[:half], marks[half:]) if each)
    return "\n".join(lines)
