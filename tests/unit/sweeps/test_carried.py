"""Carried optimizer states: whose they are, how old, what growth lies between, when refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import carried
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from sweeps.plan import to_json
from sweeps.recipe import Recipe
from sweeps.schema import asked
from sweeps.stages import Adopted, Grow, Stage, Train, build
from tests.unit.sweeps.conftest import CORPUS, plan_of

CARRIED = {"optimizer_state": "carried"}
RECIPE = Recipe(batch_sequences=4, sequence_tokens=8)


def after(start: Stage, batches: int, state: str = "carried", **more: object) -> Stage:
    tokens = batches * RECIPE.batch_tokens
    fields = {"tokens": tokens, "recipe": RECIPE, "corpus": CORPUS, "optimizer_state": state}
    return Stage(Train.model_validate({**fields, **more}), start)


def init() -> Stage:
    return next(stage for stage in plan_of().stages if stage.do.kind == "init")


def test_fresh_is_the_default_and_in_no_text() -> None:
    plan = plan_of()
    assert all("optimizer_state" not in stage.text for stage in plan.stages)
    fresh = plan_of(branch={"optimizer_state": "fresh"})
    assert to_json(fresh) == to_json(plan)


def test_branches_of_trained_sources_carry_and_all_else_is_as_before() -> None:
    fresh, plan = plan_of(), plan_of(branch=CARRIED)
    before, now = ({stage.id for stage in p.stages} for p in (fresh, plan))
    for stage in plan.stages:
        branched = isinstance(stage.do, Train) and stage.do.stream == "backward"
        trained = any(isinstance(s.do, Train) for s in list(stage.lineage)[:-1])
        carries = isinstance(stage.do, Train) and stage.do.optimizer_state == "carried"
        assert carries == (branched and trained)
    # trunks, growths, and the branches of new networks, whose moments are zero either way
    for stage in plan.stages:
        if not any("carried" in s.text for s in stage.lineage):
            assert stage.id in before
    assert len(before & now) < len(now)
    assert len(fresh.cells) == len(plan.cells)


def test_a_carried_stage_survives_its_own_text() -> None:
    for stage in plan_of(branch=CARRIED).stages:
        known = {one.id: one for one in stage.lineage}
        assert build(stage.text, known.__getitem__) == stage
        if "carried" in stage.text:
            assert asked(stage.do)["optimizer_state"] == "carried"


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.sampled_from(["fresh", "carried"]), st.integers(0, 2)),
        min_size=1,
        max_size=5,
    )
)
def test_updates_are_counted_since_the_last_fresh_start(
    phases: list[tuple[int, str, int]],
) -> None:
    stage, expected = init(), 0
    for number, (batches, state, growths) in enumerate(phases):
        state = state if number else "fresh"
        expected = expected if state == "carried" else 0
        trunk = stage
        for _ in range(growths):
            stage = Stage(Grow(operators=(Depth(), Width(noise=0))), stage)
        stage = after(stage, batches, state)
        assert carried.updates_before(stage) == expected
        if state == "carried":
            assert carried.source(stage) == trunk
            assert carried.growths(stage) == (Depth(), Width(noise=0)) * growths
        else:
            assert carried.source(stage) is None
        expected += batches


def test_growths_are_in_the_order_they_happen() -> None:
    trunk = after(init(), 3, "fresh")
    first = Stage(Grow(operators=(Depth(), Width(noise=0))), trunk)
    second = Stage(Grow(operators=(Depth(order="stack"),)), first)
    found = carried.growths(after(second, 1))
    assert found == (Depth(), Width(noise=0), Depth(order="stack"))


def test_a_source_whose_schedule_ended_is_refused_when_planned() -> None:
    changed = {"lr": 3e-3, "schedule": {"kind": "cosine"}}
    with pytest.raises(GrowpointError) as caught:
        plan_of(recipe=changed, branch=CARRIED, points={"at": [20480]})
    assert "no optimizer state" in caught.value.problem
    assert ("schedule", "cosine") in caught.value.evidence
    assert "branch.optimizer_state=fresh" in caught.value.help
    # its way out is one
    plan_of(recipe=changed, branch={"optimizer_state": "fresh"}, points={"at": [20480]})
    plan_of(branch=CARRIED, points={"at": [20480]})


def test_open_points_of_a_schedule_that_ends_later_carry() -> None:
    plan = plan_of(recipe={"lr": 3e-3, "schedule": {"kind": "wsd"}}, branch=CARRIED)
    carrying = [stage for stage in plan.stages if carried.source(stage)]
    assert carrying
    for stage in carrying:
        source = carried.source(stage)
        assert source is not None
        assert isinstance(source.do, Train)
        assert not source.do.ends


def test_an_unfit_lineage_is_no_silent_fresh_start() -> None:
    ended = after(init(), 4, "fresh", ends=True)
    for start in (init(), ended):
        with pytest.raises(ValueError, match="leaves no optimizer state"):
            carried.source(after(start, 1))


def test_an_adopted_checkpoint_has_no_state_to_carry() -> None:
    fresh, content = init(), Adopted(content="sha256:" + "0" * 64)
    adopted = Stage(fresh.do.model_copy(update={"adopted": content}))
    for start in (adopted, Stage(Grow(operators=(Depth(),)), adopted)):
        assert carried.state_after("fresh", start) == "fresh"
        with pytest.raises(GrowpointError, match="adopted") as caught:
            carried.state_after("carried", start)
        assert caught.value.help == "branch.optimizer_state=fresh"
    assert carried.state_after("carried", fresh) == "fresh"
