"""The parts of an answer: what was asked, what could be done, when to grow."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.evidence import Pair
from analysis.metrics import Metric
from analysis.sample import Which
from orchestrator import text
from sweeps.errors import GrowpointError

_SHOWN = 8  # options in the text; all are in the dictionary


@dataclass(frozen=True)
class Question:
    """What may be spent (FLOPs), and on which checkpoint.

    `extra`: what is left to spend; with `sunk` on a checkpoint that has so much in it, without on
    whichever of the measured ones is best. `total`: sunk and extra together.
    """

    sunk: float | None = None
    extra: float | None = None
    total: float | None = None

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


def check(question: Question) -> None:
    """Raise GrowpointError for a budget that makes no sense."""
    given = {"sunk": question.sunk, "extra": question.extra, "total": question.total}
    for name, value in given.items():
        if value is None:
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and name != "sunk"):
            least = "zero or a positive number" if name == "sunk" else "a positive number"
            raise GrowpointError(
                f"--{name} must be {least} of FLOPs", [("given", value)], f"--{name} 4e17"
            )
    if (question.extra is None) == (question.total is None):
        raise GrowpointError(
            "the budget must be given once, as what is left or as the total",
            [
                (
                    "given",
                    ", ".join(f"--{name}" for name, value in given.items() if value is not None)
                    or "none",
                )
            ],
            "--extra 4e17",
        )
    if question.sunk is not None and question.total is not None and question.total <= question.sunk:
        raise GrowpointError(
            "the total budget is smaller than what is already spent",
            [("total", f"{question.total:.1e} FLOPs"), ("sunk", f"{question.sunk:.1e} FLOPs")],
            f"give what is left to spend: --extra {question.total:.0e}",
        )


@dataclass(frozen=True)
class Option:
    """One thing to do. Metric values are the metric's own, differences are positive if worse."""

    which: Which
    sunk_flops: float
    extra_flops: float
    expected: float
    interval: tuple[float, float]  # 90 %, over bootstrap fits and laws
    behind: float
    chance_best: float  # over the same
    regret: float  # mean shortfall from the best option of each draw
    regret_95: float
    beyond: float  # times outside the measured range
    basis: str


@dataclass(frozen=True)
class Timing:
    """When to grow, had one the choice: shares of a total spent before growing."""

    which: Which
    total_flops: float
    share: float
    near_equal: tuple[float, float]  # expected within noise of the best
    interval: tuple[float, float]  # 90 % of the best share
    searched: tuple[float, float]

    @property
    def identifiable(self) -> bool:
        """Whether it matters, and is known, where in the searched range one grows."""
        whole = 0.9 * (self.searched[1] - self.searched[0])
        return all(high - low < whole for low, high in (self.near_equal, self.interval))


def plain(option: Option) -> dict[str, Any]:
    """An option as a flat dictionary."""
    row = asdict(option)
    which = row.pop("which")
    return {"arm": which["arm"], "growth": which["growth"], "variant": which["variant"]} | row


def label(option: Option, with_sunk: bool) -> str:
    """An option as people name it; with its sunk compute where the checkpoint is open."""
    which = option.which
    acts = {"grow": f"grow, {which.growth}", "continue": "continue"}
    name = acts.get(which.arm, f"scratch at {which.growth}")
    if with_sunk and which.arm != "scratch":
        name += f", sunk {text.flops(option.sunk_flops)}"
    return f"{name} ({which.variant})" if which.variant else name


def option_rows(options: Sequence[Option], metric: Metric) -> list[list[str]]:
    """A table's rows, best first; long lists are cut, but every arm and growth stays."""
    with_sunk = len({(o.sunk_flops) for o in options if o.which.arm != "scratch"}) > 1
    kept: list[Option] = []
    seen: set[Which] = set()
    for option in options:
        if len(kept) < _SHOWN or option.which not in seen:
            kept.append(option)
        seen.add(option.which)
    rows = []
    for option in kept:
        half = (option.interval[1] - option.interval[0]) / 2
        rows.append(
            [
                label(option, with_sunk),
                f"{metric.text(option.expected)} ± {metric.text(half)}",
                metric.text(option.behind) if option.behind > 0 else "-",
                f"{option.chance_best:.2f}",
                f"{metric.text(option.regret)} ({metric.text(option.regret_95)})",
            ]
        )
    return rows


def columns(metric: Metric) -> list[str]:
    """The header that goes with `option_rows`."""
    name = metric.name if metric.top is None else f"{metric.name}, %"
    return ["option", f"{name} (90 %)", "behind best", "chance best", "regret (95 %)"]


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table: the first column to the left, the others to the right."""
    width = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(width[0])] + [
            c.rjust(w) for c, w in zip(row[1:], width[1:], strict=True)
        ]
        return "  " + "   ".join(cells)

    return [line(row) for row in [header, *rows]]


def percent(ends: tuple[float, float]) -> str:
    """A range of shares."""
    return f"{ends[0] * 100:.0f}-{ends[1] * 100:.0f} %"


def timing_text(timing: Timing, share: float | None) -> str:
    """When to grow, and how little it may matter."""
    total = f"of {text.flops(timing.total_flops)} in all"
    if not timing.identifiable:
        said = f"{total}, no share before growing stands out ({percent(timing.searched)} searched)"
    else:
        said = f"{total}, the best share before growing {timing.which.growth}"
        said += f" is {timing.share * 100:.0f} %"
        said += (
            f" ({percent(timing.near_equal)} are as good; 90 % interval {percent(timing.interval)})"
        )
        edge = timing.share in timing.searched
        said += ", at the edge of what was searched" if edge else ""
    return said + (f"; you are at {share * 100:.0f} %" if share is not None else "")


def pair_text(pair: Pair, metric: Metric) -> str:
    """A measured difference to the un-grown control."""
    size = f"{metric.text(pair.difference, '+')} ± {metric.text(pair.se)} {metric.unit}"
    runs = "1 pair" if pair.pairs == 1 else f"{pair.pairs} pairs"
    return f"{pair.growth} less continue at extra {text.flops(pair.extra_flops)}: {size} ({runs})"
