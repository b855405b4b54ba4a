"""How a batch is shared out: every row once, whatever the number of ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.shares import Share, share
from sweeps.errors import GrowpointError

SIZES = st.tuples(st.integers(1, 70), st.integers(0, 40), st.integers(1, 70)).filter(
    lambda sizes: sizes[2] <= sizes[0]
)


def parts(mine: Share) -> list[range]:
    """The rows of each part, as they are cut in training."""
    rows = range(mine.first, mine.first + mine.count)
    return [rows[start : start + mine.size] for start in range(0, mine.count, mine.size)]


@given(SIZES)
def test_every_row_is_taken_once_and_in_order(sizes: tuple[int, int, int]) -> None:
    sequences, most, world = sizes
    shares = [share(sequences, most, rank, world) for rank in range(world)]
    taken = [row for mine in shares for part in parts(mine) for row in part]
    assert taken == list(range(sequences))


@given(SIZES)
def test_all_ranks_make_as_many_passes_and_none_is_idle(sizes: tuple[int, int, int]) -> None:
    sequences, most, world = sizes
    shares = [share(sequences, most, rank, world) for rank in range(world)]
    assert len({mine.passes for mine in shares}) == 1
    for mine in shares:
        assert 1 <= len(parts(mine)) <= mine.passes <= len(parts(mine)) + 1
        assert mine.size <= max(1, most)


@given(SIZES)
def test_parts_are_those_of_one_process_where_there_are_enough(sizes: tuple[int, int, int]) -> None:
    sequences, most, world = sizes
    alone = parts(share(sequences, most))
    shares = [share(sequences, most, rank, world) for rank in range(world)]
    together = [part for mine in shares for part in parts(mine)]
    if world * max(1, most) <= sequences:
        assert together == alone


def test_more_ranks_than_rows_are_refused() -> None:
    with pytest.raises(GrowpointError, match="fewer sequences than the job has ranks") as caught:
        share(3, 8, 0, 4)
    assert ("sequences", "3") in [(key, str(value)) for key, value in caught.value.evidence]
