"""The exclusions that leave just the wanted cells."""

import itertools
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from sweeps.exclude import Arm
from sweeps.only import Coordinates, only

EVERY = [
    Coordinates(arm, growth, point, budget, seed)
    for arm in get_args(Arm)
    for growth, point in {
        "grow": [*itertools.product(["depth x2", "width x2"], range(3))],
        "continue": [("-", point) for point in range(3)],
        "scratch": [("depth x2", -1), ("width x2", -1)],
    }[arm]
    for budget in range(2)
    for seed in range(2)
]


@given(st.sets(st.sampled_from(EVERY), min_size=1))
def test_just_the_wanted_cells_stay(kept: set[Coordinates]) -> None:
    left_out = only({cell: cell in kept for cell in EVERY})
    stays = {cell for cell in EVERY if not any(e.matches(**cell._asdict()) for e in left_out)}
    assert stays == kept


def test_a_whole_sweep_needs_no_exclusion() -> None:
    assert only(dict.fromkeys(EVERY, True)) == ()


def test_what_is_alike_is_said_once() -> None:
    (entry,) = only({cell: cell.seed == 0 for cell in EVERY})
    assert entry.model_dump(exclude_defaults=True) == {"seed": (1,)}
    assert len(only({cell: cell.seed == 0 or cell == EVERY[-1] for cell in EVERY})) <= 3
