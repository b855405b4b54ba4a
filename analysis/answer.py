"""The parts of an answer: what could be done, when to grow, and how they are printed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from analysis.evidence import Pair
from analysis.metrics import Metric
from analysis.question import Question, check
from analysis.sample import Which
from orchestrator import text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Option",
    "Question",
    "Timing",
    "aligned",
    "amount",
    "check",
    "columns",
    "label",
    "named",
    "option_rows",
    "pair_text",
    "percent",
    "plain",
    "sources",
    "timing_text",
]

_SHOWN = 8  # options in the text; all are in the dictionary


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
    checkpoint: str = ""  # how the source is called, if it has a name

    @property
    def act(self) -> str:
        """What one does: growing a network before it was trained is starting over."""
        fresh = self.which.arm == "grow" and self.sunk_flops == 0
        return "scratch" if fresh else self.which.arm


@dataclass(frozen=True)
class Timing:
    """When to grow, had one the choice: shares of a total spent before growing."""

    which: Which
    total_flops: float
    share: float
    near_equal: tuple[float, float]  # expected within noise of the best
    interval: tuple[float, float]  # 90 % of the best share
    searched: tuple[float, float]
    by_law: tuple[tuple[str, float], ...] = ()  # the best share by each law alone

    @property
    def identifiable(self) -> bool:
        """Whether it matters, and is known, where in the searched range one grows."""
        whole = 0.9 * (self.searched[1] - self.searched[0])
        return all(high - low < whole for low, high in (self.near_equal, self.interval))


def plain(option: "DataclassInstance") -> dict[str, Any]:
    """An option, or a way to a target, as a flat dictionary."""
    row = asdict(option)
    which = row.pop("which")
    return {"arm": which["arm"], "growth": which["growth"], "variant": which["variant"]} | row


def amount(flops: float) -> str:
    """FLOPs, `0` included."""
    return text.flops(flops) if flops else "0"


def named(which: Which, source: str = "") -> str:
    """What to do as people name it, from which source checkpoint."""
    acts = {"grow": f"grow, {which.growth}", "continue": "continue"}
    name = acts.get(which.arm, f"scratch at {which.growth}") + (f", {source}" if source else "")
    return f"{name} ({which.variant})" if which.variant else name


def label(option: Option, with_sunk: bool) -> str:
    """An option as people name it; with its sunk compute where the checkpoint is open."""
    known = with_sunk and option.which.arm != "scratch"
    source = option.checkpoint or f"sunk {amount(option.sunk_flops)}"
    return named(option.which, source if known else "")


def sources(options: Sequence[Option]) -> str:
    """The source checkpoints of options of one growth, from the least compute to the most."""
    ordered = sorted(options, key=lambda option: option.sunk_flops)
    ends = ordered[0], ordered[-1]
    names = [end.checkpoint or amount(end.sunk_flops) for end in ends]
    if len(ordered) == 1:
        names = names[:1]
    said = " and ".join(names) if len(ordered) < 3 else " to ".join(names)
    return said if all(end.checkpoint for end in ends) else f"{said} sunk"


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
        said += _by_law(timing)
        said += ", at the edge of what was searched" if edge else ""
    return said + (f"; you are at {share * 100:.0f} %" if share is not None else "")


def _by_law(timing: Timing) -> str:
    """What single laws say, where they differ by more than what is as good anyway."""
    shares = [share for _, share in timing.by_law]
    if not shares or max(shares) - min(shares) <= timing.near_equal[1] - timing.near_equal[0]:
        return ""
    parts = ", ".join(f"{name} {share * 100:.0f} %" for name, share in timing.by_law)
    return f"; the laws disagree: {parts}"


def pair_text(pair: Pair, metric: Metric) -> str:
    """A measured difference to the un-grown control."""
    size = f"{metric.text(pair.difference, '+')} ± {metric.text(pair.se)} {metric.unit}"
    runs = "1 pair" if pair.pairs == 1 else f"{pair.pairs} pairs"
    return f"{pair.growth} less continue at extra {text.flops(pair.extra_flops)}: {size} ({runs})"
