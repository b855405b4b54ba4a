"""Fits: honest intervals, a wrong law found out, refusals, and the saved document."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import fits
from analysis.compare import compare, ensemble
from analysis.fit import design, fit
from analysis.fits import Fits
from analysis.groups import EVERY_SIZE
from analysis.laws import LAWS, Design, EffectiveCompute, SunkLogLinear, SunkSaturating
from analysis.metrics import METRICS
from analysis.resample import FEW, Resampling, cluster
from analysis.sample import Which
from sweeps.errors import GrowpointError
from tests.unit.analysis.test_laws import TRUE, runs

LOSS, WHICH = METRICS["loss"], Which("", "grow", "depth x2")


def with_source_luck(frame: pd.DataFrame, seed: int, sd: float) -> pd.DataFrame:
    """The same runs with luck that all runs from one source checkpoint share."""
    rng = np.random.default_rng(seed)
    luck = {name: rng.normal(0, sd) for name in sorted(set(cluster(frame)))}
    return frame.assign(val_loss=frame["val_loss"] + cluster(frame).map(luck))


def coverage(law: str, seeds: tuple[int, ...], simulations: int) -> float:
    """How often 90 % intervals of the law's curve hold the truth, at three points of the sweep."""
    truth = LAWS[law](*TRUE[law])
    inside = []
    for seed in range(simulations):
        frame = with_source_luck(runs(truth, 0.003, seed), 1000 + seed, 0.003)
        frame = frame[frame["seed"].isin(seeds)]
        found = fit(frame, LAWS[law], LOSS, WHICH, Resampling.of(frame, 80, seed))
        assert found.sample is not None
        where = design(frame)[[0, len(frame) // 2, len(frame) - 1]]
        exact = truth.predict(where.per(found.sample.unit))
        low, high = np.quantile(found.sample.draws(where), [0.05, 0.95], axis=0)
        inside += list((low <= exact) & (exact <= high))
    return float(np.mean(inside))


def test_intervals_of_a_cluster_bootstrap_cover_what_they_claim() -> None:
    assert 0.78 <= coverage("sunk_loglinear", (0, 1), 25) <= 1.0


def test_intervals_from_few_clusters_cover_what_they_claim() -> None:
    assert FEW > 7  # seven growth points of one seed
    assert 0.82 <= coverage("effective_compute", (0,), 10) <= 1.0


def test_fewer_clusters_than_a_bootstrap_needs_use_the_jackknife() -> None:
    frame = runs(LAWS["effective_compute"](*TRUE["effective_compute"]))
    one = frame[frame["seed"] == 0]
    methods = [
        fit(each, EffectiveCompute, LOSS, WHICH, Resampling.of(each, 20)).method
        for each in (one, frame)
    ]
    assert methods == ["cluster jackknife with t", "cluster bootstrap"]


def test_a_wrong_law_is_found_out() -> None:
    """A straight line on data that saturate early: worse held out, worse by AICc, with a trend."""
    frame = runs(SunkSaturating(2.0, 0.7, 0.02, 2.5))
    resampling = Resampling.of(frame, 20)
    found = [fit(frame, law, LOSS, WHICH, resampling) for law in (SunkLogLinear, SunkSaturating)]
    rows = compare(found)
    assert [row.fit.law.name for row in rows] == ["sunk_saturating", "sunk_loglinear"]
    assert rows[0].behind == 0
    assert rows[1].behind > 2 * rows[1].behind_se > 0
    assert rows[1].delta_aicc > 10
    assert ensemble(found) == [rows[0].fit]


def test_a_trend_in_sunk_is_reported() -> None:
    """A law of the total alone, where a sunk FLOP is worth less than an extra one."""
    frame = runs(EffectiveCompute(1.6, 1.9, 0.05, 0.15, 0.9, 0.6))
    found = fit(frame, LAWS["total_saturating"], LOSS, WHICH, Resampling.of(frame, 10))
    assert abs(found.trend) > 2 * found.trend_se
    assert "residual trend in sunk" in found.diagnosis()


def test_a_parameter_at_its_bound_is_reported() -> None:
    frame = runs(SunkLogLinear(2.6, 0.25, 0.03))
    none = frame.assign(val_loss=2.0 - 3.0 * np.sign(frame["sunk_flops"]))
    found = fit(none, SunkSaturating, LOSS, WHICH, Resampling.of(none, 10))
    assert found.at_bounds
    assert "at its bound" in found.diagnosis()


def test_an_accuracy_is_fitted_as_its_shortfall() -> None:
    frame = runs(LAWS["total_saturating"](*TRUE["total_saturating"]))
    frame = frame.assign(accuracy=1 - frame["val_loss"] / 10)
    resampling = Resampling.of(frame, 10)
    loss = fit(
        frame.assign(val_loss=frame["val_loss"] / 10),
        LAWS["total_saturating"],
        LOSS,
        WHICH,
        resampling,
    )
    share = fit(frame, LAWS["total_saturating"], METRICS["accuracy"], WHICH, resampling)
    where = design(frame)
    np.testing.assert_allclose(share.law.predict(where), loss.law.predict(where), atol=1e-6)


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda frame: frame["sunk_flops"] == 4e12, "1 growth points"),
        (lambda frame: frame["sunk_flops"].isin([4e12, 8e12]), "2 growth points"),
        (
            lambda frame: (frame["extra_flops"] == 4e12) & (frame["seed"] == 0),
            "7 cells for a law of 6",
        ),
    ],
)
def test_too_few_cells_are_refused(keep: object, reason: str) -> None:
    frame = runs(LAWS["effective_compute"](*TRUE["effective_compute"]))
    assert callable(keep)
    few = frame[keep(frame)]
    with pytest.raises(GrowpointError, match="too few finished cells to fit a law") as caught:
        fit(few, EffectiveCompute, LOSS, WHICH, Resampling.of(few, 10))
    assert reason in caught.value.text()


