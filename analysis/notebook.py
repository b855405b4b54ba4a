"""What notebooks call, as `analysis.load`, `analysis.recommend` and so on."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import metrics, records
from analysis.advice import at_budget, grounds
from analysis.cheapest import ways
from analysis.checkpoints import Checkpoint
from analysis.fits import Fits
from analysis.metrics import METRICS, Metric
from analysis.outlook import Outlook, outlook
from analysis.question import Question
from analysis.recommendation import Recommendation
from analysis.ways import Ways
from orchestrator.store import Store
from sweeps.errors import GrowpointError

Answer = Recommendation | Outlook | Ways


def load(store: str | Path, sweep: str) -> pd.DataFrame:
    """The finished cells of a sweep, one row each, from the folder of a store.

    Columns are those of `records.COLUMNS`: FLOPs, accuracies as fractions, losses in nats per
    token. Raises GrowpointError if there is no such sweep, or none of its cells is finished.
    """
    return records.load(Store(Path(store)).check(), sweep)


def recommend(
    frame: pd.DataFrame,
    question: Question,
    metric: str | None = None,
    *,
    planned: int | None = None,
    known: Fits | None = None,
    series: Sequence[Checkpoint] = (),
) -> Answer:
    """Answer a question from records: see `Question` for the four kinds.

    A budget is answered by a Recommendation, a checkpoint alone by an Outlook over extra budgets, a
    target by Ways. All have `headline()`, `text()` and `to_dict()`. Without `metric`, by accuracy
    where it was measured. `planned` is how many cells there will be; fits that are `known` are not
    made again; checkpoints of a `series` may be answers without having been grown.
    Raises GrowpointError for a question that makes no sense, or a metric that was not measured.
    """
    measured = _metric(frame, metric)
    cells = len(frame) if planned is None else planned
    made = grounds(frame, measured, question, cells, known, series)
    if question.kind == "target":
        return ways(made, question)
    if question.kind == "checkpoint":
        return outlook(made, question)
    return at_budget(made, question)


def _metric(frame: pd.DataFrame, name: str | None) -> Metric:
    measured = metrics.measured(frame)
    if not measured:
        raise GrowpointError(
            "no metric was measured",
            [("rows", len(frame)), ("metrics", ", ".join(METRICS))],
            "give a frame of analysis.load or analysis.read_results",
        )
    chosen = measured[0] if name is None else records.metric(name)
    if chosen not in measured:
        raise GrowpointError(
            f"there is no {chosen.name} here",
            [("measured", ", ".join(each.name for each in measured))],
            f"--metric {measured[0].name}",
        )
    return chosen
