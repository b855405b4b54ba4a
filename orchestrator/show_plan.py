"""`growpoint plan`: what it would run, what that costs, what is done already, and why not all."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator import text, why
from orchestrator.store import Store
from sweeps.cluster import Local, Slurm
from sweeps.growth import Depth, Width
from sweeps.model import Model, parameters
from sweeps.plan import Plan
from sweeps.stages import Grow

KINDS = ("init", "train", "grow", "evaluate")


def to_json(store: Store, plan: Plan, cluster: Local | Slurm) -> dict[str, Any]:
    """The plan's totals as data."""
    new = [stage for stage in plan.stages if not store.done(stage.id)]
    spared = why.spared_flops(store, plan)
    flops = sum(plan.flops(stage) for stage in new) - spared
    return {
        "sweep": plan.name,
        "cells": len(plan.cells),
        "stages": len(plan.stages),
        "done": len(plan.stages) - len(new),
        "new": len(new),
        "jobs": len(plan.jobs),
        "flops": plan.planned_flops,
        "flops_to_spend": flops,
        "hours": flops / cluster.flops_per_second / 3600,
        "spared_flops": spared,
        "saved_share": saved_share(plan),
        "stage_ids": [stage.id for stage in plan.stages],
        "cell_list": [
            {
                "label": cell.label,
                "stage": cell.stage.id,
                "checkpoint": cell.origin.name if cell.origin else "",
                "sunk_flops": cell.sunk_flops,
                "extra_flops": cell.extra_flops,
            }
            for cell in plan.cells
        ],
    }


def saved_share(plan: Plan) -> float:
    """Share of the cells' own costs that shared trunks save."""
    return 1 - plan.planned_flops / plan.wanted_flops if plan.wanted_flops else 0.0


def show(store: Store, plan: Plan, cluster: Local | Slurm) -> None:
    """Print the plan."""
    title = f"   {plan.title}" if plan.title else ""
    text.out.print(f"{plan.name}{title}\n")
    for line in _series(plan):
        text.out.print(line, markup=False)
    text.out.print(_models(plan))
    text.out.print()
    text.out.print(_cells(plan))
    for key, values in _axes(plan).items():
        text.out.print(f"  axis {key}: {', '.join(values)}", markup=False)
    text.out.print()
    spared = why.spared_flops(store, plan)
    text.out.print(_stages(store, plan, cluster, spared))
    saved = plan.wanted_flops - plan.planned_flops
    unit = "GPU" if isinstance(cluster, Slurm) or (cluster.gpus or 0) else "job"
    text.out.print(
        f"\n  shared trunks save {text.flops(saved)} FLOPs ({saved_share(plan):.0%}). "
        f"{unit}-hours assume {text.flops(cluster.flops_per_second)} FLOP/s per {unit}."
    )
    if spared:
        text.out.print(f"  going on from finished shorter phases saves {text.flops(spared)} more.")
    _show_why(store, plan)


def _series(plan: Plan) -> list[str]:
    """A line for each series: which checkpoints, and what others spent on them."""
    found: dict[str, dict[str, float]] = {}
    for cell in plan.cells:
        if cell.origin:
            found.setdefault(cell.origin.series, {})[cell.origin.name] = cell.sunk_flops
    lines = []
    for name, sunk in found.items():
        order = sorted(sunk, key=sunk.__getitem__)
        span = order[0] if len(order) == 1 else f"{order[0]} to {order[-1]}"
        amounts = _span([sunk[each] for each in order])
        words = f"{len(order)} checkpoint{'s' if len(order) > 1 else ''}"
        lines.append(f"  series {name}: {words}, {span}; sunk {amounts} FLOPs, not charged")
    return [*lines, ""] if lines else []


def _models(plan: Plan) -> Any:
    rows: dict[str, list[str]] = {}
    for cell in plan.cells:
        source = cell.source.model if cell.arm != "scratch" else None
        if source:
            rows.setdefault(f"{source.family} source", _model_row(source, ""))
        grow = next((s.do for s in cell.trained.lineage if isinstance(s.do, Grow)), None)
        if grow and cell.growth not in rows:
            rows[cell.growth] = _model_row(
                cell.trained.model, maps(cell.source.model, grow.operators)
            )
    columns = ["model", "layers", "experts", "top-k", "active", "total", "copies of"]
    return text.table(columns, [[name, *row] for name, row in rows.items()], right=range(1, 6))


