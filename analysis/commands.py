"""What the commands that learn from a sweep do: read the store, print, return the exit status."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.text import Text

from analysis import evidence, figures, fits, records, style, tables
from analysis import recommend as recommending
from analysis import report as reporting
from analysis.answer import Question
from analysis.fits import Fits
from analysis.metrics import METRICS, Metric
from analysis.recommendation import without_nan
from analysis.tables import Table
from orchestrator import text
from orchestrator.store import Store, write_atomic
from sweeps.errors import GrowpointError


def results(store: Store, sweep: str, *, as_json: bool = False, csv: Path | None = None) -> int:
    """Print the finished cells, and write them to `csv` if that is given.

    JSON: {sweep, planned, done, cells: [one object for each, with the columns of the records]}.
    """
    frame, planned = records.load(store, sweep), records.planned(store, sweep)
    if csv is not None:
        write_atomic(csv, frame.to_csv(index=False, lineterminator="\n").encode())
        text.talk.print(f"wrote {csv}", markup=False)
    if as_json:
        cells = frame.to_dict("records")
        return _json({"sweep": sweep, "planned": planned, "done": len(frame), "cells": cells})
    _say(f"{sweep}   {len(frame)} of {planned} cells")
    _table(tables.results(frame))
    return 0


def fit(store: Store, sweep: str, *, as_json: bool = False) -> int:
    """Fit every law, print how they compare, and write fits.json beside the plan.

    JSON: the content of fits.json.
    """
    frame, planned = records.load(store, sweep), records.planned(store, sweep)
    found = fits.fit_sweep(frame, planned)
    path = store.plan_folder(sweep) / "fits.json"
    fits.save(path, found)
    if as_json:
        return _json(fits.to_dict(found))
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    _say(f"{sweep}   {found.done} of {found.planned} cells, {seeds}")
    for metric in METRICS.values():
        _print_laws(found, metric)
    for header, rows in (tables.correlations(found.correlations), tables.pairs(found.pairs)):
        if rows:
            _say("")
            _table((header, rows))
    for line in tables.skipped(found):
        _say(f"  {line}")
    _say(f"\nwrote {path}")
    return 0


def _print_laws(found: Fits, metric: Metric) -> None:
    for which, group in found.groups(metric.name).items():
        _say(f"\n{metric.name}   {tables.name(which)}, {group[0].cells} cells")
        _table(tables.laws(group, metric))
        for each in group:
            values = zip(each.law.names(), each.law.values(), each.intervals, strict=True)
            said = "   ".join(
                f"{name} {value:.3g} ({low:.2g}, {high:.2g})" for name, value, (low, high) in values
            )
            _say(f"    {metric.symbol} = {each.law.formula}\n      {said}")


def plot(
    store: Store,
    sweep: str,
    *,
    as_json: bool = False,
    which: Sequence[str] = (),
    metric: str = "accuracy",
) -> int:
    """Draw figures (all, or those named) as PDF, SVG, PNG and CSV, and print their paths.

    JSON: {sweep, figures: {name: [paths]}}. Raises GrowpointError for an unknown figure.
    """
    unknown = [name for name in which if name not in figures.NAMES]
    if unknown:
        known = ", ".join(figures.NAMES)
        raise GrowpointError(
            f"there is no figure {unknown[0]!r}", [("known", known)], f"growpoint plot {sweep}"
        )
    frame, planned = records.load(store, sweep), records.planned(store, sweep)
    chosen = records.metric(metric)
    found = (
        _fits_or_none(frame, planned, chosen)
        if "sunk_vs_accuracy" in (which or figures.NAMES)
        else None
    )
    made = _draw(store, sweep, frame, found, chosen, which)
    if as_json:
        paths = {name: [str(path) for path in each] for name, each in made.items()}
        return _json({"sweep": sweep, "figures": paths})
    for each in made.values():
        _say(str(each[0]))
    return 0


def _fits_or_none(frame: pd.DataFrame, planned: int, metric: Metric) -> Fits | None:
    """Fits, or None where there are too few cells: a figure of runs alone is still one."""
    try:
        return fits.fit_sweep(frame, planned, (metric,))
    except GrowpointError as error:
        text.talk.print(f"no laws are drawn: {error.problem}", markup=False)
        return None


def _draw(
    store: Store,
    sweep: str,
    frame: pd.DataFrame,
    found: Fits | None,
    metric: Metric,
    which: Sequence[str],
) -> dict[str, list[Path]]:
    folder = store.plan_folder(sweep) / "figures"
    made = {}
    for name in which or figures.NAMES:
        if name == "sunk_vs_accuracy":
            drawn = figures.sunk_vs_accuracy(frame, found, metric)
        elif name == "accuracy_vs_extra":
            drawn = figures.accuracy_vs_extra(frame, metric)
        else:
            drawn = figures.loss_curves(records.curves(store, sweep, frame))
        suffix = f"_{metric.name}" if metric.name != "accuracy" and name != "loss_curves" else ""
        made[name] = style.save(*drawn, folder, f"{name}{suffix}")
    return made


def recommend(
    store: Store,
    sweep: str,
    *,
    as_json: bool = False,
    sunk_flops: float | None = None,
    extra_flops: float | None = None,
    total_flops: float | None = None,
    metric: str = "accuracy",
) -> int:
    """Answer: grow, continue or start over? JSON: `Recommendation.to_dict`.

    Without a budget, for the largest that the sweep measured.
    """
    frame, planned = records.load(store, sweep), records.planned(store, sweep)
    question = Question(sunk_flops, extra_flops, total_flops)
    if extra_flops is None and total_flops is None:
        question = replace(_unasked(frame), sunk=sunk_flops)
    answer = recommending.recommend(frame, records.metric(metric), question, planned)
    if as_json:
        return _json(answer.to_dict())
    _say(answer.text())
    return 0


def report(store: Store, sweep: str, *, as_json: bool = False) -> int:
    """Write tables, laws, answers and figures into one Markdown file, and print its path.

    JSON: {sweep, report: path, figures: [paths]}.
    """
    frame, planned = records.load(store, sweep), records.planned(store, sweep)
    found = fits.fit_sweep(frame, planned)
    folder = store.plan_folder(sweep)
    fits.save(folder / "fits.json", found)
    made = _draw(store, sweep, frame, found, METRICS["accuracy"], ())
    pictures = [path for each in made.values() for path in each if path.suffix == ".png"]
    title = str(store.plan(sweep).get("title", ""))
    answers = [
        recommending.recommend(frame, metric, question, planned, found)
        for question in _questions(frame)
        for metric in METRICS.values()
    ]
    path = folder / "report.md"
    write_atomic(path, reporting.markdown(title, frame, found, answers, pictures, folder).encode())
    if as_json:
        return _json(
            {"sweep": sweep, "report": str(path), "figures": [str(each) for each in pictures]}
        )
    _say(f"wrote {path}")
    return 0


def _unasked(frame: pd.DataFrame) -> Question:
    """The question that the sweep itself asks: its largest budget, of the kind it held fixed."""
    if (frame["budget"] == "total").all():
        return Question(total=float(np.max(evidence.levels(frame["total_flops"]))))
    return Question(extra=float(np.max(evidence.levels(frame["extra_flops"]))))


def _questions(frame: pd.DataFrame) -> list[Question]:
    """What a report answers: the sweep's own question, and that for its middle checkpoint."""
    own = _unasked(frame)
    sunk = np.unique(evidence.levels(frame["sunk_flops"][frame["arm"] == "grow"]))
    return [own, replace(own, sunk=float(sunk[len(sunk) // 2]))] if len(sunk) else [own]


def _say(words: str) -> None:
    text.out.print(Text(words))


def _table(table: Table) -> None:
    header, rows = table
    text.out.print(text.table(header, rows, right=range(1, len(header))))


def _json(document: dict[str, Any]) -> int:
    """Print JSON to stdout as it is: no wrapping, no colour, null for what is no number."""
    text.out.file.write(
        json.dumps(without_nan(document), indent=1, ensure_ascii=False, default=_number) + "\n"
    )
    return 0


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
