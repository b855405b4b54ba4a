"""Laws: each is recovered from data drawn from it, and none depends on the measure of compute."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fit import fit
from analysis.laws import LAWS, Design, Law, Unit
from analysis.metrics import METRICS
from analysis.resample import Resampling
from analysis.sample import Which

# In fitting units; every law's own values must be recovered from the sweep below.
TRUE: Mapping[str, tuple[float, ...]] = {
    "sunk_loglinear": (2.6, 0.25, 0.03),
    "sunk_saturating": (2.0, 0.7, 0.05, 0.7),
    "average_params": (0.9, 0.6, 1.9, 0.03, 0.6, 0.5),
    "effective_compute": (1.6, 1.9, 0.05, 0.5, 0.9, 0.6),
    "total_loglinear": (3.3, 0.5, 0.03),
    "total_saturating": (1.7, 1.6, 0.05, 0.6),
}
NOISE = 0.002
TWO_SEEDS = 2


def runs(law: Law, noise: float = NOISE, seed: int = 0) -> pd.DataFrame:
    """Records of a sweep that obeys `law`, with run-level noise."""
    sunk, extra, seeds = np.meshgrid(
        [0, 1e12, 2e12, 4e12, 8e12, 1.6e13, 3.2e13],
        [8e12] if law.scope == "extra" else [4e12, 8e12, 1.6e13],
        range(TWO_SEEDS),
        indexing="ij",
    )
    cells = {
        "sunk_flops": sunk.ravel(),
        "extra_flops": extra.ravel(),
        "seed": seeds.ravel().astype(int),
        "source_active_params": 2e6,
        "active_params": 3.3e6,
    }
    frame = pd.DataFrame(cells)
    frame["total_flops"] = frame["sunk_flops"] + frame["extra_flops"]
    frame["source"] = "train-" + frame["sunk_flops"].astype(str)
    frame["arm"] = "grow"
    names = ("sunk_flops", "extra_flops", "source_active_params", "active_params")
    where = Design(*(frame[name].to_numpy(float) for name in names))
    rng = np.random.default_rng(seed)
    truth = law.rescaled(Unit.of(where))
    frame["val_loss"] = truth.predict(where) + rng.normal(0, noise, len(frame))
    return frame


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_recovered_from_its_own_data(name: str) -> None:
    truth = LAWS[name](*TRUE[name])
    frame = runs(truth)
    which = Which("", "grow", "depth x2")
    found = fit(frame, LAWS[name], METRICS["loss"], which, Resampling.of(frame, 60))
    assert found.status == "converged"
    assert found.starts_agreeing >= 2
    assert found.sample is not None
    names = ("sunk_flops", "extra_flops", "source_active_params", "active_params")
    where = Design(*(frame[each].to_numpy(float) for each in names))
    exact = truth.rescaled(Unit.of(where))
    error = found.law.predict(where) - exact.predict(where)
    assert np.sqrt(np.mean(error**2)) < NOISE
    # Parameters err together, so their 90 % intervals miss together: twice their width is 99.9 %.
    ends = zip(exact.values(), found.law.values(), found.intervals, strict=True)
    for value, fitted, (low, high) in ends:
        assert fitted - 2 * (fitted - low) <= value <= fitted + 2 * (high - fitted)


@pytest.mark.parametrize("name", LAWS)
def test_data_without_noise_is_fitted_exactly(name: str) -> None:
    truth = LAWS[name](*TRUE[name])
    frame = runs(truth, noise=0)
    which = Which("", "grow", "depth x2")
    found = fit(frame, LAWS[name], METRICS["loss"], which, Resampling.of(frame, 5))
    assert found.held_out < 2e-4


@pytest.mark.parametrize("name", LAWS)
@given(flops=st.floats(1e10, 1e26), parameters=st.floats(1e5, 1e12))
def test_the_measure_of_compute_does_not_change_a_prediction(
    name: str, flops: float, parameters: float
) -> None:
    law, unit = LAWS[name](*TRUE[name]), Unit(flops, parameters)
    near_one = Design(*(np.array(each) for each in ([0, 0.5], [0.4, 0.6], [1.0, 1.0], [1.0, 1.7])))
    sizes = (unit.flops, unit.flops, unit.parameters, unit.parameters)
    columns = (getattr(near_one, each.name) for each in dataclasses.fields(Design))
    in_flops = Design(*(column * size for column, size in zip(columns, sizes, strict=True)))
    np.testing.assert_allclose(law.rescaled(unit).predict(in_flops), law.predict(near_one), 1e-9)


@pytest.mark.parametrize("name", LAWS)
@given(factor=st.floats(0.1, 10))
def test_the_parameters_that_are_called_linear_are(name: str, factor: float) -> None:
    law = LAWS[name](*TRUE[name])
    where = Design(*(np.array(each) for each in ([0, 0.5], [0.4, 0.6], [1.0, 1.0], [1.0, 1.7])))
    linear = [each for each, is_linear in zip(law.names(), law.linear(), strict=True) if is_linear]
    scaled = dataclasses.replace(law, **{each: factor * getattr(law, each) for each in linear})
    np.testing.assert_allclose(scaled.predict(where), factor * law.predict(where), rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_bounds_hold_the_starts(name: str) -> None:
    law = LAWS[name]
    ends = zip(law.meta("low"), law.meta("high"), law.meta("starts"), strict=True)
    for low, high, starts in ends:
        assert low < high
        assert all(low < start < high for start in starts)
        assert not starts or low > 0  # searched in the logarithm


@pytest.mark.parametrize("name", LAWS)
def test_more_compute_never_hurts(name: str) -> None:
    law = LAWS[name](*TRUE[name])
    steps = np.linspace(0.01, 1, 50)
    ones = np.ones(50)
    more_sunk = law.predict(Design(steps, ones, ones, ones))
    assert (np.diff(more_sunk) < 0).all()
