"""Evidence before laws: permutation tests, pairs, budgets, noise."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import evidence
from analysis.metrics import METRICS


@settings(max_examples=25)
@given(st.lists(st.integers(0, 20), min_size=3, max_size=6))
def test_permutation_p_is_that_of_brute_force(values: list[int]) -> None:
    x = np.arange(len(values), dtype=float) ** 1.5
    y = np.array(values, dtype=float)
    seen = evidence.pearson(x, y)
    if np.ptp(y) == 0:
        assert np.isnan(evidence.permutation_p(x, y))
        return
    strong = [abs(np.corrcoef(x, order)[0, 1]) >= abs(seen) - 1e-9 for order in permutations(y)]
    assert evidence.permutation_p(x, y) == pytest.approx(np.mean(strong))


def test_the_seeded_p_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(5)
    x, y = np.arange(8.0), rng.normal(size=8) + 0.15 * np.arange(8)
    exact = evidence.permutation_p(x, y)
    doubled = evidence.permutation_p(np.append(x, 3.5), np.append(y, y.mean()))
    assert 0.01 < exact < 0.5
    assert doubled == pytest.approx(exact, abs=0.1)
    assert doubled == evidence.permutation_p(np.append(x, 3.5), np.append(y, y.mean()))


def test_a_p_value_is_uniform_where_there_is_nothing() -> None:
    rng = np.random.default_rng(1)
    found = [evidence.permutation_p(np.arange(6.0), rng.normal(size=6)) for _ in range(200)]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_budgets_that_rounding_splits_are_one_level() -> None:
    flops = pd.Series([4.00e12, 4.05e12, 3.98e12, 8.0e12, 8.1e12, 0.0])
    levels = evidence.levels(flops)
    assert len(set(levels)) == 3
    assert len(set(levels[:3])) == 1


def test_correlations_have_the_sign_of_the_metric(frame: pd.DataFrame) -> None:
    for name, sign in (("accuracy", 1), ("loss", -1)):
        rows = evidence.correlations(frame, METRICS[name])
        assert {row.growth for row in rows} == {"depth x2"}  # width has two growth points only
        assert all(sign * row.spearman > 0.9 and row.spearman_p < 0.001 for row in rows)


def test_pairs_cancel_what_sources_share(frame: pd.DataFrame) -> None:
    shifted = frame.copy()
    luck = {source: 0.3 * index for index, source in enumerate(sorted(set(frame["source"])))}
    shifted["val_loss"] += shifted["source"].map(luck)
    before, after = (evidence.pairs(each, METRICS["loss"]) for each in (frame, shifted))
    for left, right in zip(before, after, strict=True):
        assert right.difference == pytest.approx(left.difference, abs=1e-12)
        assert right.se == pytest.approx(left.se, abs=1e-12)


def test_pairs_are_of_one_source_seed_and_budget(frame: pd.DataFrame) -> None:
    found = {
        (row.growth, round(row.extra_flops / 4e12)): row
        for row in evidence.pairs(frame, METRICS["loss"])
    }
    assert found["depth x2", 1].pairs == 12  # six sources that were also continued, two seeds
    assert found["width x2", 2].pairs == 4
    one = frame[(frame["seed"] == 0) & (frame["sunk_flops"].between(7e12, 9e12))]
    for row in evidence.pairs(one, METRICS["loss"]):
        assert row.pairs == 1
        assert row.se == pytest.approx(0.003 * 2**0.5)  # the two evaluations' errors


def test_seed_noise_is_what_was_put_in(frame: pd.DataFrame) -> None:
    noise = evidence.seed_noise(frame, METRICS["loss"])
    assert noise.value == pytest.approx(0.004 * 2**0.5, rel=0.3)
    one = evidence.seed_noise(frame[frame["seed"] == 0], METRICS["loss"])
    assert np.isnan(one.value)
