"""Plan: every stage once, which cell wants it, what it costs, and the jobs that run it."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sweeps import cost
from sweeps.command import CommandRecipe
from sweeps.data import Corpus, Data
from sweeps.model import parameters
from sweeps.schema import asked, canonical, digest
from sweeps.series import Source
from sweeps.stages import Evaluate, Init, Stage, Train, passed_until, phase_key
from sweeps.sweep import Cell, Sweep, expand

VERSION = 1


class Job(NamedTuple):
    """A chain of stages that one allocation runs, and the jobs that must be done before it."""

    id: str
    stages: tuple[Stage, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run; `resumes`: which shorter phase one goes on from.

    `commands` is how the commands of recipes are started here, by program.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    stages: tuple[Stage, ...]
    resumes: Mapping[str, Stage]
    data: Mapping[str, Data]
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluate_apart: bool = False

    @cached_property
    def by_id(self) -> Mapping[str, Stage]:
        """Stages by id."""
        return {stage.id: stage for stage in self.stages}

    def before(self, stage: Stage) -> Stage | None:
        """The stage whose checkpoint this one starts from."""
        return self.resumes.get(stage.id, stage.after)

    def flops(self, stage: Stage) -> float:
        """FLOPs to run `stage` when the stage it starts from is done."""
        start = self.resumes.get(stage.id)
        return cost.flops(stage) - (cost.flops(start) if start else 0.0)

    @cached_property
    def wanted_flops(self) -> float:
        """What the cells would cost if each ran alone, from its own beginning."""
        return sum(sum(cost.flops(stage) for stage in cell.stage.lineage) for cell in self.cells)

    @cached_property
    def planned_flops(self) -> float:
        """What all stages cost, each run once."""
        return sum(self.flops(stage) for stage in self.stages)

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """The stages cut into maximal chains: a stage with one successor is joined by it.

        With `evaluate_apart` evaluations are jobs of their own.
        """
        return _jobs(self)


def plan(
    name: str,
    sweeps: Sequence[tuple[Sweep, tuple[tuple[str, str], ...]]],
    corpora: Mapping[str, Corpus],
) -> Plan:
    """The plan of a sweep and its variants; `corpora` by canonical text of their data."""
    cells: list[Cell] = []
    data: dict[str, Data] = {}
    commands: dict[str, Mapping[str, Any]] = {}
    for sweep, variant in sweeps:
        corpus = corpora[canonical(asked(sweep.data))]
        data[corpus.id] = sweep.data
        if isinstance(sweep.recipe, CommandRecipe):
            commands[sweep.recipe.program] = sweep.recipe.circumstance
        cells += expand(sweep, corpus, variant)
    return of_cells(name, sweeps[0][0].title if sweeps else "", cells, data, commands)


def of_cells(
    name: str,
    title: str,
    cells: Sequence[Cell],
    data: Mapping[str, Data] | None = None,
    commands: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """The plan of cells that were expanded already; `data` by id of their corpora."""
    stages = _collect(cells)
    resumes = _resumes(stages)
    ordered = _ordered(stages, resumes)
    return Plan(name, title, tuple(cells), ordered, resumes, data or {}, commands or {})


def _collect(cells: Iterable[Cell]) -> dict[str, Stage]:
    """All stages once, with the open beginnings that several ending phases share."""
    stages = {stage.id: stage for cell in cells for stage in cell.stage.lineage}
    phases: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages.values():
        if isinstance(stage.do, Train) and stage.do.ends:
            phases[phase_key(stage.text)].append(stage)
    for phase in phases.values():
        # One alone shares nothing; several need each one's point of departure but the last's.
        for stage in sorted(phase, key=_tokens)[: -1 if len(phase) > 1 else 0]:
            start = _departure(stage)
            if start:
                stages[start.id] = start
    return stages


def _tokens(stage: Stage) -> int:
    assert isinstance(stage.do, Train)
    return stage.do.tokens


def _departure(stage: Stage) -> Stage | None:
    """The last open checkpoint on the way to an ending phase, if there is any."""
    assert isinstance(stage.do, Train)
    recipe = stage.do.recipe
    tokens = recipe.batches.below(recipe.schedule.free_until(stage.do.tokens))
    if tokens <= 0:
        return None
    return Stage(stage.do.model_copy(update={"tokens": tokens, "ends": False}), stage.after)


def _resumes(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """For each phase the longest other phase of the plan that it passes through."""
    phases: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages.values():
        if isinstance(stage.do, Train):
            phases[phase_key(stage.text)].append(stage)
    found: dict[str, Stage] = {}
    for group in phases.values():
        starts = sorted(
            (s for s in group if isinstance(s.do, Train) and not s.do.ends), key=_tokens
        )
        for stage in group:
            assert isinstance(stage.do, Train)
            passed = bisect_right(starts, passed_until(stage.do), key=_tokens)
            if passed:
                found[stage.id] = starts[passed - 1]
    return found


def _ordered(stages: Mapping[str, Stage], resumes: Mapping[str, Stage]) -> tuple[Stage, ...]:
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        before = resumes.get(stage.id, stage.after)
        if before and before.id not in ordered:
            visit(before)
        ordered.setdefault(stage.id, stage)

    for stage in stages.values():
        visit(stage)
    return tuple(ordered.values())


def _jobs(plan: Plan) -> tuple[Job, ...]:
    followers: dict[str, list[Stage]] = defaultdict(list)
    for stage in plan.stages:
        before = plan.before(stage)
        if before:
            followers[before.id].append(stage)
    jobs: list[Job] = []
    job_of: dict[str, str] = {}
    for stage in plan.stages:
        if stage.id in job_of:
            continue
        chain = [stage]
        while len(followers[chain[-1].id]) == 1:
            last = followers[chain[-1].id][0]
            if plan.evaluate_apart and isinstance(last.do, Evaluate):
                break
            chain.append(last)
        before = plan.before(stage)
        job = Job(_job_id(chain), tuple(chain), (job_of[before.id],) if before else ())
        job_of.update({member.id: job.id for member in chain})
        jobs.append(job)
    return tuple(jobs)


def _job_id(chain: Sequence[Stage]) -> str:
    return "job-" + digest("\n".join(stage.id for stage in chain))


def to_json(plan: Plan) -> dict[str, Any]:
    """plan.json: what the runs, the status and the analysis read."""
    return {
        "version": VERSION,
        "sweep": plan.name,
        "title": plan.title,
        "cells": [_cell_json(cell) for cell in plan.cells],
        "stages": {stage.id: _stage_json(plan, stage) for stage in plan.stages},
        "jobs": [
            {"id": job.id, "stages": [stage.id for stage in job.stages], "after": list(job.after)}
            for job in plan.jobs
        ],
        "heldout_tokens": _heldout_tokens(plan),
        "include_paths": _include_paths(plan),
        "data": {name: data.model_dump(mode="json") for name, data in plan.data.items()},
        "commands": dict(plan.commands),
        "sources": {
            stage_id: {
                **origin.model_dump(mode="json", exclude={"content"}, exclude_none=True),
                "flops": cost.trained_flops(plan.by_id[stage_id]),
            }
            for stage_id, origin in _origins(plan).items()
        },
    }


def _origins(plan: Plan) -> dict[str, Source]:
    """Where each adopted checkpoint lies, and what is known of it, by the stage that adopts it."""
    return {cell.source.id: cell.origin for cell in plan.cells if cell.origin}


def _heldout_tokens(plan: Plan) -> dict[str, int]:
    """The most held-out tokens that a suite of the plan needs, for each corpus."""
    most: dict[str, int] = {}
    for stage in plan.stages:
        if isinstance(stage.do, Evaluate):
            corpus = stage.do.corpus.id
            most[corpus] = max(most.get(corpus, 0), stage.do.suite.heldout_tokens)
    return most


def _include_paths(plan: Plan) -> dict[str, str]:
    """Where folders of tasks lie, by their content."""
    suites = [stage.do.suite for stage in plan.stages if isinstance(stage.do, Evaluate)]
    return {
        suite.include_content: suite.include_path
        for suite in suites
        if suite.include_content and suite.include_path
    }


def _stage_json(plan: Plan, stage: Stage) -> dict[str, Any]:
    start = plan.before(stage)
    tokens = getattr(stage.do, "tokens", 0) if isinstance(stage.do, Train) else 0
    known = {
        "kind": stage.do.kind,
        "after": stage.after.id if stage.after else None,
        "starts_from": start.id if start else None,
        "tokens": tokens,
        "flops": plan.flops(stage),
    }
    if isinstance(stage.do, Init) and stage.do.adopted:
        # Spent by others: part of the lineage, never of what is left to spend.
        known |= {"tokens": stage.do.adopted.tokens, "sunk_flops": stage.do.adopted.flops}
    return known


def _cell_json(cell: Cell) -> dict[str, Any]:
    grown, source = parameters(cell.trained.model), parameters(cell.source.model)
    return {
        "label": cell.label,
        "variant": dict(cell.variant),
        "arm": cell.arm,
        "growth": cell.growth,
        "point": cell.point,
        "seed": cell.seed,
        "family": cell.source.model.family,
        "source_active_params": source.active,
        "active_params": grown.active,
        "total_params": grown.total,
        "sunk_tokens": cell.sunk_tokens,
        "sunk_flops": cell.sunk_flops,
        "extra_tokens": cell.extra_tokens,
        "extra_flops": cell.extra_flops,
        "budget": cell.of,
        "budget_index": cell.budget,
        "budget_flops": cell.budget_asked if cell.budget_unit == "flops" else None,
        "source": cell.source.id,
        "series": cell.origin.series if cell.origin else "",
        "checkpoint": cell.origin.name if cell.origin else "",
        "annealed": cell.annealed,
        "trained": cell.trained.id,
        "stage": cell.stage.id,
    }
