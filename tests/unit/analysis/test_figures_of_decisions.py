"""The figures that draw what laws expect: the map, the fixed total, what is left, which laws."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from analysis import figures, fits, forecast, records
from analysis.compare import compare
from analysis.evidence import Noise
from analysis.fits import Fits
from analysis.forecast import Arm
from analysis.metrics import METRICS, FloatArray
from analysis.sample import Which
from analysis.surface import decide
from orchestrator.store import Store
from tests.unit.analysis import invented
from tests.unit.analysis.test_figures import check_text, titles

LOSS = METRICS["loss"]
NOISE = Noise(0.004, "seed noise over 2 seeds")


@pytest.fixture(scope="module")
def arms(frame: pd.DataFrame, found: Fits) -> list[Arm]:
    return forecast.arms(frame, LOSS, None, found)


def shades(figure: figures.Drawn) -> list[FloatArray]:
    """Red, green and blue of each panel's points: (points, 3)."""
    meshes = [each for at in figure[0].axes for each in at.collections]
    found = [np.asarray(each.get_array()) for each in meshes if isinstance(each, QuadMesh)]
    return [each.reshape(-1, 3) for each in found]


def test_the_map_draws_what_is_decided(arms: list[Arm]) -> None:
    table = figures.decision_map(arms, LOSS, NOISE)[1]
    assert set(table["growth"]) == {"depth x2", "width x2"}
    deep = table[table["growth"] == "depth x2"].iloc[::97]
    own = [arm for arm in arms if arm.which.growth in ("depth x2", "-")]
    asked = decide(
        own, LOSS, *(deep[name].to_numpy(float) for name in ("sunk_flops", "extra_flops"))
    )
    known = (deep["winner"] != "").to_numpy()
    assert known.mean() > 0.5
    assert deep["winner"][known].tolist() == np.array(asked.names())[known].tolist()
    assert deep["margin"].to_numpy(float)[known] == pytest.approx(asked.margin[known])
    assert set(table["winner"]) >= {"grow", "continue"}


def test_outside_the_runs_is_paler_and_ends_at_twice_their_range(
    arms: list[Arm], frame: pd.DataFrame
) -> None:
    made = figures.decision_map(arms, LOSS, NOISE)
    table = made[1]
    colours = np.concatenate(shades(made))
    assert len(colours) == len(table)
    inside = table["inside"].to_numpy()
    grown = frame[frame["arm"] == "grow"]
    least = grown.loc[grown["sunk_flops"] > 0, "sunk_flops"].min()
    assert table["sunk_flops"].min() == pytest.approx(least / 2)
    assert table["extra_flops"].max() == pytest.approx(grown["extra_flops"].max() * 2)
    assert inside.any()
    near = table.loc[inside, "sunk_flops"].between(least / 1.1, grown["sunk_flops"].max() * 1.1)
    assert near.all()
    assert colours[~inside].min() > 0.5  # under the veil nothing is dark
    assert colours[inside].min() < 0.2


def test_more_noise_is_more_that_is_too_close_to_call(arms: list[Arm]) -> None:
    shares, claims = [], []
    for value in (0.0, 0.02, 10.0):
        figure, table = figures.decision_map(arms, LOSS, Noise(value, "invented"))
        shares.append(float(table["too_close"].mean()))
        claims.append(titles(figure)[0])
    assert shares[0] < shares[1] < shares[2]
    assert claims[0].startswith("Clear in the box: grow")
    assert claims[-1] == "Too close to call wherever runs are"
    unknown = figures.decision_map(arms, LOSS, Noise(math.nan, "one seed"))[1]
    assert unknown["too_close"].mean() == shares[0]


def sure_to_grow(arm: str, sunk: float, extra: float, active: float) -> float:
    return invented.truth(arm, sunk, extra, active) - (0.5 if arm == "grow" else 0.0)


def test_a_sure_winner_is_named(tmp_path: Path) -> None:
    layout = invented.Layout(
        sunk=(0, 2e12, 8e12, 3.2e13),
        extra=(4e12, 8e12, 1.6e13),
        depth_at=(0, 1, 2, 3),
        width_at=(),
        continue_at=(1, 2, 3),
    )
    invented.write(tmp_path, layout, sure_to_grow)
    frame = records.load(Store(tmp_path), "invented")
    found = fits.fit_sweep(frame, len(frame), (LOSS,))
    subject = figures.Subject(frame, LOSS, found, pd.DataFrame)
    figure, table = figures.FIGURES["decision_map"](subject)
    assert titles(figure)[0] == "Growing clearly wins wherever runs are"
    assert set(table.loc[table["inside"], "winner"]) == {"grow"}
    check_text(figure)


def test_nothing_to_compare_with_is_no_map(arms: list[Arm]) -> None:
    alone = [arm for arm in arms if arm.which.arm == "grow"]
    with pytest.raises(figures.NothingToDrawError, match="compare"):
        figures.decision_map(alone, LOSS, NOISE)
    missing = [replace(arm, forecast=None, missing="2 growth points") for arm in arms]
    with pytest.raises(figures.NothingToDrawError, match="2 growth points"):
        figures.decision_map(missing, LOSS, NOISE)


