"""Laws: each is recovered from data drawn from it, and none depends on the measure of compute."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fit import design, fit, fit_linked
from analysis.laws import (
    LAWS,
    LINKS,
    Chinchilla,
    Design,
    EffectiveCompute,
    GrowthTiming,
    Law,
    LossMatching,
    Unit,
    linked,
)
from analysis.metrics import METRICS
from analysis.resample import Resampling
from analysis.sample import Which
from benchmarks.recovery import TRUE

# Of the links: shortfall at chance, steepness, and the loss in the middle
LINK = (0.9, 1.1, 2.6)
NOISE = 0.002
TWO_SEEDS = 2


WHICH = Which("", "grow", "depth x2")
SIZES = (1e6, 2e6, 4e6, 8e6)
WHERE = Design(
    *(
        np.array(each)
        for each in ([0, 0.1, 0.5, 1], [0.4, 0.6, 0.2, 0.1], [1.0, 1, 2, 1], [1.0, 1.7, 3, 1.7])
    )
)


def fitted_law(name: str) -> Law:
    """The true law of this name; of a link, with the law behind it."""
    if name in LINKS:
        return LINKS[name](*LINK, *TRUE[LINKS[name].loss_law.name])
    return LAWS[name](*TRUE[name])


def _cells(law: Law) -> pd.DataFrame:
    if law.scope == "sizes":
        extra = [4e12, 8e12, 1.6e13, 3.2e13, 6.4e13]
        grid = np.meshgrid(SIZES, extra, range(TWO_SEEDS), indexing="ij")
        size, spent, seed = (each.ravel() for each in grid)
        columns = {"sunk_flops": 0 * spent, "extra_flops": spent, "seed": seed.astype(int)}
        sizes = {"source_active_params": size, "active_params": size}
        source = "init-" + pd.Series(size).astype(str) + "-" + pd.Series(spent).astype(str)
        return pd.DataFrame(columns | sizes).assign(source=source, arm="scratch")
    grid = np.meshgrid(
        [0, 1e12, 2e12, 4e12, 8e12, 1.6e13, 3.2e13],
        [8e12] if law.scope == "extra" else [4e12, 8e12, 1.6e13],
        range(TWO_SEEDS),
        indexing="ij",
    )
    sunk, spent, seed = (each.ravel() for each in grid)
    columns = {"sunk_flops": sunk, "extra_flops": spent, "seed": seed.astype(int)}
    sizes = {"source_active_params": np.full(len(sunk), 2e6), "active_params": 3.3e6 + 0 * sunk}
    source = "train-" + pd.Series(sunk).astype(str)
    return pd.DataFrame(columns | sizes).assign(source=source, arm="grow")


def runs(law: Law, noise: float = NOISE, seed: int = 0) -> pd.DataFrame:
    """Records of a sweep that obeys `law`, with run-level noise."""
    frame = _cells(law)
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    where = design(frame)
    rng = np.random.default_rng(seed)
    truth = law.rescaled(Unit.of(where))
    frame["val_loss"] = truth.predict(where) + rng.normal(0, noise, len(frame))
    return frame


def exact(law: Law, frame: pd.DataFrame) -> Law:
    """A law in fitting units as one in FLOPs, at the runs of a frame."""
    return law.rescaled(Unit.of(design(frame)))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_recovered_from_its_own_data(name: str) -> None:
    truth = LAWS[name](*TRUE[name])
    frame = runs(truth)
    found = fit(frame, LAWS[name], METRICS["loss"], WHICH, Resampling.of(frame, 60))
    assert found.status == "converged"
    assert found.starts_agreeing >= 2
    assert found.sample is not None
    true = exact(truth, frame)
    error = found.law.predict(design(frame)) - true.predict(design(frame))
    assert np.sqrt(np.mean(error**2)) < NOISE
    # Parameters err together, so their 90 % intervals miss together: twice their width is 99.9 %.
    ends = zip(true.values(), found.law.values(), found.intervals, strict=True)
    for value, fitted, (low, high) in ends:
        assert fitted - 2 * (fitted - low) <= value <= fitted + 2 * (high - fitted)


@pytest.mark.parametrize("name", LAWS)
def test_data_without_noise_is_fitted_exactly(name: str) -> None:
    truth = LAWS[name](*TRUE[name])
    frame = runs(truth, noise=0)
    found = fit(frame, LAWS[name], METRICS["loss"], WHICH, Resampling.of(frame, 5))
    assert found.held_out < 2e-4


@pytest.mark.parametrize("name", LINKS)
def test_a_link_is_recovered_after_its_loss_law(name: str) -> None:
    behind = LAWS[LINKS[name].loss_law.name](*TRUE[LINKS[name].loss_law.name])
    frame = runs(behind)
    clean = exact(behind, frame).predict(design(frame))
    shortfall = LINK[0] / (1 + np.exp(-LINK[1] * (clean - LINK[2])))
    noise = np.random.default_rng(3).normal(0, 0.001, len(frame))
    frame["accuracy"] = 1 - shortfall + noise
    resampling = Resampling.of(frame, 40)
    loss = fit(frame, type(behind), METRICS["loss"], WHICH, resampling)
    found = fit_linked(frame, METRICS["accuracy"], loss, resampling)
    error = found.law.predict(design(frame)) - shortfall
    assert np.sqrt(np.mean(error**2)) < 0.001
    kept = dataclasses.asdict(loss.law)
    held = {each: getattr(found.law, each) for each in kept}
    assert held == pytest.approx(kept, rel=1e-9)
    assert found.law.name == name
    assert found.sample is not None
    assert loss.sample is not None
    own = slice(3, None)  # the link comes first
    np.testing.assert_allclose(found.sample.others[:, own], loss.sample.others, rtol=1e-9)


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
@given(
    flops=st.floats(1e10, 1e26),
    parameters=st.floats(1e5, 1e12),
    falling=st.floats(0.01, 100),
    loss=st.floats(0.1, 10),
)
def test_the_measure_of_a_thing_does_not_change_a_prediction(
    name: str, flops: float, parameters: float, falling: float, loss: float
) -> None:
    law, unit = fitted_law(name), Unit(flops, parameters, falling, loss)
    sizes = (unit.flops, unit.flops, unit.parameters, unit.parameters)
    columns = (getattr(WHERE, each.name) for each in dataclasses.fields(Design))
    in_flops = Design(*(column * size for column, size in zip(columns, sizes, strict=True)))
    scaled = law.rescaled(unit).predict(in_flops)
    np.testing.assert_allclose(scaled, falling * law.predict(WHERE), 1e-9)


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
@given(factor=st.floats(0.1, 10))
def test_the_parameters_that_are_called_linear_are(name: str, factor: float) -> None:
    law = fitted_law(name)
    linear = [each for each, is_linear in zip(law.names(), law.linear(), strict=True) if is_linear]
    assert linear
    scaled = dataclasses.replace(law, **{each: factor * getattr(law, each) for each in linear})
    np.testing.assert_allclose(scaled.predict(WHERE), factor * law.predict(WHERE), rtol=1e-12)


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
@given(bend=st.floats(0.7, 1.4))
def test_slopes_are_those_of_differences_and_of_the_complex_step(name: str, bend: float) -> None:
    law = fitted_law(name)
    law = dataclasses.replace(law, **{each: bend * getattr(law, each) for each in law.names()})
    where = WHERE[1:] if name.startswith("effective") else WHERE  # 0 ** complex is not a number
    analytic, by_complex = law.slopes(where), Law.slopes(law, where)
    for each, slope, other in zip(law.names(), analytic, by_complex, strict=True):
        step = 1e-6 * max(abs(getattr(law, each)), 1e-3)
        up, down = (
            dataclasses.replace(law, **{each: getattr(law, each) + sign * step}).predict(where)
            for sign in (1, -1)
        )
        difference = (up - down) / (2 * step)
        np.testing.assert_allclose(slope + 0 * where.sunk, difference, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(slope + 0 * where.sunk, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
def test_bounds_hold_the_starts(name: str) -> None:
    law = type(fitted_law(name))
    ends = zip(law.meta("low"), law.meta("high"), law.meta("starts"), law.meta("kind"), strict=True)
    for low, high, starts, kind in ends:
        assert low < high
        assert all(low < start < high for start in starts)
        assert kind != "log" or low > 0


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
def test_more_compute_never_hurts(name: str) -> None:
    law = fitted_law(name)
    steps = np.linspace(0.01, 1, 50)
    ones = np.ones(50)
    more_sunk = law.predict(Design(steps, ones, ones, ones))
    assert (np.diff(more_sunk) < 0).all()


@pytest.mark.parametrize("name", [*LAWS, *LINKS])
def test_every_law_says_what_it_means_in_a_sentence(name: str) -> None:
    law = fitted_law(name).rescaled(Unit(1e18, 1e8))
    middle = Design(*(np.array([each]) for each in (5e17, 5e17, 1e8, 2e8)))
    said = law.words(middle, METRICS["accuracy" if name in LINKS else "loss"])
    assert any(character.isdigit() for character in said)
    assert "nan" not in said
    assert said[-1] != "."
    assert law.says


def test_a_law_is_linked_once() -> None:
    law = LAWS["average_params"]
    assert linked(law) is linked(law) is LINKS["average_params_link"]


def test_a_worth_in_words_is_that_of_the_law() -> None:
    """With rho = 0.6 and gamma = 1 a sunk FLOP is worth 0.6 of another wherever one looks."""
    law = EffectiveCompute(1.6, 1.9, 0.05, 0.6, 1.0, 0.5).rescaled(Unit(1e18, 1e8))
    middle = Design(*(np.array([each]) for each in (2e17, 7e17, 1e8, 2e8)))
    assert "is worth 0.6 of one spent after" in law.words(middle, METRICS["loss"])


def test_loss_matching_is_the_base_model_right_after_growth() -> None:
    """Its worth h is where the grown model's own curve, from nothing, meets the base model's."""
    law = LossMatching(*TRUE["loss_matching"])
    sunk = np.geomspace(0.01, 1, 9)
    ones, nothing = np.ones(9), np.zeros(9)
    base = law.predict(Design(sunk, nothing, ones, ones))
    worth = law.S1 * law._worth(sunk)
    np.testing.assert_allclose(law.predict(Design(nothing, worth, ones, ones)), base, rtol=1e-12)
    assert law.predict(Design(nothing[:1], ones[:1], ones[:1], ones[:1])) == pytest.approx(
        law.E + law.A * law.S1**law.alpha
    )


def test_the_best_size_of_chinchilla_is_where_its_loss_is_least() -> None:
    law = Chinchilla(1.7, 400.0, 410.0, 0.34, 0.28)
    sizes = np.geomspace(1e7, 1e12, 4001)
    flops = np.full(4001, 1e21)
    loss = law.predict(Design(0 * flops, flops, sizes, sizes))
    best = law.best_size(1e21)
    assert best == pytest.approx(sizes[np.argmin(loss)], rel=0.01)


def test_the_published_rule_gives_its_published_example() -> None:
    """Ten billion tokens for 7B parameters and 100 to 300 billion tokens' worth of compute."""
    rule = GrowthTiming()
    for tokens in (1e11, 3e11):
        assert 5e9 < rule.tokens(7e9, 6 * 7e9 * tokens) < 3e10
    assert rule.sunk_flops(2e9, 7e9, 1e18) == 1e18  # never more than there is
