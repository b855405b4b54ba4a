"""What may be asked: four kinds of question, and what makes no sense."""

import math

import pytest

from analysis.metrics import METRICS
from analysis.question import Question, check, read_target
from sweeps.errors import GrowpointError

LOSS, ACCURACY = METRICS["loss"], METRICS["accuracy"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (Question(extra=1e12), "extra"),
        (Question(sunk=0.0, extra=1e12), "extra"),
        (Question(sunk=1e12, total=2e12), "extra"),
        (Question(total=2e12), "total"),
        (Question(sunk=1e12), "checkpoint"),
        (Question(sunk=1e12, extras=(1e12, 2e12)), "checkpoint"),
        (Question(target=2.3), "target"),
        (Question(sunk=1e12, target=2.3), "target"),
    ],
)
def test_each_question_has_its_kind_and_makes_sense(question: Question, kind: str) -> None:
    check(question, LOSS)
    assert question.kind == kind


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (Question(sunk=8e17, total=5e17), "the total budget is smaller"),
        (Question(sunk=8e17, total=8e17), "the total budget is smaller"),
        (Question(), "the budget must be given once"),
        (Question(growth="depth x2"), "the budget must be given once"),
        (Question(extra=1e12, total=1e13), "the budget must be given once"),
        (Question(sunk=1e12, extra=1e12, extras=(1e12,)), "the budget must be given once"),
        (Question(extra=-1.0), "--extra must be a positive number"),
        (Question(extra=0.0), "--extra must be a positive number"),
        (Question(sunk=1e12, extras=(1e12, -1.0)), "--extra must be a positive number"),
        (Question(extras=(1e12, 2e12)), "several extra budgets are asked of one checkpoint"),
        (Question(extra=math.nan), "--extra must be a positive number"),
        (Question(total=math.inf), "--total must be a positive number"),
        (Question(sunk=-1.0, extra=1e12), "--sunk must be zero or a positive number"),
        (Question(target=2.3, extra=1e12), "a target asks what it costs"),
        (Question(target=2.3, total=1e12), "a target asks what it costs"),
        (Question(target=-2.3), "--target must be a positive loss"),
        (Question(target=math.nan), "--target must be a positive loss"),
    ],
)
def test_what_makes_no_sense_is_refused(question: Question, problem: str) -> None:
    with pytest.raises(GrowpointError, match=problem) as caught:
        check(question, LOSS)
    assert caught.value.help


@pytest.mark.parametrize("target", [0.0, 1.0, 47.0, -0.1, math.nan])
def test_an_accuracy_is_a_fraction(target: float) -> None:
    check(Question(target=0.47), ACCURACY)
    with pytest.raises(GrowpointError, match="--target must be an accuracy"):
        check(Question(target=target), ACCURACY)


@pytest.mark.parametrize("word", ["0.47", "47%", " 47% ", "4.7e1%"])
def test_percent_and_fraction_are_one_accuracy(word: str) -> None:
    assert read_target(word, ACCURACY) == pytest.approx(0.47)


def test_forty_seven_is_helped_to_its_percent_sign() -> None:
    with pytest.raises(GrowpointError) as caught:
        check(Question(target=read_target("47", ACCURACY)), ACCURACY)
    assert "--target 47%" in caught.value.text()


@pytest.mark.parametrize(
    ("word", "metric"), [("much", "loss"), ("", "loss"), ("nan", "loss"), ("47%", "loss")]
)
def test_what_is_no_value_of_the_metric_is_refused(word: str, metric: str) -> None:
    with pytest.raises(GrowpointError, match="--target must be a value of loss"):
        read_target(word, METRICS[metric])
