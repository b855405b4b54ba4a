"""Which cells are fitted together, and every law that is about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis import evidence
from analysis.compare import ensemble
from analysis.fit import GROWTH_POINTS, Fit, fit, fit_linked, shortage
from analysis.laws import LAWS, LINKS, Law, linked
from analysis.metrics import METRICS, Metric
from analysis.problem import as_base
from analysis.resample import Resampling
from analysis.sample import Which
from sweeps.errors import GrowpointError, nearest

EVERY_SIZE = "every size"
_LOSS = METRICS["loss"]


@dataclass(frozen=True)
class Skipped:
    """A law that was not fitted, and why."""

    metric: str
    which: Which
    law: str
    reason: str


def chosen(laws: Sequence[str] | None) -> frozenset[str] | None:
    """The laws of these names, and the loss laws behind linked ones; None for every law.

    Raises GrowpointError for an unknown name.
    """
    if laws is None or not laws:
        return None
    known = [*LAWS, *LINKS]
    if unknown := [name for name in laws if name not in known]:
        close = nearest(unknown[0], known)
        raise GrowpointError(
            f"there is no law {unknown[0]!r}",
            [("known", ", ".join(known))],
            f"--law {close}" if close else f"--law {known[0]}",
        )
    return frozenset(laws) | {LINKS[name].loss_law.name for name in laws if name in LINKS}


def selections(frame: pd.DataFrame, columns: bool = True) -> Iterator[tuple[Which, pd.DataFrame]]:
    """Every set of cells that laws are fitted to.

    Growing: each variant and growth alone, over all extra budgets. Cells evaluated right after
    growing (no extra compute) are another regime and are left out. Continuing and starting over:
    each alone, as functions of all compute. With `columns` also what no arm is: growing at each
    extra budget alone, and all un-grown runs of a variant, whatever their size.
    """
    for (variant, arm, growth), rows in frame.groupby(["variant", "arm", "growth"]):
        which = Which(str(variant), str(arm), str(growth))
        if arm != "grow":
            yield which, rows
            continue
        trained = rows[rows["extra_flops"] > 0]
        yield which, trained
        if columns:
            for level, at in evidence.by_level(trained, "extra_flops"):
                if at["sunk_flops"].nunique() >= GROWTH_POINTS:
                    yield Which(which.variant, which.arm, which.growth, level), at
    if columns:
        yield from _every_size(frame)


def _every_size(frame: pd.DataFrame) -> Iterator[tuple[Which, pd.DataFrame]]:
    """Un-grown runs: those from scratch, and the base model trained on."""
    for variant, rows in frame[frame["arm"] != "grow"].groupby("variant"):
        if rows["active_params"].nunique() > 1:
            yield Which(str(variant), "scratch", EVERY_SIZE), rows[rows["total_flops"] > 0]


def scope(which: Which) -> str:
    """The scope of the laws that describe these cells."""
    if which.growth == EVERY_SIZE:
        return "sizes"
    if which.arm != "grow":
        return "total"
    return "surface" if which.extra_flops is None else "extra"


def laws_for(which: Which, names: frozenset[str] | None = None) -> list[type[Law]]:
    """The laws that may be fitted to these cells, links aside: `fit_group` adds those."""
    return [
        law
        for law in LAWS.values()
        if law.scope == scope(which) and (names is None or law.name in names)
    ]


def base_of(frame: pd.DataFrame, which: Which) -> pd.DataFrame | None:
    """The base model's own runs, for laws of growing that are fitted to them as well."""
    if which.arm != "grow":
        return None
    return frame[(frame["arm"] == "continue") & (frame["variant"] == which.variant)]


def fit_group(
    frame: pd.DataFrame,
    which: Which,
    rows: pd.DataFrame,
    metric: Metric,
    resampling: Resampling,
    names: frozenset[str] | None = None,
    losses: Sequence[Fit] | None = None,
) -> tuple[list[Fit], list[Skipped]]:
    """Every law that is about `rows`, which `which` describes, fitted to one metric.

    `frame` is what the rows were chosen from, and `losses` are the fits to the losses of the same
    rows if they were made already. An accuracy is fitted directly, and by way of each loss law that
    the losses do not refute.
    """
    made: list[Fit] = []
    skipped: list[Skipped] = []
    base = base_of(metric.measured(frame), which)
    for law in laws_for(which, names):
        if reason := shortage(rows, law):
            skipped.append(Skipped(metric.name, which, law.name, reason))
        else:
            made.append(fit(rows, law, metric, which, resampling, base))
    if metric.top is None or len(_LOSS.measured(rows)) < len(rows):
        return made, skipped
    if losses is None:
        losses = fit_group(frame, which, rows, _LOSS, resampling, names)[0]
    both = None if base is None else _LOSS.measured(base)
    for loss in _linkable(rows, losses, names):
        # The draws of the loss law are used again, so they have to be of the same runs.
        if loss.base_cells == 0 or (both is not None and loss.base_cells == len(as_base(both))):
            made.append(fit_linked(rows, metric, loss, resampling, both))
    return made, skipped


def _linkable(rows: pd.DataFrame, losses: Sequence[Fit], names: frozenset[str] | None) -> list[Fit]:
    """Loss fits an accuracy can be linked to: one that the losses refute would mislead it."""
    kept = [
        loss for loss in losses if linked(type(loss.law)).name in LINKS and loss.cells == len(rows)
    ]
    if names is not None:
        return [loss for loss in kept if linked(type(loss.law)).name in names]
    return [loss for loss in ensemble(kept) if not shortage(rows, linked(type(loss.law)))]


def fit_groups(
    frame: pd.DataFrame,
    metrics: Sequence[Metric],
    resampling: Resampling,
    names: frozenset[str] | None,
) -> tuple[list[Fit], list[Skipped]]:
    """Every law fitted to every selection of a frame of records, metric by metric."""
    made: list[Fit] = []
    skipped: list[Skipped] = []
    losses: dict[Which, list[Fit]] = {}
    # losses first, for accuracies are linked to them
    for metric in sorted(metrics, key=lambda each: each.top is not None):
        for which, rows in selections(metric.measured(frame)):
            found, missed = fit_group(
                frame, which, rows, metric, resampling, names, losses.get(which)
            )
            if metric.name == _LOSS.name:
                losses[which] = found
            made += found
            skipped += missed
    order = [metric.name for metric in metrics]
    made.sort(key=lambda each: order.index(each.metric))
    skipped.sort(key=lambda each: order.index(each.metric))
    return made, skipped
