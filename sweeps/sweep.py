"""Sweep: a question as axes, and the cells it expands to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from sweeps import cost
from sweeps.data import Corpus, Data, Tokens
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, GrowthChoice, Width, grown, label, operators_of
from sweeps.model import Model
from sweeps.recipe import Branch, Recipe, Suite
from sweeps.schema import Description
from sweeps.stages import Evaluate, Grow, Init, Stage, Train

Arm = Literal["grow", "continue", "scratch"]
Unit = Literal["tokens", "flops"]
PositiveAmount = Annotated[float, Field(gt=0)]


class Points(Description):
    """Where the source's trunk is left: tokens or FLOPs sunk so far; 0 is the untrained network."""

    unit: Unit = "tokens"
    at: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "Points":
        if len(set(self.at)) != len(self.at):
            raise ValueError("a point is named twice")
        return self


class Budgets(Description):
    """What may be spent: `extra` after the source point, or in `total` with what is sunk."""

    of: Literal["extra", "total"] = "extra"
    unit: Unit = "flops"
    at: Annotated[tuple[PositiveAmount, ...], Field(min_length=1)]


class Exclude(Description):
    """Cells that are left out: those that match every field given here."""

    arm: tuple[Arm, ...] = ()
    growth: tuple[str, ...] = ()
    point: tuple[int, ...] = ()
    budget: tuple[int, ...] = ()
    seed: tuple[int, ...] = ()

    def matches(self, **cell: object) -> bool:
        """Whether a cell with these values is left out."""
        asked = {name: values for name, values in self if values}
        return bool(asked) and all(cell.get(name) in values for name, values in asked.items())


class Sweep(Description):
    """One question: sources × growth × budgets × arms × seeds, under one recipe."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    title: str = ""
    model: Model
    points: Points
    budgets: Budgets
    growth: tuple[GrowthChoice, ...] = ()
    arms: tuple[Arm, ...] = ("grow", "continue", "scratch")
    recipe: Recipe
    branch: Branch = Branch()
    data: Data
    suite: Suite
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    exclude: tuple[Exclude, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Sweep":
        data = self.data
        needed = data.vocabulary if isinstance(data, Tokens) else data.tokenizer.vocabulary
        if needed > self.model.vocabulary:
            raise GrowpointError(
                "the data has more tokens than the model's vocabulary",
                [("data", needed), ("model", self.model.vocabulary)],
                f"model.vocabulary={needed}",
            )
        longest = max(self.recipe.sequence_tokens, self.suite.sequence_tokens)
        if longest > self.model.positions:
            raise GrowpointError(
                "sequences are longer than the model's positions",
                [("sequences", longest), ("positions", self.model.positions)],
                f"model.positions={longest}",
            )
        names = [label(operators_of(choice)) for choice in self.growth]
        if len(set(names)) != len(names):
            raise GrowpointError(
                "the growth axis names one operator twice",
                [("growth", ", ".join(names))],
                "give each entry of `growth` a kind, order, factor or noise of its own",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the answer: an arm at a growth point, with a budget, for one seed."""

    arm: Arm
    growth: str
    point: int
    budget: int
    seed: int
    of: Literal["extra", "total"]
    budget_asked: float
    budget_unit: Unit
    source: Stage
    trained: Stage
    stage: Stage
    annealed: bool
    variant: tuple[tuple[str, str], ...] = ()

    @property
    def sunk_tokens(self) -> int:
        """Tokens of the source checkpoint; 0 when starting over."""
        return cost.trained_tokens(self.source)

    @property
    def sunk_flops(self) -> float:
        """FLOPs of the source checkpoint; 0 when starting over."""
        return cost.trained_flops(self.source)

    @property
    def extra_tokens(self) -> int:
        """Tokens trained after the source point."""
        return cost.trained_tokens(self.trained) - self.sunk_tokens

    @property
    def extra_flops(self) -> float:
        """FLOPs trained after the source point."""
        return cost.flops(self.trained)

    @property
    def label(self) -> str:
        """`grow depth x2 · sunk 8.0e17 · extra 4.0e17 · seed 0`."""
        words = [self.arm if self.growth == "-" else f"{self.arm} {self.growth}"]
        words += [
            f"sunk {self.sunk_flops:.2g}",
            f"extra {self.extra_flops:.2g}",
            f"seed {self.seed}",
        ]
        return " · ".join(words + [f"{key}={value}" for key, value in self.variant])


