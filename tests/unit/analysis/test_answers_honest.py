"""Answers that claim no more than the runs say, and do not depend on how they are written down."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import noise, records, rules
from analysis.imported import read
from analysis.metrics import METRICS
from analysis.outlook import Outlook
from analysis.question import Question
from analysis.recommendation import Recommendation
from analysis.ways import Ways
from orchestrator.store import Store
from tests.unit.analysis import invented
from tests.unit.analysis.test_questions import overtaking
from tests.unit.analysis.test_recommend import QUICK, shifted

LOSS, ACCURACY = METRICS["loss"], METRICS["accuracy"]
ALONE = replace(QUICK, continue_at=(), scratch=False)


def frame_of(root: Path, law: invented.Truth, layout: invented.Layout = QUICK) -> pd.DataFrame:
    invented.write(root, layout, law, noise=0.002)
    return records.load(Store(root), "invented")


def asked(frame: pd.DataFrame, question: Question, metric: str = "loss") -> Recommendation:
    found = analysis.recommend(frame, question, metric)
    assert isinstance(found, Recommendation)
    return found


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return frame_of(tmp_path_factory.mktemp("overtaking"), overtaking)


def test_where_when_to_grow_does_not_matter_no_share_is_named(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, shifted(-0.1), ALONE)
    found = asked(frame, Question(total=1.8e13))
    assert found.verdict == "not_identifiable"
    assert found.headline().startswith("Not identifiable: ")
    assert found.to_dict()["growth"] is None


def test_one_sunk_level_is_refused_whatever_is_asked(tmp_path: Path) -> None:
    layout = replace(QUICK, depth_at=(2,), continue_at=(2,), scratch=False, seeds=(0, 1, 2))
    frame = frame_of(tmp_path, overtaking, layout)
    for question in (Question(extra=8e12), Question(total=1.6e13), Question(sunk=8e12, extra=8e12)):
        found = asked(frame, question)
        assert found.verdict == "not_enough_runs"
        assert "1 growth points, 3 are needed" in found.headline()
        assert not found.timing
    late = analysis.recommend(frame, Question(sunk=8e12), "loss")
    assert isinstance(late, Outlook)
    assert {step.verdict for step in late.steps} == {"not_enough_runs"}
    cheapest = analysis.recommend(frame, Question(target=2.3), "loss")
    assert isinstance(cheapest, Ways)
    assert cheapest.verdict == "not_enough_runs"
    assert "Not enough runs" in cheapest.headline()


def test_where_sunk_compute_is_worth_nothing_it_says_start_over(tmp_path: Path) -> None:
    def law(arm: str, sunk: float, extra: float, active: float) -> float:
        worth = {"grow": 0.02 * sunk + extra, "continue": 0.2 * (sunk + extra), "scratch": extra}
        return 1.9 + 1.6 * (1 + worth[arm] / 1.5e12) ** -0.45

    found = asked(frame_of(tmp_path, law, replace(QUICK, scratch=False)), Question(total=1.5e13))
    assert found.verdict == "scratch"
    assert found.headline().startswith("Start over at the grown size, with nothing sunk: depth x2")
    assert found.best is not None
    assert found.best.sunk_flops == 0


def test_a_difference_below_the_noise_is_not_called(tmp_path: Path) -> None:
    layout = replace(QUICK, seeds=(0, 1, 2), scratch=False)
    invented.write(tmp_path, layout, shifted(-0.01), noise=0.02)
    found = asked(records.load(Store(tmp_path), "invented"), Question(sunk=8e12, extra=8e12))
    assert found.verdict == "too_close"
    assert "within noise" in found.control()


@pytest.mark.parametrize(
    "written",
    [
        lambda frame: frame.sample(frac=1, random_state=3),
        lambda frame: frame.assign(cell=frame["cell"] + "?", stage=frame["stage"] + "?"),
    ],
)
def test_the_order_of_rows_and_their_labels_change_nothing(
    frame: pd.DataFrame, written: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    for question in (Question(sunk=8e12, extra=8e12), Question(target=2.3, sunk=8e12)):
        one = analysis.recommend(frame, question, "loss").to_dict()
        two = analysis.recommend(written(frame), question, "loss").to_dict()
        assert two["headline"] == one["headline"]
        assert two["caveats"] == one["caveats"]


def test_the_unit_of_compute_changes_nothing(frame: pd.DataFrame) -> None:
    columns = ["sunk_flops", "extra_flops", "total_flops"]
    # Bigger models in the same proportion: sizes scale too, so that tokens stay what they were.
    sizes = ["source_active_params", "active_params", "total_params"]
    scaled = frame.assign(**{name: frame[name] * 1e6 for name in [*columns, *sizes]})
    one = asked(frame, Question(sunk=8e12, extra=8e12))
    two = asked(scaled, Question(sunk=8e18, extra=8e18))
    assert two.headline() == one.headline()
    for left, right in zip(one.options, two.options, strict=True):
        assert right.which == left.which
        assert right.expected == pytest.approx(left.expected, abs=2e-4)
        assert right.chance_best == pytest.approx(left.chance_best, abs=0.02)


def test_percent_and_fractions_are_the_same_answer(tmp_path: Path, frame: pd.DataFrame) -> None:
    said = []
    for factor in (1, 100):
        path = tmp_path / f"table{factor}.csv"
        kept = frame[["arm", "growth", "sunk_flops", "extra_flops", "source", "seed"]]
        kept.assign(accuracy=frame["accuracy"] * factor).to_csv(path, index=False)
        said.append(
            asked(read(path, {}).frame, Question(sunk=8e12, extra=8e12), "accuracy").to_dict()
        )
    assert said[0]["headline"] == said[1]["headline"]
    ours = [option["expected"] for option in said[0]["options"]]
    assert [option["expected"] for option in said[1]["options"]] == pytest.approx(ours)


def test_one_seed_scored_on_the_same_documents_has_the_noise_of_its_scatter(
    frame: pd.DataFrame,
) -> None:
    loud = frame.assign(val_loss_se=0.5)
    found = asked(loud, Question(sunk=8e12, extra=8e12))
    assert found.noise.value < 0.02
    assert "same documents" in found.noise.source
    assert any("share the error of the documents scored, 0.5000" in each for each in found.caveats)
    apart = asked(loud.assign(stage=""), Question(sunk=8e12, extra=8e12))
    assert apart.noise.value == 0.5
    assert "error of one evaluation" in apart.noise.source


def test_runs_of_several_suites_are_not_scored_on_the_same_documents(frame: pd.DataFrame) -> None:
    assert noise.same_documents(frame)
    assert not noise.same_documents(frame.assign(variant="suite.documents=5"))
    assert not noise.same_documents(frame.assign(stage=""))


def test_without_laws_pairs_say_how_much_runs_scatter(frame: pd.DataFrame) -> None:
    found = noise.one_run(frame, LOSS, ())
    assert "scatter of pairs" in found.source
    assert 0 < found.value < 1
    unknown = noise.one_run(frame[frame["arm"] == "grow"].assign(val_loss_se=np.nan), LOSS, ())
    assert np.isnan(unknown.value)


def rule(found: Recommendation, name: str) -> rules.Rule:
    return next(each for each in found.rules if each.name == name)


def test_the_rule_of_training_long_is_held_against_the_runs(frame: pd.DataFrame) -> None:
    """0.3 S + 2 S > 2 S: growing is ahead at an extra budget of what is sunk."""
    found = asked(frame, Question(sunk=8e12, extra=8e12))
    assert rule(found, "longer").verdict == "agrees"
    early = asked(frame[frame["arm"] != "continue"], Question(sunk=8e12, extra=8e12))
    assert rule(early, "longer").verdict == "not measured"
    assert "train a grown model" in early.text()


def of_runs(frame: pd.DataFrame, name: str) -> rules.Rule:
    """A rule that asks for runs alone."""
    seen = rules.Seen(frame, LOSS, (), (), (), None, None)
    return next(each for each in rules.held_against(seen) if each.name == name)


def test_the_rule_of_interposing_is_held_against_twins(frame: pd.DataFrame) -> None:
    grown = frame[frame["arm"] == "grow"]
    twins = grown.assign(growth="depth x2 stack", val_loss=grown["val_loss"] + 0.05)
    # So small that every source has seen more than Chinchilla's optimum.
    both = pd.concat([frame, twins], ignore_index=True).assign(source_active_params=1000)
    assert of_runs(both, "interpose").verdict == "agrees"
    assert "0.0500" in of_runs(both, "interpose").evidence
    other = {"depth x2": "depth x2 stack", "depth x2 stack": "depth x2"}
    swapped = both.assign(growth=both["growth"].replace(other))
    assert of_runs(swapped, "interpose").verdict == "disagrees"
    early = both.assign(source_active_params=2_000_000)
    assert of_runs(early, "interpose").verdict == "not measured"


def test_the_rule_of_noise_is_held_against_twins(frame: pd.DataFrame) -> None:
    grown = frame[frame["arm"] == "grow"].assign(growth="width x2")
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 0.01, len(grown))
    twins = grown.assign(growth="width x2 noise 0", val_loss=grown["val_loss"] + luck)
    both = pd.concat([grown, twins], ignore_index=True)
    assert of_runs(both, "noise").verdict == "undecided"
    worse = both.assign(val_loss=both["val_loss"] + 0.1 * (both["growth"] != "width x2"))
    assert of_runs(worse, "noise").verdict == "agrees"
    assert of_runs(grown, "noise").verdict == "not measured"


def test_the_rule_of_annealing_is_held_against_the_laws(frame: pd.DataFrame) -> None:
    """Every second source is cooled down and 0.1 worse for it, which no law can follow."""
    cooled = frame["sunk_flops"].isin([frame["sunk_flops"].max(), 0.0]) & (frame["arm"] == "grow")
    worse = frame.assign(annealed=cooled, val_loss=frame["val_loss"] + 0.1 * cooled)
    found = rule(asked(worse, Question(extra=8e12)), "constant")
    assert found.verdict in ("agrees", "undecided")
    assert "worse" in found.evidence
    assert rule(asked(frame, Question(extra=8e12)), "constant").verdict == "not measured"


def test_far_from_the_runs_nothing_impossible_is_said(frame: pd.DataFrame) -> None:
    """A thousandth of the least sunk compute: laws with powers of it have no bounds there."""
    found = asked(frame, Question(sunk=2e9, extra=8e12), "accuracy")
    for option in found.options:
        assert 0 <= option.interval[0] <= option.interval[1] <= 1
        assert 0 <= option.expected <= 1
        assert option.behind <= 1
