"""A line and its band are about one quantity, whatever the runs look like."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import figures, fits, forecast
from analysis.forecasts import ByLaws
from analysis.laws import Design
from analysis.metrics import METRICS, FloatArray, Metric
from analysis.records import COLUMNS

ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]
LAWS = ("sunk_loglinear", "sunk_saturating", "loglinear_interaction")
# (sunk, extra, draws of a standard normal) -> accuracy
Truth = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def rising(sunk: FloatArray, extra: FloatArray, luck: FloatArray) -> FloatArray:
    return 0.49 - 0.46 * (1 + (sunk + extra / 4) / 2e11) ** -0.5 + 0.004 * luck


def one_run_far_off(sunk: FloatArray, extra: FloatArray, luck: FloatArray) -> FloatArray:
    """One of three runs is far above the others where little is sunk."""
    off = (sunk > 0) & (sunk < 2e11) & (np.arange(len(sunk)) < len(sunk) / 3)
    return rising(sunk, extra, luck) + 0.025 * off


def flat(sunk: FloatArray, extra: FloatArray, luck: FloatArray) -> FloatArray:
    return 0.3 + 0.004 * luck


def harmful(sunk: FloatArray, extra: FloatArray, luck: FloatArray) -> FloatArray:
    return 0.3 - 0.05 * np.log10(1 + sunk / 1e11) + 0.02 * np.log10(extra / 1e11) + 0.004 * luck


def next_to_nothing(sunk: FloatArray, extra: FloatArray, luck: FloatArray) -> FloatArray:
    """Nothing is learned at first, so laws that rise later are below zero there."""
    late = np.log10(np.maximum(sunk + extra / 4, 1) / 3e11)
    return np.maximum(0.2 * late + 0.01 * luck, 0.001)


def runs(truth: Truth, seeds: int) -> pd.DataFrame:
    """Records of growing from six points with two extra budgets."""
    places = [
        (seed, sunk, extra)
        for seed in range(seeds)
        for sunk in (0.0, *np.geomspace(1e11, 5e12, 5))
        for extra in (1.5e11, 5e11)
    ]
    rows = pd.DataFrame(places, columns=["seed", "sunk_flops", "extra_flops"])
    luck = np.random.default_rng(11).standard_normal(len(rows))
    accuracy = truth(rows["sunk_flops"].to_numpy(), rows["extra_flops"].to_numpy(), luck)
    source = rows["sunk_flops"].map("{:.1e}".format)
    known = rows.assign(
        sweep="runs",
        arm="grow",
        growth="depth x2",
        budget="extra",
        source_active_params=200_000,
        active_params=300_000,
        total_flops=rows["sunk_flops"] + rows["extra_flops"],
        accuracy=accuracy,
        val_loss=6 * (1 - accuracy) ** 2,
        source=source,
        lineage=source + "/" + rows["seed"].astype(str),
        annealed=False,
    )
    blank: dict[str, str | float] = {"str": "", "int64": 0, "float64": np.nan}
    missing = {name: blank[kind] for name, kind in COLUMNS.items() if name not in known}
    return known.assign(**missing)[list(COLUMNS)].astype(dict(COLUMNS))


def check(lines: pd.DataFrame) -> None:
    assert len(lines)
    slack = 1e-9 * np.abs(lines["value"])
    assert (lines["low"] - slack <= lines["value"]).all()
    assert (lines["value"] <= lines["high"] + slack).all()


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=lambda metric: metric.name)
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "truth", [rising, one_run_far_off, flat, harmful, next_to_nothing], ids=lambda it: it.__name__
)
def test_lines_lie_inside_their_bands(truth: Truth, seeds: int, metric: Metric) -> None:
    frame = runs(truth, seeds)
    found = fits.fit_sweep(frame, len(frame), (metric,), LAWS, 60)
    _, sunk = figures.sunk_vs_accuracy(frame, found, metric)
    check(sunk[sunk["kind"] == "fit"])
    arms = forecast.arms(frame, metric, None, found)
    noise = forecast.run_noise(frame, metric, arms)
    _, total = figures.fixed_total(frame, arms, metric, noise)
    lines = total[total["kind"] == "line"]
    check(lines)
    assert (lines.groupby("total_flops")["best"].sum() == 1).all()


def test_what_replicates_expect_is_inside_their_interval_where_the_fit_is_not() -> None:
    frame = runs(rising, 3)
    found = fits.fit_sweep(frame, len(frame), (ACCURACY,), ["sunk_saturating"])
    one = found.fits[0]
    assert one.sample is not None
    assert one.sample.mix is None
    beside = replace(one.sample, inner=one.sample.others.max(axis=0) + 0.1)
    by = ByLaws((replace(one, sample=beside),))
    sunk = np.geomspace(1e11, 5e12, 5)
    where = Design(sunk, *(np.full(5, each) for each in (1.5e11, 2e5, 3e5)))
    low, high = np.quantile(by.draws(where), [0.05, 0.95], axis=0)
    assert not ((low <= beside.point(where)) & (beside.point(where) <= high)).any()
    assert ((low <= by.point(where)) & (by.point(where) <= high)).all()
