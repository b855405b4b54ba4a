"""Batches that change inside a phase: whole steps, one size at every position, and their price."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps import carried, cost
from sweeps.errors import GrowpointError
from sweeps.recipe import Branch, Recipe
from sweeps.stages import Train
from sweeps.steps import BatchStep, SequenceStep
from tests.unit.sweeps.conftest import plan_of, sweep_of

LONGEST = 16
UNTIL = st.lists(st.integers(1, 4000), max_size=3, unique=True).map(sorted)
BATCH_STEPS = UNTIL.flatmap(
    lambda until: st.tuples(
        *(st.builds(BatchStep, until_tokens=st.just(u), sequences=st.integers(1, 9)) for u in until)
    )
)
SEQUENCE_STEPS = UNTIL.flatmap(
    lambda until: st.tuples(
        *(
            st.builds(
                SequenceStep, until_tokens=st.just(u), sequence_tokens=st.sampled_from([2, 4, 8])
            )
            for u in until
        )
    )
)
RECIPES = st.builds(
    Recipe,
    batch_sequences=st.integers(1, 9),
    sequence_tokens=st.just(LONGEST),
    batch_steps=BATCH_STEPS,
    sequence_steps=SEQUENCE_STEPS,
)


def walked(recipe: Recipe, updates: int) -> list[tuple[int, int, int]]:
    """(position, sequences, row) of the first batches, one after the other, as they are said."""
    position, found = 0, []
    for _ in range(updates):
        size = [s.sequences for s in recipe.batch_steps if position < s.until_tokens]
        rows = [s.sequence_tokens for s in recipe.sequence_steps if position < s.until_tokens]
        found.append(
            (position, (size or [recipe.batch_sequences])[0], (rows or [recipe.sequence_tokens])[0])
        )
        position += found[-1][1] * recipe.sequence_tokens
    return found


@given(RECIPES)
def test_every_batch_has_the_sizes_that_hold_where_it_begins(recipe: Recipe) -> None:
    batches = recipe.batches
    for update, (position, sequences, row) in enumerate(walked(recipe, 60)):
        found = batches.at(position)
        assert (found.sequences, found.row_tokens) == (sequences, row)
        assert found.tokens == sequences * LONGEST
        assert batches.updates(position) == update


@given(RECIPES)
def test_phases_are_cut_between_batches(recipe: Recipe) -> None:
    batches, ends = recipe.batches, [position for position, *_ in walked(recipe, 60)]
    for one, other in pairwise(ends):
        for tokens in {one, one + 1, (one + other) // 2, other - 1}:
            assert batches.below(tokens) == one
            assert batches.nearest(tokens) in (one, other)
            assert abs(batches.nearest(tokens) - tokens) <= min(tokens - one, other - tokens)
        assert batches.nearest(one) == one


@given(RECIPES, st.integers(1, 400), st.integers(1, 400))
def test_what_tokens_cost_buys_them(recipe: Recipe, one: int, other: int) -> None:
    model = sweep_of().model
    short, long = sorted((one * LONGEST, other * LONGEST))
    for unit in ("tokens", "flops", "steps"):
        each = cost.of_one_token(unit, model)
        price = recipe.batches.price(long, each)
        assert recipe.batches.affordable(price, each) == pytest.approx(long)
        assert recipe.batches.price(short, each) <= price
    # Every batch counts once.
    assert recipe.batches.price(recipe.batches.below(long), cost.of_one_token("steps", model)) == (
        pytest.approx(recipe.batches.updates(long))
    )


def test_short_rows_cost_less_attention() -> None:
    model = sweep_of().model
    recipe = Recipe(sequence_steps=(SequenceStep(until_tokens=4096, sequence_tokens=32),))
    short, long = (cost.train_flops_per_token(model, length) for length in (32, 128))
    price = recipe.batches.price(6144, cost.of_one_token("flops", model))
    assert price == pytest.approx(4096 * short + 2048 * long)
    assert short < long


def test_a_step_ends_at_the_first_batch_that_begins_beyond_it() -> None:
    made = Recipe(
        batch_sequences=4,
        sequence_tokens=8,
        batch_steps=(
            BatchStep(until_tokens=17, sequences=1),
            BatchStep(until_tokens=20, sequences=3),
            BatchStep(until_tokens=60, sequences=2),
        ),
    )
    # three batches of 8 reach 24, which is beyond the second step; three of 16 reach 72
    assert [(s.first_token, s.first_update, s.tokens) for s in made.batches.stretches] == [
        (0, 0, 8),
        (24, 3, 16),
        (72, 6, 32),
    ]
    assert made.batches.largest(24) == 1
    assert made.batches.largest(25) == 2
    assert made.batches.largest(1000) == 4


def test_a_warm_up_counts_the_tokens_of_the_batch_at_hand() -> None:
    made = Recipe(
        lr=1.0,
        warmup_tokens=64,
        batch_sequences=4,
        sequence_tokens=8,
        batch_steps=(BatchStep(until_tokens=16, sequences=1),),
    )
    assert [made.lr_at(t, 1e9) for t in (0, 8, 16, 48)] == [8 / 64, 16 / 64, 48 / 64, 1.0]


STEPS: dict[str, Any] = {
    "batch_steps": [{"until_tokens": 5000, "sequences": 4}],
    "sequence_steps": [{"until_tokens": 9000, "sequence_tokens": 32}],
}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True))
@settings(max_examples=20, deadline=None)
def test_every_stage_of_a_plan_is_whole_batches_long(at: list[int]) -> None:
    plan = plan_of(
        points={"at": [0, 30000]},
        budgets={"of": "extra", "unit": "tokens", "at": [3000 * amount for amount in at]},
        recipe={**STEPS, "schedule": {"kind": "wsd"}},
        growth=[{"kind": "depth"}],
    )
    for stage in plan.stages:
        if isinstance(stage.do, Train):
            assert stage.do.recipe.batches.below(stage.do.tokens) == stage.do.tokens


def test_branches_begin_as_the_trunk_does_unless_told() -> None:
    trunk = Recipe(**STEPS)
    assert Branch().recipe(trunk).batch_steps == trunk.batch_steps
    plain = Branch(batch_steps=(), sequence_steps=()).recipe(trunk)
    assert len(plain.batches.stretches) == 1
    assert plain == Recipe()
    other = Branch.model_validate({"sequence_steps": [{"until_tokens": 1, "sequence_tokens": 48}]})
    with pytest.raises(GrowpointError, match="cannot be cut into equal rows"):
        other.recipe(trunk)


def test_points_in_steps_are_updates() -> None:
    plan = plan_of(points={"unit": "steps", "at": [0, 2, 5]}, recipe=STEPS)
    # batches of 4 × 128 up to 5120, which is the first end beyond 5000
    assert {cell.sunk_tokens for cell in plan.cells} == {0, 1024, 2560}
    later = plan_of(points={"unit": "steps", "at": [12]}, recipe=STEPS)
    assert later.cells[0].sunk_tokens == 5120 + 2 * 2048


def test_carried_moments_have_seen_every_update() -> None:
    plan = plan_of(
        points={"unit": "steps", "at": [12]}, recipe=STEPS, branch={"optimizer_state": "carried"}
    )
    assert {carried.updates_before(cell.trained) for cell in plan.cells if cell.point == 0} == {12}


def test_steps_are_part_of_a_stage_and_none_are_not() -> None:
    plain = {stage.id for stage in plan_of().stages if isinstance(stage.do, Train)}
    said = {"recipe": {"lr": 3e-3, "batch_steps": []}, "branch": {"sequence_steps": []}}
    assert plain == {s.id for s in plan_of(**said).stages if isinstance(s.do, Train)}
    stepped = plan_of(recipe={"lr": 3e-3, **STEPS}).stages
    assert not plain & {stage.id for stage in stepped}


@pytest.mark.parametrize(
    ("changes", "says", "help"),
    [
        (
            {"sequence_steps": [{"until_tokens": 9, "sequence_tokens": 48}]},
            "cannot be cut into equal rows",
            "sequence_steps.0.sequence_tokens=32",
        ),
        (
            {"sequence_steps": [{"until_tokens": 9, "sequence_tokens": 256}]},
            "cannot be cut into equal rows",
            "sequence_steps.0.sequence_tokens=128",
        ),
        (
            {"batch_steps": [{"until_tokens": 9, "sequences": n} for n in (1, 2)]},
            "the steps of batch_steps are not in order",
            "name each `until_tokens` once, the smallest first",
        ),
    ],
)
def test_steps_that_make_no_sense(changes: dict[str, Any], says: str, help: str) -> None:
    with pytest.raises(GrowpointError, match=says) as error:
        Recipe(**changes)
    assert error.value.help == help


@pytest.mark.parametrize("wrong", [{"until_tokens": 0}, {"sequences": 0}, {"until_tokens": 1.5}])
def test_steps_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        BatchStep.model_validate({"until_tokens": 8, "sequences": 2, **wrong})
