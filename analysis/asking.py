"""From the words of a command to an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import checkpoints, evidence, notebook
from analysis.checkpoints import Checkpoint
from analysis.fits import Fits
from analysis.metrics import Metric
from analysis.notebook import Answer
from analysis.outcomes import Outcomes
from analysis.question import Question, read_target
from analysis.recommendation import Recommendation


@dataclass(frozen=True)
class Asked:
    """A question as the words of a command say it; budgets are in FLOPs."""

    sunk: float | None = None
    extra: float | Sequence[float] | None = None
    total: float | None = None
    target: str | None = None  # `0.47`, `47%` or a loss
    growth: str | None = None
    series: str | None = None
    listed: Sequence[Mapping[str, Any]] = ()  # rows of a series: checkpoint, tokens, sunk_flops ...

    def question(self, frame: pd.DataFrame, metric: Metric) -> Question:
        """The question; if no budget is said, for the largest that was measured."""
        several = isinstance(self.extra, Sequence) and len(self.extra) > 1
        one = self.extra[0] if isinstance(self.extra, Sequence) and self.extra else self.extra
        found = Question(
            sunk=self.sunk,
            extra=None if several or isinstance(one, Sequence) else one,
            total=self.total,
            target=None if self.target is None else read_target(self.target, metric),
            extras=tuple(self.extra) if isinstance(self.extra, Sequence) and several else (),
            growth=self.growth,
        )
        if (found.kind, found.sunk, found.extras) == ("checkpoint", None, ()):
            return replace(unasked(frame), growth=self.growth)
        return found

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints of the series whose compute is known."""
        rows = [row for row in self.listed if row["sunk_flops"] is not None]
        return tuple(
            Checkpoint(
                str(row["checkpoint"]),
                float(row["sunk_flops"]),
                float(row["tokens"] or np.nan),
                row["phase"] == "annealing",
            )
            for row in rows
        )


def answer(outcomes: Outcomes, asked: Asked, metric: str | None = None) -> Answer:
    """Answer what a command asks; raises GrowpointError for what makes no sense."""
    chosen = outcomes.metric(metric)
    if asked.series is not None:
        frame = checkpoints.of_series(outcomes.frame, asked.series, outcomes.words)
        outcomes = replace(outcomes, frame=frame)
    question = asked.question(outcomes.frame, chosen)
    found = notebook.recommend(
        outcomes.frame,
        question,
        chosen.name,
        planned=outcomes.planned,
        series=asked.checkpoints(),
    )
    return replace(found, caveats=found.caveats + outcomes.caveats())


def at_budget(
    outcomes: Outcomes, metric: Metric, question: Question, known: Fits | None = None
) -> Recommendation:
    """Answer a question of one budget."""
    found = notebook.recommend(
        outcomes.frame, question, metric.name, planned=outcomes.planned, known=known
    )
    assert isinstance(found, Recommendation)
    return replace(found, caveats=found.caveats + outcomes.caveats())


def unasked(frame: pd.DataFrame) -> Question:
    """The question that a sweep itself asks: its largest budget, of the kind it held fixed."""
    if (frame["budget"] == "total").all():
        return Question(total=float(np.max(evidence.levels(frame["total_flops"]))))
    return Question(extra=float(np.max(evidence.levels(frame["extra_flops"]))))
