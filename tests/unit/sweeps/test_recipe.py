"""Schedules: what a step's learning rate is, and what shorter and longer phases share."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.recipe import Branch, Constant, Cosine, Recipe, Schedule, Wsd

SCHEDULES: st.SearchStrategy[Any] = st.one_of(
    st.just(Constant()),
    st.builds(
        Wsd,
        cooldown=st.floats(1e-9, 1),
        shape=st.sampled_from(["linear", "sqrt"]),
        final=st.floats(0, 1),
    ),
    st.builds(Cosine, final=st.floats(0, 1)),
)
BATCHES = st.integers(1, 5000)


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"batch_sequences": 2, "sequence_tokens": 8, **changes})


@given(SCHEDULES, BATCHES, st.integers(0, 10**5))
def test_learning_rates_lie_between_zero_and_the_peak(
    schedule: Schedule, batches: int, warmup: int
) -> None:
    made = recipe(lr=1e-2, schedule=schedule, warmup_tokens=warmup)
    for step in {0, batches // 2, batches - 1}:
        for end in (batches * 16, math.inf):
            assert 0 < made.lr_at(step * 16, end) <= 1e-2 or schedule.final == 0  # type: ignore[union-attr]


@given(SCHEDULES, BATCHES)
def test_after_the_warm_up_rates_only_fall(schedule: Schedule, batches: int) -> None:
    rates = [recipe(schedule=schedule).lr_at(t, batches * 16) for t in range(0, batches * 16, 16)]
    assert rates == sorted(rates, reverse=True)


@given(SCHEDULES, BATCHES)
def test_a_phase_is_open_as_long_as_its_end_does_not_matter(
    schedule: Schedule, batches: int
) -> None:
    """Up to `free_until`, a phase that ends takes the very steps of one that does not."""
    made, end = recipe(schedule=schedule, warmup_tokens=160), batches * 16
    free = schedule.free_until(end)
    assert 0 <= free <= end
    for tokens in range(0, free, 16):
        assert made.lr_at(tokens, end) == made.lr_at(tokens, math.inf)


@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_the_warm_up_is_linear_and_never_zero(warmup: int, step: int) -> None:
    made = recipe(lr=1.0, warmup_tokens=warmup)
    ahead = step * 16
    assert made.lr_at(ahead - 16, math.inf) == pytest.approx(min(1.0, ahead / warmup))


def test_wsd_is_constant_then_down() -> None:
    wsd = Wsd(cooldown=0.5, final=0.1)
    assert [wsd.factor(t, 100) for t in (0, 25, 50)] == [1.0, 1.0, 1.0]
    assert wsd.factor(75, 100) == pytest.approx(0.55)
    assert wsd.factor(100, 100) == pytest.approx(0.1)


def test_wsd_by_square_root_falls_faster_at_first() -> None:
    wsd = Wsd(cooldown=0.5, shape="sqrt")
    assert wsd.factor(62.5, 100) == pytest.approx(0.5)
    assert wsd.factor(100, 100) == pytest.approx(0.0)


def test_cosine_is_half_a_wave() -> None:
    cosine = Cosine(final=0.2)
    assert [cosine.factor(t, 100) for t in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])
    assert cosine.free_until(100) == 0


def test_a_branch_changes_what_it_says() -> None:
    trunk = recipe(lr=1e-3, schedule=Wsd(), warmup_tokens=64, weight_decay=0.3)
    assert Branch().recipe(trunk) == trunk
    branch = Branch(lr_ratio=0.5, warmup_tokens=0, schedule=Constant()).recipe(trunk)
    assert branch == recipe(lr=5e-4, schedule=Constant(), warmup_tokens=0, weight_decay=0.3)


def test_a_batch_in_tokens() -> None:
    assert recipe(batch_sequences=3, sequence_tokens=5).batch_tokens == 15


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0}, {"lr": -1}, {"lr": math.nan}, {"clip": 0}, {"beta2": 1}, {"sequence_tokens": 1}],
)
def test_impossible_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe(**wrong)