def test_a_sweep_with_one_growth_point_is_refused(frame: pd.DataFrame) -> None:
    one = frame[frame["sunk_flops"].between(3.9e12, 4.1e12)]
    with pytest.raises(GrowpointError, match="too few finished cells") as caught:
        fits.fit_sweep(one, 70, (LOSS,))
    assert "of 70, from 1 growth points" in caught.value.text()


def test_no_fit_mixes_arms_growths_or_budgets(frame: pd.DataFrame) -> None:
    seen = 0
    for which, rows in fits.selections(frame):
        if which.growth == EVERY_SIZE:
            assert "grow" not in set(rows["arm"])
            continue
        assert set(rows["arm"]) == {which.arm}
        assert set(rows["growth"]) == {which.growth}
        if which.arm == "grow":
            assert (rows["extra_flops"] > 0).all()
        if which.extra_flops is None:
            seen += len(rows)
        else:
            assert rows["extra_flops"].max() < 1.05 * rows["extra_flops"].min()
    assert seen == len(frame)


def test_runs_right_after_growth_are_left_out(frame: pd.DataFrame) -> None:
    fresh = frame[frame["arm"] == "grow"].assign(extra_flops=0.0, val_loss=99.0)
    both = pd.concat([frame, fresh], ignore_index=True)
    rows = dict(fits.selections(both))[WHICH]
    assert (rows["val_loss"] < 99).all()


def test_what_is_saved_is_read_back(found: Fits, tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    fits.save(path, found)
    assert fits.load(path) == found
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert {row["law"] for row in document["fits"]} >= {"average_params", "effective_compute"}
    gapped = dataclasses.replace(found, fits=(dataclasses.replace(found.fits[0], trend=math.nan),))
    fits.save(path, gapped)
    assert json.loads(path.read_text())["fits"][0]["trend"] is None
    assert math.isnan(fits.load(path).fits[0].trend)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}'])
def test_a_damaged_document_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "fits.json").write_text(text)
    with pytest.raises(GrowpointError, match="fits cannot be read"):
        fits.load(tmp_path / "fits.json")


def test_two_fits_are_the_same(frame: pd.DataFrame, found: Fits) -> None:
    rows = dict(fits.selections(frame))[WHICH]
    again = fit(rows, EffectiveCompute, LOSS, WHICH, Resampling.of(frame))
    first = next(
        each for each in found.groups("loss")[WHICH] if each.law.name == "effective_compute"
    )
    assert again == first


def test_draws_are_paired_between_arms(found: Fits) -> None:
    """One replicate rests on the same sources in every arm: the luck of sources cancels."""
    where = Design(*(np.array([each]) for each in (8e12, 8e12, 2e6, 2e6)))
    samples = [
        each.sample
        for each in found.fits
        if each.law.name in ("effective_compute", "total_saturating")
    ]
    left, right = (each.draws(where)[:, 0] for each in samples[:2] if each is not None)
    assert np.corrcoef(left, right)[0, 1] > 0.2
