"""Fits of whole sweeps: what must not change them, what they refuse, and how laws are mixed."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import fits, tables
from analysis.compare import answers, compare, ensemble, mixed
from analysis.fit import Fit, design, fit
from analysis.groups import EVERY_SIZE, base_of, chosen, fit_group, selections
from analysis.laws import LAWS, EffectiveCompute, LossMatching
from analysis.metrics import METRICS
from analysis.resample import Resampling
from analysis.sample import Which
from benchmarks.sweep import sweep
from sweeps.errors import GrowpointError
from tests.unit.analysis.test_laws import TRUE, exact, runs

LOSS, ACCURACY, WHICH = METRICS["loss"], METRICS["accuracy"], Which("", "grow", "depth x2")


def grid(noise: float, seed: int) -> pd.DataFrame:
    """Ninety accuracies of one growth: ten sources, nine budgets."""
    sunk, extra = np.meshgrid([0, *np.geomspace(5e17, 3e19, 9)], np.geomspace(1e18, 1.6e19, 9))
    frame = pd.DataFrame({"sunk_flops": sunk.ravel(), "extra_flops": extra.ravel()})
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    frame["source"] = frame["sunk_flops"].astype(str)
    frame = frame.assign(arm="grow", seed=0, source_active_params=2e8, active_params=3.3e8)
    rng = np.random.default_rng(seed)
    return frame.assign(accuracy=1 - shortfall(frame) + rng.normal(0, noise, len(frame)))


def shortfall(frame: pd.DataFrame) -> np.ndarray:
    worth = 0.5 * frame["sunk_flops"] + frame["extra_flops"]
    return np.asarray(0.42 + 0.3 * (1 + worth / 1e18) ** -0.5)


@pytest.mark.parametrize("seed", range(3))
def test_six_gross_outliers_of_ninety_hardly_move_an_extrapolation(seed: int) -> None:
    """Runs that went wrong by 10 points; four times the largest budget, within half a point."""
    frame = grid(0.003, seed)
    wrong = np.random.default_rng(seed + 50).choice(len(frame), 6, replace=False)
    frame.loc[wrong, "accuracy"] -= 0.1
    found = fit(frame, EffectiveCompute, ACCURACY, WHICH, Resampling.of(frame, 5))
    far = frame.assign(extra_flops=6.4e19).iloc[::9]
    error = found.law.predict(design(far)) - shortfall(far)
    assert np.abs(error).max() < 0.005
    assert found.delta < 3 * 1.345 * 0.003


def scaled(frame: pd.DataFrame, flops: float) -> pd.DataFrame:
    columns = ["sunk_flops", "extra_flops", "total_flops"]
    return frame.assign(**{column: flops * frame[column] for column in columns})


def tell(found: list[Fit]) -> list[tuple[str, float, float]]:
    """What the fits say that no unit may change: AICc differences and relative errors."""
    least = min(each.aicc for each in found)
    return [(each.law.name, each.aicc - least, each.held_out) for each in found]


@pytest.mark.parametrize("factor", [1e-6, 1e5])
def test_the_measure_of_compute_and_the_order_of_rows_change_nothing(factor: float) -> None:
    frame = sweep()
    shuffled = frame.sample(frac=1, random_state=3)
    names = frozenset({"effective_compute", "average_params", "loss_matching"})
    told = []
    for each in (frame, scaled(frame, factor), shuffled):
        rows = dict(selections(each))[WHICH]
        made, _ = fit_group(each, WHICH, rows, LOSS, Resampling.of(each, 30), names)
        told.append(tell(made))
        worth = [fitted.worth for fitted in made]
        if each is frame:
            first = worth
        np.testing.assert_allclose(worth, first, rtol=2e-3)
    for other in told[1:]:
        for left, right in zip(told[0], other, strict=True):
            assert left[0] == right[0]
            assert left[1:] == pytest.approx(right[1:], rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("law", ["effective_compute", "upcycling", "loglinear_interaction"])
def test_the_unit_of_the_metric_changes_nothing(law: str) -> None:
    """Nats or bits, a fraction or percent: predictions scale, and nothing else happens."""
    frame = runs(LAWS[law](*TRUE[law]))
    found = []
    for factor in (1.0, 100.0, 1 / math.log(2)):
        each = frame.assign(val_loss=factor * frame["val_loss"])
        fitted = fit(each, LAWS[law], LOSS, WHICH, Resampling.of(each, 10))
        predicted = fitted.law.predict(design(each)) / factor
        found.append((predicted, fitted.held_out / factor, fitted.delta / factor))
    for predicted, held_out, delta in found[1:]:
        np.testing.assert_allclose(predicted, found[0][0], rtol=1e-5)
        assert (held_out, delta) == pytest.approx(found[0][1:], rel=1e-3)


def test_a_joint_law_refuses_cells_of_one_budget_with_the_reason() -> None:
    frame = sweep()
    one = frame[(frame["arm"] != "grow") | (frame["extra_flops"] == 2e18)]
    found = fits.fit_sweep(one, len(one), (LOSS,), replicates=10)
    reasons = {each.law: each.reason for each in found.skipped if each.which == WHICH}
    joint = {name for name, law in LAWS.items() if law.scope == "surface"}
    assert set(reasons) == joint
    assert "one extra budget says nothing about others" in reasons["loglinear_interaction"]
    assert {each.law.name for each in found.fits if each.which.arm == "grow"} == {
        "sunk_loglinear",
        "sunk_saturating",
    }


def test_cells_without_a_number_are_left_out_and_counted() -> None:
    frame = sweep()
    gapped = frame.copy()
    gapped.loc[[0, 5, 9], "val_loss"] = np.nan
    gapped.loc[7, "extra_flops"] = np.nan
    names = ["effective_compute"]
    found = fits.fit_sweep(gapped, 100, (LOSS,), names, replicates=10)
    assert found.left_out == {"loss": 4}
    assert tables.left_out(found) == ["loss: 4 of 100 cells have no value"]
    kept = frame.drop(index=[0, 5, 7, 9])
    assert fits.fit_sweep(kept, 100, (LOSS,), names, replicates=10).fits == found.fits
    rows, resampling = gapped[gapped["arm"] == "grow"], Resampling.of(frame, 5)
    with pytest.raises(GrowpointError, match="without a number") as caught:
        fit(rows, EffectiveCompute, LOSS, WHICH, resampling)
    assert "3 of 56" in caught.value.text()


def test_one_seed_is_enough_for_a_fit_and_says_how_sure_it_is() -> None:
    frame = sweep()
    one = frame[frame["seed"] == 0]
    found = fits.fit_sweep(one, len(one), (LOSS,), ["effective_compute"], replicates=40)
    assert found.seeds == 1
    assert found.fits[0].method == "cluster jackknife with t"
    low, high = found.fits[0].worth_interval
    assert low < found.fits[0].worth < high


def test_only_the_named_laws_are_fitted() -> None:
    frame = sweep()
    found = fits.fit_sweep(frame, 100, (ACCURACY, LOSS), ["effective_compute_link"], replicates=10)
    by_metric = {
        metric: {each.law.name for each in found.fits if each.metric == metric}
        for metric in ("accuracy", "loss")
    }
    assert by_metric["accuracy"] == {"effective_compute", "effective_compute_link"}
    assert by_metric["loss"] == {"effective_compute"}
    with pytest.raises(GrowpointError, match="there is no law 'avarage_params'") as caught:
        chosen(["avarage_params"])
    assert "--law average_params" in caught.value.text()


def test_an_accuracy_is_fitted_directly_and_by_way_of_the_loss() -> None:
    frame = sweep()
    found = fits.fit_sweep(frame, 100, (ACCURACY, LOSS), replicates=20)
    group = found.groups("accuracy")[WHICH]
    names = [each.law.name for each in group]
    assert "effective_compute" in names
    assert "effective_compute_link" in names
    losses = {each.law.name for each in ensemble(found.groups("loss")[WHICH])}
    links = {name.removesuffix("_link") for name in names if name.endswith("_link")}
    assert links == losses  # a loss law that the losses refute is linked to nothing


def test_the_base_models_own_runs_tie_the_worth_of_sunk_compute() -> None:
    """Without un-grown runs a grid of grown ones hardly says what its base model's loss was."""
    law = LossMatching(*TRUE["loss_matching"])
    grown = runs(law, noise=0.004)
    true = exact(law, grown)
    base = grown[grown["sunk_flops"] > 0].assign(arm="continue", active_params=2e6)
    at = base.assign(sunk_flops=base["total_flops"], extra_flops=0.0)
    base["val_loss"] = true.predict(design(at))
    both = pd.concat([grown, base], ignore_index=True).assign(variant="")
    resampling = Resampling.of(both, 40)
    alone = fit(grown, LossMatching, LOSS, WHICH, resampling)
    tied = fit(grown, LossMatching, LOSS, WHICH, resampling, base_of(both, WHICH))
    assert (alone.base_cells, tied.base_cells) == (0, len(base))
    errors = [
        np.abs(each.law.predict(design(at)) - base["val_loss"]).max() for each in (alone, tied)
    ]
    assert errors[1] < 0.01 < errors[0]
    assert tied.cells == alone.cells == len(grown)
    assert len(tied.held_out_errors) == len(alone.held_out_errors)


