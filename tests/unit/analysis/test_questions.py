"""The other questions: one checkpoint over extra budgets, a target, a series, one growth."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import advice, checkpoints, outlook, records
from analysis.advice import Grounds
from analysis.cheapest import ways
from analysis.checkpoints import Checkpoint
from analysis.metrics import METRICS
from analysis.outlook import Outlook
from analysis.question import Question
from analysis.recommendation import Recommendation
from analysis.ways import Way, Ways
from orchestrator.store import Store
from sweeps.errors import GrowpointError
from tests.unit.analysis import invented
from tests.unit.analysis.invented import Layout
from tests.unit.analysis.test_recommend import QUICK

LOSS = METRICS["loss"]
SUNK = 8e12
COLUMNS = ("val_loss", "accuracy", "choice_accuracy")
OPEN = Question(extra=8e12)


def overtaking(arm: str, sunk: float, extra: float, active: float) -> float:
    """Growing costs 70 % of the sunk compute at once, and each FLOP after it is worth two."""
    worth = {"grow": 0.3 * sunk + 2 * extra, "continue": sunk + extra, "scratch": 0.2 * extra}[arm]
    return 1.9 + 1.6 * (1 + worth / 1.5e12) ** -0.45


def frame_of(root: Path, law: invented.Truth = overtaking, layout: Layout = QUICK) -> pd.DataFrame:
    invented.write(root, layout, law, noise=0.001)
    return records.load(Store(root), "invented")


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return frame_of(tmp_path_factory.mktemp("overtaking"))


@pytest.fixture(scope="module")
def made(frame: pd.DataFrame) -> Grounds:
    return advice.grounds(frame, LOSS, OPEN, len(frame))


def breaks_even(sunk: float) -> float:
    """0.3 S + 2 X = S + X."""
    return 0.7 * sunk


def test_the_break_even_budget_is_that_of_the_truth(made: Grounds) -> None:
    found = outlook.outlook(made, Question(sunk=SUNK))
    grown = next(each for each in found.breaks if each.later.arm == "grow")
    assert grown.earlier.arm == "continue"
    low, high = grown.interval
    assert low <= grown.extra_flops <= high
    assert grown.extra_flops == pytest.approx(breaks_even(SUNK), rel=0.2)
    assert "is ahead of continue from" in grown.words()


def test_the_outlook_says_what_changes_where(made: Grounds) -> None:
    found = outlook.outlook(made, Question(sunk=SUNK, extras=(1.5e13, 4e12)))
    assert [step.question.extra for step in found.steps] == [4e12, 1.5e13]
    assert [step.verdict for step in found.steps] == ["continue", "grow"]
    assert found.headline().startswith("Continue; with more left to spend, from ")
    assert found.headline().endswith(" on grow now (depth x2).")
    for line in (found.headline(), "break-even", "caveats", "chance best"):
        assert line in found.text()
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["answer"] == "outlook"
    assert [step["answer"] for step in document["steps"]] == ["continue", "grow"]


def test_budgets_that_nobody_names_stay_within_reach(made: Grounds) -> None:
    found = outlook.outlook(made, Question(sunk=SUNK))
    extras = [step.question.left for step in found.steps]
    assert extras == sorted(set(extras))
    assert extras[0] == pytest.approx(4e12, rel=0.01)
    assert extras[-1] == pytest.approx(3.2e13, rel=0.05)
    assert all(step.verdict != "outside" for step in found.steps)


def test_an_arm_that_always_wins_has_its_break_even_at_the_edge(tmp_path: Path) -> None:
    def law(arm: str, sunk: float, extra: float, active: float) -> float:
        ahead = {"grow": -0.1, "continue": 0.0, "scratch": 0.3}[arm]
        return 1.9 + 1.6 * (1 + (sunk + extra) / 1.5e12) ** -0.45 + ahead

    frame = frame_of(tmp_path, law)
    found = outlook.breaks(advice.grounds(frame, LOSS, OPEN, len(frame)), SUNK)
    grown = next(
        each for each in found if {each.earlier.arm, each.later.arm} == {"grow", "continue"}
    )
    assert grown.later.arm == "grow"
    assert grown.extra_flops == grown.searched[0]
    assert grown.chance > 0.95
    assert "everywhere" in grown.words()


@pytest.mark.parametrize(
    ("behind", "found"),
    [
        ([1.0, 1.0, -1.0, -1.0], math.sqrt(200)),  # in the middle of 10 and 20, in the logarithm
        ([-1.0, -1.0, -1.0, -1.0], 5.0),
        ([1.0, -1.0, -1.0, 1.0], math.inf),
        ([-1.0, 1.0, 1.0, -3.0], 20 * 2**0.25),
    ],
)
def test_overtaking_is_for_good(behind: list[float], found: float) -> None:
    extra = np.array([5.0, 10.0, 20.0, 40.0])
    assert outlook._overtaken(extra, np.array([behind]))[0] == pytest.approx(found)


def way_of(found: Ways, arm: str) -> Way:
    return next(way for way in found.ways if way.which.arm == arm)


def test_the_cheapest_way_from_a_checkpoint_is_that_of_the_truth(made: Grounds) -> None:
    """At 1.2e13 extra growing reaches what continuing reaches with 0.3 S + 2 X - S."""
    target = overtaking("grow", SUNK, 1.2e13, 0)
    found = ways(made, Question(target=target, sunk=SUNK))
    assert found.verdict == "grow"
    grown, kept = way_of(found, "grow"), way_of(found, "continue")
    assert grown.cost_flops == pytest.approx(1.2e13, rel=0.05)
    assert kept.cost_flops == pytest.approx(2.4e13 - 0.7 * SUNK, rel=0.1)
    assert grown.interval[0] <= 1.2e13 <= grown.interval[1]
    assert grown.sunk_flops == SUNK
    assert found.ways[0] == grown
    assert "FLOPs more" in found.headline()
    assert math.isinf(way_of(found, "scratch").cost_flops)


def test_a_target_without_a_checkpoint_costs_all_that_is_spent(made: Grounds) -> None:
    """Growing an untrained network spends 2 X on X: nothing is cheaper in this truth."""
    target = overtaking("grow", 0, 1.2e13, 0)
    found = ways(made, Question(target=target))
    assert found.best is not None
    assert (found.best.which.arm, found.best.sunk_flops) == ("grow", 0)
    assert found.verdict == "scratch"
    assert "start over at the grown size" in found.headline()
    assert "in all" in found.headline()
    assert found.best.cost_flops == pytest.approx(1.2e13, rel=0.1)
    assert found.best.cost_flops == found.best.sunk_flops + found.best.extra_flops


def test_a_harder_target_is_never_cheaper(made: Grounds) -> None:
    costs = [
        ways(made, Question(target=target, sunk=SUNK)).ways[0].cost_flops
        for target in np.linspace(2.6, 1.6, 8)
    ]
    assert costs == sorted(costs)
    assert math.isinf(costs[-1])


def test_what_is_out_of_reach_is_said_to_be(made: Grounds) -> None:
    found = ways(made, Question(target=1.0))
    assert found.verdict == "not_reachable"
    assert found.headline().startswith("Not reachable: loss 1.0000 is not reached within")
    assert "comes closest, to " in found.headline()
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert all(way["cost_flops"] is None for way in document["ways"])
    assert found.headline() in found.text()


def test_a_target_that_the_least_budget_meets_costs_at_most_that(made: Grounds) -> None:
    found = ways(made, Question(target=3.4, sunk=SUNK))
    assert found.best is not None
    assert found.best.at_most
    assert "at most" in found.headline()


def test_chances_of_being_the_cheapest_are_chances(made: Grounds) -> None:
    for target in (2.0, 2.3, 2.6):
        found = ways(made, Question(target=target))
        assert math.fsum(way.chance_cheapest for way in found.ways) <= 1 + 1e-9
        for way in found.ways:
            assert way.chance_cheapest <= way.chance_reached


def test_one_growth_alone_is_held_against_the_ungrown(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, layout=replace(QUICK, width_at=(0, 1, 2, 3)))
    every = advice.grounds(frame, LOSS, OPEN, len(frame))
    found = advice.at_budget(every.of_growth("width x2"), replace(OPEN, growth="width x2"))
    assert {option.which.growth for option in found.options} == {"width x2", "-"}
    assert {pair.growth for pair in found.pairs} == {"width x2"}
    with pytest.raises(GrowpointError, match="nothing was grown by 'width x3'") as caught:
        every.of_growth("width x3")
    assert "depth x2, width x2" in caught.value.text()


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The sweep as one over a series: its checkpoints are called after their compute."""
    steps = (frame["sunk_flops"] / 1e12).round().astype(int).astype(str)
    grown = frame["arm"] != "scratch"
    names = ("step_" + steps).where(grown, "")
    return frame.assign(checkpoint=names, series=pd.Series("run1", frame.index).where(grown, ""))


