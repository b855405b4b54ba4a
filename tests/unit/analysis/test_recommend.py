"""The recommendation: right where the truth is plain, and modest where it is not."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import records
from analysis.answer import Question
from analysis.fits import Fits
from analysis.metrics import METRICS
from analysis.advice import recommend
from analysis.recommendation import Recommendation
from orchestrator.store import Store
from sweeps.errors import GrowpointError
from tests.unit.analysis import invented
from tests.unit.analysis.invented import SOURCE, Layout, Truth

LOSS, ACCURACY = METRICS["loss"], METRICS["accuracy"]
QUICK = Layout(
    sunk=(0, 2e12, 8e12, 3.2e13),
    depth_at=(0, 1, 2, 3),
    width_at=(),
    continue_at=(1, 2, 3),
    extra=(4e12, 8e12, 1.6e13),
    seeds=(0,),
)


def shifted(grow: float, fresh: float = 0.3) -> Truth:
    """Growing is `grow` worse than continuing everywhere, starting over `fresh` worse."""

    def law(arm: str, sunk: float, extra: float, active: float) -> float:
        curve = 1.9 + 1.6 * (1 + (sunk + extra) / 1.5e12) ** -0.45
        return curve + {"grow": grow, "continue": 0.0, "scratch": fresh}[arm]

    return law


def ask(root: Path, law: Truth, question: Question, layout: Layout = QUICK) -> Recommendation:
    invented.write(root, layout, law, noise=0.002)
    frame = records.load(Store(root), "invented")
    return recommend(frame, LOSS, question, len(frame))


HERE = Question(sunk=8e12, extra=8e12)


@pytest.mark.parametrize(
    ("grow", "fresh", "verdict", "first"),
    [
        (-0.1, 0.3, "grow", "Grow now: depth x2."),
        (0.1, 0.3, "continue", "Continue without growing."),
        (0.0, 0.3, "too_close", "Too close to call: "),
        (0.1, -0.6, "scratch", "Start over at "),
    ],
)
def test_the_answer_is_that_of_the_truth(
    tmp_path: Path, grow: float, fresh: float, verdict: str, first: str
) -> None:
    answer = ask(tmp_path, shifted(grow, fresh), HERE)
    assert answer.verdict == verdict
    assert answer.headline().startswith(first)
    assert math.isclose(sum(option.chance_best for option in answer.options), 1.0)
    assert answer.options[0].behind == 0
    behind = [option.behind for option in answer.options]
    assert behind == sorted(behind)
    assert all(low <= high for low, high in (option.interval for option in answer.options))


@pytest.mark.parametrize(
    ("grow", "word"), [(-0.1, "ahead of"), (0.1, "behind"), (0.0, "within noise")]
)
def test_growing_is_always_held_against_the_control(tmp_path: Path, grow: float, word: str) -> None:
    answer = ask(tmp_path, shifted(grow), HERE)
    assert word in answer.control()
    assert answer.control() in answer.text()
    assert answer.pairs[0].difference == pytest.approx(grow, abs=0.01)


def test_without_a_control_it_says_that_growing_is_not_shown_to_pay(tmp_path: Path) -> None:
    layout = Layout(
        sunk=QUICK.sunk,
        extra=QUICK.extra,
        depth_at=QUICK.depth_at,
        width_at=(),
        continue_at=(),
        seeds=(0,),
    )
    answer = ask(tmp_path, shifted(-0.1), HERE, layout)
    assert any("no un-grown control" in caveat for caveat in answer.caveats)
    assert "cannot be compared" in answer.control()


def test_two_growth_points_are_not_enough(tmp_path: Path) -> None:
    layout = Layout(sunk=(0, 2e12), depth_at=(0, 1), width_at=(), continue_at=(1,), seeds=(0, 1))
    answer = ask(tmp_path, shifted(-0.1), Question(sunk=2e12, extra=4e12), layout)
    assert answer.verdict == "not_enough_runs"
    assert answer.headline().startswith("Not enough runs: ")
    assert "2 growth points, 3 are needed" in answer.headline()


@pytest.mark.parametrize(
    ("question", "extrapolated", "outside"),
    [
        (HERE, False, False),
        (Question(sunk=8e12, extra=2.5e13), True, False),
        (Question(sunk=8e12, extra=8e14), True, True),
        (Question(sunk=1e15, extra=8e12), True, True),
    ],
)
def test_it_knows_what_was_measured(
    tmp_path: Path, question: Question, extrapolated: bool, outside: bool
) -> None:
    answer = ask(tmp_path, shifted(-0.1), question)
    assert answer.extrapolated == extrapolated
    assert (answer.verdict == "outside") == outside
    assert answer.headline().startswith("Outside what was measured") == outside


def test_the_best_moment_to_grow_is_found_and_its_softness_told(tmp_path: Path) -> None:
    """Early compute is cheap at the small size, late compute strong at the large one."""

    def law(arm: str, sunk: float, extra: float, active: float) -> float:
        grown = 0.0 if arm == "continue" else 1.0
        worth = 0.3e12 * (sunk / 0.3e12) ** 0.8 * 4 + extra * (1 + grown)
        return 1.9 + 1.6 * (1 + worth / 1.5e12) ** -0.45

    answer = ask(tmp_path, law, Question(total=1.8e13))
    timing = answer.timing[0]
    assert timing.searched[0] <= timing.near_equal[0] <= timing.share <= timing.near_equal[1]
    assert timing.near_equal[1] <= timing.searched[1]
    shares = [share / 100 for share in range(1, 98)]
    best = min(shares, key=lambda share: law("grow", share * 1.8e13, (1 - share) * 1.8e13, SOURCE))
    assert timing.near_equal[0] - 0.1 <= best <= timing.near_equal[1] + 0.1


def test_where_timing_does_not_matter_it_says_so(tmp_path: Path) -> None:
    answer = ask(tmp_path, shifted(-0.1), Question(total=1.8e13))
    assert not answer.timing[0].identifiable
    assert "no share before growing stands out" in answer.text()


def test_an_open_checkpoint_lists_every_growth_point(frame: pd.DataFrame, found: Fits) -> None:
    answer = recommend(frame, LOSS, Question(extra=4e12), 70, found)
    sunk = {option.sunk_flops for option in answer.options if option.which.growth == "depth x2"}
    assert len(sunk) == 7
    assert {option.which.growth for option in answer.options} == {"-", "depth x2", "width x2"}


def test_a_growth_with_few_points_rests_on_pairs_and_says_so(
    frame: pd.DataFrame, found: Fits
) -> None:
    answer = recommend(frame, LOSS, HERE, 70, found)
    wide = next(
        each
        for each in answer.options
        if (each.which.arm, each.which.growth) == ("grow", "width x2")
    )
    deep = next(
        each
        for each in answer.options
        if (each.which.arm, each.which.growth) == ("grow", "depth x2")
    )
    assert "pairs" in wide.basis
    assert any("width x2 rests on" in caveat for caveat in answer.caveats)
    assert wide.interval[1] - wide.interval[0] > deep.interval[1] - deep.interval[0]


def test_pairs_are_not_stretched_to_other_growth_points(frame: pd.DataFrame, found: Fits) -> None:
    """Wider was grown at 2e12 and 1.6e13 with 4e12 or 8e12 extra: no share of 1e14 is near."""
    answer = recommend(frame, LOSS, Question(total=1e14), 70, found)
    assert "width x2" not in {option.which.growth for option in answer.options}
    assert any(line.startswith("grow, width x2: ") for line in answer.missing)


def test_known_fits_change_nothing(frame: pd.DataFrame, found: Fits) -> None:
    assert recommend(frame, LOSS, HERE, 70, found) == recommend(frame, LOSS, HERE, 70)


def test_caveats_name_annealed_sources_and_few_seeds(tmp_path: Path) -> None:
    layout = Layout(**{**QUICK.__dict__, "annealed": True})
    answer = ask(tmp_path, shifted(-0.1), HERE, layout)
    assert "one seed" in answer.caveats
    assert any(caveat.startswith("annealed sources") for caveat in answer.caveats)
    assert any("source checkpoints" in caveat for caveat in answer.caveats)


def test_the_dictionary_is_json_and_has_what_the_text_says(tmp_path: Path) -> None:
    answer = ask(tmp_path, shifted(-0.1), HERE)
    document = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert document["answer"] == "grow"
    assert document["growth"] == "depth x2"
    assert document["headline"] == answer.text().splitlines()[0]
    assert document["options"][0]["arm"] == "grow"
    assert document["extrapolated"] is False


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (Question(sunk=8e17, total=5e17), "the total budget is smaller than what is already spent"),
        (Question(sunk=8e17), "the budget must be given once"),
        (Question(extra=1e12, total=1e13), "the budget must be given once"),
        (Question(extra=-1.0), "--extra must be a positive number"),
        (Question(extra=math.nan), "--extra must be a positive number"),
        (Question(total=math.inf), "--total must be a positive number"),
        (Question(sunk=-1.0, extra=1e12), "--sunk must be zero or a positive number"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(
    frame: pd.DataFrame, question: Question, problem: str
) -> None:
    with pytest.raises(GrowpointError, match=problem):
        recommend(frame, LOSS, question, 70)
