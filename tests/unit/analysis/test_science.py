"""The verdicts of `benchmarks/science.py` follow from intervals, and intervals from runs."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import science_page
from benchmarks.science_tables import (
    CLAIMS,
    CLOSE,
    CONTINUE,
    DEPTH,
    NOT_SHOWN,
    SHOWN,
    Places,
    alike,
    better,
    compared,
    interval,
    rising,
    runs_of,
)

PLACES = Places(1e9, 1.5e9, 2e9, budgets_flops=(1e8, 3e8), longer_flops=(1e9,))
NUMBERS = st.floats(-10, 10)
PAYS = next(each for each in CLAIMS if each.runs == (DEPTH, CONTINUE) and each.at == "all")


@given(NUMBERS, st.floats(0, 5), st.floats(0.01, 5), st.floats(0, 5))
def test_a_larger_advantage_never_counts_for_less(
    low: float, width: float, margin: float, more: float
) -> None:
    order = [NOT_SHOWN, CLOSE, SHOWN]
    before, after = (better(at, at + width, margin) for at in (low, low + more))
    assert order.index(before) <= order.index(after)


@given(NUMBERS, st.floats(0, 5), st.floats(0.01, 5))
def test_alike_knows_no_side(low: float, width: float, margin: float) -> None:
    assert alike(low, low + width, margin) == alike(-low - width, -low, margin)


def test_what_cannot_be_told_is_not_told() -> None:
    assert better(-1, 1, 0.5) == alike(-1, 1, 0.5) == rising(0.9, 0.2) == CLOSE
    assert better(np.nan, np.nan, 0.5) == alike(np.nan, np.nan, 0.5) == CLOSE
    assert all(np.isnan(each) for each in interval(np.array([1.0])))


def _records(advantage: float, noise: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for seed, sunk, extra in product(range(4), (1e9, 2e9), PLACES.budgets_flops):
        luck = rng.normal(0, 0.05)
        for arm, growth, by in (("grow", DEPTH, advantage), ("continue", "-", 0.0)):
            accuracy = 0.3 + luck + by + rng.normal(0, noise)
            # Budgets are rounded to whole batches, to others for networks of another size.
            rows.append((arm, growth, seed, sunk, extra * rng.uniform(0.95, 1.05), accuracy))
    names = ["arm", "growth", "seed", "sunk_flops", "extra_flops", "accuracy"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(val_loss=4 - 5 * frame["accuracy"], source_active_params=1000)


@pytest.mark.parametrize(
    ("advantage", "verdict"), [(0.02, SHOWN), (-0.02, NOT_SHOWN), (0.0, NOT_SHOWN)]
)
def test_luck_that_a_seed_shares_does_not_hide_a_difference(advantage: float, verdict: str) -> None:
    rows = list(compared(runs_of(_records(advantage, 0.001), PLACES), PAYS, PLACES))
    assert len(rows) == 8  # points, budgets, metrics
    assert {row["verdict"] for row in rows} == {verdict}


def test_tables_go_between_the_marks_of_a_page_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n\n{science_page.BEGIN}\nold\n{science_page.END}\n\nbelow\n")
    for _ in range(2):
        science_page.insert(page, ["new"])
        assert (
            page.read_text()
            == f"above\n\n{science_page.BEGIN}\n\nnew\n\n{science_page.END}\n\nbelow\n"
        )
    page.write_text("no marks")
    with pytest.raises(SystemExit):
        science_page.insert(page, ["new"])