def test_a_series_answers_with_its_own_names(frame: pd.DataFrame) -> None:
    found = analysis.recommend(named(frame), OPEN, "loss")
    assert isinstance(found, Recommendation)
    assert found.best is not None
    assert found.best.checkpoint.startswith("step_32 (")
    assert found.headline().startswith("Continue step_32 (")
    grown = analysis.recommend(named(frame), replace(OPEN, extra=1.6e13), "loss")
    assert isinstance(grown, Recommendation)
    best = next(option for option in grown.options if option.which.arm == "grow")
    assert best.checkpoint.startswith("step_")
    assert found.to_dict()["options"][0]["checkpoint"] == found.best.checkpoint


def test_checkpoints_that_were_not_grown_may_be_answers(frame: pd.DataFrame) -> None:
    series = (Checkpoint("step_16", 1.6e13, 1e6), Checkpoint("step_99", 9.9e13, 6e6))
    found = analysis.recommend(named(frame), OPEN, "loss", series=series)
    assert isinstance(found, Recommendation)
    names = {o.checkpoint.split(" ")[0] for o in found.options if o.which.arm == "grow"}
    assert names == {"step_0", "step_2", "step_8", "step_16", "step_32"}


def test_only_rows_of_the_series_are_taken(frame: pd.DataFrame) -> None:
    kept = checkpoints.of_series(named(frame), "run1", "mine")
    assert len(kept) == len(frame)
    with pytest.raises(GrowpointError, match="nothing here was grown from the series") as caught:
        checkpoints.of_series(named(frame), "run2", "mine")
    assert "growpoint recommend mine --series run1" in caught.value.text()


