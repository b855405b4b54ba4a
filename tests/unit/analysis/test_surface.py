"""Decisions on a grid: they agree with single answers, and know where nothing was measured."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from analysis import advice, records
from analysis.forecast import Arm, arms
from analysis.metrics import METRICS
from analysis.question import Question
from analysis.surface import decide
from orchestrator.store import Store
from tests.unit.analysis import invented
from tests.unit.analysis.test_recommend import QUICK

LOSS = METRICS["loss"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("quick")
    invented.write(root, QUICK, noise=0.002)
    return records.load(Store(root), "invented")


@pytest.fixture(scope="module")
def every(quick: pd.DataFrame) -> list[Arm]:
    return arms(quick, LOSS, None)


def test_a_point_of_the_grid_is_the_answer_there(quick: pd.DataFrame, every: list[Arm]) -> None:
    sunk, extra = np.array([2e12, 8e12, 3e13]), np.array([5e12, 9e12, 6e12])
    found = decide(every, LOSS, sunk, extra)
    made = advice.grounds(quick, LOSS, Question(sunk=1.0, extra=1.0), len(quick))
    for at in range(3):
        one = advice.at_budget(made, Question(sunk=sunk[at], extra=extra[at]))
        assert one.best is not None
        assert found.options[found.winner[at]] == one.best.which
        assert found.margin[at] == pytest.approx(one.options[1].behind)
        assert found.chance[at] == pytest.approx(one.best.chance_best)
        assert found.beyond[at] == pytest.approx(one.best.beyond)
        assert found.expected[found.winner[at], at] == pytest.approx(one.best.expected)


@settings(max_examples=15, deadline=None)
@given(some.lists(some.tuples(some.floats(0, 1e14), some.floats(1e11, 1e14)), min_size=1))
def test_decisions_are_of_points_and_not_of_the_grid_they_lie_in(
    every: list[Arm], points: list[tuple[float, float]]
) -> None:
    sunk, extra = np.array(points).T
    found = decide(every, LOSS, sunk, extra)
    assert (found.margin[found.second >= 0] >= 0).all()
    assert ((found.chance >= 0) & (found.chance <= 1)).all()
    assert (found.beyond >= 1).all()
    assert (found.winner != found.second).all()
    alone = decide(every, LOSS, sunk[:1], extra[:1])
    assert (alone.winner[0], alone.chance[0]) == (found.winner[0], found.chance[0])


def test_many_points_are_answered_in_parts(every: list[Arm]) -> None:
    sunk, extra = np.geomspace(1e12, 4e13, 2500), np.full(2500, 8e12)
    found = decide(every, LOSS, sunk, extra)
    assert found.expected.shape == (len(found.options), 2500)
    late = decide(every, LOSS, sunk[-3:], extra[-3:])
    assert (late.winner == found.winner[-3:]).all()


def test_starting_over_is_not_expected_where_no_run_was(every: list[Arm]) -> None:
    scratch = [arm for arm in every if arm.which.arm == "scratch"]
    found = decide(scratch, LOSS, np.array([8e12, 8e12]), np.array([8e12, 8e14]))
    assert (found.names()[0], found.names()[1]) == ("scratch", "")
    assert found.winner[1] == -1
    assert np.isnan([found.margin[1], found.chance[1], found.beyond[1]]).all()
    assert np.isnan(found.expected[:, 1]).all()


def test_without_any_forecast_nothing_wins(every: list[Arm]) -> None:
    found = decide([], LOSS, np.array([8e12]), np.array([8e12]))
    assert found.options == ()
    assert found.names() == [""]
