"""What the commands that learn from results do: fit, print, write; they return the exit status."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.text import Text

from analysis import asking, evidence, figures, fits, metrics, page, proposal, style, tables
from analysis import report as reporting
from analysis.answer import Question
from analysis.fits import Fits
from analysis.groups import chosen
from analysis.metrics import Metric
from analysis.outcomes import Outcomes
from analysis.recommendation import without_nan
from analysis.tables import Table
from orchestrator import text
from orchestrator.store import write_atomic
from sweeps.errors import GrowpointError

# Metrics that the table of results has columns for.
_SHOWN = ("accuracy", "loss", "choice_accuracy")


def results(outcomes: Outcomes, *, as_json: bool = False, csv: Path | None = None) -> int:
    """Print the finished cells, or the rows of a table, and write them to `csv` if that is given.

    JSON: {sweep, planned, done, cells: [one object for each, with the columns of the records]}.
    """
    frame, planned, sweep = outcomes.frame, outcomes.planned, outcomes.name
    if csv is not None:
        write_atomic(csv, frame.to_csv(index=False, lineterminator="\n").encode())
        text.talk.print(f"wrote {csv}", markup=False)
    if as_json:
        cells = frame.to_dict("records")
        return _json({"sweep": sweep, "planned": planned, "done": len(frame), "cells": cells})
    _say(f"{sweep}   {len(frame)} of {planned} cells")
    _table(tables.results(frame))
    more = [each.name for each in metrics.measured(frame) if each.name not in _SHOWN]
    if more:
        _say(f"measured besides, for --csv, --json and --metric: {', '.join(more)}")
    return 0


def fit(
    outcomes: Outcomes,
    *,
    as_json: bool = False,
    laws: Sequence[str] = (),
    metric: str | None = None,
) -> int:
    """Fit every law, or those named, to accuracy and loss, or to `metric`; print how they compare.

    Fits of all of that are written to fits.json in the folder of the outcomes. JSON: its content.
    """
    chosen(laws)
    asked = outcomes.metrics if metric is None else (outcomes.metric(metric),)
    found = _fitted(outcomes, asked, laws)
    path, whole = outcomes.writable() / "fits.json", not laws and metric is None
    if whole:
        fits.save(path, found)
    if as_json:
        return _json(fits.to_dict(found))
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    _say(f"{outcomes.name}   {found.done} of {found.planned} cells, {seeds}")
    for each in asked:
        _print_laws(found, each)
    for header, rows in (tables.correlations(found.correlations), tables.pairs(found.pairs)):
        if rows:
            _say("")
            _table((header, rows))
    for line in [*tables.left_out(found), *tables.skipped(found)]:
        _say(f"  {line}")
    _say(f"\nwrote {path}" if whole else "\nfits.json is written without --law and --metric")
    return 0


def _fitted(outcomes: Outcomes, metrics: tuple[Metric, ...] = (), laws: Sequence[str] = ()) -> Fits:
    """Fits of the metrics that were measured, or of those given."""
    try:
        return fits.fit_sweep(outcomes.frame, outcomes.planned, metrics or outcomes.metrics, laws)
    except GrowpointError as error:
        raise GrowpointError(error.problem, error.evidence, outcomes.more()) from error


def _print_laws(found: Fits, metric: Metric) -> None:
    for which, group in found.groups(metric.name).items():
        _say(f"\n{metric.name}   {tables.name(which)}, {group[0].cells} cells")
        _table(tables.laws(group, metric))
        if said := tables.mix(group):
            _say(f"  {said}")
        for each in group:
            first, *others = tables.formula(each, metric)
            _say(f"    {first}")
            for line in others:
                _say(f"      {line}")


def plot(
    outcomes: Outcomes,
    *,
    as_json: bool = False,
    which: Sequence[str] = (),
    metric: str | None = None,
) -> int:
    """Draw figures (all, or those named) as PDF, SVG, PNG and CSV, and print their paths.

    Without `metric`, of accuracy where it was measured.

    JSON: {sweep, figures: {name: [paths]}}. Raises GrowpointError for an unknown figure.
    """
    unknown = [name for name in which if name not in figures.NAMES]
    if unknown:
        known = ", ".join(figures.NAMES)
        raise GrowpointError(
            f"there is no figure {unknown[0]!r}",
            [("known", known)],
            f"growpoint plot {outcomes.words}",
        )
    chosen = outcomes.metric(metric)
    lawless = set(which or figures.NAMES) <= {"loss_curves", "accuracy_vs_extra"}
    found = None if lawless else _fits_or_none(outcomes, chosen)
    made = _draw(outcomes, found, chosen, which)
    if as_json:
        paths = {name: [str(path) for path in each] for name, each in made.items()}
        return _json({"sweep": outcomes.name, "figures": paths})
    for each in made.values():
        _say(str(each[0]))
    return 0 if made else 1


def _fits_or_none(outcomes: Outcomes, metric: Metric) -> Fits | None:
    """Fits, or None where there are too few cells: a figure of runs alone is still one."""
    try:
        return _fitted(outcomes, (metric,))
    except GrowpointError as error:
        text.talk.print(f"no laws are drawn: {error.problem}", markup=False)
        return None


def _draw(
    outcomes: Outcomes,
    found: Fits | None,
    metric: Metric,
    which: Sequence[str],
    left: dict[str, str] | None = None,
) -> dict[str, list[Path]]:
    """The figures named, or all that the outcomes have something for; the others with the reason.

    Those reasons also go to `left`. Raises GrowpointError for a named figure with nothing to show.
    """
    frame = metric.measured(outcomes.frame)
    subject = figures.Subject(frame, metric, found, outcomes.curves)
    folder = outcomes.writable() / "figures"
    made = {}
    for name in which or figures.NAMES:
        try:
            drawn = figures.FIGURES[name](subject)
        except (figures.NothingToDrawError, GrowpointError) as error:
            if which:
                raise _undrawn(name, error, outcomes) from error
            reason = error.problem if isinstance(error, GrowpointError) else error
            text.talk.print(f"{name} is not drawn: {reason}", markup=False)
            if left is not None:
                left[name] = str(reason)
            continue
        named = metric.name != "accuracy" and name != "loss_curves"
        suffix = f"_{re.sub(r'[^A-Za-z0-9-]+', '_', metric.name)}" if named else ""
        made[name] = style.save(*drawn, folder, f"{name}{suffix}")
    return made


def _undrawn(name: str, error: Exception, outcomes: Outcomes) -> GrowpointError:
    if isinstance(error, GrowpointError):
        return error
    return GrowpointError(
        f"{name} cannot be drawn", [("reason", error)], f"growpoint plot {outcomes.words}"
    )


def recommend(
    outcomes: Outcomes, *, as_json: bool = False, metric: str | None = None, **words: Any
) -> int:
    """Answer: grow, continue or start over? JSON: `to_dict` of the answer.

    `words` are those of `asking.Asked`. Without a budget, for the largest that was measured;
    without `metric`, by accuracy where it was.
    """
    answer = asking.answer(outcomes, asking.Asked(**words), metric)
    if as_json:
        return _json(answer.to_dict())
    _say(answer.text())
    return 0


def next_runs(
    outcomes: Outcomes,
    *,
    as_json: bool = False,
    sunk_flops: float | None = None,
    extra_flops: float | None = None,
    total_flops: float | None = None,
    metric: str | None = None,
    budget_flops: float | None = None,
    count: int = 3,
    to: Path | None = None,
) -> int:
    """Say which runs would settle the answer, and write a sweep of them: `proposal.propose`.

    The question is that of `recommend`. JSON: `NextRuns.to_dict`.
    """
    question = Question(sunk_flops, extra_flops, total_flops)
    if extra_flops is None and total_flops is None:
        question = replace(asking.unasked(outcomes.frame), sunk=sunk_flops)
    chosen = outcomes.metric(metric)
    found = proposal.propose(outcomes, chosen, question, budget_flops, count, to)
    if as_json:
        return _json(found.to_dict())
    _say(found.text())
    return 0


def report(outcomes: Outcomes, *, as_json: bool = False) -> int:
    """Write answers, figures, laws, tables and lineages as a page and as Markdown; print the paths.

    JSON: {sweep, report: path, page: path, figures: [paths]}.
    """
    found = _findings(outcomes)
    folder = outcomes.writable()
    fits.save(folder / "fits.json", found)
    left: dict[str, str] = {}
    made = _draw(outcomes, found if found.fits else None, outcomes.metric(None), (), left)
    pictures = [path for each in made.values() for path in each if path.suffix == ".png"]
    answers = [
        asking.at_budget(outcomes, metric, question, found)
        for question in _questions(outcomes.frame)
        for metric in outcomes.metrics
    ]
    path, shown = folder / "report.md", folder / "report.html"
    write_atomic(path, reporting.markdown(outcomes, found, answers, pictures).encode())
    write_atomic(shown, page.page(outcomes, found, answers, made, left).encode())
    if as_json:
        return _json(
            {
                "sweep": outcomes.name,
                "report": str(path),
                "page": str(shown),
                "figures": [str(each) for each in pictures],
            }
        )
    _say(f"wrote {path}\nwrote {shown}")
    return 0


def _findings(outcomes: Outcomes) -> Fits:
    """Fits, or what there is beside them: a report of too few cells is one of what is missing."""
    try:
        return _fitted(outcomes)
    except GrowpointError as error:
        text.talk.print(f"no laws are fitted: {error.problem}", markup=False)
        return fits.without_laws(outcomes.frame, outcomes.planned, outcomes.metrics)


def _questions(frame: pd.DataFrame) -> list[Question]:
    """What a report answers: the sweep's own question, and that for its middle checkpoint."""
    own = asking.unasked(frame)
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
