"""The next runs of a sweep as a sweep of their own making: chosen, written, and ready to launch."""

import math
import shlex
from dataclasses import replace
from pathlib import Path

from analysis.extension import Extension
from analysis.metrics import Metric
from analysis.next_runs import COUNT, NextRuns, next_runs
from analysis.outcomes import Outcomes
from analysis.question import Question
from analysis.table_offer import TableOffer
from sweeps.errors import GrowpointError


def propose(
    outcomes: Outcomes,
    metric: Metric,
    question: Question,
    budget: float | None = None,
    count: int = COUNT,
    to: Path | None = None,
) -> NextRuns:
    """Choose the runs that would settle `question`, and write the sweep that has them.

    The file goes to `to`, or beside the plan as next.yaml; without runs worth making none is
    written. Raises GrowpointError for a question or a count without sense.
    """
    if count < 1:
        raise GrowpointError("--count must be at least 1", [("given", count)], "--count 3")
    frame = metric.measured(outcomes.frame)
    most = math.inf if budget is None else budget
    if outcomes.store is None:
        return _of_table(
            outcomes, next_runs(frame, metric, question, TableOffer(frame), most, count), to
        )
    extension = Extension.of(outcomes.store, outcomes.name)
    found = next_runs(frame, metric, question, extension, most, count)
    if extension.unfinished:
        found = _noted(found, f"{extension.unfinished} cells of the sweep are not finished")
    if not found.steps:
        return found
    path = to or outcomes.store.plan_folder(outcomes.name) / "next.yaml"
    runs = [step.run for step in found.steps]
    extension.write(path, runs)
    lost = extension.lost(runs)
    if lost:
        found = _noted(found, f"{lost} of them are left out: --replace lets the name forget them")
    words = ["growpoint", "launch", str(path), *(["--replace"] if lost else [])]
    return replace(found, written=str(path), command=shlex.join(words))


def _of_table(outcomes: Outcomes, found: NextRuns, to: Path | None) -> NextRuns:
    if to is not None:
        raise GrowpointError(
            "no sweep can be written for a table: its configuration is not known",
            [("table", outcomes.name)],
            f"growpoint next {outcomes.words}",
        )
    for caveat in outcomes.caveats():
        found = _noted(found, caveat)
    return _noted(found, "costs are extra FLOPs: the sources of the table are taken as there")


def _noted(found: NextRuns, note: str) -> NextRuns:
    return replace(found, notes=(*found.notes, note))
