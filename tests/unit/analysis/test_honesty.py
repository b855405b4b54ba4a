"""What an answer must not claim: an optimum that is none, more than was measured, a false start."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.advice import recommend
from analysis.metrics import METRICS, FloatArray
from analysis.question import Question
from analysis.recommendation import Recommendation
from benchmarks.sweep import cells

LOSS, ACCURACY = METRICS["loss"], METRICS["accuracy"]
WHOLE = 8e18  # FLOPs; growing was measured at most shares of it
Truth = Callable[[FloatArray, FloatArray], FloatArray]  # sunk, extra -> loss of a grown run


def curve(worth: FloatArray) -> FloatArray:
    return np.asarray(1.9 + 1.6 * (1 + worth / 5e17) ** -0.45)


def flat(sunk: FloatArray, extra: FloatArray) -> FloatArray:
    """Sunk compute is worth exactly what extra compute is."""
    return curve(sunk + extra) - 0.1


def worthless(sunk: FloatArray, extra: FloatArray) -> FloatArray:
    """Nothing that was spent before growing is of any use after it."""
    return curve(extra) - 0.1 + 0 * sunk


def peaked(sunk: FloatArray, extra: FloatArray) -> FloatArray:
    """Tokens before growing and after it multiply: half and half is best."""
    return 1.6 + 1.9 * ((1 + sunk / 4e17) * (1 + extra / 4e17)) ** -0.25


def measured(truth: Truth, noise: float = 0.004, seed: int = 0, seeds: int = 1) -> pd.DataFrame:
    """The cells of an invented sweep of one or two seeds, growing as `truth` says; records."""
    frame, rng = cells().query(f"seed < {seeds}"), np.random.default_rng(seed)
    frame = frame.reset_index(drop=True)
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    source = np.where(frame["arm"] == "scratch", "init", "at " + frame["sunk_flops"].astype(str))
    frame["lineage"] = source + "/" + frame["seed"].astype(str)
    sunk, extra = (frame[name].to_numpy(float) for name in ("sunk_flops", "extra_flops"))
    grown = truth(sunk, extra)
    # Continuing is worse than anything else, so that it is no rival here.
    loss = np.where(frame["arm"] == "continue", curve(sunk + extra) + 0.3, grown)
    luck = {name: rng.normal(0, noise) for name in sorted(set(frame["lineage"]))}
    frame["val_loss"] = loss + frame["lineage"].map(luck) + rng.normal(0, noise, len(frame))
    frame["accuracy"] = 0.95 - 0.16 * frame["val_loss"]
    said = dict.fromkeys(("stage", "variant", "series", "checkpoint"), "")
    said |= {"sweep": "invented", "budget": "extra"}
    frame["sunk_tokens"] = (frame["sunk_flops"] / 6 / frame["source_active_params"]).astype(int)
    return frame.assign(source=source, val_loss_se=0.003, accuracy_se=0.001, annealed=False, **said)


def ask(frame: pd.DataFrame, question: Question) -> Recommendation:
    return recommend(frame, LOSS, question, len(frame))


@pytest.mark.parametrize("seed", range(2))
def test_where_it_does_not_matter_when_one_grows_no_share_is_claimed(seed: int) -> None:
    found = ask(measured(flat, seed=seed), Question(total=WHOLE))
    assert not found.timing[0].identifiable
    assert found.verdict != "grow"
    assert "no share before growing stands out" in found.text()


def test_where_it_matters_the_share_is_claimed_and_right() -> None:
    """The other side of the test above: it can be seen to fail."""
    found = ask(measured(peaked), Question(total=WHOLE))
    timing = found.timing[0]
    assert timing.identifiable
    assert timing.interval[0] <= 0.5 <= timing.interval[1]
    assert timing.near_equal[1] - timing.near_equal[0] < 0.6


def test_one_sunk_level_is_refused() -> None:
    frame = measured(peaked)
    one = frame[(frame["arm"] != "grow") | (frame["sunk_flops"] == 2e18)]
    found = ask(one, Question(total=WHOLE))
    assert found.verdict == "not_enough_runs"
    assert found.timing == ()
    assert "1 growth points, 3 are needed" in found.headline()


def test_where_sunk_compute_is_worth_nothing_it_says_start_over() -> None:
    found = ask(measured(worthless), Question(total=WHOLE))
    assert found.best is not None
    assert found.timing[0].share <= 0.02
    assert found.verdict == "scratch"
    assert found.headline().startswith("Start over")


def test_six_gross_outliers_hardly_move_what_is_expected_beyond_the_sweep() -> None:
    """Runs that lost 10 points, 6 of 56; at twice the budget, by every law of the mix."""
    frame, question = measured(peaked, seeds=2), Question(sunk=8e18, extra=1.6e19)
    frame["val_loss"] = np.nan
    wrong = np.random.default_rng(5).choice(frame.index[frame["arm"] == "grow"], 6, replace=False)
    frame.loc[wrong, "accuracy"] -= 0.1
    found = recommend(frame, ACCURACY, question, len(frame))
    grown = next(each for each in found.options if each.which.arm == "grow")
    true = 0.95 - 0.16 * float(peaked(np.array([8e18]), np.array([1.6e19]))[0])
    assert grown.beyond > 1.9
    assert grown.expected == pytest.approx(true, abs=0.005)


def test_neither_measure_nor_order_changes_the_answer() -> None:
    frame = measured(peaked)
    flops = ["sunk_flops", "extra_flops", "total_flops"]
    scaled = frame.assign(**{name: 1e-5 * frame[name] for name in flops})
    shuffled = frame.sample(frac=1, random_state=3)
    first = ask(frame, Question(total=WHOLE))
    for each, whole in ((scaled, 1e-5 * WHOLE), (shuffled, WHOLE)):
        found = ask(each, Question(total=whole))
        assert found.verdict == first.verdict
        assert found.timing[0].share == pytest.approx(first.timing[0].share, abs=0.011)
        assert found.timing[0].interval == pytest.approx(first.timing[0].interval, abs=0.03)
        assert found.options[0].expected == pytest.approx(first.options[0].expected, abs=2e-4)