def test_ids_of_stages_are_no_names(frame: pd.DataFrame) -> None:
    assert checkpoints.named(frame) == ()
    with pytest.warns(UserWarning, match="in percent"):
        table = analysis.read_results("paper-3b6b")
    assert [each.name for each in checkpoints.named(table)][:2] == ["step 8000", "step 16000"]
    bare = table.assign(source="sunk " + table["sunk_flops"].map("{:.6g}".format))
    assert checkpoints.named(bare) == ()


def test_the_published_table_is_answered_by_its_names() -> None:
    with pytest.warns(UserWarning, match="in percent"):
        table = analysis.read_results("paper-3b6b")
    found = analysis.recommend(table, Question(extra=3.65e20))
    assert isinstance(found, Recommendation)
    assert found.headline().startswith("Grow step 96000 by depth x2; step 88000 ")
    said = " ".join(found.caveats)
    assert "the best source is annealed; of the others step 72000 is best" in said
    assert "the best that was measured is step 88000, 48.99" in said
    late = analysis.recommend(table, Question(sunk=5e20))
    assert isinstance(late, Outlook)
    assert (len(late.steps), late.breaks) == (1, ())
    total = analysis.recommend(table, Question(total=1e21))
    assert isinstance(total, Recommendation)
    assert total.verdict == "not_enough_runs"
    assert "one extra budget" in total.headline()


def test_a_notebook_needs_a_folder_and_a_name(
    tmp_path: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    invented.write(tmp_path, QUICK, overtaking, noise=0.001)
    loaded = analysis.load(tmp_path, "invented")
    pd.testing.assert_frame_equal(loaded, frame)
    answer = analysis.recommend(loaded, analysis.Question(sunk=SUNK, extra=1.5e13), "loss")
    assert answer.headline() == "Grow now: depth x2."
    with pytest.raises(GrowpointError, match="was not launched"):
        analysis.load(tmp_path, "other")
    with pytest.raises(GrowpointError, match="no metric was measured"):
        analysis.recommend(frame.assign(**dict.fromkeys(COLUMNS, np.nan)), OPEN)
    with pytest.raises(GrowpointError, match="there is no accuracy here"):
        analysis.recommend(frame.assign(accuracy=np.nan), OPEN, "accuracy")
    with pytest.raises(AttributeError, match="has no attribute 'advise'"):
        analysis.advise  # noqa: B018


def test_cells_still_running_are_counted(frame: pd.DataFrame) -> None:
    found = analysis.recommend(frame, OPEN, "loss", planned=len(frame) + 7)
    assert f"7 of {len(frame) + 7} cells have no loss yet" in found.caveats
