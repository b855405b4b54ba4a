"""What may be asked, and what makes no sense to ask."""

import math
from dataclasses import dataclass
from typing import Literal

from analysis.metrics import Metric
from orchestrator import text
from sweeps.errors import GrowpointError

Kind = Literal["extra", "total", "target", "checkpoint"]


@dataclass(frozen=True)
class Question:
    """What may be spent, or is to be reached, and on which checkpoint. Budgets are in FLOPs.

    `extra`         which measured checkpoint to grow, and how, if so much is left to spend
    `sunk`, `extra` what to do with a checkpoint that has so much in it (`total`: both together)
    `total`         when to grow, if one could still choose
    `target`        the cheapest way to this value of the metric: least extra FLOPs with `sunk`
                    given, else the least in all
    `sunk`          grow now, train on or start over, as a function of what is left: at `extras`,
                    or over the measured range
    `growth`        only this growth, such as "depth x2", beside continuing and starting over
    """

    sunk: float | None = None
    extra: float | None = None
    total: float | None = None
    target: float | None = None
    extras: tuple[float, ...] = ()
    growth: str | None = None

    @property
    def kind(self) -> Kind:
        """Which of the four questions it is."""
        if self.target is not None:
            return "target"
        if self.extra is None and self.total is None:
            return "checkpoint"
        return "total" if self.sunk is None and self.total is not None else "extra"

    @property
    def left(self) -> float:
        """What is left to spend if `sunk` is, or the whole if one can start where one likes."""
        if self.extra is not None:
            return self.extra
        assert self.total is not None
        return self.total - (self.sunk or 0.0)

    @property
    def whole(self) -> float | None:
        """Sunk and extra together; None where the checkpoint is open."""
        if self.total is not None:
            return self.total
        return None if self.sunk is None or self.extra is None else self.sunk + self.extra


def check(question: Question, metric: Metric) -> None:
    """Raise GrowpointError for a question that makes no sense."""
    given = {"sunk": question.sunk, "extra": question.extra, "total": question.total}
    budgets = [*given.items(), *(("extra", each) for each in question.extras)]
    for name, value in budgets:
        if value is not None:
            _check_budget(name, value)
    _check_together(question)
    if question.target is not None:
        _check_target(question.target, metric)


def _check_budget(name: str, value: float) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and name != "sunk"):
        least = "zero or a positive number" if name == "sunk" else "a positive number"
        raise GrowpointError(
            f"--{name} must be {least} of FLOPs", [("given", value)], f"--{name} 4e17"
        )


def once(question: Question) -> GrowpointError:
    """The error of a question without a budget, or with two."""
    return GrowpointError(
        "the budget must be given once, as what is left or as the total",
        [("given", ", ".join(f"--{name}" for name in _named(question)) or "none")],
        "--extra 4e17",
    )


def _named(question: Question) -> list[str]:
    given = {
        "sunk": question.sunk,
        "extra": question.extra,
        "total": question.total,
        "extras": question.extras or None,
        "target": question.target,
    }
    return [name.removesuffix("s") for name, value in given.items() if value is not None]


def _check_together(question: Question) -> None:
    named = _named(question)
    budgets = [name for name in named if name in ("extra", "total")]
    if question.target is not None:
        if budgets:
            raise GrowpointError(
                "a target asks what it costs, so no budget goes with it",
                [("given", ", ".join(f"--{name}" for name in named))],
                "--target, with --sunk for one checkpoint or alone",
            )
        return
    if len(budgets) > 1 or (not budgets and question.sunk is None):
        raise once(question)
    if question.extras and question.sunk is None:
        raise GrowpointError(
            "several extra budgets are asked of one checkpoint, and none is given",
            [("extra", ", ".join(text.flops(each) for each in question.extras))],
            "--sunk 8e17, or one --extra",
        )
    if question.sunk is not None and question.total is not None and question.total <= question.sunk:
        raise GrowpointError(
            "the total budget is smaller than what is already spent",
            [("total", f"{question.total:.1e} FLOPs"), ("sunk", f"{question.sunk:.1e} FLOPs")],
            f"give what is left to spend: --extra {question.total:.0e}",
        )


def _check_target(target: float, metric: Metric) -> None:
    if metric.top is None:
        if not math.isfinite(target) or target <= 0:
            raise GrowpointError(
                "--target must be a positive loss", [("given", target)], "--target 2.31"
            )
    elif not 0 < target < metric.top:
        percent = target if 1 < target < 100 else 47
        raise GrowpointError(
            "--target must be an accuracy between 0 and 1, or in percent",
            [("given", f"{target:g}"), ("metric", metric.name)],
            f"--target {percent:g}%, or for a loss: --metric loss --target 2.31",
        )


def read_target(word: str, metric: Metric) -> float:
    """A target as people write it: `0.47` and `47%` are one accuracy.

    Raises GrowpointError for what is no number, and for a loss in percent.
    """
    number = word.strip().removesuffix("%")
    percent = number != word.strip()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if math.isnan(value) or (percent and metric.top is None):
        example = "2.31" if metric.top is None else "47%"
        raise GrowpointError(
            f"--target must be a value of {metric.name}", [("given", word)], f"--target {example}"
        )
    return value / 100 if percent else value
