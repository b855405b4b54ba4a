"""A launched sweep and what could be added to it: costs, and the sweep that is written."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from analysis.extension import Candidate, Extension
from orchestrator.show_plan import to_json
from orchestrator.store import Store
from sweeps import config, cost, data, plan
from sweeps.config import Request
from sweeps.errors import GrowpointError
from sweeps.plan import Plan
from sweeps.schema import asked, canonical
from sweeps.stages import Init, Train

WORDS = [
    "points.at=[0,81920,163840]",
    "budgets.at=[1e11,2e11]",
    "growth=depth",
    "exclude=[{arm: [scratch], budget: [1]}]",
    "data=text",
]


def planned(request: Request) -> Plan:
    corpora = {canonical(asked(s.data)): data.corpus(s.data) for s, _ in request.sweeps}
    return plan.plan(request.name, request.sweeps, corpora)


@dataclass(frozen=True)
class Launched:
    """A store in which a sweep was launched."""

    store: Store
    plan: Plan

    def finish(self, *left: str) -> "Launched":
        """Every stage is done but those `left`."""
        for stage in self.plan.stages:
            if stage.id not in left:
                self.store.ask(stage)
                self.store.finish(stage.id, {"stage": stage.id})
        return self


def launched(root: Path, *words: str) -> Launched:
    """As `launch` leaves the store, before any job has run."""
    (root / "texts").mkdir()
    (root / "texts" / "one.txt").write_text("some words " * 100)
    store = Store(root / "store").open()
    given = [*WORDS, f"data.paths=[{root / 'texts'}]", f"store={store.root}", *words]
    request = config.load("demo", given)
    made = planned(request)
    folder = store.plan_folder("demo")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(request.config), sort_keys=False))
    (folder / "plan.json").write_text(json.dumps(plan.to_json(made)))
    return Launched(store, made)


def one(extension: Extension, arm: str, **where: float | None) -> Candidate:
    """The candidate of an arm at a place."""
    found = [
        each
        for each in extension.candidates()
        if each.cells[0].arm == arm
        and all(getattr(each, name) == value for name, value in where.items())
    ]
    assert len(found) == 1, [each.label for each in found]
    return found[0]


def test_shared_trunks_and_shorter_branches_cost_nothing(tmp_path: Path) -> None:
    extension = Extension.of(launched(tmp_path).finish().store, "demo")
    longer = one(extension, "continue", growth_point=163840, budget=4e11, seed=0)
    cell = longer.cells[0]
    evaluation = cost.flops(cell.stage)
    # the trunk and the first 2e11 are there
    assert extension.flops([longer]) == pytest.approx(2e11 + evaluation, rel=0.02)
    shorter = one(extension, "continue", growth_point=163840, budget=141000000000.0, seed=0)
    assert extension.flops([shorter]) == pytest.approx(0.41e11 + evaluation, rel=0.05)
    # another seed shares nothing, a later point the trunk up to the last one
    seed = one(extension, "continue", growth_point=163840, budget=2e11, seed=1)
    assert extension.flops([seed]) == pytest.approx(
        cell.sunk_flops + seed.cells[0].extra_flops + evaluation
    )
    # two of its budgets share the trunk and the branch up to the smaller one
    half = one(extension, "continue", growth_point=163840, budget=1e11, seed=1)
    assert extension.flops([seed, half]) == pytest.approx(extension.flops([seed]) + evaluation)
    late = one(extension, "continue", growth_point=246000.0, budget=1e11, seed=0)
    assert extension.flops([late]) < late.cells[0].sunk_flops / 2 + 1.1e11 + evaluation


def test_what_is_done_is_not_offered_and_what_is_not_is(tmp_path: Path) -> None:
    sweep = launched(tmp_path)
    left = sweep.plan.cells[0].stage.id
    extension = Extension.of(sweep.finish(left).store, "demo")
    offered = [cell.stage.id for each in extension.candidates() for cell in each.cells]
    assert len(offered) == len(set(offered))
    assert set(offered) & {cell.stage.id for cell in sweep.plan.cells} == {left}
    # the cell that the sweep had left out
    assert one(extension, "scratch", budget=2e11, seed=0).growth_point is None
    assert extension.unfinished == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_written_sweep_has_the_finished_cells_and_the_chosen_ones(
    tmp_path: Path, count: int
) -> None:
    sweep = launched(tmp_path)
    left = sweep.plan.cells[0].stage.id
    extension = Extension.of(sweep.finish(left).store, "demo")
    offered = extension.candidates()
    chosen = offered[3 :: len(offered) // count][:count]
    extension.write(tmp_path / "next.yaml", chosen)
    request = config.load(str(tmp_path / "next.yaml"))
    made = planned(request)
    assert made.name == "demo"
    wanted = {cell.stage.id for cell in sweep.plan.cells} - {left}
    wanted |= {cell.stage.id for each in chosen for cell in each.cells}
    assert {cell.stage.id for cell in made.cells} == wanted
    shown = to_json(sweep.store, made, request.cluster)
    assert shown["flops_to_spend"] == pytest.approx(extension.flops(chosen))
    assert shown["done"] > 0
    finished = [s for s in made.stages if isinstance(s.do, Init | Train) and s.after is None]
    assert any(sweep.store.done(stage.id) for stage in finished)
    assert extension.lost(chosen) == (left not in wanted)


def test_a_further_axis_runs_each_candidate_in_every_variant(tmp_path: Path) -> None:
    sweep = launched(tmp_path, "recipe.lr=1e-3,2e-3").finish()
    extension = Extension.of(sweep.store, "demo")
    candidate = one(extension, "grow", growth_point=81920, budget=4e11, seed=0)
    assert [place.which.variant for place in candidate.places] == [
        "recipe.lr=0.001",
        "recipe.lr=0.002",
    ]
    assert "recipe.lr" not in candidate.label
    extension.write(tmp_path / "next.yaml", [candidate])
    made = planned(config.load(str(tmp_path / "next.yaml")))
    new = {cell.stage.id for cell in made.cells} - {cell.stage.id for cell in sweep.plan.cells}
    assert new == {cell.stage.id for cell in candidate.cells}


def test_an_axis_of_points_is_refused(tmp_path: Path) -> None:
    sweep = launched(tmp_path, "budgets.of=extra,total", "points.at=[0]").finish()
    with pytest.raises(GrowpointError, match=r"axis budgets\.of"):
        Extension.of(sweep.store, "demo")


def test_a_lost_configuration_is_said(tmp_path: Path) -> None:
    sweep = launched(tmp_path).finish()
    (sweep.store.plan_folder("demo") / "config.yaml").unlink()
    with pytest.raises(GrowpointError, match="configuration of sweep `demo`"):
        Extension.of(sweep.store, "demo")