def _model_row(model: Model, note: str) -> list[str]:
    count = parameters(model)
    sizes = [model.layers, model.experts, model.top_k]
    return [*map(str, sizes), text.params(count.active), text.params(count.total), note]


def maps(model: Model, operators: Sequence[Depth | Width]) -> str:
    """`layers 0 0 1 1`, `experts 0 1 ... 7 0 1 ... 7, noise 0.01`: what each is a copy of."""
    words = []
    layers, experts = model.layers, model.experts
    for operator in operators:
        if isinstance(operator, Depth):
            source = operator.source_of(layers)
            words.append(f"layers {_short(source)}")
            layers = len(source)
        else:
            words.append(_copies(operator, experts))
            experts = len(operator.source_of(experts))
    return "; ".join(words)


def _copies(width: Width, experts: int) -> str:
    if width.experts == "kept":
        return f"the same experts, top-k x{width.factor}"
    words = [f"experts 0-{experts - 1} x{width.factor}"]
    words += ["interleaved"] if width.order == "interleaved" else []
    words += ["experts random"] if width.experts == "random" else []
    words += ["router random"] if width.router == "random" else []
    words += [f"redrawn {width.redrawn:g}"] if width.redrawn else []
    words += [f"noise {width.noise:g}"] if width.noisy or not width.noise else []
    return ", ".join(words)


def _short(source: Sequence[int]) -> str:
    shown = [str(layer) for layer in source]
    return " ".join(shown if len(shown) <= 12 else [*shown[:8], "...", *shown[-2:]])


def _cells(plan: Plan) -> Any:
    counts = Counter((cell.arm, cell.growth) for cell in plan.cells)
    rows = []
    for (arm, growth), count in counts.items():
        cells = [cell for cell in plan.cells if (cell.arm, cell.growth) == (arm, growth)]
        sunk = sorted({cell.sunk_flops for cell in cells})
        extra = sorted({cell.extra_flops for cell in cells})
        seeds = {cell.seed for cell in cells}
        rows.append([arm, growth, str(count), _span(sunk), _span(extra), str(len(seeds))])
    columns = ["cells", "growth", "count", "sunk FLOPs", "extra FLOPs", "seeds"]
    return text.table(columns, rows, right=(2, 5))


def _axes(plan: Plan) -> dict[str, list[str]]:
    """Values of each further axis, in order."""
    found: dict[str, dict[str, None]] = {}
    for cell in plan.cells:
        for key, value in cell.variant:
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def _span(values: Sequence[float]) -> str:
    # Rounding to whole batches makes near-equal budgets; one word is enough for those.
    words = list(dict.fromkeys(text.flops(value) if value else "0" for value in values))
    return ", ".join(words) if len(words) <= 3 else f"{words[0]} to {words[-1]} ({len(words)})"


def _stages(store: Store, plan: Plan, cluster: Local | Slurm, spared: float) -> Any:
    rows = []
    missing = {stage.id for stage in plan.stages if not store.done(stage.id)}
    for kind in (*KINDS, "all"):
        stages = [stage for stage in plan.stages if kind in (stage.do.kind, "all")]
        new = [stage for stage in stages if stage.id in missing]
        flops = sum(plan.flops(stage) for stage in new)
        flops -= spared if kind in {"train", "all"} else 0.0
        hours = flops / cluster.flops_per_second / 3600
        done = len(stages) - len(new)
        last = f"in {len(plan.jobs)} jobs" if kind == "all" else ""
        amounts = [str(len(stages)), str(done) if done else "-", str(len(new)) if new else "-"]
        rows.append([kind, *amounts, text.flops(flops), f"{hours:.2g}" if hours else "-", last])
    unit = "GPU-hours" if isinstance(cluster, Slurm) or (cluster.gpus or 0) else "job-hours"
    columns = ["stages", "total", "done", "new", "FLOPs to spend", unit, ""]
    return text.table(columns, rows, right=range(1, 6))


def _show_why(store: Store, plan: Plan) -> None:
    reasons, rest = why.explain(store, plan)
    if not reasons:
        return
    text.out.print("\n  new because")
    for reason in reasons:
        shown = ", ".join(reason.changes[:4]) or "the stage before it"
        more = f" and {len(reason.changes) - 4} more" if len(reason.changes) > 4 else ""
        text.out.print(
            f"    {reason.stage.id}   like {reason.like} (done) but {shown}{more}", markup=False
        )
    if rest:
        text.out.print(
            f"    {rest} more    for such a reason, or because a stage before them is new"
        )
