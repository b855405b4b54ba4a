"""Arithmetic on stored numbers: rounding as everybody rounds, noise that never changes."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator import numbers
from orchestrator.blocks import Noisy, Scaled, Spread, Stored, decode, encode, normals
from sweeps.errors import GrowpointError

GOLDEN = [
    "-0x1.546fd00000000p+0",
    "0x1.988b400000000p-1",
    "-0x1.c9f7400000000p-1",
    "-0x1.18c8200000000p-1",
]
FINITE = st.floats(
    width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100
)


@given(arrays(np.float32, st.integers(1, 40), elements=FINITE))
def test_bf16_is_the_nearest_number_with_seven_bits_of_fraction(values: np.ndarray) -> None:
    rounded = decode(encode(values, "BF16"), "BF16")
    below = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((values.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    exact = values.astype(np.float64)
    error = np.abs(rounded - exact)
    assert (error <= np.minimum(np.abs(below - exact), np.abs(above - exact))).all()
    tie = np.abs(below - exact) == np.abs(above - exact)
    assert ((rounded.view(np.uint32)[tie] >> 16) % 2 == 0).all()


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-1000, 1000, width=16)),
    st.sampled_from(["F16", "F32", "F64"]),
)
def test_numbers_survive_a_round_trip(values: np.ndarray, dtype: str) -> None:
    assert np.array_equal(decode(encode(values, dtype), dtype), values)


def test_noise_is_the_same_for_ever() -> None:
    """Golden: a grown checkpoint must come out the same with every version of NumPy."""
    drawn = normals(0, "model.layers.0.mlp.experts.8.up_proj.weight", 4)
    assert drawn.dtype == np.float32
    assert [float(x).hex() for x in drawn] == GOLDEN


@given(st.integers(0, 2**32), st.text(max_size=8), st.integers(0, 2**32), st.text(max_size=8))
def test_noise_depends_on_seed_and_name(seed: int, key: str, other: int, name: str) -> None:
    same = (seed, key) == (other, name)
    assert np.array_equal(normals(seed, key, 8), normals(other, name, 8)) == same


def test_normals_are_standard_normal() -> None:
    drawn = normals(3, "tensor", 200_000)
    assert abs(drawn.mean()) < 4 / np.sqrt(200_000)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(drawn) < 1) == pytest.approx(0.6827, abs=0.005)


@given(st.integers(1, 300_000), st.integers(0, 2**40))
@settings(max_examples=20)
def test_a_longer_draw_begins_with_the_shorter_one(count: int, seed: int) -> None:
    """Whatever the chunks in which it is drawn."""
    assert np.array_equal(normals(seed, "key", 300_001)[:count], normals(seed, "key", count))


def test_the_table_of_normals_is_what_its_page_says() -> None:
    table = numbers._quantiles().astype(np.float64)
    assert len(set(table)) == 2**16
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) > 0).all()
    assert np.mean(table**2) == pytest.approx(1, abs=1e-8)
    assert np.mean(table**4) == pytest.approx(2.9992, abs=1e-3)
    assert table.max() == pytest.approx(4.325, abs=1e-3)


def test_normals_have_the_tails_of_a_normal() -> None:
    drawn = normals(0, "tails", 4_000_000)
    for bound in (2.0, 3.0, 4.0):
        expected = 2 * NormalDist().cdf(-bound)
        error = np.sqrt(expected / drawn.size)
        assert np.mean(np.abs(drawn) > bound) == pytest.approx(expected, abs=5 * error)


def test_draws_of_other_names_and_seeds_are_independent() -> None:
    drawn = np.stack([normals(seed, key, 100_000) for seed in (0, 1) for key in ("a", "b")])
    shifted = [
        np.asarray(np.corrcoef(row[:-lag], row[lag:]))[0, 1]
        for row in drawn
        for lag in (1, 2, 3, 4)
    ]
    between = np.asarray(np.corrcoef(drawn))[~np.eye(4, dtype=bool)]
    assert np.abs([*shifted, *between]).max() < 5 / np.sqrt(100_000)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("count", [1, 2**16 - 1, 2**16 + 1, 200_003])
def test_noise_does_not_depend_on_chunks(dtype: str, count: int) -> None:
    values = np.linspace(-3, 3, count).astype(np.float32)
    data = bytearray(encode(values, dtype))
    before = decode(bytes(data), dtype)
    numbers.add_noise(data, dtype, 0.25, 1, "key")
    expected = before + np.float32(0.25) * normals(1, "key", count)
    assert bytes(data) == encode(expected, dtype)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_seen(dtype: str, strange: float, tmp_path: Path) -> None:
    values = np.linspace(-3, 3, 70_000).astype(np.float32)
    assert numbers.all_finite(encode(values, dtype), dtype)
    values[69_999] = strange
    data = bytearray(values.astype("<f8" if dtype == "F64" else "<f4").tobytes())
    if dtype == "BF16":
        data = bytearray(values.view("<u2")[1::2].tobytes())
    if dtype == "F16":
        data = bytearray(values.astype("<f2").tobytes())
    assert not numbers.all_finite(data, dtype)
    (tmp_path / "numbers").write_bytes(data)
    block = Stored(tmp_path / "numbers", 0, len(data), dtype, "odd")
    with pytest.raises(GrowpointError, match="not finite"):
        _ = Spread((block,)).sigma


def stored(values: np.ndarray, folder: Path, dtype: str) -> Stored:
    path = folder / "numbers"
    data = encode(values, dtype)
    path.write_bytes(b"before" + data + b"after")
    return Stored(path, 6, 6 + len(data), dtype, "tensor")


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_noise_is_relative_to_the_spread_and_rounded_once(dtype: str, tmp_path: Path) -> None:
    values = np.linspace(-3, 5, 999).astype(np.float32)
    block = stored(values, tmp_path, dtype)
    before = decode(block.data(), dtype)
    after = decode(Noisy(block, 0.5, Spread((block,)), 7, "key").data(), dtype)
    sigma = Spread((block,)).sigma
    assert sigma == pytest.approx(np.std(before, dtype=np.float64), rel=2.0**-16)
    expected = before + np.float32(0.5 * sigma) * normals(7, "key", 999)
    assert np.array_equal(after, decode(encode(expected, dtype), dtype))


def test_the_spread_of_rows_is_that_of_the_whole(tmp_path: Path) -> None:
    whole = stored(np.arange(100, dtype=np.float32), tmp_path, "F32")
    rows = [Stored(whole.file, 6 + 40 * row, 46 + 40 * row, "F32", "tensor") for row in range(10)]
    assert Spread(tuple(rows)).sigma == Spread((whole,)).sigma == pytest.approx(28.866, abs=1e-3)


def test_zeroed_blocks_need_no_arithmetic(tmp_path: Path) -> None:
    """Types that nobody computes with, such as packed ones, can be zeroed as well."""
    path = tmp_path / "packed"
    path.write_bytes(b"\x7f" * 8)
    block = Stored(path, 2, 6, "F4", "packed")
    assert Scaled(block, 0.0).data() == bytes(4)
