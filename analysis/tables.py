"""Rows of the tables that the terminal and the report share."""

import math
from collections.abc import Sequence

import pandas as pd

from analysis import metrics
from analysis.compare import compare, ensemble
from analysis.evidence import Correlation, Pair
from analysis.fit import Fit
from analysis.fits import Fits
from analysis.metrics import Metric
from analysis.sample import Which
from orchestrator import text

Table = tuple[list[str], list[list[str]]]  # header, rows; the first column is text


def results(frame: pd.DataFrame) -> Table:
    """Every finished cell, or row of a table made elsewhere, whose sources have names only."""
    run = "stage" if frame["stage"].ne("").any() else "source"
    header = ["arm", "growth", "sunk", "extra", "seed", "loss", "accuracy %", "choice %", run]
    rows = []
    for cell in frame.to_dict("records"):
        rows.append(
            [
                str(cell["arm"]) + (f" ({cell['variant']})" if cell["variant"] else ""),
                str(cell["growth"]),
                text.flops(cell["sunk_flops"]),
                text.flops(cell["extra_flops"]),
                str(cell["seed"]),
                _with_se(cell["val_loss"], cell["val_loss_se"]),
                _share(cell["accuracy"], cell["accuracy_se"]),
                _share(cell["choice_accuracy"], cell["choice_accuracy_se"]),
                str(cell[run]),
            ]
        )
    return header, rows


def _share(value: float, se: float) -> str:
    return _with_se(value * 100, se * 100, 2)


def _with_se(value: float, se: float, digits: int = 4) -> str:
    """A value and its standard error, as far as they are known."""
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" + ("" if math.isnan(se) else f" ± {se:.{digits}f}")


def name(which: Which) -> str:
    """The cells of a fit, with their extra budget if it is one."""
    at = f", extra {text.flops(which.extra_flops)}" if which.extra_flops is not None else ""
    return which.label() + at


def laws(found: Sequence[Fit], metric: Metric) -> Table:
    """Laws held against each other on the same cells, best first."""
    header = ["law", "held-out", "vs best ± se", "extrapolated", "AICc", "diagnosis"]
    rows = []
    for row in compare(list(found)):
        behind = "0"
        if row.behind or row.behind_se:
            behind = f"{metric.text(row.behind)} ± {metric.text(row.behind_se)}"
        rows.append(
            [
                row.fit.law.name,
                metric.text(row.fit.held_out),
                behind,
                "-" if math.isnan(row.fit.extrapolation) else metric.text(row.fit.extrapolation),
                f"{row.fit.aicc:.1f}",
                row.fit.diagnosis() or "nothing found",
            ]
        )
    return header, rows


def formula(found: Fit, metric: Metric) -> list[str]:
    """A fitted law as lines: its formula, its parameters with 90 % intervals, itself in words."""
    ends = zip(found.law.names(), found.law.values(), found.intervals, strict=True)
    said = "   ".join(
        f"{name} {value:.3g} ({low:.2g}, {high:.2g})" for name, value, (low, high) in ends
    )
    return [f"{found.law.name}: {metric.symbol} = {found.law.formula}", said, found.says]


def mix(found: Sequence[Fit]) -> str:
    """Which laws the data cannot tell apart, and what they make of a sunk FLOP; "" for one law."""
    kept = ensemble(found)
    if len(kept) < 2:
        return ""
    names = ", ".join(each.law.name for each in kept)
    worth = [each.worth for each in kept if math.isfinite(each.worth)]
    said = f"; to them a sunk FLOP is worth {min(worth):.2g} to {max(worth):.2g}" if worth else ""
    return f"within 10 of the least AICc, mixed in equal parts: {names}{said}"


def parameters(found: Fit) -> Table:
    """A fitted law's parameters with their 90 % intervals."""
    header = ["parameter", "value", "90 %", "meaning"]
    says = found.law.meta("says")
    rows = [
        [each, f"{value:.4g}", f"{low:.3g} to {high:.3g}", meaning]
        for each, value, (low, high), meaning in zip(
            found.law.names(), found.law.values(), found.intervals, says, strict=True
        )
    ]
    return header, rows


def correlations(found: Sequence[Correlation]) -> Table:
    """Does the metric go with sunk compute, at each extra budget?"""
    header = ["metric", "growth", "extra", "cells", "Spearman", "p", "Pearson, log10", "p"]
    return header, [
        [
            row.metric,
            row.growth + (f" ({row.variant})" if row.variant else ""),
            text.flops(row.extra_flops),
            str(row.cells),
            f"{row.spearman:+.3f}",
            _p(row.spearman_p),
            "-" if math.isnan(row.pearson) else f"{row.pearson:+.3f}",
            _p(row.pearson_p),
        ]
        for row in found
    ]


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def pairs(found: Sequence[Pair]) -> Table:
    """Growing less the un-grown control."""
    header = ["metric", "growth", "extra", "pairs", "growing less continuing"]
    return header, [
        [
            row.metric,
            row.growth + (f" ({row.variant})" if row.variant else ""),
            text.flops(row.extra_flops),
            str(row.pairs),
            _difference(row),
        ]
        for row in found
    ]


def _difference(row: Pair) -> str:
    metric = metrics.named(row.metric)
    assert metric is not None
    return f"{metric.text(row.difference, '+')} ± {metric.text(row.se)} {metric.unit}"


def skipped(found: Fits) -> list[str]:
    """Which laws were not fitted, and why; once for all metrics."""
    lines = [f"{name(each.which)}: {each.law} not fitted, {each.reason}" for each in found.skipped]
    return list(dict.fromkeys(lines))


def left_out(found: Fits) -> list[str]:
    """How many cells a metric was not fitted to, for want of a value."""
    rows = [(name, count) for name, count in found.left_out.items() if count]
    return [f"{name}: {count} of {found.done} cells have no value" for name, count in rows]
