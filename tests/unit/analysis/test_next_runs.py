"""The next runs of invented sweeps: which, and when none."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import forecast, records
from analysis.beliefs import Place, draws, knows, learns, options
from analysis.extension import Candidate, between
from analysis.metrics import METRICS
from analysis.next_runs import NextRuns, next_runs
from analysis.question import Question
from analysis.table_offer import TableOffer
from orchestrator.store import Store
from sweeps.errors import GrowpointError
from tests.unit.analysis import invented
from tests.unit.analysis.invented import Layout, Truth

LOSS = METRICS["loss"]
LAYOUT = Layout(
    sunk=(0, 2e12, 8e12, 3.2e13),
    depth_at=(0, 1, 2, 3),
    width_at=(1, 2, 3),
    continue_at=(1, 2, 3),
    extra=(4e12, 8e12, 1.6e13),
    seeds=(0,),
)
HERE = Question(sunk=8e12, extra=8e12)


def shifted(grow: float, fresh: float = 0.3) -> Truth:
    """Growing is `grow` worse than continuing everywhere, starting over `fresh` worse."""

    def law(arm: str, sunk: float, extra: float, active: float) -> float:
        curve = 1.9 + 1.6 * (1 + (sunk + extra) / 1.5e12) ** -0.45
        return curve + {"grow": grow, "continue": 0.0, "scratch": fresh}[arm]

    return law


def measured(root: Path, law: Truth, layout: Layout = LAYOUT, noise: float = 0.02) -> pd.DataFrame:
    invented.write(root, layout, law, noise=noise)
    return records.load(Store(root), "invented")


def asked(frame: pd.DataFrame, question: Question = HERE, **more: float) -> NextRuns:
    budget, count = more.get("budget", float("inf")), int(more.get("count", 3))
    return next_runs(frame, LOSS, question, TableOffer(frame), budget, count)


def test_runs_are_offered_where_it_is_close_and_only_for_what_they_cost(tmp_path: Path) -> None:
    frame = measured(tmp_path, shifted(0.005))
    found = asked(frame)
    assert found.status == "worth"
    assert 0 < found.regret_after < 0.9 * found.regret
    after = [found.regret, *(step.reduction.after for step in found.steps)]
    assert after == sorted(after, reverse=True)
    assert found.flops == sum(p.extra_flops for s in found.steps for p in s.run.places)
    assert len({step.run.label for step in found.steps}) == len(found.steps) <= 3
    # Starting over is far behind: no run of it could change the answer.
    assert all(p.which.arm != "scratch" for step in found.steps for p in step.run.places)
    assert "expected regret falls from" in found.headline()
    assert found.text().count(found.steps[0].run.label) == 1
    assert json.loads(json.dumps(found.to_dict()))["answer"] == "worth"


def test_a_budget_is_kept_to(tmp_path: Path) -> None:
    frame = measured(tmp_path, shifted(0.005))
    least = float(frame["extra_flops"].min())
    assert asked(frame, budget=least / 2).status == "too_dear"
    found = asked(frame, budget=2.5 * least)
    assert found.flops <= 2.5 * least
    assert len(asked(frame, count=1).steps) <= 1


@pytest.mark.parametrize("grow", [-0.5, 0.5])
def test_nothing_is_worth_running_where_the_answer_is_plain(tmp_path: Path, grow: float) -> None:
    one_growth = replace(LAYOUT, width_at=())
    found = asked(measured(tmp_path, shifted(grow), one_growth, noise=0.002))
    assert found.status in ("settled", "nothing")
    assert found.steps == ()
    assert found.answer is not None
    assert found.answer.which.arm == ("grow" if grow < 0 else "continue")
    assert found.headline().startswith("Nothing is worth running")


def test_too_few_runs_are_said_with_what_is_missing(tmp_path: Path) -> None:
    few = Layout(sunk=(0, 2e12), depth_at=(0, 1), width_at=(), continue_at=(1,), seeds=(0,))
    found = asked(measured(tmp_path, shifted(0.0), few))
    assert found.status == "too_few"
    assert "growth points" in " ".join(found.notes)
    assert found.to_dict()["regret"] is None or found.regret != found.regret


def test_a_question_without_sense_is_refused(tmp_path: Path) -> None:
    frame = measured(tmp_path, shifted(0.0))
    with pytest.raises(GrowpointError, match="total"):
        asked(frame, Question(sunk=8e12, total=4e12))


def test_options_lie_where_the_question_is_answered(tmp_path: Path) -> None:
    every = forecast.arms(measured(tmp_path, shifted(0.0)), LOSS, None)
    here = options(every, HERE)
    assert {(p.sunk_flops, p.extra_flops) for p in here if p.which.arm != "scratch"} == {
        (8e12, 8e12)
    }
    total = options(every, Question(total=2e13))
    assert all(p.sunk_flops + p.extra_flops == pytest.approx(2e13) for p in total)
    assert len({p.sunk_flops for p in total if p.which.arm == "grow"}) > 5
    one = options(every, Question(sunk=8e12, extra=8e12, growth="width x2"))
    assert {p.which.growth for p in one if p.which.arm == "grow"} == {"width x2"}


def test_every_law_of_the_mix_has_its_turn_and_the_mean_is_theirs(tmp_path: Path) -> None:
    every = forecast.arms(measured(tmp_path, shifted(0.0)), LOSS, None)
    here = options(every, HERE)
    found = draws(every, here, here[:1], 0.01)
    laws = max(len(arm.forecast.laws) for arm in every if isinstance(arm.forecast, forecast.ByLaws))
    assert found.options.shape == (200 * laws, len(here))
    assert (found.options[:, 0] == found.runs[:, 0]).all()
    arm = next(arm for arm in every if arm.which == here[0].which)
    assert arm.forecast is not None
    at = arm.design(*(found.options[:1, 0] * 0 + value for value in (8e12, 8e12)))
    assert found.options[:, 0].mean() == pytest.approx(arm.forecast.draws(at).mean(), abs=0.02)


def test_a_control_that_ends_short_is_drawn_on_and_grows_less_sure(tmp_path: Path) -> None:
    few = replace(LAYOUT, width_at=(), continue_at=(1,))
    every = forecast.arms(measured(tmp_path, shifted(0.0), few), LOSS, None)
    arm = next(arm for arm in every if arm.which.arm == "continue")
    last = float(arm.cells["total_flops"].max())
    assert isinstance(arm.forecast, forecast.ByInterpolation)
    assert knows(arm, 1.9 * last, 0.0)
    assert not knows(arm, 3 * last, 0.0)
    at, far = (Place(arm.which, factor * last, 0.0) for factor in (1.0, 1.9))
    found = draws(every, [at, far], [at], 0.01).options
    assert found[:, 1].mean() < found[:, 0].mean()
    assert found[:, 1].std() > found[:, 0].std()


def test_pairs_learn_only_where_their_partner_was_run(tmp_path: Path) -> None:
    frame = measured(tmp_path, shifted(0.0), replace(LAYOUT, width_at=(1, 2)))
    every = forecast.arms(frame, LOSS, None)
    width = next(arm for arm in every if arm.which.growth == "width x2" and arm.which.arm == "grow")
    assert isinstance(width.forecast, forecast.ByOffset)
    there = frame[(frame["growth"] == "depth x2") & (frame["sunk_flops"] > 1e12)].iloc[0]
    at = float(there["sunk_flops"]), float(there["extra_flops"])
    assert learns(every, [Place(width.which, *at)], 0)
    assert not learns(every, [Place(width.which, *at)], 1)
    assert not learns(every, [Place(width.which, at[0], 1.5 * at[1])], 0)


def test_new_values_lie_between_the_old_ones_and_one_beyond() -> None:
    assert between([1e3, 4e3], 2.0) == [2e3, 8e3]
    assert between([0, 8.0, 2.0], 1.5) == [1.0, 4.0, 12.0]
    assert between([0], 2.0) == []


class Priced:
    """An offer in which one run of two costs nothing to tell about."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.inner = TableOffer(frame)
        self.asked: list[int] = []

    def candidates(self) -> Sequence[Candidate]:
        return self.inner.candidates()

    def flops(self, chosen: Sequence[Candidate]) -> float:
        self.asked.append(len(chosen))
        # what is shared is paid once: each further run costs half
        return self.inner.flops(chosen) * (1 if len(chosen) == 1 else 0.75)


def test_costs_are_those_beside_the_runs_that_are_chosen_already(tmp_path: Path) -> None:
    frame = measured(tmp_path, shifted(0.005))
    offer = Priced(frame)
    found = next_runs(frame, LOSS, HERE, offer)
    runs = [step.run for step in found.steps]
    assert len(runs) > 1
    assert found.flops == pytest.approx(offer.flops(runs))