def test_the_largest_budgets_and_latest_sources_are_held_out() -> None:
    frame = runs(EffectiveCompute(*TRUE["effective_compute"]))
    found = [
        fit(frame, LAWS[law], LOSS, WHICH, Resampling.of(frame, 10))
        for law in ("effective_compute", "loglinear_interaction")
    ]
    for each in found:
        assert {name for name, _ in each.extrapolated} == {"latest sources", "largest extra budget"}
    assert found[0].extrapolation < 0.01
    assert found[1].extrapolation > 3 * found[0].extrapolation
    two = frame[frame["extra_flops"] < 1e13]
    split = fit(two, EffectiveCompute, LOSS, WHICH, Resampling.of(two, 10)).extrapolated
    assert [name for name, _ in split] == ["latest sources"]  # one budget would be left


def test_sizes_of_un_grown_runs_are_one_fit() -> None:
    frame = runs(LAWS["chinchilla"](*TRUE["chinchilla"]))
    kept = frame.assign(variant="", growth="scratch")
    which, rows = list(selections(kept))[-1]
    assert which == Which("", "scratch", EVERY_SIZE)
    assert len(rows) == len(frame)
    made, skipped = fit_group(kept, which, rows, LOSS, Resampling.of(kept, 10))
    assert [each.law.name for each in made] == ["chinchilla"]
    assert not skipped
    few = rows[rows["active_params"] < 3e6]
    _, skipped = fit_group(kept, which, few, LOSS, Resampling.of(kept, 10))
    assert skipped[0].reason == "2 sizes of un-grown runs, 3 are needed"


def test_laws_that_disagree_can_be_told_apart() -> None:
    frame = runs(EffectiveCompute(*TRUE["effective_compute"]), noise=0.02)
    resampling = Resampling.of(frame, 12)
    names = ("effective_compute", "average_params", "loglinear_interaction")
    made = [fit(frame, LAWS[name], LOSS, WHICH, resampling) for name in names]
    said = answers(made, lambda each: each.law.name[0] == "e")
    assert said == {
        False: ("average_params", "loglinear_interaction"),
        True: ("effective_compute",),
    }
    assert len(answers(made, lambda each: each.cells)) == 1
    where = design(frame)[:2]
    draws = [each.sample.draws(where) for each in made if each.sample is not None]
    both = mixed(draws)
    for row in range(12):
        np.testing.assert_array_equal(both[row], draws[row % 3][row])
    assert sum(row.behind == 0 for row in compare(made)) == 1
    assert "a sunk FLOP is worth" in tables.mix(made)
