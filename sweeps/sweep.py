"""Sweep: a question as axes, and the cells it expands to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from sweeps import benchmark, carried, cost, fits
from sweeps import family as families
from sweeps.amounts import Budgets, Points
from sweeps.cell import Cell
from sweeps.command import AnyRecipe, CommandRecipe, branched, named
from sweeps.data import Corpus, Data
from sweeps.errors import GrowpointError
from sweeps.exclude import Arm, Exclude
from sweeps.fits import require_distinct
from sweeps.growth import Depth, GrowthChoice, Width, grown, label, operators_of
from sweeps.model import Model
from sweeps.recipe import Branch, Recipe
from sweeps.schema import Description, Seed
from sweeps.series import Source, adopted
from sweeps.stages import Evaluate, Grow, Init, Stage, Train
from sweeps.suite import Suite

__all__ = ["Cell", "Sweep", "expand"]


class Sweep(Description):
    """One question: sources × growth × budgets × arms × seeds, under one recipe.

    Sources are points of a trunk that is trained, or checkpoints of a `series`, one for each point.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    title: str = ""
    model: Model
    points: Points
    series: tuple[Source, ...] = ()
    budgets: Budgets
    growth: tuple[GrowthChoice, ...] = ()
    arms: tuple[Arm, ...] = ("grow", "continue", "scratch")
    recipe: AnyRecipe
    branch: Branch = Branch()
    data: Data
    suite: Suite
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    exclude: tuple[Exclude, ...] = ()

    @field_validator("model")
    @classmethod
    def _of_this_family(cls, model: Model) -> Model:
        return model.model_copy(update={"family_digest": families.own_digest(model.family)})

    @field_validator("suite")
    @classmethod
    def _of_this_content(cls, suite: Suite) -> Suite:
        return benchmark.known(suite)

    @model_validator(mode="after")
    def _fits(self) -> "Sweep":
        require_distinct("seeds", self.seeds)
        require_distinct("arms", self.arms)
        fits.require_vocabulary(self.data, self.model, adopted=bool(self.series))
        fits.require_positions(self.recipe, self.suite, self.model, adopted=bool(self.series))
        if isinstance(self.recipe, Recipe):
            fits.require_documents(self.recipe, self.data, self.model)
        fits.require_suite(self.suite, self.data, self.model)
        if self.series:
            fits.require_fresh_optimizer(self.branch)
        fits.require_growth(self.growths, self.arms)
        return self

    @property
    def growths(self) -> list[str]:
        """Labels of the growth axis."""
        return [label(operators_of(choice)) for choice in self.growth]


def expand(sweep: Sweep, corpus: Corpus, variant: tuple[tuple[str, str], ...] = ()) -> list[Cell]:
    """All cells of one sweep, in a fixed order.

    Raises GrowpointError for impossible budgets, and for two that come to the same run.
    """
    cells = [cell for seed in sweep.seeds for cell in _Seed(sweep, corpus, seed, variant).cells()]
    first: dict[tuple[str, Arm, str], Cell] = {}
    for cell in cells:
        twin = first.setdefault((cell.stage.id, cell.arm, cell.growth), cell)
        if twin is not cell:
            raise _same_run(sweep, twin, cell)
    return cells


def _same_run(sweep: Sweep, one: Cell, other: Cell) -> GrowpointError:
    """Two points or budgets would pass for two measurements, and be one."""
    by_point = one.point != other.point
    axis, at = ("points", sweep.points.at) if by_point else ("budgets", sweep.budgets.at)
    unit = sweep.points.unit if by_point else sweep.budgets.unit
    pair = (one.point, other.point) if by_point else (one.budget, other.budget)
    return GrowpointError(
        f"{axis}.at.{pair[0]} and {axis}.at.{pair[1]} are the same after rounding to whole batches",
        [
            ("asked", f"{at[pair[0]]:g} and {at[pair[1]]:g} {unit}"),
            ("batch", f"{sweep.recipe.batch_tokens} tokens"),
            ("cell", other.label),
        ],
        f"{axis}.at=[{','.join(f'{x:g}' for i, x in enumerate(at) if i != pair[1])}]",
    )