def test_the_bar_holds_the_shares_within_noise_of_the_star(
    frame: pd.DataFrame, arms: list[Arm]
) -> None:
    lengths = []
    for value in (math.nan, 0.01, 0.03):
        table = figures.fixed_total(frame, arms, LOSS, Noise(value, "invented"))[1]
        lines = table[table["kind"] == "line"]
        for _, line in lines.groupby("total_flops"):
            best = line[line["best"]]
            assert len(best) == 1
            bar = line[line["near_best"]]
            within = bar["value"] - best["value"].iloc[0]
            assert within.between(0, 0 if math.isnan(value) else value).all()
            assert not bar["extrapolated"].any()
        lengths.append(int(lines["near_best"].sum()))
    assert lengths[0] < lengths[1] < lengths[2]


def test_lines_of_a_total_add_up_have_bands_and_pass_near_their_runs(
    frame: pd.DataFrame, arms: list[Arm]
) -> None:
    figure, table = figures.fixed_total(frame, arms, LOSS, NOISE)
    check_text(figure)
    lines = table[table["kind"] == "line"]
    assert (lines["sunk_flops"] + lines["extra_flops"]).to_numpy() == pytest.approx(
        lines["total_flops"].to_numpy()
    )
    assert (lines["low"] < lines["high"]).all()
    runs = table[table["kind"] == "run"]
    assert len(runs) >= lines["total_flops"].nunique() >= 2
    for _, run in runs.iterrows():
        line = lines[lines["total_flops"] == run["total_flops"]]
        expected = np.interp(run["share"], line["share"], line["value"])
        assert run["value"] == pytest.approx(expected, abs=0.06)


def test_when_to_grow_is_claimed_only_where_it_matters(
    frame: pd.DataFrame, arms: list[Arm]
) -> None:
    grown = [arm for arm in arms if arm.which.arm == "grow"]
    figure, _ = figures.fixed_total(frame, grown, LOSS, Noise(10.0, "invented"))
    assert titles(figure)[0] == "When to grow hardly matters where runs are"
    figure, _ = figures.fixed_total(frame, grown, LOSS, NOISE)
    assert titles(figure)[0] == "The earlier the better, where runs are"


def test_a_sweep_of_one_total_is_drawn_by_share_without_laws(frame: pd.DataFrame) -> None:
    grown = frame[(frame["arm"] == "grow") & (frame["growth"] == "depth x2") & (frame["seed"] == 0)]
    sunk = grown["sunk_flops"].rank(method="dense") * 1e12
    total = grown.assign(budget="total", sunk_flops=sunk, extra_flops=9e12 - sunk, total_flops=9e12)
    arm = Arm(Which("", "grow", "depth x2"), total, None, "too few cells")
    figure, table = figures.fixed_total(total, [arm], LOSS, NOISE)
    assert set(table["kind"]) == {"mean", "run"}
    means = table[table["kind"] == "mean"].sort_values("share")
    assert means["share"].to_numpy() == pytest.approx(np.sort(sunk.unique()) / 9e12 * 100)
    check_text(figure)


def test_a_trend_that_is_left_is_seen(frame: pd.DataFrame, found: Fits) -> None:
    figure, table = figures.residuals(frame, found, LOSS, NOISE)
    assert "No trend" in titles(figure)[0]
    assert table["residual"].abs().max() < 0.05
    sunk = np.log10(frame["sunk_flops"].where(frame["sunk_flops"] > 0, 3e11))
    bent = frame.assign(val_loss=frame["val_loss"] + 0.05 * (sunk - sunk.mean()))
    figure, _ = figures.residuals(bent, found, LOSS, NOISE)
    assert titles(figure)[0].startswith("A trend is left over sunk")
    slope = next(t.get_text() for t in figure.axes[1].texts if "tenfold" in t.get_text())
    assert 0.04 < float(slope.split()[1]) < 0.06
    check_text(figure)


def test_residuals_are_observed_less_predicted(frame: pd.DataFrame, found: Fits) -> None:
    table = figures.residuals(frame, found, LOSS, NOISE)[1]
    cells = frame[(frame["arm"] == "grow") & (frame["growth"] == "depth x2")]
    assert len(table) == len(cells)
    seen = table["predicted"] + table["residual"]
    assert np.sort(seen) == pytest.approx(np.sort(cells["val_loss"]))


def test_laws_are_in_the_order_of_their_held_out_error(found: Fits) -> None:
    figure, table = figures.compare_laws(found, LOSS)
    check_text(figure)
    for (arm, growth), rows in table.groupby(["arm", "growth"]):
        which = next(w for w in found.groups("loss") if (w.arm, w.growth) == (arm, growth))
        expected = compare(found.groups("loss")[which])
        assert rows["law"].tolist() == [row.fit.law.name for row in expected]
        assert rows["behind"].tolist() == [row.behind for row in expected]
        assert rows["behind"].iloc[0] == 0
        assert rows["mixed"].tolist() == [row.delta_aicc < 10 for row in expected]
    assert (table["arm"] == "grow").any()


def test_no_laws_are_nothing_to_draw(frame: pd.DataFrame) -> None:
    with pytest.raises(figures.NothingToDrawError, match="no two laws"):
        figures.compare_laws(None, LOSS)
    with pytest.raises(figures.NothingToDrawError, match="no law"):
        figures.residuals(frame, None, LOSS, NOISE)
