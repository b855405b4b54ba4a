"""A launched sweep and the cells that it could have beside those that are done."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from analysis.beliefs import Place
from analysis.charges import Charges
from analysis.sample import Which
from orchestrator.store import Store, write_atomic
from sweeps import config, data
from sweeps.amounts import Budgets, Points
from sweeps.cell import Cell
from sweeps.config import Request
from sweeps.data import Corpus
from sweeps.errors import GrowpointError
from sweeps.exclude import NO_GROWTH, NO_POINT
from sweeps.only import Coordinates, only
from sweeps.schema import asked, canonical
from sweeps.sweep import Sweep, expand

_FIXED = ("points", "budgets", "seeds", "arms", "exclude", "series")  # of which no axis may be
LONG = 2.0  # times the largest budget: a run beyond the measured ones fixes the level of the laws
_LATE = 1.5  # times the latest point


@dataclass(frozen=True)
class Candidate:
    """A run that could be made; in a sweep with further axes, one in each variant."""

    label: str
    places: tuple[Place, ...]
    cells: tuple[Cell, ...] = ()
    growth_point: float | None = None  # in the unit of the points; None when starting over

    @property
    def seed(self) -> int | None:
        """Of the cells; None where it is not known."""
        return self.cells[0].seed if self.cells else None

    @property
    def budget(self) -> float:
        """In the unit and of the kind of the sweep's budgets."""
        return self.cells[0].budget_asked


def between(values: Sequence[float], beyond: float) -> list[float]:
    """Values halfway between neighbours, by ratio where both are positive, and one beyond."""
    found = []
    for low, high in itertools.pairwise(sorted(values)):
        found.append(math.sqrt(low * high) if low else high / 2)
    found.append(max(values) * beyond)
    return [float(f"{value:.3g}") for value in found if value > 0]


@dataclass(frozen=True)
class Extension:
    """What a launched sweep asked for, what of it is done, and what more would cost."""

    name: str
    request: Request
    corpora: tuple[Corpus, ...]  # of each variant
    charges: Charges
    kept: tuple[tuple[Coordinates, Cell], ...]  # finished cells
    missing: tuple[str, ...]  # evaluate stages of the others

    @classmethod
    def of(cls, store: Store, name: str) -> "Extension":
        """Read what was launched under a name.

        Raises GrowpointError if its configuration is gone or has axes that single cells cannot
        be added to.
        """
        path = store.plan_folder(name) / "config.yaml"
        if not path.is_file():
            raise GrowpointError(
                f"the configuration of sweep `{name}` is not in its store",
                [("file", path)],
                f"growpoint launch {name}",
            )
        request = config.load(str(path))
        _require_free(request)
        corpora = tuple(data.corpus(sweep.data) for sweep in _distinct(request))
        by_data = {
            canonical(asked(sweep.data)): corpus
            for sweep, corpus in zip(_distinct(request), corpora, strict=True)
        }
        each = tuple(by_data[canonical(asked(sweep.data))] for sweep, _ in request.sweeps)
        charges = Charges.of(store)
        cells = [
            (Coordinates(cell.arm, cell.growth, cell.point, cell.budget, cell.seed), cell)
            for (sweep, variant), corpus in zip(request.sweeps, each, strict=True)
            for cell in expand(sweep, corpus, variant)
        ]
        kept = tuple(pair for pair in cells if charges.finished(pair[1]))
        missing = tuple(cell.stage.id for _, cell in cells if not charges.finished(cell))
        return cls(name, request, each, charges, kept, missing)

    @property
    def sweep(self) -> Sweep:
        """The first variant; all have the same points, budgets and seeds."""
        return self.request.sweeps[0][0]

    @property
    def unfinished(self) -> int:
        """How many cells of the sweep are not done."""
        return len(self.missing)

    def lost(self, chosen: Sequence[Candidate]) -> int:
        """How many unfinished cells of the sweep are not among the chosen ones."""
        return len({*self.missing} - {cell.stage.id for each in chosen for cell in each.cells})

    def candidates(self) -> list[Candidate]:
        """Cells at points and budgets of the sweep, between them and a little beyond, not run yet.

        Further seeds are offered where the sweep has points and budgets of its own.
        """
        points, budgets, seeds = self.sweep.points.at, self.sweep.budgets.at, self.sweep.seeds
        late = [] if self.sweep.series else between(points, _LATE)
        more = [*budgets, *between(budgets, LONG)]
        grid = [*itertools.product(dict.fromkeys([*points, *late]), dict.fromkeys(more), seeds)]
        grid += [*itertools.product(points, budgets, [max(seeds) + 1])]
        seen = {cell.stage.id for _, cell in self.kept}
        found = []
        for arm in self.sweep.arms:
            for place in (
                grid if arm != "scratch" else [each for each in grid if each[0] == points[0]]
            ):
                for candidate in self._at(arm, *place):
                    ids = {cell.stage.id for cell in candidate.cells}
                    if not ids <= seen:
                        found.append(candidate)
                        seen |= ids
        return found

    def _at(self, arm: str, point: float, budget: float, seed: int) -> Iterator[Candidate]:
        """The cells of one arm at one place, by growth; none where the sweep cannot have one."""
        growths: dict[str, list[Cell]] = {}
        for (sweep, variant), corpus in zip(self.request.sweeps, self.corpora, strict=True):
            for cell in _single(sweep, corpus, variant, arm, point, budget, seed):
                growths.setdefault(cell.growth, []).append(cell)
        for cells in growths.values():
            label = cells[0].label.split(" · " + _variant_words(cells[0]))[0]
            where = None if arm == "scratch" else point
            yield Candidate(label, tuple(map(_place, cells)), tuple(cells), where)

    def flops(self, chosen: Sequence[Candidate]) -> float:
        """What a launch would charge for these beside all that is done."""
        return self.charges.flops([cell for each in chosen for cell in each.cells])

    def write(self, path: Path, chosen: Sequence[Candidate]) -> None:
        """Write the sweep with its finished cells and the chosen ones, for `launch`.

        Its name stays, so that results are learned from together; its new points, budgets and
        seeds stand behind the others. Raises GrowpointError if the file cannot be written.
        """
        head = (
            f"# Sweep {self.name}: its {len(self.kept)} finished cells and {len(chosen)} more, "
            "by `growpoint next`.\n"
        )
        text = yaml.safe_dump(self.extended(chosen), sort_keys=False, allow_unicode=True)
        write_atomic(path, (head + text).encode())

    def extended(self, chosen: Sequence[Candidate]) -> dict[str, Any]:
        """The recorded configuration with the chosen cells added and all unfinished ones left."""
        axes = _Axes.of(self.sweep, chosen)
        wanted = dict.fromkeys(axes.coordinates([sweep for sweep, _ in self.request.sweeps]), False)
        wanted |= dict.fromkeys((where for where, _ in self.kept), True)
        wanted |= dict.fromkeys((axes.of_candidate(each) for each in chosen), True)
        said = dict(self.request.config)
        if axes.points != self.sweep.points.at:
            said["points"] = {**said["points"], "at": list(axes.points)}
        said["budgets"] = {**said["budgets"], "at": list(axes.budgets)}
        said["seeds"] = list(axes.seeds)
        left = only(wanted)
        said["exclude"] = [each.model_dump(mode="json", exclude_defaults=True) for each in left]
        return {**said, "name": self.name, "store": str(self.charges.store.root)}


