"""What lm-evaluation-harness measured: which metric of a task, as a fraction or in nats."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sweeps.errors import GrowpointError
from sweeps.suite import Benchmark

# Preferred where a task has several: multiple choice by likelihood a character, which favours no
# short option, then what is right or wrong, then overlap, then likelihood.
PREFERRED = ("acc_norm", "acc", "exact_match", "em", "f1", "bits_per_byte", "word_perplexity")
# What turns a value into nats; what is given of a hundred into a fraction.
NATS = {"bits_per_byte": math.log(2)}
PERPLEXITIES = ("perplexity", "word_perplexity", "byte_perplexity")
OF_HUNDRED = ("bleu", "chrf", "ter")


class Measured(NamedTuple):
    """A task's metric as it is recorded: a fraction or nats, and which of the two."""

    kind: str
    value: float
    se: float | None


def is_number(value: object) -> bool:
    """Whether a harness's value is one: it writes words where it knows none."""
    return isinstance(value, int | float) and math.isfinite(value)


def chosen(task: Benchmark, row: Mapping[str, Any]) -> str:
    """Key of a result, `METRIC,FILTER`: the one asked for, or else the one preferred.

    Raises GrowpointError if there is none.
    """
    keys = [
        key
        for key, value in row.items()
        if "," in key and "_stderr," not in key and is_number(value)
    ]
    wanted = PREFERRED if task.metric is None else (task.metric,)
    for name in wanted:
        for key in keys:
            if name in (key, key.split(",")[0]):
                return key
    if task.metric is None and keys:
        return keys[0]
    raise GrowpointError(
        f"the task `{task.name}` has no metric `{task.metric}`"
        if task.metric
        else f"the task `{task.name}` gave no number",
        [("has", ", ".join(keys) or "none")],
        f"leave `metric` out of the suite's entry for {task.name}, or name one of these",
    )


def measured(metric: str, value: float, error: object, rising: bool | None) -> Measured:
    """A fraction that rises, or a loss that falls: perplexities and bits become nats.

    `error` is the harness's standard error, which may be a word. Raises GrowpointError for what
    rises and is no fraction, as the laws have no use for it.
    """
    se = float(error) if isinstance(error, int | float) and math.isfinite(error) else None
    if metric in PERPLEXITIES:
        return Measured("loss", math.log(value), None if se is None else se / value)
    value = float(value)
    by = NATS.get(metric, 0.01 if metric in OF_HUNDRED else 1.0)
    value, se = value * by, None if se is None else se * by
    if rising is False or (rising is None and metric in NATS):
        return Measured("loss", value, se)
    if not 0 <= value <= 1:
        raise GrowpointError(
            f"the metric `{metric}` is neither a fraction nor a loss",
            [("value", f"{value:g}")],
            "name another with `metric` in the suite's entry for the task",
        )
    return Measured("accuracy", value, se)