def expand(sweep: Sweep, corpus: Corpus, variant: tuple[tuple[str, str], ...] = ()) -> list[Cell]:
    """All cells of one sweep, in a fixed order. Raises GrowpointError for impossible budgets."""
    return [cell for seed in sweep.seeds for cell in _Seed(sweep, corpus, seed, variant).cells()]


@dataclass(frozen=True)
class _Seed:
    """The part of a sweep that one seed makes."""

    sweep: Sweep
    corpus: Corpus
    seed: int
    variant: tuple[tuple[str, str], ...]

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
        source, start, recipe = self._start(arm, operators, point)
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
            annealed=isinstance(source.do, Train) and source.do.ends,
            variant=self.variant,
        )

    def _start(
        self, arm: Arm, operators: tuple[Depth | Width, ...], point: int
    ) -> tuple[Stage, Stage, Recipe]:
        """The source, what the branch starts from, and the branch's recipe."""
        trunk, branch = self.sweep.recipe, self.sweep.branch.recipe(self.sweep.recipe)
        if arm == "scratch":
            init = Stage(Init(model=grown(self.sweep.model, operators), seed=self.seed))
            fresh = trunk.model_copy(update={"schedule": branch.schedule})
            return init, init, fresh
        source = self._source(point)
        start = Stage(Grow(operators=operators, seed=self.seed), source) if operators else source
        return source, start, branch

    def _source(self, point: int) -> Stage:
        init = Stage(Init(model=self.sweep.model, seed=self.seed))
        asked, recipe = self.sweep.points.at[point], self.sweep.recipe
        each = _flops_per_token(init, recipe) if self.sweep.points.unit == "flops" else 1.0
        tokens = _whole_batches(asked / each, recipe)
        if asked and not tokens:
            raise GrowpointError(
                f"points.at[{point}] is less than one batch",
                [
                    ("asked", f"{asked:g} {self.sweep.points.unit}"),
                    ("batch", f"{recipe.batch_tokens} tokens"),
                ],
                f"points.at.{point}=0, or at least {recipe.batch_tokens * each:g}",
            )
        if not tokens:
            return init
        # A cosine has no open part, so each of its points is a run of its own.
        ends = recipe.schedule.free_until(tokens) == 0
        do = Train(tokens=tokens, recipe=recipe, corpus=self.corpus, ends=ends, seed=self.seed)
        return Stage(do, init)

    def _branch(
        self, start: Stage, recipe: Recipe, sunk_flops: float, sunk_tokens: int, budget: int
    ) -> Stage:
        budgets = self.sweep.budgets
        left = budgets.at[budget]
        if budgets.of == "total":
            left = self._left(left, sunk_flops if budgets.unit == "flops" else sunk_tokens)
        each = _flops_per_token(start, recipe) if budgets.unit == "flops" else 1.0
        tokens = _whole_batches(left / each, recipe)
        if not tokens:
            raise GrowpointError(
                f"budgets.at[{budget}] is less than one batch of {_name(start)}",
                [
                    ("left", f"{left:.3g} {budgets.unit}"),
                    ("batch", f"{recipe.batch_tokens * each:.3g} {budgets.unit}"),
                ],
                f"budgets.at=[{_suggest(budgets.at[budget] - left + recipe.batch_tokens * each)}]",
            )
        do = Train(
            tokens=tokens,
            recipe=recipe,
            corpus=self.corpus,
            ends=recipe.schedule.free_until(tokens) < tokens,
            stream="backward",
            seed=self.seed,
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


def _suggest(amount: float) -> str:
    return f"{amount:.2g}"


def _name(stage: Stage) -> str:
    model = stage.model
    return f"the {model.layers}-layer, {model.experts}-expert {model.family}"


def _flops_per_token(stage: Stage, recipe: Recipe) -> float:
    return cost.train_flops_per_token(stage.model, recipe.sequence_tokens)


def _whole_batches(tokens: float, recipe: Recipe) -> int:
    """`tokens` rounded to the nearest whole number of batches."""
    return round(tokens / recipe.batch_tokens) * recipe.batch_tokens