@dataclass(frozen=True)
class _Seed:
    """The part of a sweep that one seed makes."""

    sweep: Sweep
    corpus: Corpus
    seed: int
    variant: tuple[tuple[str, str], ...]
    begun: dict[
        tuple[Arm, tuple[Depth | Width, ...], int], tuple[Stage, Stage, Recipe | CommandRecipe]
    ] = field(default_factory=dict)
    """What `_start` gave; budgets share it, and with it what stages know of themselves."""
    sources: dict[int, Stage] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        choices = [operators_of(choice) for choice in self.sweep.growth]
        for budget in range(len(self.sweep.budgets.at)):
            for point in range(len(self.sweep.points.at)):
                for operators in choices:
                    yield from self._cell("grow", operators, point, budget)
                yield from self._cell("continue", (), point, budget)
            for operators in choices:
                yield from self._cell("scratch", operators, -1, budget)

    def _cell(
        self, arm: Arm, operators: tuple[Depth | Width, ...], point: int, budget: int
    ) -> Iterator[Cell]:
        growth = label(operators) or "-"
        place: dict[str, Any] = {
            "arm": arm,
            "growth": growth,
            "point": point,
            "budget": budget,
            "seed": self.seed,
        }
        if arm not in self.sweep.arms or any(e.matches(**place) for e in self.sweep.exclude):
            return
        key = (arm, operators, point)
        if key not in self.begun:
            self.begun[key] = self._start(*key)
        source, start, recipe = self.begun[key]
        origin = self.sweep.series[point] if self.sweep.series and point >= 0 else None
        trained = self._branch(
            start, recipe, cost.trained_flops(source), cost.trained_tokens(source), budget
        )
        yield Cell(
            **place,
            of=self.sweep.budgets.of,
            budget_asked=self.sweep.budgets.at[budget],
            budget_unit=self.sweep.budgets.unit,
            source=source,
            trained=trained,
            stage=Stage(Evaluate(suite=self.sweep.suite, corpus=self.corpus), trained),
            annealed=origin.phase == "annealing" if origin else _ended(source),
            origin=origin,
            variant=self.variant,
        )

    def _start(
        self, arm: Arm, operators: tuple[Depth | Width, ...], point: int
    ) -> tuple[Stage, Stage, Recipe | CommandRecipe]:
        """The source, what the branch starts from, and the branch's recipe."""
        trunk = named(self.sweep.recipe)
        branch = branched(self.sweep.branch, trunk)
        if arm == "scratch":
            init = Stage(Init(model=grown(self.sweep.model, operators), seed=self.seed))
            fresh = trunk.model_copy(update={"schedule": branch.schedule})
            return init, init, fresh
        source = self._source(point)
        start = Stage(Grow(operators=operators, seed=self.seed), source) if operators else source
        return source, start, branch

    def _source(self, point: int) -> Stage:
        if point not in self.sources:
            self.sources[point] = self._made_source(point)
        return self.sources[point]

    def _made_source(self, point: int) -> Stage:
        if self.sweep.series:
            return adopted(self.sweep.series[point], self.sweep.model)
        init = Stage(Init(model=self.sweep.model, seed=self.seed))
        asked, recipe = self.sweep.points.at[point], named(self.sweep.recipe)
        each = cost.of_one_token(self.sweep.points.unit, init.model)
        tokens = recipe.batches.nearest(recipe.batches.affordable(asked, each))
        if asked and not tokens:
            first = recipe.batches.at(0)
            raise GrowpointError(
                f"points.at[{point}] is less than one batch",
                [
                    ("asked", f"{asked:g} {self.sweep.points.unit}"),
                    ("batch", f"{first.tokens} tokens"),
                ],
                f"points.at.{point}=0, or at least {first.tokens * each(first):g}",
            )
        if not tokens:
            return init
        # A cosine has no open part, so each of its points is a run of its own.
        ends = recipe.schedule.free_until(tokens) == 0
        do = Train(tokens=tokens, recipe=recipe, corpus=self.corpus, ends=ends, seed=self.seed)
        return Stage(do, init)

    def _branch(
        self,
        start: Stage,
        recipe: Recipe | CommandRecipe,
        sunk_flops: float,
        sunk_tokens: int,
        budget: int,
    ) -> Stage:
        budgets = self.sweep.budgets
        left = budgets.at[budget]
        if budgets.of == "total":
            left = self._left(left, sunk_flops if budgets.unit == "flops" else sunk_tokens)
        each = cost.of_one_token(budgets.unit, start.model)
        tokens = recipe.batches.nearest(recipe.batches.affordable(left, each))
        if not tokens:
            first = recipe.batches.at(0)
            batch = first.tokens * each(first)
            raise GrowpointError(
                f"budgets.at[{budget}] is less than one batch of {_name(start)}",
                [
                    ("left", f"{left:.3g} {budgets.unit}"),
                    ("batch", f"{batch:.3g} {budgets.unit}"),
                ],
                f"budgets.at=[{_suggest(budgets.at[budget] - left + batch)}]",
            )
        do = Train(
            tokens=tokens,
            recipe=recipe,
            corpus=self.corpus,
            ends=recipe.schedule.free_until(tokens) < tokens,
            stream="backward",
            seed=self.seed,
            optimizer_state=carried.state_after(self.sweep.branch.optimizer_state, start),
        )
        return Stage(do, start)

    def _left(self, total: float, sunk: float) -> float:
        if total <= sunk:
            unit = "FLOPs" if self.sweep.budgets.unit == "flops" else "tokens"
            raise GrowpointError(
                "a total budget is smaller than what is already spent",
                [("total", f"{total:.3g} {unit}"), ("sunk", f"{sunk:.3g} {unit}")],
                f"budgets.at=[{_suggest(2 * sunk)}], or leave the point out of points.at",
            )
        return total - sunk


def _ended(source: Stage) -> bool:
    return isinstance(source.do, Train) and source.do.ends


def _suggest(amount: float) -> str:
    return f"{amount:.2g}"


def _name(stage: Stage) -> str:
    model = stage.model
    return f"the {model.layers}-layer, {model.experts}-expert {model.family}"
