"""How far two runs may differ by luck: the margin below which options are as good as each other."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import evidence
from analysis.evidence import Noise
from analysis.fit import Fit
from analysis.metrics import Metric


def one_run(frame: pd.DataFrame, metric: Metric, laws: Sequence[Fit]) -> Noise:
    """The standard deviation of one run where runs are compared; NaN if nothing says it.

    Between seeds, where there are several. With one seed: runs that were scored on the same
    documents share the luck of these, so what is left between them is their scatter about the
    `laws`, or that of pairs. Runs of which this is not known may differ by an evaluation's error.
    """
    found = evidence.seed_noise(frame, metric)
    if math.isfinite(found.value):
        return found
    scatter, source = _scatter(frame, metric, laws)
    error = evaluation(frame, metric)
    if math.isfinite(scatter) and same_documents(frame):
        return Noise(scatter, f"{source}, one seed, all scored on the same documents")
    if math.isnan(scatter) and math.isnan(error):
        return Noise(math.nan, "for there is one run of each kind and no error of an evaluation")
    if scatter > error or math.isnan(error):
        return Noise(scatter, f"{source}, from one seed")
    return Noise(error, "error of one evaluation, from one seed")


def evaluation(frame: pd.DataFrame, metric: Metric) -> float:
    """The standard error of one evaluation, over its documents; NaN if it is not known."""
    return float(frame[f"{metric.column}_se"].median())


def same_documents(frame: pd.DataFrame) -> bool:
    """Whether all runs were scored by one suite: those of one sweep, if it is no axis of it."""
    return bool(
        frame["sweep"].nunique() == 1
        and frame["stage"].ne("").all()
        and not frame["variant"].str.contains(r"\b(?:suite|data)\b").any()
    )


def _scatter(frame: pd.DataFrame, metric: Metric, laws: Sequence[Fit]) -> tuple[float, str]:
    free = [2 * law.objective / max(law.cells - len(law.law.names()), 1) for law in laws]
    if free:
        return math.sqrt(float(np.median(free))), "scatter about the laws"
    spreads = [pair.se * math.sqrt(pair.pairs / 2) for pair in _several(frame, metric)]
    return (float(np.median(spreads)) if spreads else math.nan), "scatter of pairs"


def _several(frame: pd.DataFrame, metric: Metric) -> list[evidence.Pair]:
    return [pair for pair in evidence.pairs(frame, metric) if pair.pairs > 1]