@dataclass(frozen=True)
class _Axes:
    """Points, budgets and seeds of an extended sweep: the old ones first."""

    points: tuple[float, ...]
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, sweep: Sweep, chosen: Sequence[Candidate]) -> "_Axes":
        points = [each.growth_point for each in chosen if each.growth_point is not None]
        return cls(
            tuple(dict.fromkeys([*sweep.points.at, *points])),
            tuple(dict.fromkeys([*sweep.budgets.at, *(each.budget for each in chosen)])),
            tuple(dict.fromkeys([*sweep.seeds, *(each.cells[0].seed for each in chosen)])),
        )

    def coordinates(self, sweeps: Sequence[Sweep]) -> Iterator[Coordinates]:
        """Every cell that the sweep would have without exclusions."""
        growths = dict.fromkeys(name for sweep in sweeps for name in sweep.growths)
        points = range(len(self.points))
        places = {
            "grow": [*itertools.product(growths, points)],
            "continue": [(NO_GROWTH, point) for point in points],
            "scratch": [(growth, NO_POINT) for growth in growths],
        }
        for arm in sweeps[0].arms:
            for (growth, point), budget, seed in itertools.product(
                places[arm], range(len(self.budgets)), self.seeds
            ):
                yield Coordinates(arm, growth, point, budget, seed)

    def of_candidate(self, each: Candidate) -> Coordinates:
        """Where a candidate stands in the extended sweep."""
        cell, at = each.cells[0], each.growth_point
        point = NO_POINT if at is None else self.points.index(at)
        budget = self.budgets.index(each.budget)
        return Coordinates(cell.arm, cell.growth, point, budget, cell.seed)


def _distinct(request: Request) -> list[Sweep]:
    """One variant for each kind of data."""
    return [*{canonical(asked(sweep.data)): sweep for sweep, _ in request.sweeps}.values()]


def _require_free(request: Request) -> None:
    keys = [key for axis in request.config["axes"] for key in (axis.get("zip") or [axis["key"]])]
    taken = [key for key in keys if key.split(".")[0] in _FIXED]
    if taken:
        raise GrowpointError(
            f"single cells cannot be added to a sweep with an axis {taken[0]}",
            [("axes", ", ".join(keys))],
            f"add cells by hand: growpoint plan {request.name} --config",
        )


def _single(
    sweep: Sweep,
    corpus: Corpus,
    variant: tuple[tuple[str, str], ...],
    arm: str,
    point: float,
    budget: float,
    seed: int,
) -> list[Cell]:
    """The cells at one place; none where rounding or a total leaves nothing to train."""
    at = sweep.points.at.index(point) if sweep.series else 0
    changes = {
        "arms": (arm,),
        "points": Points(unit=sweep.points.unit, at=(point,)),
        "series": sweep.series[at : at + 1],
        "budgets": Budgets(of=sweep.budgets.of, unit=sweep.budgets.unit, at=(budget,)),
        "seeds": (seed,),
        "exclude": (),
    }
    try:
        return expand(sweep.model_copy(update=changes), corpus, variant)
    except GrowpointError:
        return []


def _variant_words(cell: Cell) -> str:
    return " · ".join(f"{key}={value}" for key, value in cell.variant) or "\n"


def _place(cell: Cell) -> Place:
    variant = ", ".join(f"{key}={value}" for key, value in sorted(cell.variant))
    return Place(Which(variant, cell.arm, cell.growth), cell.sunk_flops, cell.extra_flops)
